// The block that finishes last adds up what all blocks left: the ticket tells it that it is the last, the fence before the ticket
// that it sees what the others wrote.
#include "emulator/trial.h"

constexpr int kThreads = 64, kBlocks = 6;

__global__ void clear(unsigned* ticket) { *ticket = 0; }

enum class Fence { kBeforeTicket, kAfterTicket, kNone };

template <Fence kFence>
__global__ void sum_all(const float* x, float* partial, unsigned* ticket, float* total) {
  CNN_SHARED(values, float[kThreads]);
  CNN_SHARED(is_last, bool);
  const int t = int(threadIdx.x);
  values[t] = x[int(blockIdx.x) * kThreads + t];
  __syncthreads();
  for (int step = kThreads / 2; step > 0; step /= 2) {
    if (t < step) values[t] += values[t + step];
    __syncthreads();
  }
  if (t == 0) {
    partial[blockIdx.x] = values[0];  // other
    if (kFence == Fence::kBeforeTicket) __threadfence();
    is_last = atomicAdd(ticket, 1u) == gridDim.x - 1;
    if (kFence == Fence::kAfterTicket) __threadfence();
  }
  __syncthreads();
  if (!is_last || t > 0) return;
  float sum = 0.0f;
  for (int b = 0; b < kBlocks; ++b) sum += partial[b];  // fault: race
  *total = sum;
}

template <Fence kFence>
void run(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kBlocks, kThreads});
  float* partial = trial.workspace<float>("partial", {kBlocks});
  unsigned* ticket = trial.workspace<unsigned>("ticket", {1});
  float* total = trial.output<float>("total", {1});
  cnn::launch("clear", {dim3(1), dim3(1)}, clear, ticket);
  cnn::launch("sum_all", {dim3(kBlocks), dim3(kThreads)}, sum_all<kFence>, x, partial, ticket, total);
}

CNN_TRIAL(last_block_faulty_unfenced) { run<Fence::kNone>(trial); }
CNN_TRIAL(last_block_faulty_fenced_late) { run<Fence::kAfterTicket>(trial); }
CNN_TRIAL(last_block_clean) { run<Fence::kBeforeTicket>(trial); }

// All threads write, one takes the ticket: its fence covers the others' writes if it has met them at a barrier.
template <bool kFaulty>
__global__ void sum_columns(const float* x, float* partial, unsigned* ticket, float* total) {
  CNN_SHARED(is_last, bool);
  const int t = int(threadIdx.x);
  partial[int(blockIdx.x) * kThreads + t] = 2.0f * x[int(blockIdx.x) * kThreads + t];  // other
  if (!kFaulty) __syncthreads();
  if (t == 0) {
    __threadfence();
    is_last = atomicAdd(ticket, 1u) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (!is_last) return;
  float sum = 0.0f;
  for (int b = 0; b < kBlocks; ++b) sum += partial[b * kThreads + t];  // fault: race
  total[t] = sum;
}

template <bool kFaulty>
void run_columns(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kBlocks, kThreads});
  float* partial = trial.workspace<float>("partial", {kBlocks, kThreads});
  unsigned* ticket = trial.workspace<unsigned>("ticket", {1});
  float* total = trial.output<float>("total", {kThreads});
  cnn::launch("clear", {dim3(1), dim3(1)}, clear, ticket);
  cnn::launch("sum_columns", {dim3(kBlocks), dim3(kThreads)}, sum_columns<kFaulty>, x, partial, ticket, total);
}

CNN_TRIAL(last_block_faulty_columns) { run_columns<true>(trial); }
CNN_TRIAL(last_block_clean_columns) { run_columns<false>(trial); }
