// A filter over a staged row. Without the barrier a thread reads pixels that its neighbours have yet to store.
#include "emulator/trial.h"

constexpr int kTile = 128, kTaps = 3, kStaged = kTile + kTaps - 1;

template <bool kFaulty>
__global__ void filter_row(const float* x, const float* w, float* y) {
  CNN_SHARED(tile, float[kStaged]);
  const int t = int(threadIdx.x), first = int(blockIdx.x) * kTile;
  for (int i = t; i < kStaged; i += kTile) tile[i] = x[first + i];  // other
  if (!kFaulty) __syncthreads();
  float sum = 0.0f;
  for (int s = 0; s < kTaps; ++s) sum += w[s] * tile[t + s];  // fault: race
  y[first + t] = sum;
}

template <bool kFaulty>
void filter(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {4 * kTile + kTaps - 1});
  const float* w = trial.input<float>("w", {kTaps});
  float* y = trial.output<float>("y", {4 * kTile});
  cnn::launch("filter_row", {dim3(4), dim3(kTile)}, filter_row<kFaulty>, x, w, y);
}

CNN_TRIAL(missing_barrier_before_faulty) { filter<true>(trial); }
CNN_TRIAL(missing_barrier_before_clean) { filter<false>(trial); }

// What a block works on is worked out by one thread and taken over by all, as a structure.
struct Work {
  int first, count, row;
  float scale;
  int reserved[4];
};

template <bool kFaulty>
__global__ void scale_rows(const float* x, float* y, int columns) {
  CNN_SHARED(located, Work);
  if (threadIdx.x == 0) located = {int(blockIdx.x) * columns, columns, int(blockIdx.x), 0.5f, {}};  // other
  if (!kFaulty) __syncthreads();
  const Work work = located;  // fault: race
  for (int i = int(threadIdx.x); i < work.count; i += int(blockDim.x)) y[work.first + i] = work.scale * x[work.first + i];
}

template <bool kFaulty>
void scale(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {3, 100});
  float* y = trial.output<float>("y", {3, 100});
  cnn::launch("scale_rows", {dim3(3), dim3(64)}, scale_rows<kFaulty>, x, y, 100);
}

CNN_TRIAL(missing_barrier_before_faulty_structure) { scale<true>(trial); }
CNN_TRIAL(missing_barrier_before_clean_structure) { scale<false>(trial); }
