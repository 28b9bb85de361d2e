// The last block has more threads than there are elements left.
#include "emulator/trial.h"

constexpr int kThreads = 128, kCount = 1000;

// Only the write is masked.
template <bool kFaulty>
__global__ void relu_reading(const float* x, float* y, int n) {
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  const float value = kFaulty || i < n ? x[i] : 0.0f;  // fault: out of bounds
  if (i < n) y[i] = value > 0.0f ? value : 0.0f;
}

template <bool kFaulty>
void run_reading(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kCount});
  float* y = trial.output<float>("y", {kCount});
  cnn::launch("relu_reading", {dim3(8), dim3(kThreads)}, relu_reading<kFaulty>, x, y, kCount);
}

CNN_TRIAL(tail_mask_faulty_reading) { run_reading<true>(trial); }
CNN_TRIAL(tail_mask_clean_reading) { run_reading<false>(trial); }

// The write's mask is too wide by one.
template <bool kFaulty>
__global__ void relu_writing(const float* x, float* y, int n) {
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  const float value = x[min(i, n - 1)];
  if (kFaulty ? i <= n : i < n) y[i] = value > 0.0f ? value : 0.0f;  // fault: out of bounds
}

template <bool kFaulty>
void run_writing(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kCount});
  float* y = trial.output<float>("y", {kCount});
  cnn::launch("relu_writing", {dim3(8), dim3(kThreads)}, relu_writing<kFaulty>, x, y, kCount);
}

CNN_TRIAL(tail_mask_faulty_writing) { run_writing<true>(trial); }
CNN_TRIAL(tail_mask_clean_writing) { run_writing<false>(trial); }

// Four elements at a time, and the count held against the first of them alone.
template <bool kFaulty>
__global__ void relu_vector(const float* x, float* y, int n) {
  const int i = 4 * (int(blockIdx.x) * kThreads + int(threadIdx.x));
  if (i >= n) return;
  alignas(16) float v[4];
  if (kFaulty || i + 4 <= n) {
    *reinterpret_cast<float4*>(v) = *reinterpret_cast<const float4*>(x + i);  // fault: out of bounds
  } else {
    for (int j = 0; j < 4; ++j) v[j] = i + j < n ? x[i + j] : 0.0f;
  }
  for (int j = 0; j < min(4, n - i); ++j) y[i + j] = max(v[j], 0.0f);
}

template <bool kFaulty>
void run_vector(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kCount + 2});
  float* y = trial.output<float>("y", {kCount + 2});
  cnn::launch("relu_vector", {dim3(2), dim3(kThreads)}, relu_vector<kFaulty>, x, y, kCount + 2);
}

CNN_TRIAL(tail_mask_faulty_vector) { run_vector<true>(trial); }
CNN_TRIAL(tail_mask_clean_vector) { run_vector<false>(trial); }

// The mask is too narrow: the elements of the last, partial vector are nobody's.
template <bool kFaulty>
__global__ void relu_unwritten(const float* x, float* y, int n) {
  const int i = 4 * (int(blockIdx.x) * kThreads + int(threadIdx.x));
  if (kFaulty && i + 4 > n) return;
  for (int j = i; j < min(i + 4, n); ++j) y[j] = max(x[j], 0.0f);  // fault: unwritten output
}

template <bool kFaulty>
void run_unwritten(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kCount + 2});
  float* y = trial.output<float>("y", {kCount + 2});
  cnn::launch("relu_unwritten", {dim3(2), dim3(kThreads)}, relu_unwritten<kFaulty>, x, y, kCount + 2);
}

CNN_TRIAL(tail_mask_faulty_unwritten) { run_unwritten<true>(trial); }
CNN_TRIAL(tail_mask_clean_unwritten) { run_unwritten<false>(trial); }
