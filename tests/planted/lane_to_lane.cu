// Lanes that exchange through shared memory: since Volta a warp's lanes need not run in step.
#include "emulator/trial.h"

constexpr int kWarp = 32, kThreads = 64;

template <bool kFaulty>
__global__ void mirror_warps(const float* x, float* y) {
  CNN_SHARED(row, float[kThreads]);
  const int t = int(threadIdx.x), lane = t % kWarp, i = int(blockIdx.x) * kThreads + t;
  row[t] = x[i];  // other
  if (!kFaulty) __syncwarp();
  y[i] = row[t - lane + kWarp - 1 - lane];  // fault: race
}

template <bool kFaulty>
void run_mirror(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {2, kThreads});
  float* y = trial.output<float>("y", {2, kThreads});
  cnn::launch("mirror_warps", {dim3(2), dim3(kThreads)}, mirror_warps<kFaulty>, x, y);
}

CNN_TRIAL(lane_to_lane_faulty) { run_mirror<true>(trial); }
CNN_TRIAL(lane_to_lane_clean) { run_mirror<false>(trial); }

// The last steps of a tree reduction, within one warp and therefore thought to need no barrier.
template <bool kFaulty>
__global__ void sum_tree(const float* x, float* y) {
  CNN_SHARED(sum, float[kThreads]);
  const int t = int(threadIdx.x);
  sum[t] = x[int(blockIdx.x) * kThreads + t];
  __syncthreads();
  for (int step = kThreads / 2; step > 0; step /= 2) {
    const float other = t < step ? sum[t + step] : 0.0f;  // other
    if (!kFaulty && t < kWarp) __syncwarp();
    if (t < step) sum[t] += other;  // fault: race
    if (!kFaulty && t < kWarp) __syncwarp();
  }
  if (t == 0) y[blockIdx.x] = sum[0];
}

template <bool kFaulty>
void run_tree(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {2, kThreads});
  float* y = trial.output<float>("y", {2});
  cnn::launch("sum_tree", {dim3(2), dim3(kThreads)}, sum_tree<kFaulty>, x, y);
}

CNN_TRIAL(lane_to_lane_faulty_tree) { run_tree<true>(trial); }
CNN_TRIAL(lane_to_lane_clean_tree) { run_tree<false>(trial); }
