// Threads that pass values on through global memory.
#include "emulator/trial.h"

constexpr int kTile = 64, kBlocks = 4, kCount = kTile * kBlocks;

__global__ void fill(const float* x, float* row) {
  const int i = int(blockIdx.x) * kTile + int(threadIdx.x);
  row[i] = x[i];
}

// Two passes of a filter in one launch: __syncthreads() does not hold back other blocks.
template <bool kFaulty>
__global__ void smooth_twice(const float* x, float* row, float* y) {
  const int t = int(threadIdx.x), i = int(blockIdx.x) * kTile + t;
  row[i] = 0.5f * x[i];  // other
  __syncthreads();
  const int before = kFaulty ? max(i - 1, 0) : i - min(t, 1);
  y[i] = row[i] + row[before];  // fault: race
}

template <bool kFaulty>
void run_blocks(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kCount});
  float* row = trial.workspace<float>("row", {kCount});
  float* y = trial.output<float>("y", {kCount});
  cnn::launch("fill", {dim3(kBlocks), dim3(kTile)}, fill, x, row);
  cnn::launch("smooth_twice", {dim3(kBlocks), dim3(kTile)}, smooth_twice<kFaulty>, x, row, y);
}

CNN_TRIAL(global_exchange_faulty_blocks) { run_blocks<true>(trial); }
CNN_TRIAL(global_exchange_clean_blocks) { run_blocks<false>(trial); }

// The same within a block, where a barrier would do.
template <bool kFaulty>
__global__ void smooth_block(const float* x, float* row, float* y) {
  const int t = int(threadIdx.x), first = int(blockIdx.x) * kTile;
  row[first + t] = 0.5f * x[first + t];  // other
  if (!kFaulty) __syncthreads();
  y[first + t] = row[first + kTile - 1 - t];  // fault: race
}

template <bool kFaulty>
void run_block(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kCount});
  float* row = trial.workspace<float>("row", {kCount});
  float* y = trial.output<float>("y", {kCount});
  cnn::launch("fill", {dim3(kBlocks), dim3(kTile)}, fill, x, row);
  cnn::launch("smooth_block", {dim3(kBlocks), dim3(kTile)}, smooth_block<kFaulty>, x, row, y);
}

CNN_TRIAL(global_exchange_faulty_block) { run_block<true>(trial); }
CNN_TRIAL(global_exchange_clean_block) { run_block<false>(trial); }

// A shift in place.
template <bool kFaulty>
__global__ void shift(float* row) {
  const int t = int(threadIdx.x);
  if (kFaulty) {
    if (t + 1 < kTile) row[t] = row[t + 1];  // fault: race
  } else {
    const float next = row[min(t + 1, kTile - 1)];
    __syncthreads();
    row[t] = next;
  }
}

template <bool kFaulty>
void run_in_place(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kTile});
  float* row = trial.output<float>("row", {kTile});
  cnn::launch("fill", {dim3(1), dim3(kTile)}, fill, x, row);
  cnn::launch("shift", {dim3(1), dim3(kTile)}, shift<kFaulty>, row);
}

CNN_TRIAL(global_exchange_faulty_in_place) { run_in_place<true>(trial); }
CNN_TRIAL(global_exchange_clean_in_place) { run_in_place<false>(trial); }
