// Sums and maxima that nobody set before the first term was added.
#include "emulator/trial.h"

constexpr int kThreads = 64, kBlocks = 2, kTaps = 5, kCount = kThreads * kBlocks;

// In a register.
template <bool kFaulty>
__global__ void filter_register(const float* x, const float* w, float* y) {
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  float acc;
  if (!kFaulty) acc = 0.0f;
  for (int s = 0; s < kTaps; ++s) acc += w[s] * x[i + s];
  y[i] = acc;  // fault: uninitialised value
}

template <bool kFaulty>
void run_register(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kCount + kTaps - 1});
  const float* w = trial.input<float>("w", {kTaps});
  float* y = trial.output<float>("y", {kCount});
  cnn::launch("filter_register", {dim3(kBlocks), dim3(kThreads)}, filter_register<kFaulty>, x, w, y);
}

CNN_TRIAL(uninitialised_accumulator_faulty_register) { run_register<true>(trial); }
CNN_TRIAL(uninitialised_accumulator_clean_register) { run_register<false>(trial); }

// In registers, several per thread, and the loop that clears them one short.
template <bool kFaulty>
__global__ void filter_registers(const float* x, const float* w, float* y) {
  constexpr int kPerThread = 4;
  const int first = (int(blockIdx.x) * kThreads + int(threadIdx.x)) * kPerThread;
  float acc[kPerThread];
  CNN_UNROLL
  for (int j = 0; j < kPerThread - kFaulty; ++j) acc[j] = 0.0f;
  for (int s = 0; s < kTaps; ++s) {
    CNN_UNROLL
    for (int j = 0; j < kPerThread; ++j) acc[j] += w[s] * x[first + j + s];
  }
  CNN_UNROLL
  for (int j = 0; j < kPerThread; ++j) y[first + j] = acc[j];  // fault: uninitialised value
}

template <bool kFaulty>
void run_registers(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {4 * kCount + kTaps - 1});
  const float* w = trial.input<float>("w", {kTaps});
  float* y = trial.output<float>("y", {4 * kCount});
  cnn::launch("filter_registers", {dim3(kBlocks), dim3(kThreads)}, filter_registers<kFaulty>, x, w, y);
}

CNN_TRIAL(uninitialised_accumulator_faulty_registers) { run_registers<true>(trial); }
CNN_TRIAL(uninitialised_accumulator_clean_registers) { run_registers<false>(trial); }

// In a register, and what is stored was worked out from it.
template <bool kFaulty, class T>
__global__ void pool_average(const float* x, T* y) {
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  float sum;
  if (!kFaulty) sum = 0.0f;
  for (int s = 0; s < kTaps; ++s) sum += x[i + s];
  y[i] = T(sum / kTaps);  // fault: uninitialised value
}

template <bool kFaulty, class T>
void run_average(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kCount + kTaps - 1});
  T* y = trial.output<T>("y", {kCount});
  cnn::launch("pool_average", {dim3(kBlocks), dim3(kThreads)}, pool_average<kFaulty, T>, x, y);
}

CNN_TRIAL(uninitialised_accumulator_faulty_average) { run_average<true, float>(trial); }
CNN_TRIAL(uninitialised_accumulator_clean_average) { run_average<false, float>(trial); }
CNN_TRIAL(uninitialised_accumulator_faulty_average_double) { run_average<true, double>(trial); }
CNN_TRIAL(uninitialised_accumulator_clean_average_double) { run_average<false, double>(trial); }
CNN_TRIAL(uninitialised_accumulator_faulty_average_bf16) { run_average<true, __nv_bfloat16>(trial); }
CNN_TRIAL(uninitialised_accumulator_clean_average_bf16) { run_average<false, __nv_bfloat16>(trial); }

// A whole number.
template <bool kFaulty>
__global__ void count_positive_taps(const float* x, int* y) {
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  int count;
  if (!kFaulty) count = 0;
  for (int s = 0; s < kTaps; ++s) count += x[i + s] > 0.0f;
  y[i] = count;  // fault: uninitialised value
}

template <bool kFaulty>
void run_count(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kCount + kTaps - 1});
  int* y = trial.output<int>("y", {kCount});
  cnn::launch("count_positive_taps", {dim3(kBlocks), dim3(kThreads)}, count_positive_taps<kFaulty>, x, y);
}

CNN_TRIAL(uninitialised_accumulator_faulty_count) { run_count<true>(trial); }
CNN_TRIAL(uninitialised_accumulator_clean_count) { run_count<false>(trial); }

// In shared memory.
template <bool kFaulty>
__global__ void filter_shared(const float* x, const float* w, float* y) {
  CNN_SHARED(sum, float[kThreads]);
  const int t = int(threadIdx.x), i = int(blockIdx.x) * kThreads + t;
  if (!kFaulty) sum[t] = 0.0f;
  for (int s = 0; s < kTaps; ++s) sum[t] += w[s] * x[i + s];  // fault: uninitialised read
  y[i] = sum[t];
}

template <bool kFaulty>
void run_shared(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kCount + kTaps - 1});
  const float* w = trial.input<float>("w", {kTaps});
  float* y = trial.output<float>("y", {kCount});
  cnn::launch("filter_shared", {dim3(kBlocks), dim3(kThreads)}, filter_shared<kFaulty>, x, w, y);
}

CNN_TRIAL(uninitialised_accumulator_faulty_shared) { run_shared<true>(trial); }
CNN_TRIAL(uninitialised_accumulator_clean_shared) { run_shared<false>(trial); }

// In a workspace, over several launches: split-k.
__global__ void clear(float* partial) { partial[blockIdx.x * kThreads + threadIdx.x] = 0.0f; }

__global__ void accumulate(const float* x, float* partial, int slab) {
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  partial[i] += x[slab * kCount + i];  // fault: uninitialised read
}

__global__ void finish(const float* partial, float* y) {
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  y[i] = partial[i];
}

template <bool kFaulty>
void run_workspace(cnn::emulator::Trial& trial) {
  constexpr int kSlabs = 3;
  const float* x = trial.input<float>("x", {kSlabs, kCount});
  float* partial = trial.workspace<float>("partial", {kCount});
  float* y = trial.output<float>("y", {kCount});
  const cnn::LaunchShape shape{dim3(kBlocks), dim3(kThreads)};
  if (!kFaulty) cnn::launch("clear", shape, clear, partial);
  for (int slab = 0; slab < kSlabs; ++slab) cnn::launch("accumulate", shape, accumulate, x, partial, slab);
  cnn::launch("finish", shape, finish, partial, y);
}

CNN_TRIAL(uninitialised_accumulator_faulty_workspace) { run_workspace<true>(trial); }
CNN_TRIAL(uninitialised_accumulator_clean_workspace) { run_workspace<false>(trial); }

// In the output, by atomics.
__global__ void count_above_three(const float* x, unsigned* count) {
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  if (x[i] > 3.0f) atomicAdd(count, 1u);  // fault: uninitialised read
}

__global__ void clear_count(unsigned* count) { *count = 0; }

template <bool kFaulty>
void run_atomic(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kCount});
  unsigned* count = trial.output<unsigned>("count", {1});
  if (!kFaulty) cnn::launch("clear_count", {dim3(1), dim3(1)}, clear_count, count);
  cnn::launch("count_above_three", {dim3(kBlocks), dim3(kThreads)}, count_above_three, x, count);
}

CNN_TRIAL(uninitialised_accumulator_faulty_atomic) { run_atomic<true>(trial); }
CNN_TRIAL(uninitialised_accumulator_clean_atomic) { run_atomic<false>(trial); }
