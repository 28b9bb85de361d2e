// One shared array for two phases: a row is mirrored through it, then the same memory sums it up.
#include "emulator/trial.h"

constexpr int kThreads = 64;

template <bool kFaulty>
__global__ void mirror_and_sum(const float* x, float* mirrored, float* total) {
  CNN_SHARED(scratch, float[kThreads]);
  const int t = int(threadIdx.x), i = int(blockIdx.x) * kThreads + t;
  const float value = x[i];
  scratch[t] = value;
  __syncthreads();
  mirrored[i] = scratch[kThreads - 1 - t];  // other
  if (!kFaulty) __syncthreads();
  scratch[t] = value * value;  // fault: race
  __syncthreads();
  if (t > 0) return;
  float sum = 0.0f;
  for (int j = 0; j < kThreads; ++j) sum += scratch[j];
  total[blockIdx.x] = sum;
}

template <bool kFaulty>
void run(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {2, kThreads});
  float* mirrored = trial.output<float>("mirrored", {2, kThreads});
  float* total = trial.output<float>("total", {2});
  cnn::launch("mirror_and_sum", {dim3(2), dim3(kThreads)}, mirror_and_sum<kFaulty>, x, mirrored, total);
}

CNN_TRIAL(two_phases_faulty) { run<true>(trial); }
CNN_TRIAL(two_phases_clean) { run<false>(trial); }
