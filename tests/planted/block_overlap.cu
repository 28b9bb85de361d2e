// Blocks whose tiles share a column of outputs: both write it.
#include "emulator/trial.h"

constexpr int kTile = 32, kTaps = 3;

template <bool kFaulty>
__global__ void filter(const float* x, const float* w, float* y, int n) {
  constexpr int kStep = kFaulty ? kTile - 1 : kTile;
  const int i = int(blockIdx.x) * kStep + int(threadIdx.x);
  if (i >= n) return;
  float sum = 0.0f;
  for (int s = 0; s < kTaps; ++s) sum += w[s] * x[i + s];
  y[i] = sum;  // fault: race
}

template <bool kFaulty>
void run(cnn::emulator::Trial& trial) {
  constexpr int kCount = 120;
  const float* x = trial.input<float>("x", {kCount + kTaps - 1});
  const float* w = trial.input<float>("w", {kTaps});
  float* y = trial.output<float>("y", {kCount});
  cnn::launch("filter", {dim3(4), dim3(kTile)}, filter<kFaulty>, x, w, y, kCount);
}

CNN_TRIAL(block_overlap_faulty) { run<true>(trial); }
CNN_TRIAL(block_overlap_clean) { run<false>(trial); }

// A transposed convolution that scatters: neighbouring inputs add to the same outputs.
__global__ void clear(float* image, int n) {
  const int i = int(blockIdx.x) * kTile + int(threadIdx.x);
  if (i < n) image[i] = 0.0f;
}

template <bool kFaulty>
__global__ void scatter(const float* gradient, const float* w, float* image) {
  const int p = int(blockIdx.x) * kTile + int(threadIdx.x);
  for (int s = 0; s < kTaps; ++s) {
    const float value = gradient[p] * w[s];
    if (kFaulty) image[p + s] += value;  // fault: race
    else atomicAdd(&image[p + s], value);
  }
}

template <bool kFaulty>
void run_scatter(cnn::emulator::Trial& trial) {
  constexpr int kCount = 4 * kTile;
  const float* gradient = trial.input<float>("gradient", {kCount});
  const float* w = trial.input<float>("w", {kTaps});
  float* image = trial.output<float>("image", {kCount + kTaps - 1});
  cnn::launch("clear", {dim3(5), dim3(kTile)}, clear, image, kCount + kTaps - 1);
  cnn::launch("scatter", {dim3(4), dim3(kTile)}, scatter<kFaulty>, gradient, w, image);
}

CNN_TRIAL(block_overlap_faulty_scatter) { run_scatter<true>(trial); }
CNN_TRIAL(block_overlap_clean_scatter) { run_scatter<false>(trial); }
