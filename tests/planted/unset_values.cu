// Local variables that were never set, and what becomes of them before they are stored; values that only look like them.
#include <cfloat>

#include "emulator/trial.h"

constexpr int kThreads = 64, kBlocks = 2, kCount = kThreads * kBlocks, kTaps = 5;

// A sum that was never set to zero, stored as something else.
__device__ __half as_half(float sum) { return __float2half(sum); }
__device__ float squared(float sum) { return sum * sum; }
__device__ float squashed(float sum) { return sum / (1.0f + sum); }
__device__ float relu(float sum) { return fmaxf(sum, 0.0f); }

template <bool kFaulty, auto activate, class T>
__global__ void filter(const float* x, T* y) {
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  float sum;
  if (!kFaulty) sum = 0.0f;
  for (int s = 0; s < kTaps; ++s) sum += x[i + s];
  y[i] = activate(sum);  // fault: uninitialised value
}

template <bool kFaulty, auto activate>
void run_filter(cnn::emulator::Trial& trial) {
  using T = decltype(activate(0.0f));
  const float* x = trial.input<float>("x", {kCount + kTaps - 1});
  T* y = trial.output<T>("y", {kCount});
  cnn::launch("filter", {dim3(kBlocks), dim3(kThreads)}, filter<kFaulty, activate, T>, x, y);
}

CNN_TRIAL(unset_values_faulty_as_half) { run_filter<true, as_half>(trial); }
CNN_TRIAL(unset_values_clean_as_half) { run_filter<false, as_half>(trial); }
CNN_TRIAL(unset_values_faulty_squared) { run_filter<true, squared>(trial); }
CNN_TRIAL(unset_values_clean_squared) { run_filter<false, squared>(trial); }
CNN_TRIAL(unset_values_faulty_squashed) { run_filter<true, squashed>(trial); }
CNN_TRIAL(unset_values_clean_squashed) { run_filter<false, squashed>(trial); }
CNN_TRIAL(unset_values_faulty_relu) { run_filter<true, relu>(trial); }
CNN_TRIAL(unset_values_clean_relu) { run_filter<false, relu>(trial); }

// A sum in half precision, stored as float.
template <bool kFaulty>
__global__ void filter_half(const __half* x, float* y) {
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  __half sum;
  if (!kFaulty) sum = __float2half(0.0f);
  for (int s = 0; s < kTaps; ++s) sum = __hadd(sum, x[i + s]);
  y[i] = __half2float(sum);  // fault: uninitialised value
}

template <bool kFaulty>
void run_half(cnn::emulator::Trial& trial) {
  const __half* x = trial.input<__half>("x", {kCount + kTaps - 1});
  float* y = trial.output<float>("y", {kCount});
  cnn::launch("filter_half", {dim3(kBlocks), dim3(kThreads)}, filter_half<kFaulty>, x, y);
}

CNN_TRIAL(unset_values_faulty_half) { run_half<true>(trial); }
CNN_TRIAL(unset_values_clean_half) { run_half<false>(trial); }

// A maximum that begins with nothing.
template <bool kFaulty>
__global__ void pool(const float* x, float* y) {
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  float best;
  if (!kFaulty) best = -FLT_MAX;
  for (int s = 0; s < kTaps; ++s)
    if (x[i + s] > best) best = x[i + s];
  y[i] = best;  // fault: uninitialised value
}

template <bool kFaulty>
void run_maximum(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kCount + kTaps - 1});
  float* y = trial.output<float>("y", {kCount});
  cnn::launch("pool", {dim3(kBlocks), dim3(kThreads)}, pool<kFaulty>, x, y);
}

CNN_TRIAL(unset_values_faulty_maximum) { run_maximum<true>(trial); }
CNN_TRIAL(unset_values_clean_maximum) { run_maximum<false>(trial); }

// A count, stored as the share that it is.
template <bool kFaulty>
__global__ void share_above(const float* x, float* y, float limit) {
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  int count;
  if (!kFaulty) count = 0;
  for (int s = 0; s < kTaps; ++s) count += x[i + s] > limit;
  y[i] = float(count) / kTaps;  // fault: uninitialised value
}

template <bool kFaulty>
void run_count(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kCount + kTaps - 1});
  float* y = trial.output<float>("y", {kCount});
  cnn::launch("share_above", {dim3(kBlocks), dim3(kThreads)}, share_above<kFaulty>, x, y, 10.0f);
}

CNN_TRIAL(unset_values_faulty_count) { run_count<true>(trial); }
CNN_TRIAL(unset_values_clean_count) { run_count<false>(trial); }

// A sum that goes through the lanes of a warp, then by an atomic into the output.
__global__ void clear(float* total) { *total = 0.0f; }

template <bool kFaulty>
__global__ void add_up(const float* x, float* total) {
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  float sum;
  if (!kFaulty) sum = 0.0f;
  for (int s = 0; s < kTaps; ++s) sum += x[s * kCount + i];
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (i % 32 == 0) atomicAdd(total, sum);  // fault: uninitialised value
}

template <bool kFaulty>
void run_total(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kTaps, kCount});
  float* total = trial.output<float>("total", {1});
  cnn::launch("clear", {dim3(1), dim3(1)}, clear, total);
  cnn::launch("add_up", {dim3(kBlocks), dim3(kThreads)}, add_up<kFaulty>, x, total);
}

CNN_TRIAL(unset_values_faulty_total) { run_total<true>(trial); }
CNN_TRIAL(unset_values_clean_total) { run_total<false>(trial); }

// The first element of a window that moves along the row. Of the array behind it no more than n elements are set, and used.
template <bool kFaulty>
__global__ void smooth(const float* x, float* y, int n) {
  constexpr int kMost = 16;
  const int row = int(threadIdx.x);
  float window[3], values[kMost];
  if (!kFaulty) window[0] = 0.0f;
  window[1] = x[row * n];
  for (int i = 0; i < n; ++i) values[i] = x[row * n + i];
  for (int i = 0; i < n; ++i) {
    window[2] = i + 1 < n ? values[i + 1] : 0.0f;
    y[row * n + i] = 0.25f * window[0] + 0.5f * window[1] + 0.25f * window[2];  // fault: uninitialised value
    window[0] = window[1];
    window[1] = window[2];
  }
}

template <bool kFaulty>
void run_window(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kThreads, 12});
  float* y = trial.output<float>("y", {kThreads, 12});
  cnn::launch("smooth", {dim3(1), dim3(kThreads)}, smooth<kFaulty>, x, y, 12);
}

CNN_TRIAL(unset_values_faulty_window) { run_window<true>(trial); }
CNN_TRIAL(unset_values_clean_window) { run_window<false>(trial); }

// A masked softmax: huge and tiny numbers go through memory.
__global__ void softmax(const float* x, float* logits, float* largest, float* y, int n) {
  const int t = int(threadIdx.x);
  logits[t] = t < n ? x[t] : -1e30f;
  if (t == 0) *largest = -FLT_MAX;
  __syncthreads();
  if (t == 0)
    for (int j = 0; j < kThreads; ++j) *largest = fmaxf(*largest, logits[j]);
  __syncthreads();
  float sum = 0.0f;
  for (int j = 0; j < kThreads; ++j) sum += expf(logits[j] - *largest);
  y[t] = expf(logits[t] - *largest) / sum + expf(x[t]);
}

CNN_TRIAL(unset_values_clean_softmax) {
  const float* x = trial.input<float>("x", {kThreads});
  float* logits = trial.output<float>("logits", {kThreads});
  float* largest = trial.workspace<float>("largest", {1});
  float* y = trial.output<float>("y", {kThreads});
  cnn::launch("softmax", {dim3(1), dim3(kThreads)}, softmax, x, logits, largest, y, 40);
}

// Random bits of a hash (for dropout): any number may come of it.
__global__ void random_bits(unsigned* bits) {
  const unsigned i = blockIdx.x * 256 + threadIdx.x;
  bits[i] = i * 2654435761u;
}

CNN_TRIAL(unset_values_clean_hash) {
  unsigned* bits = trial.output<unsigned>("bits", {256, 256});
  cnn::launch("random_bits", {dim3(256), dim3(256)}, random_bits, bits);
}
