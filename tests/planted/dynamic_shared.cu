// The host asks for less dynamic shared memory than the kernel uses.
#include "emulator/trial.h"

constexpr int kTile = 128, kTaps = 5;

__global__ void filter(const float* x, const float* w, float* y) {
  CNN_DYNAMIC_SHARED(tile, float);
  const int t = int(threadIdx.x);
  for (int i = t; i < kTile + kTaps - 1; i += kTile) tile[i] = x[i];  // fault: out of bounds
  __syncthreads();
  float sum = 0.0f;
  for (int s = 0; s < kTaps; ++s) sum += w[s] * tile[t + s];
  y[t] = sum;
}

void run(cnn::emulator::Trial& trial, int staged) {
  const float* x = trial.input<float>("x", {kTile + kTaps - 1});
  const float* w = trial.input<float>("w", {kTaps});
  float* y = trial.output<float>("y", {kTile});
  cnn::launch("filter", {dim3(1), dim3(kTile), staged * sizeof(float)}, filter, x, w, y);
}

CNN_TRIAL(dynamic_shared_faulty) { run(trial, kTile); }
CNN_TRIAL(dynamic_shared_clean) { run(trial, kTile + kTaps - 1); }

// Two arrays share it, and the second is taken to begin where the first has its last elements.
template <bool kFaulty>
__global__ void filter_with_weights(const float* x, const float* w, float* y) {
  CNN_DYNAMIC_SHARED(tile, float);
  float* const taps = tile + kTile + (kFaulty ? 0 : kTaps - 1);
  const int t = int(threadIdx.x);
  for (int i = t; i < kTile + kTaps - 1; i += kTile) tile[i] = x[i];  // other
  if (t >= kTile - kTaps) taps[kTile - 1 - t] = w[kTile - 1 - t];     // fault: race
  __syncthreads();
  float sum = 0.0f;
  for (int s = 0; s < kTaps; ++s) sum += taps[s] * tile[t + s];
  y[t] = sum;
}

template <bool kFaulty>
void run_two_arrays(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kTile + kTaps - 1});
  const float* w = trial.input<float>("w", {kTaps});
  float* y = trial.output<float>("y", {kTile});
  const std::size_t bytes = (kTile + kTaps - 1 + kTaps) * sizeof(float);
  cnn::launch("filter_with_weights", {dim3(1), dim3(kTile), bytes}, filter_with_weights<kFaulty>, x, w, y);
}

CNN_TRIAL(dynamic_shared_faulty_two_arrays) { run_two_arrays<true>(trial); }
CNN_TRIAL(dynamic_shared_clean_two_arrays) { run_two_arrays<false>(trial); }
