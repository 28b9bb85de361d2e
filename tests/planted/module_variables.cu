// Variables of the module: __constant__ and __device__ arrays.
#include "emulator/trial.h"

constexpr int kThreads = 64, kBlocks = 2, kTaps = 9, kCurve = 10, kBins = 8;

__constant__ float taps[kTaps] = {1, 2, 1, 2, 4, 2, 1, 2, 1};
__device__ float curve[kCurve] = {0, 1, 4, 9, 16, 25, 36, 49, 64, 81};
__device__ int counts[kBins];

// One tap too many.
template <bool kFaulty>
__global__ void filter(const float* x, float* y) {
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  float sum = 0.0f;
  for (int s = 0; s < kTaps + kFaulty; ++s) sum += taps[s] * x[i + s];  // fault: out of bounds
  y[i] = sum;
}

template <bool kFaulty>
void run_constant(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kBlocks * kThreads + kTaps});
  float* y = trial.output<float>("y", {kBlocks * kThreads});
  cnn::launch("filter", {dim3(kBlocks), dim3(kThreads)}, filter<kFaulty>, x, y);
}

CNN_TRIAL(module_variables_faulty_constant) { run_constant<true>(trial); }
CNN_TRIAL(module_variables_clean_constant) { run_constant<false>(trial); }

// The index is kept below the curve's length, not its last point.
template <bool kFaulty>
__global__ void interpolate(const float* x, float* y) {
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  const int below = min(int(0.25f * x[i]), kCurve - (kFaulty ? 1 : 2));
  const float part = 0.25f * x[i] - float(below);
  y[i] = (1.0f - part) * curve[below] + part * curve[below + 1];  // fault: out of bounds
}

template <bool kFaulty>
void run_device(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kBlocks * kThreads});
  float* y = trial.output<float>("y", {kBlocks * kThreads});
  cnn::launch("interpolate", {dim3(kBlocks), dim3(kThreads)}, interpolate<kFaulty>, x, y);
}

CNN_TRIAL(module_variables_faulty_device) { run_device<true>(trial); }
CNN_TRIAL(module_variables_clean_device) { run_device<false>(trial); }

// Counters that all blocks update.
__global__ void clear_counts() { counts[threadIdx.x] = 0; }

template <bool kFaulty>
__global__ void count(const float* x) {
  const int bin = int(x[int(blockIdx.x) * kThreads + int(threadIdx.x)]) % kBins;
  if (kFaulty) ++counts[bin];  // fault: race
  else atomicAdd(&counts[bin], 1);
}

__global__ void copy_counts(int* bins) { bins[threadIdx.x] = counts[threadIdx.x]; }

template <bool kFaulty>
void run_counts(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kBlocks * kThreads});
  int* bins = trial.output<int>("bins", {kBins});
  cnn::launch("clear_counts", {dim3(1), dim3(kBins)}, clear_counts);
  cnn::launch("count", {dim3(kBlocks), dim3(kThreads)}, count<kFaulty>, x);
  cnn::launch("copy_counts", {dim3(1), dim3(kBins)}, copy_counts, bins);
  if (!kFaulty && bins[0] != kBlocks * kThreads / kBins) throw std::runtime_error("count: wrong result");
}

CNN_TRIAL(module_variables_faulty_counts) { run_counts<true>(trial); }
CNN_TRIAL(module_variables_clean_counts) { run_counts<false>(trial); }
