// Barriers that not all threads of a block reach, or not the same one.
#include "emulator/trial.h"

constexpr int kTile = 64, kTaps = 3, kStaged = kTile + kTaps - 1;

// Threads beyond the last output return before the barrier.
template <bool kFaulty>
__global__ void filter_returning(const float* x, const float* w, float* y, int n) {
  CNN_SHARED(tile, float[kStaged]);
  const int t = int(threadIdx.x), i = int(blockIdx.x) * kTile + t;
  if (kFaulty && i >= n) return;
  for (int j = t; j < kStaged; j += kTile) tile[j] = x[int(blockIdx.x) * kTile + j];
  __syncthreads();  // fault: divergent barrier
  if (i >= n) return;
  float sum = 0.0f;
  for (int s = 0; s < kTaps; ++s) sum += w[s] * tile[t + s];
  y[i] = sum;
}

template <bool kFaulty>
void run_returning(cnn::emulator::Trial& trial) {
  constexpr int kCount = 100;
  const float* x = trial.input<float>("x", {2 * kTile + kTaps - 1});
  const float* w = trial.input<float>("w", {kTaps});
  float* y = trial.output<float>("y", {kCount});
  cnn::launch("filter_returning", {dim3(2), dim3(kTile)}, filter_returning<kFaulty>, x, w, y, kCount);
}

CNN_TRIAL(divergent_barrier_faulty_returning) { run_returning<true>(trial); }
CNN_TRIAL(divergent_barrier_clean_returning) { run_returning<false>(trial); }

// Each way through the branch has a barrier of its own.
template <bool kFaulty>
__global__ void pad_row(const float* x, float* y, int n) {
  CNN_SHARED(row, float[kTile]);
  const int t = int(threadIdx.x);
  if (t < n) {
    row[t] = x[t];
    if (kFaulty) __syncthreads();  // fault: divergent barrier
  } else {
    row[t] = 0.0f;
    if (kFaulty) __syncthreads();  // other
  }
  if (!kFaulty) __syncthreads();
  y[t] = row[kTile - 1 - t];
}

template <bool kFaulty>
void run_branches(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {40});
  float* y = trial.output<float>("y", {kTile});
  cnn::launch("pad_row", {dim3(1), dim3(kTile)}, pad_row<kFaulty>, x, y, 40);
}

CNN_TRIAL(divergent_barrier_faulty_branches) { run_branches<true>(trial); }
CNN_TRIAL(divergent_barrier_clean_branches) { run_branches<false>(trial); }

// A barrier in a loop that some threads leave one round earlier.
template <bool kFaulty>
__global__ void reverse_tiles(const float* x, float* y, int n) {
  CNN_SHARED(tile, float[kTile]);
  const int t = int(threadIdx.x), rounds = (n + kTile - 1) / kTile * kTile;
  for (int i = t; i < (kFaulty ? n : rounds); i += kTile) {
    tile[t] = i < n ? x[i] : 0.0f;
    __syncthreads();  // fault: divergent barrier
    if (i < n) y[i] = tile[kTile - 1 - t];
    __syncthreads();
  }
}

template <bool kFaulty>
void run_loop(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {150});
  float* y = trial.output<float>("y", {150});
  cnn::launch("reverse_tiles", {dim3(1), dim3(kTile)}, reverse_tiles<kFaulty>, x, y, 150);
}

CNN_TRIAL(divergent_barrier_faulty_loop) { run_loop<true>(trial); }
CNN_TRIAL(divergent_barrier_clean_loop) { run_loop<false>(trial); }
