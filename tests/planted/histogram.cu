// Counting with and without atomics.
#include "emulator/trial.h"

constexpr int kThreads = 64, kBins = 8, kCount = 4 * kThreads;

__global__ void clear(int* bins) { bins[threadIdx.x] = 0; }

// In shared memory.
template <bool kFaulty>
__global__ void count_shared(const float* x, int* bins) {
  CNN_SHARED(counts, int[kBins]);
  const int t = int(threadIdx.x);
  if (t < kBins) counts[t] = 0;
  __syncthreads();
  const int bin = int(x[int(blockIdx.x) * kThreads + t]) % kBins;
  if (kFaulty) ++counts[bin];  // fault: race
  else atomicAdd(&counts[bin], 1);
  __syncthreads();
  if (t < kBins) atomicAdd(&bins[t], counts[t]);
}

template <bool kFaulty>
void run_shared(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kCount});
  int* bins = trial.output<int>("bins", {kBins});
  cnn::launch("clear", {dim3(1), dim3(kBins)}, clear, bins);
  cnn::launch("count_shared", {dim3(4), dim3(kThreads)}, count_shared<kFaulty>, x, bins);
}

CNN_TRIAL(histogram_faulty_shared) { run_shared<true>(trial); }
CNN_TRIAL(histogram_clean_shared) { run_shared<false>(trial); }

// In global memory.
template <bool kFaulty>
__global__ void count_global(const float* x, int* bins) {
  const int bin = int(x[int(blockIdx.x) * kThreads + int(threadIdx.x)]) % kBins;
  if (kFaulty) bins[bin] += 1;  // fault: race
  else atomicAdd(&bins[bin], 1);
}

template <bool kFaulty>
void run_global(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kCount});
  int* bins = trial.output<int>("bins", {kBins});
  cnn::launch("clear", {dim3(1), dim3(kBins)}, clear, bins);
  cnn::launch("count_global", {dim3(4), dim3(kThreads)}, count_global<kFaulty>, x, bins);
}

CNN_TRIAL(histogram_faulty_global) { run_global<true>(trial); }
CNN_TRIAL(histogram_clean_global) { run_global<false>(trial); }

// The first thread clears the counter in the launch that counts.
template <bool kFaulty>
__global__ void count_even(const float* x, int* count) {
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  if (kFaulty && i == 0) *count = 0;            // fault: race
  if (int(x[i]) % 2 == 0) atomicAdd(count, 1);  // other
}

template <bool kFaulty>
void run_cleared(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kCount});
  int* count = trial.output<int>("count", {1});
  cnn::launch("clear", {dim3(1), dim3(1)}, clear, count);
  cnn::launch("count_even", {dim3(4), dim3(kThreads)}, count_even<kFaulty>, x, count);
}

CNN_TRIAL(histogram_faulty_cleared) { run_cleared<true>(trial); }
CNN_TRIAL(histogram_clean_cleared) { run_cleared<false>(trial); }

// A plain read decides whether the atomic is worth it.
template <bool kFaulty>
__global__ void count_up_to(const float* x, int* count, int limit) {
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  const int before = kFaulty ? *count : atomicAdd(count, 0);      // fault: race
  if (before < limit && int(x[i]) % 2 == 0) atomicAdd(count, 1);  // other
}

template <bool kFaulty>
void run_limited(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kCount});
  int* count = trial.output<int>("count", {1});
  cnn::launch("clear", {dim3(1), dim3(1)}, clear, count);
  cnn::launch("count_up_to", {dim3(4), dim3(kThreads)}, count_up_to<kFaulty>, x, count, 10);
}

CNN_TRIAL(histogram_faulty_limited) { run_limited<true>(trial); }
CNN_TRIAL(histogram_clean_limited) { run_limited<false>(trial); }
