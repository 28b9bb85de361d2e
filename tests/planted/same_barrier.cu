// Barriers that look like one: compilers like to merge the same code of two branches.
#include "emulator/trial.h"

constexpr int kThreads = 64;

// Both branches load and wait in the same words.
template <bool kFaulty>
__global__ void mirror(const float* x, const float* border, float* y, int n) {
  CNN_SHARED(row, float[kThreads]);
  const int t = int(threadIdx.x);
  float value;
  if (t < n) {
    row[t] = x[t];
    if (kFaulty) __syncthreads();  // fault: divergent barrier
    value = row[t];
  } else {
    row[t] = border[t];
    if (kFaulty) __syncthreads();  // other
    value = row[t];
  }
  if (!kFaulty) __syncthreads();
  y[t] = value + row[kThreads - 1 - t];
}

template <bool kFaulty>
void run_branches(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kThreads});
  const float* border = trial.input<float>("border", {kThreads});
  float* y = trial.output<float>("y", {kThreads});
  cnn::launch("mirror", {dim3(1), dim3(kThreads)}, mirror<kFaulty>, x, border, y, 40);
}

CNN_TRIAL(same_barrier_faulty_branches) { run_branches<true>(trial); }
CNN_TRIAL(same_barrier_clean_branches) { run_branches<false>(trial); }

// The barrier is in a function that both branches call.
__device__ inline void block_sync() { __syncthreads(); }  // fault: divergent barrier

template <bool kFaulty>
__global__ void pad(const float* x, float* y, int n) {
  CNN_SHARED(row, float[kThreads]);
  const int t = int(threadIdx.x);
  if (t < n) {
    row[t] = x[t];
    if (kFaulty) block_sync();
  } else {
    row[t] = 0.0f;
    if (kFaulty) block_sync();
  }
  if (!kFaulty) block_sync();
  y[t] = row[kThreads - 1 - t];
}

template <bool kFaulty>
void run_function(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kThreads});
  float* y = trial.output<float>("y", {kThreads});
  cnn::launch("pad", {dim3(1), dim3(kThreads)}, pad<kFaulty>, x, y, 40);
}

CNN_TRIAL(same_barrier_faulty_function) { run_function<true>(trial); }
CNN_TRIAL(same_barrier_clean_function) { run_function<false>(trial); }

// A function with a barrier that all threads call, three times; one that stays a function.
__device__ __noinline__ void wait_for_block() { __syncthreads(); }

__global__ void swap_twice(const float* x, float* y) {
  CNN_SHARED(row, float[kThreads]);
  const int t = int(threadIdx.x);
  row[t] = x[t];
  wait_for_block();
  const float value = row[kThreads - 1 - t];
  wait_for_block();
  row[t] = value;
  wait_for_block();
  y[t] = row[t ^ 1];
}

CNN_TRIAL(same_barrier_clean_phases) {
  const float* x = trial.input<float>("x", {kThreads});
  float* y = trial.output<float>("y", {kThreads});
  cnn::launch("swap_twice", {dim3(1), dim3(kThreads)}, swap_twice, x, y);
}

// Two branches with barriers of their own, of which a block takes one with all of its threads.
__global__ void mirror_or_swap(const float* x, float* y) {
  CNN_SHARED(row, float[kThreads]);
  const int t = int(threadIdx.x), first = int(blockIdx.x) * kThreads;
  row[t] = x[first + t];
  if (blockIdx.x % 2 == 0) {
    __syncthreads();
    y[first + t] = row[kThreads - 1 - t];
  } else {
    __syncthreads();
    y[first + t] = row[t ^ 1];
  }
}

CNN_TRIAL(same_barrier_clean_blocks) {
  const float* x = trial.input<float>("x", {3, kThreads});
  float* y = trial.output<float>("y", {3, kThreads});
  cnn::launch("mirror_or_swap", {dim3(3), dim3(kThreads)}, mirror_or_swap, x, y);
}
