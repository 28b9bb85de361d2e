// A sum over a block in log2 steps, each of which needs the one before.
#include "emulator/trial.h"

constexpr int kThreads = 128;

template <bool kFaulty>
__global__ void sum_block(const float* x, float* y) {
  CNN_SHARED(sum, float[kThreads]);
  const int t = int(threadIdx.x);
  sum[t] = x[int(blockIdx.x) * kThreads + t];
  __syncthreads();
  for (int step = kThreads / 2; step > 0; step /= 2) {
    if (t < step) sum[t] += sum[t + step];  // fault: race
    if (!kFaulty) __syncthreads();
  }
  if (t == 0) y[blockIdx.x] = sum[0];
}

template <bool kFaulty>
void run(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {2, kThreads});
  float* y = trial.output<float>("y", {2});
  cnn::launch("sum_block", {dim3(2), dim3(kThreads)}, sum_block<kFaulty>, x, y);
}

CNN_TRIAL(tree_reduction_faulty) { run<true>(trial); }
CNN_TRIAL(tree_reduction_clean) { run<false>(trial); }
