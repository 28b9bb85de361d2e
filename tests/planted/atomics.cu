// Plain accesses beside atomics: these may come in any order among themselves, whoever writes or reads plainly may not.
#include "emulator/trial.h"

constexpr int kThreads = 64, kWarp = 32, kBlocks = 4, kCount = kThreads * kBlocks;

// The first thread zeroes the shared counter while others count already.
template <bool kFaulty>
__global__ void count_large(const float* x, unsigned* counts) {
  CNN_SHARED(count, unsigned);
  const int t = int(threadIdx.x);
  if (t == 0) count = 0;  // fault: race
  if (!kFaulty) __syncthreads();
  if (x[int(blockIdx.x) * kThreads + t] > 40.0f) atomicAdd(&count, 1u);  // other
  __syncthreads();
  if (t == 0) counts[blockIdx.x] = count;
}

template <bool kFaulty>
void run_zeroed(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kCount});
  unsigned* counts = trial.output<unsigned>("counts", {kBlocks});
  cnn::launch("count_large", {dim3(kBlocks), dim3(kThreads)}, count_large<kFaulty>, x, counts);
}

CNN_TRIAL(atomics_faulty_zeroed) { run_zeroed<true>(trial); }
CNN_TRIAL(atomics_clean_zeroed) { run_zeroed<false>(trial); }

// The sum is read before the last thread has added to it.
template <bool kFaulty>
__global__ void normalise(const float* x, float* y) {
  CNN_SHARED(sum, float);
  const int t = int(threadIdx.x), i = int(blockIdx.x) * kThreads + t;
  if (t == 0) sum = 0.0f;
  __syncthreads();
  atomicAdd(&sum, x[i]);  // other
  if (!kFaulty) __syncthreads();
  y[i] = x[i] / sum;  // fault: race
}

template <bool kFaulty>
void run_read(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kCount});
  float* y = trial.output<float>("y", {kCount});
  cnn::launch("normalise", {dim3(kBlocks), dim3(kThreads)}, normalise<kFaulty>, x, y);
}

CNN_TRIAL(atomics_faulty_read) { run_read<true>(trial); }
CNN_TRIAL(atomics_clean_read) { run_read<false>(trial); }

// Block 0 clears the loss in the launch that adds to it; the barrier holds back its own threads only.
__global__ void clear(float* loss, unsigned* ticket) { *loss = 0.0f, *ticket = 0; }

template <bool kFaulty>
__global__ void add_loss(const float* x, float* loss) {
  const int t = int(threadIdx.x);
  if (kFaulty && blockIdx.x == 0 && t == 0) *loss = 0.0f;  // fault: race
  __syncthreads();
  const float difference = x[int(blockIdx.x) * kThreads + t] - 1.0f;
  atomicAdd(loss, difference * difference);  // other
}

template <bool kFaulty>
void run_cleared(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kCount});
  float* loss = trial.output<float>("loss", {1});
  unsigned* ticket = trial.workspace<unsigned>("ticket", {1});
  cnn::launch("clear", {dim3(1), dim3(1)}, clear, loss, ticket);
  cnn::launch("add_loss", {dim3(kBlocks), dim3(kThreads)}, add_loss<kFaulty>, x, loss);
}

CNN_TRIAL(atomics_faulty_cleared) { run_cleared<true>(trial); }
CNN_TRIAL(atomics_clean_cleared) { run_cleared<false>(trial); }

// The block that comes last reads what all have added: nothing but the fence puts their additions before their tickets.
template <bool kFaulty>
__global__ void average_loss(const float* x, float* loss, unsigned* ticket, float* average) {
  const float value = x[int(blockIdx.x) * kThreads + int(threadIdx.x)];
  atomicAdd(loss, value);  // other
  if (!kFaulty) __threadfence();
  if (atomicAdd(ticket, 1u) < kCount - 1) return;
  if (!kFaulty) __threadfence();
  *average = *loss / kCount;  // fault: race
}

template <bool kFaulty>
void run_last_block(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kCount});
  float* loss = trial.workspace<float>("loss", {1});
  unsigned* ticket = trial.workspace<unsigned>("ticket", {1});
  float* average = trial.output<float>("average", {1});
  cnn::launch("clear", {dim3(1), dim3(1)}, clear, loss, ticket);
  cnn::launch("average_loss", {dim3(kBlocks), dim3(kThreads)}, average_loss<kFaulty>, x, loss, ticket, average);
}

CNN_TRIAL(atomics_faulty_last_block) { run_last_block<true>(trial); }
CNN_TRIAL(atomics_clean_last_block) { run_last_block<false>(trial); }

// Within a block: the last of its warps adds up what the warps left, after a fence that goes no further than the block.
template <bool kFaulty>
__global__ void sum_warps(const float* x, float* sums) {
  CNN_SHARED(partial, float[kThreads / kWarp]);
  CNN_SHARED(done, unsigned);
  const int t = int(threadIdx.x);
  if (t == 0) done = 0;
  __syncthreads();
  float sum = x[int(blockIdx.x) * kThreads + t];
  for (int offset = kWarp / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (t % kWarp != 0) return;
  partial[t / kWarp] = sum;  // other
  if (!kFaulty) __threadfence_block();
  if (atomicAdd(&done, 1u) < kThreads / kWarp - 1) return;
  if (!kFaulty) __threadfence_block();
  sum = 0.0f;
  for (int w = 0; w < kThreads / kWarp; ++w) sum += partial[w];  // fault: race
  sums[blockIdx.x] = sum;
}

template <bool kFaulty>
void run_last_warp(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kCount});
  float* sums = trial.output<float>("sums", {kBlocks});
  cnn::launch("sum_warps", {dim3(kBlocks), dim3(kThreads)}, sum_warps<kFaulty>, x, sums);
}

CNN_TRIAL(atomics_faulty_last_warp) { run_last_warp<true>(trial); }
CNN_TRIAL(atomics_clean_last_warp) { run_last_warp<false>(trial); }

// A lock in shared memory lets one thread in at a time; without fences the next one need not see what the last one left.
template <bool kFaulty>
__global__ void sum_locked(const float* x, float* sums) {
  CNN_SHARED(lock, int);
  CNN_SHARED(sum, float);
  const int t = int(threadIdx.x);
  if (t == 0) lock = 0, sum = 0.0f;
  __syncthreads();
  bool done = false;
  while (!done) {
    if (atomicCAS(&lock, 0, 1) != 0) continue;
    if (!kFaulty) __threadfence_block();
    sum += x[int(blockIdx.x) * kThreads + t];  // fault: race
    if (!kFaulty) __threadfence_block();
    atomicExch(&lock, 0);
    done = true;
  }
  __syncthreads();
  if (t == 0) sums[blockIdx.x] = sum;
}

template <bool kFaulty>
void run_locked(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kCount});
  float* sums = trial.output<float>("sums", {kBlocks});
  cnn::launch("sum_locked", {dim3(kBlocks), dim3(kThreads)}, sum_locked<kFaulty>, x, sums);
}

CNN_TRIAL(atomics_faulty_locked) { run_locked<true>(trial); }
CNN_TRIAL(atomics_clean_locked) { run_locked<false>(trial); }
