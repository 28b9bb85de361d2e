// Indices that leave their array, but not the memory around it.
#include "emulator/trial.h"

constexpr int kThreads = 32, kRows = 4, kColumns = 34, kTaps = 3;

// Sums of three in a row of a tile with a halo; the window begins one column too far to the right, and ends in the next row.
template <bool kFaulty>
__global__ void filter_rows(const float* x, float* y) {
  CNN_SHARED(tile, float[kRows + 1][kColumns]);
  const int t = int(threadIdx.x), row = int(threadIdx.y);
  for (int r = row; r < kRows + 1; r += kRows)
    for (int column = t; column < kColumns; column += kThreads) tile[r][column] = x[r * kColumns + column];
  __syncthreads();
  float sum = 0.0f;
  for (int s = 0; s < kTaps; ++s) sum += tile[row][t + s + kFaulty];  // fault: out of bounds
  y[row * kThreads + t] = sum;
}

template <bool kFaulty>
void filter(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kRows + 1, kColumns});
  float* y = trial.output<float>("y", {kRows, kThreads});
  cnn::launch("filter_rows", {dim3(1), dim3(kThreads, kRows)}, filter_rows<kFaulty>, x, y);
}
CNN_TRIAL(array_bounds_faulty_row) { filter<true>(trial); }
CNN_TRIAL(array_bounds_clean_row) { filter<false>(trial); }

// A thread's results in registers, of which one more is stored than there are.
template <bool kFaulty>
__global__ void scale(const float* x, float* y, int count) {
  float results[4];
  const int first = int(threadIdx.x) * count;
  for (int i = 0; i < 4; ++i) results[i] = 2.0f * x[first + i % count];
  for (int i = 0; i < count + kFaulty; ++i) y[first + i] = results[i];  // fault: out of bounds
}

template <bool kFaulty>
void run_scale(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {1, 4});
  float* y = trial.workspace<float>("y", {1, 8});
  cnn::launch("scale", {dim3(1), dim3(1)}, scale<kFaulty>, x, y, 4);
}
CNN_TRIAL(array_bounds_faulty_registers) { run_scale<true>(trial); }
CNN_TRIAL(array_bounds_clean_registers) { run_scale<false>(trial); }
