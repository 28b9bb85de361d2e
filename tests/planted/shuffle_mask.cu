// Warp-wide operations whose mask does not say which lanes call them.
#include "emulator/trial.h"

constexpr int kWarp = 32;
constexpr unsigned kAll = 0xffffffffu;

// The mask names all lanes, but those beyond the last element skip the reduction.
template <bool kFaulty>
__global__ void sum_warp(const float* x, float* y, int n) {
  const int lane = int(threadIdx.x);
  float sum = lane < n ? x[lane] : 0.0f;
  if (!kFaulty || lane < n) {
    for (int offset = kWarp / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(kAll, sum, offset);  // fault: warp operation
  }
  if (lane == 0) *y = sum;
}

template <bool kFaulty>
void run_skipped(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {20});
  float* y = trial.output<float>("y", {1});
  cnn::launch("sum_warp", {dim3(1), dim3(kWarp)}, sum_warp<kFaulty>, x, y, 20);
}

CNN_TRIAL(shuffle_mask_faulty_skipped) { run_skipped<true>(trial); }
CNN_TRIAL(shuffle_mask_clean_skipped) { run_skipped<false>(trial); }

// The same, where the lanes that skip it wait at the next barrier instead of returning.
template <bool kFaulty>
__global__ void sum_block(const float* x, float* y, int n) {
  CNN_SHARED(partial, float[4]);
  const int t = int(threadIdx.x), lane = t % kWarp;
  float sum = t < n ? x[t] : 0.0f;
  if (!kFaulty || t < n) sum += __shfl_down_sync(kAll, sum, 16);  // fault: warp operation
  for (int offset = 8; offset > 0; offset /= 2) {
    const float other = lane < 16 ? __shfl_down_sync(0xffffu, sum, offset, 16) : 0.0f;
    sum += other;
  }
  if (lane == 0) partial[t / kWarp] = sum;
  __syncthreads();  // other
  if (t == 0) *y = partial[0] + partial[1] + partial[2] + partial[3];
}

template <bool kFaulty>
void run_waiting(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {120});
  float* y = trial.output<float>("y", {1});
  cnn::launch("sum_block", {dim3(1), dim3(4 * kWarp)}, sum_block<kFaulty>, x, y, 120);
}

CNN_TRIAL(shuffle_mask_faulty_waiting) { run_waiting<true>(trial); }
CNN_TRIAL(shuffle_mask_clean_waiting) { run_waiting<false>(trial); }

// Half a warp calls it under its own mask, and reads from the other half.
template <bool kFaulty>
__global__ void fold_halves(const float* x, float* y) {
  const int lane = int(threadIdx.x);
  float value = x[lane];
  if (lane < 16) value += __shfl_down_sync(0xffffu, value, kFaulty ? 8 : 0);  // fault: warp operation
  y[lane] = value;
}

template <bool kFaulty>
void run_outside(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kWarp});
  float* y = trial.output<float>("y", {kWarp});
  cnn::launch("fold_halves", {dim3(1), dim3(kWarp)}, fold_halves<kFaulty>, x, y);
}

CNN_TRIAL(shuffle_mask_faulty_outside) { run_outside<true>(trial); }
CNN_TRIAL(shuffle_mask_clean_outside) { run_outside<false>(trial); }

// The mask is one lane short: the last active lane calls it without being named.
template <bool kFaulty>
__global__ void subtract_first(const float* x, float* y, int n) {
  const int lane = int(threadIdx.x);
  const unsigned mask = (1u << (kFaulty ? n - 1 : n)) - 1;
  if (lane >= n) return;
  const float value = x[lane];
  y[lane] = value - __shfl_sync(mask, value, 0);  // fault: warp operation
}

template <bool kFaulty>
void run_unnamed(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {20});
  float* y = trial.output<float>("y", {20});
  cnn::launch("subtract_first", {dim3(1), dim3(kWarp)}, subtract_first<kFaulty>, x, y, 20);
}

CNN_TRIAL(shuffle_mask_faulty_unnamed) { run_unnamed<true>(trial); }
CNN_TRIAL(shuffle_mask_clean_unnamed) { run_unnamed<false>(trial); }

// __syncwarp() with its default mask in a branch that half of the warp takes.
template <bool kFaulty>
__global__ void swap_neighbours(const float* x, float* y) {
  CNN_SHARED(row, float[kWarp]);
  const int lane = int(threadIdx.x);
  float value = x[lane];
  if (lane < 16) {
    row[lane] = value;
    __syncwarp(kFaulty ? kAll : 0xffffu);  // fault: warp operation
    value = row[lane ^ 1];
  }
  y[lane] = value;
}

template <bool kFaulty>
void run_syncwarp(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kWarp});
  float* y = trial.output<float>("y", {kWarp});
  cnn::launch("swap_neighbours", {dim3(1), dim3(kWarp)}, swap_neighbours<kFaulty>, x, y);
}

CNN_TRIAL(shuffle_mask_faulty_syncwarp) { run_syncwarp<true>(trial); }
CNN_TRIAL(shuffle_mask_clean_syncwarp) { run_syncwarp<false>(trial); }
