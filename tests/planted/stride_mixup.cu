// Strides that belong to another dimension or another tensor.
#include "emulator/trial.h"

constexpr int kChannels = 3, kHeight = 5, kWidth = 9, kThreads = 64;

// Rows and columns exchanged: harmless on square images.
template <bool kFaulty>
__global__ void mirror(const float* x, float* y, int height, int width) {
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  if (i >= height * width) return;
  const int row = i / width, column = width - 1 - i % width;
  y[i] = x[row * (kFaulty ? height : width) + column * (kFaulty ? width : 1)];  // fault: out of bounds
}

template <bool kFaulty>
void run_exchanged(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kHeight, kWidth});
  float* y = trial.output<float>("y", {kHeight, kWidth});
  cnn::launch("mirror", {dim3(1), dim3(kThreads)}, mirror<kFaulty>, x, y, kHeight, kWidth);
}

CNN_TRIAL(stride_mixup_faulty_exchanged) { run_exchanged<true>(trial); }
CNN_TRIAL(stride_mixup_clean_exchanged) { run_exchanged<false>(trial); }

// The pooled image is written with the pitch of the image it came from.
template <bool kFaulty>
__global__ void pool_pairs(const float* x, float* y, int height, int width) {
  const int column = int(threadIdx.x), row = int(threadIdx.y), channel = int(blockIdx.x), pooled = width / 2;
  const float* pair = x + (channel * height + row) * width + 2 * column;
  y[(channel * height + row) * (kFaulty ? width : pooled) + column] = max(pair[0], pair[1]);  // fault: out of bounds
}

template <bool kFaulty>
void run_pitch(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kChannels, kHeight, kWidth});
  float* y = trial.output<float>("y", {kChannels, kHeight, kWidth / 2});
  cnn::launch("pool_pairs", {dim3(kChannels), dim3(kWidth / 2, kHeight)}, pool_pairs<kFaulty>, x, y, kHeight, kWidth);
}

CNN_TRIAL(stride_mixup_faulty_pitch) { run_pitch<true>(trial); }
CNN_TRIAL(stride_mixup_clean_pitch) { run_pitch<false>(trial); }

// More slabs of partial sums than the workspace has room for.
__global__ void sum_slabs(const float* x, float* partial, int slab) {
  const int i = int(blockIdx.x) * slab;
  float sum = 0.0f;
  for (int j = 0; j < slab; ++j) sum += x[i + j];
  partial[blockIdx.x] = sum;  // fault: out of bounds
}

void run_slabs(cnn::emulator::Trial& trial, int slabs) {
  const float* x = trial.input<float>("x", {60});
  float* partial = trial.workspace<float>("partial", {slabs});
  cnn::launch("sum_slabs", {dim3(4), dim3(1)}, sum_slabs, x, partial, 15);
}

CNN_TRIAL(stride_mixup_faulty_slabs) { run_slabs(trial, 60 / 15 - 1); }
CNN_TRIAL(stride_mixup_clean_slabs) { run_slabs(trial, 60 / 15); }
