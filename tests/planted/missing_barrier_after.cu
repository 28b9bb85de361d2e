// A filter summed over channels, one staged row at a time. Without the second barrier a fast warp overwrites the row for the next
// channel while slow ones still read this one.
#include "emulator/trial.h"

constexpr int kTile = 128, kTaps = 3, kStaged = kTile + kTaps - 1, kChannels = 4;

template <bool kFaulty>
__global__ void filter_channels(const float* x, const float* w, float* y, int channels) {
  CNN_SHARED(tile, float[kStaged]);
  const int t = int(threadIdx.x);
  float sum = 0.0f;
  for (int c = 0; c < channels; ++c) {
    for (int i = t; i < kStaged; i += kTile) tile[i] = x[c * kStaged + i];  // fault: race
    __syncthreads();
    for (int s = 0; s < kTaps; ++s) sum += w[c * kTaps + s] * tile[t + s];  // other
    if (!kFaulty) __syncthreads();
  }
  y[t] = sum;
}

template <bool kFaulty>
void filter(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kChannels, kStaged});
  const float* w = trial.input<float>("w", {kChannels, kTaps});
  float* y = trial.output<float>("y", {kTile});
  cnn::launch("filter_channels", {dim3(1), dim3(kTile)}, filter_channels<kFaulty>, x, w, y, kChannels);
}

CNN_TRIAL(missing_barrier_after_faulty) { filter<true>(trial); }
CNN_TRIAL(missing_barrier_after_clean) { filter<false>(trial); }
