// The columns beside a tile that its windows reach, off by one.
#include "emulator/trial.h"

constexpr int kTile = 16, kTaps = 3, kHalo = kTaps - 1, kPitch = 2 * kTile + kHalo;

// The shared array is large enough, but its last column is never loaded.
template <bool kFaulty>
__global__ void filter_unloaded(const float* x, const float* w, float* y) {
  constexpr int kLoaded = kTile + (kFaulty ? kHalo - 1 : kHalo);
  CNN_SHARED(tile, float[kTile + kHalo][kTile + kHalo]);
  const int column = int(threadIdx.x), row = int(threadIdx.y), first = int(blockIdx.x) * kTile;
  for (int h = row; h < kTile + kHalo; h += kTile)
    for (int i = column; i < kLoaded; i += kTile) tile[h][i] = x[h * kPitch + first + i];
  __syncthreads();
  float sum = 0.0f;
  for (int r = 0; r < kTaps; ++r)
    for (int s = 0; s < kTaps; ++s) sum += w[r * kTaps + s] * tile[row + r][column + s];  // fault: uninitialised read
  y[row * 2 * kTile + first + column] = sum;
}

template <bool kFaulty>
void unloaded(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kTile + kHalo, kPitch});
  const float* w = trial.input<float>("w", {kTaps, kTaps});
  float* y = trial.output<float>("y", {kTile, 2 * kTile});
  cnn::launch("filter_unloaded", {dim3(2), dim3(kTile, kTile)}, filter_unloaded<kFaulty>, x, w, y);
}

CNN_TRIAL(halo_faulty_unloaded) { unloaded<true>(trial); }
CNN_TRIAL(halo_clean_unloaded) { unloaded<false>(trial); }

// The shared array itself is one column too narrow.
template <bool kFaulty>
__global__ void filter_narrow(const float* x, const float* w, float* y) {
  constexpr int kColumns = kTile + (kFaulty ? kHalo - 1 : kHalo);
  CNN_SHARED(tile, float[kColumns]);
  const int t = int(threadIdx.x);
  for (int i = t; i < kColumns; i += kTile) tile[i] = x[i];
  __syncthreads();
  float sum = 0.0f;
  for (int s = 0; s < kTaps; ++s) sum += w[s] * tile[t + s];  // fault: out of bounds
  y[t] = sum;
}

template <bool kFaulty>
void narrow(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kTile + kHalo});
  const float* w = trial.input<float>("w", {kTaps});
  float* y = trial.output<float>("y", {kTile});
  cnn::launch("filter_narrow", {dim3(1), dim3(kTile)}, filter_narrow<kFaulty>, x, w, y);
}

CNN_TRIAL(halo_faulty_narrow) { narrow<true>(trial); }
CNN_TRIAL(halo_clean_narrow) { narrow<false>(trial); }

// The image ends inside the last halo.
template <bool kFaulty>
__global__ void filter_image_edge(const float* x, const float* w, float* y, int width) {
  CNN_SHARED(tile, float[kTile + kHalo]);
  const int t = int(threadIdx.x), first = int(blockIdx.x) * kTile;
  for (int i = t; i < kTile + kHalo; i += kTile) {
    const int column = first + i - 1;
    const bool inside = column >= 0 && (kFaulty ? column <= width : column < width);
    tile[i] = inside ? x[column] : 0.0f;  // fault: out of bounds
  }
  __syncthreads();
  float sum = 0.0f;
  for (int s = 0; s < kTaps; ++s) sum += w[s] * tile[t + s];
  y[first + t] = sum;
}

template <bool kFaulty>
void image_edge(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {2 * kTile});
  const float* w = trial.input<float>("w", {kTaps});
  float* y = trial.output<float>("y", {2 * kTile});
  cnn::launch("filter_image_edge", {dim3(2), dim3(kTile)}, filter_image_edge<kFaulty>, x, w, y, 2 * kTile);
}

CNN_TRIAL(halo_faulty_image_edge) { image_edge<true>(trial); }
CNN_TRIAL(halo_clean_image_edge) { image_edge<false>(trial); }
