// Memory that the host fills, before the first launch and between launches.
#include "emulator/trial.h"

constexpr int kThreads = 64, kBlocks = 2, kCount = kThreads * kBlocks;
constexpr cnn::LaunchShape kShape{dim3(kBlocks), dim3(kThreads)};

// Zeroed, as by cudaMemset, for a kernel that adds to it.
__global__ void accumulate(const float* x, float* sums, int slab) {
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  sums[i] += x[slab * kCount + i];  // fault: uninitialised read
}

template <bool kFaulty>
void run_zeroed(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {3, kCount});
  float* sums = trial.output<float>("sums", {kCount});
  std::memset(sums, 0, (kCount - kFaulty) * sizeof(float));
  for (int slab = 0; slab < 3; ++slab) cnn::launch("accumulate", kShape, accumulate, x, sums, slab);
  if (!kFaulty && sums[0] != 1.0f + (kCount + 1) + (2 * kCount + 1)) throw std::runtime_error("accumulate: wrong result");
}

CNN_TRIAL(host_written_faulty_zeroed) { run_zeroed<true>(trial); }
CNN_TRIAL(host_written_clean_zeroed) { run_zeroed<false>(trial); }

// Offsets that the host works out; the row behind the last one, where that ends, is forgotten.
__global__ void sum_rows(const float* x, const int* begins, float* y) {
  const int row = int(threadIdx.x);
  const int end = begins[row + 1];  // fault: uninitialised read
  float sum = 0.0f;
  for (int i = begins[row]; i < end; ++i) sum += x[i];
  y[row] = sum;
}

template <bool kFaulty>
void run_filled(cnn::emulator::Trial& trial) {
  constexpr int kRows = 16;
  const float* x = trial.input<float>("x", {kRows * (kRows + 1) / 2});
  int* begins = trial.workspace<int>("begins", {kRows + 1});
  float* y = trial.output<float>("y", {kRows});
  for (int row = 0; row < kRows + !kFaulty; ++row) begins[row] = row * (row + 1) / 2;
  cnn::launch("sum_rows", {dim3(1), dim3(kRows)}, sum_rows, x, begins, y);
}

CNN_TRIAL(host_written_faulty_filled) { run_filled<true>(trial); }
CNN_TRIAL(host_written_clean_filled) { run_filled<false>(trial); }

// Between two launches the host turns the first one's sums into averages; that of the last block is left out.
__global__ void sum_blocks(const float* x, float* sums) {
  CNN_SHARED(sum, float);
  const int t = int(threadIdx.x);
  if (t == 0) sum = 0.0f;
  __syncthreads();
  atomicAdd(&sum, x[int(blockIdx.x) * kThreads + t]);
  __syncthreads();
  if (t == 0) sums[blockIdx.x] = sum;
}

__global__ void subtract_averages(const float* x, const float* averages, float* y) {
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  y[i] = x[i] - averages[blockIdx.x];  // fault: uninitialised read
}

template <bool kFaulty>
void run_between(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kCount});
  float* sums = trial.workspace<float>("sums", {kBlocks});
  float* averages = trial.workspace<float>("averages", {kBlocks});
  float* y = trial.output<float>("y", {kCount});
  cnn::launch("sum_blocks", kShape, sum_blocks, x, sums);
  for (int b = 0; b < kBlocks - kFaulty; ++b) averages[b] = sums[b] / kThreads;
  cnn::launch("subtract_averages", kShape, subtract_averages, x, averages, y);
}

CNN_TRIAL(host_written_faulty_between) { run_between<true>(trial); }
CNN_TRIAL(host_written_clean_between) { run_between<false>(trial); }
