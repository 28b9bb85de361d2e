// Indices that leave their range at the lower end, or by overflowing.
#include "emulator/trial.h"

constexpr int kThreads = 128;

// Padding on the left is forgotten: the column is held against the width alone.
template <bool kFaulty>
__global__ void filter_padded(const float* x, const float* w, float* y, int width) {
  const int p = int(threadIdx.x);
  float sum = 0.0f;
  for (int s = 0; s < 3; ++s) {
    const int column = p + s - 1;
    if (column >= width || (!kFaulty && column < 0)) continue;
    sum += w[s] * x[column];  // fault: out of bounds
  }
  y[p] = sum;
}

template <bool kFaulty>
void run_negative(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kThreads});
  const float* w = trial.input<float>("w", {3});
  float* y = trial.output<float>("y", {kThreads});
  cnn::launch("filter_padded", {dim3(1), dim3(kThreads)}, filter_padded<kFaulty>, x, w, y, kThreads);
}

CNN_TRIAL(index_range_faulty_negative) { run_negative<true>(trial); }
CNN_TRIAL(index_range_clean_negative) { run_negative<false>(trial); }

// Nearest neighbours: position * from passes 2^31.
template <class Index>
__global__ void shrink(const float* x, float* y, int from, int to) {
  const int i = int(blockIdx.x) * kThreads + int(threadIdx.x);
  if (i < to) y[i] = x[Index(i) * from / to];  // fault: out of bounds
}

template <class Index>
void run_overflow(cnn::emulator::Trial& trial) {
  constexpr int kFrom = 1 << 20, kTo = 2500;
  const float* x = trial.input<float>("x", {kFrom});
  float* y = trial.output<float>("y", {kTo});
  cnn::launch("shrink", {dim3(20), dim3(kThreads)}, shrink<Index>, x, y, kFrom, kTo);
}

CNN_TRIAL(index_range_faulty_overflow) { run_overflow<int>(trial); }
CNN_TRIAL(index_range_clean_overflow) { run_overflow<long long>(trial); }

// The difference of two unsigned numbers is never negative.
template <class Index>
__global__ void difference(const float* x, float* y, unsigned distance) {
  const int i = int(threadIdx.x);
  const Index before = Index(threadIdx.x) - Index(distance);
  y[i] = x[i] - (before >= 0 ? x[before] : 0.0f);  // fault: out of bounds
}

template <class Index>
void run_unsigned(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kThreads});
  float* y = trial.output<float>("y", {kThreads});
  cnn::launch("difference", {dim3(1), dim3(kThreads)}, difference<Index>, x, y, 4u);
}

CNN_TRIAL(index_range_faulty_unsigned) { run_unsigned<unsigned>(trial); }
CNN_TRIAL(index_range_clean_unsigned) { run_unsigned<int>(trial); }

// A bin beyond the histogram, by an atomic.
template <bool kFaulty>
__global__ void histogram(const float* x, int* bins, int n) {
  CNN_SHARED(counts, int[16]);
  const int t = int(threadIdx.x);
  if (t < 16) counts[t] = 0;
  __syncthreads();
  const int bin = int(x[t]) / 8;
  atomicAdd(&counts[kFaulty ? bin : min(bin, n - 1)], 1);  // fault: out of bounds
  __syncthreads();
  if (t < 16) bins[t] = counts[t];
}

template <bool kFaulty>
void run_bin(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kThreads});
  int* bins = trial.output<int>("bins", {16});
  cnn::launch("histogram", {dim3(1), dim3(kThreads)}, histogram<kFaulty>, x, bins, 16);
}

CNN_TRIAL(index_range_faulty_bin) { run_bin<true>(trial); }
CNN_TRIAL(index_range_clean_bin) { run_bin<false>(trial); }

// Both sides of a branch read alike, and one of them too far: the line is that side's.
template <bool kFaulty>
__global__ void difference_by_parity(const float* x, float* y) {
  const int i = int(threadIdx.x);
  const int next = i + (kFaulty || i + 1 < kThreads);
  if (i % 2 == 0) {
    y[i] = x[next] - x[i];
  } else {
    y[i] = x[next] + x[i];  // fault: out of bounds
  }
}

template <bool kFaulty>
void run_parity(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kThreads});
  float* y = trial.output<float>("y", {kThreads});
  cnn::launch("difference_by_parity", {dim3(1), dim3(kThreads)}, difference_by_parity<kFaulty>, x, y);
}

CNN_TRIAL(index_range_faulty_parity) { run_parity<true>(trial); }
CNN_TRIAL(index_range_clean_parity) { run_parity<false>(trial); }
