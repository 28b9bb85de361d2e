// Warps that are not full, and groups of lanes within a warp.
#include "emulator/trial.h"

constexpr int kWarp = 32, kGroup = 16;
constexpr unsigned kAll = 0xffffffffu;

// Blocks smaller than a warp, of one thread too: the default mask means the lanes that there are.
__global__ void mirror(const float* x, float* y) {
  CNN_SHARED(row, float[kWarp]);
  const int t = int(threadIdx.x), last = int(blockDim.x) - 1;
  row[t] = x[t];
  __syncwarp();
  y[t] = row[last - t] + __shfl_sync(kAll, x[t], last);
}

void run_mirror(cnn::emulator::Trial& trial, int threads) {
  const float* x = trial.input<float>("x", {threads});
  float* y = trial.output<float>("y", {threads});
  cnn::launch("mirror", {dim3(1), dim3(unsigned(threads))}, mirror, x, y);
}

CNN_TRIAL(warp_groups_clean_16_threads) { run_mirror(trial, 16); }
CNN_TRIAL(warp_groups_clean_1_thread) { run_mirror(trial, 1); }

// Sums of 16 values each, in a block of a warp and a half. One step too many adds the neighbours' sum, and behind the last there is none.
template <bool kFaulty>
__global__ void sum_groups(const float* x, float* sums) {
  const int t = int(threadIdx.x);
  float sum = x[t];
  for (int offset = kFaulty ? kGroup : kGroup / 2; offset > 0; offset /= 2)
    sum += __shfl_xor_sync(kAll, sum, offset);  // fault: warp operation
  if (t % kGroup == 0) sums[t / kGroup] = sum;
}

template <bool kFaulty>
void run_48_threads(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {3 * kGroup});
  float* sums = trial.output<float>("sums", {3});
  cnn::launch("sum_groups", {dim3(1), dim3(3 * kGroup)}, sum_groups<kFaulty>, x, sums);
}

CNN_TRIAL(warp_groups_faulty_48_threads) { run_48_threads<true>(trial); }
CNN_TRIAL(warp_groups_clean_48_threads) { run_48_threads<false>(trial); }

// The same block, in which the lanes beyond the last value do not come.
template <bool kFaulty>
__global__ void sum_tail(const float* x, float* sums, int n) {
  const int t = int(threadIdx.x);
  float sum = t < n ? x[t] : 0.0f;
  if (kFaulty && t >= n) return;
  for (int offset = kGroup / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(kAll, sum, offset);  // fault: warp operation
  if (t % kGroup == 0) sums[t / kGroup] = sum;
}

template <bool kFaulty>
void run_tail(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {40});
  float* sums = trial.output<float>("sums", {3});
  cnn::launch("sum_tail", {dim3(1), dim3(3 * kGroup)}, sum_tail<kFaulty>, x, sums, 40);
}

CNN_TRIAL(warp_groups_faulty_tail) { run_tail<true>(trial); }
CNN_TRIAL(warp_groups_clean_tail) { run_tail<false>(trial); }

// The lower half works under its own mask, then all meet under the full one. The upper half waits there meanwhile.
__global__ void mirror_half(const float* x, float* y) {
  CNN_SHARED(row, float[kWarp]);
  const int lane = int(threadIdx.x);
  row[lane] = x[lane];
  if (lane < kGroup) {
    __syncwarp(0xffffu);
    float value = row[kGroup - 1 - lane];
    for (int offset = kGroup / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffu, value, offset);
    __syncwarp(0xffffu);
    row[lane] = value;
  }
  __syncwarp();
  y[lane] = row[kWarp - 1 - lane] + __shfl_sync(kAll, x[lane], 0);
}

CNN_TRIAL(warp_groups_clean_half_then_all) {
  const float* x = trial.input<float>("x", {kWarp});
  float* y = trial.output<float>("y", {kWarp});
  cnn::launch("mirror_half", {dim3(1), dim3(kWarp)}, mirror_half, x, y);
}

// Two groups of lanes whose masks overlap: both name lane 15, which can only be in one.
template <bool kFaulty>
__global__ void mirror_groups(const float* x, float* y) {
  CNN_SHARED(row, float[kWarp]);
  const int lane = int(threadIdx.x);
  row[lane] = x[lane];
  __syncwarp(lane < kGroup ? 0x0000ffffu : kFaulty ? 0xffff8000u : 0xffff0000u);  // fault: warp operation
  y[lane] = row[lane ^ (kGroup - 1)];
}

template <bool kFaulty>
void run_overlap(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kWarp});
  float* y = trial.output<float>("y", {kWarp});
  cnn::launch("mirror_groups", {dim3(1), dim3(kWarp)}, mirror_groups<kFaulty>, x, y);
}

CNN_TRIAL(warp_groups_faulty_overlap) { run_overlap<true>(trial); }
CNN_TRIAL(warp_groups_clean_overlap) { run_overlap<false>(trial); }
