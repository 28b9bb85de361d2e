// Two stages and one barrier per step: the next row goes into the stage that nobody reads. Here it goes into the other one.
#include "emulator/trial.h"

constexpr int kTile = 64, kTaps = 3, kStaged = kTile + kTaps - 1, kChannels = 5;

template <bool kFaulty>
__global__ void filter_channels(const float* x, const float* w, float* y) {
  CNN_SHARED(stages, float[2][kStaged]);
  const int t = int(threadIdx.x);
  int stage = 0;
  for (int i = t; i < kStaged; i += kTile) stages[stage][i] = x[i];
  __syncthreads();
  float sum = 0.0f;
  for (int c = 1; c <= kChannels; ++c) {
    for (int s = 0; s < kTaps; ++s) sum += w[s] * stages[stage][t + s];  // other
    if (!kFaulty) stage ^= 1;
    if (c < kChannels) {
      for (int i = t; i < kStaged; i += kTile) stages[stage][i] = x[c * kStaged + i];  // fault: race
    }
    __syncthreads();
  }
  y[t] = sum;
}

template <bool kFaulty>
void run(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kChannels, kStaged});
  const float* w = trial.input<float>("w", {kTaps});
  float* y = trial.output<float>("y", {kTile});
  cnn::launch("filter_channels", {dim3(1), dim3(kTile)}, filter_channels<kFaulty>, x, w, y);
}

CNN_TRIAL(double_buffer_faulty) { run<true>(trial); }
CNN_TRIAL(double_buffer_clean) { run<false>(trial); }
