// Asynchronous copies: what must lie between the copy and the first read.
#include "emulator/trial.h"

constexpr int kThreads = 32, kTile = 4 * kThreads, kChannels = 6;

struct alignas(16) Row {
  float value[kTile];
};

// Nothing waits.
template <bool kFaulty>
__global__ void reverse_unwaited(const float* x, float* y) {
  CNN_SHARED(row, Row);
  const int t = int(threadIdx.x), first = int(blockIdx.x) * kTile;
  cnn::copy_async<16>(&row.value[4 * t], x + first + 4 * t);  // other
  cnn::commit_async();
  if (!kFaulty) cnn::wait_async<0>();
  __syncthreads();
  for (int i = t; i < kTile; i += kThreads) y[first + i] = row.value[kTile - 1 - i];  // fault: async copy
}

template <bool kFaulty>
void run_unwaited(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {2, kTile});
  float* y = trial.output<float>("y", {2, kTile});
  cnn::launch("reverse_unwaited", {dim3(2), dim3(kThreads)}, reverse_unwaited<kFaulty>, x, y);
}

CNN_TRIAL(async_copy_faulty_unwaited) { run_unwaited<true>(trial); }
CNN_TRIAL(async_copy_clean_unwaited) { run_unwaited<false>(trial); }

// Two stages. While a stage is read the next one's group may be in flight, but no more.
template <int kPending>
__global__ void sum_channels(const float* x, float* y) {
  CNN_SHARED(stages, Row[2]);
  const int t = int(threadIdx.x);
  const auto fetch = [&](int c) {
    if (c < kChannels) cnn::copy_async<16>(&stages[c % 2].value[4 * t], x + c * kTile + 4 * t);  // other
    cnn::commit_async();
  };
  float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
  fetch(0);
  for (int c = 0; c < kChannels; ++c) {
    fetch(c + 1);
    cnn::wait_async<kPending>();
    const float4 v = *reinterpret_cast<const float4*>(&stages[c % 2].value[4 * t]);  // fault: async copy
    sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
  }
  *reinterpret_cast<float4*>(y + 4 * t) = sum;
}

template <int kPending>
void run_groups(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kChannels, kTile});
  float* y = trial.output<float>("y", {kTile});
  cnn::launch("sum_channels", {dim3(1), dim3(kThreads)}, sum_channels<kPending>, x, y);
}

CNN_TRIAL(async_copy_faulty_groups) { run_groups<2>(trial); }
CNN_TRIAL(async_copy_clean_groups) { run_groups<1>(trial); }

// Each thread waits for its own copies, and reads its neighbour's.
template <bool kFaulty>
__global__ void reverse_unmet(const float* x, float* y) {
  CNN_SHARED(row, Row);
  const int t = int(threadIdx.x), first = int(blockIdx.x) * kTile;
  cnn::copy_async<16>(&row.value[4 * t], x + first + 4 * t);  // other
  cnn::commit_async();
  cnn::wait_async<0>();
  if (!kFaulty) __syncthreads();
  for (int i = t; i < kTile; i += kThreads) y[first + i] = row.value[kTile - 1 - i];  // fault: race
}

template <bool kFaulty>
void run_unmet(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {2, kTile});
  float* y = trial.output<float>("y", {2, kTile});
  cnn::launch("reverse_unmet", {dim3(2), dim3(kThreads)}, reverse_unmet<kFaulty>, x, y);
}

CNN_TRIAL(async_copy_faulty_unmet) { run_unmet<true>(trial); }
CNN_TRIAL(async_copy_clean_unmet) { run_unmet<false>(trial); }

// The copies for the next round are started into a row that others still read.
template <bool kFaulty>
__global__ void add_reversed(const float* x, float* y) {
  CNN_SHARED(row, Row);
  const int t = int(threadIdx.x);
  float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  for (int c = 0; c < kChannels; ++c) {
    cnn::copy_async<16>(&row.value[4 * t], x + c * kTile + 4 * t);  // fault: race
    cnn::commit_async();
    cnn::wait_async<0>();
    __syncthreads();
    for (int j = 0; j < 4; ++j) sum[j] += row.value[kTile - 1 - (j * kThreads + t)];  // other
    if (!kFaulty) __syncthreads();
  }
  for (int j = 0; j < 4; ++j) y[j * kThreads + t] = sum[j];
}

template <bool kFaulty>
void run_overtaken(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kChannels, kTile});
  float* y = trial.output<float>("y", {kTile});
  cnn::launch("add_reversed", {dim3(1), dim3(kThreads)}, add_reversed<kFaulty>, x, y);
}

CNN_TRIAL(async_copy_faulty_overtaken) { run_overtaken<true>(trial); }
CNN_TRIAL(async_copy_clean_overtaken) { run_overtaken<false>(trial); }

// 16 bytes at a time from a row that ends after 8 of the last 16.
template <bool kFaulty>
__global__ void copy_row(const float* x, float* y, int n) {
  CNN_SHARED(row, Row);
  const int t = int(threadIdx.x), left = min(4, n - 4 * t);
  cnn::copy_async<16>(&row.value[4 * t], x + 4 * t, kFaulty ? 16 : 4 * left);  // fault: out of bounds
  cnn::commit_async();
  cnn::wait_async<0>();
  for (int j = 0; j < left; ++j) y[4 * t + j] = row.value[4 * t + j];
}

template <bool kFaulty>
void run_tail(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kTile - 2});
  float* y = trial.output<float>("y", {kTile - 2});
  cnn::launch("copy_row", {dim3(1), dim3(kThreads)}, copy_row<kFaulty>, x, y, kTile - 2);
}

CNN_TRIAL(async_copy_faulty_tail) { run_tail<true>(trial); }
CNN_TRIAL(async_copy_clean_tail) { run_tail<false>(trial); }

// 16 bytes at a time from rows of 120 bytes.
template <int kPitch>
__global__ void copy_rows(const float* x, float* y) {
  CNN_SHARED(rows, Row);
  const int row = int(threadIdx.y), quad = int(threadIdx.x);
  cnn::copy_async<16>(&rows.value[row * 32 + 4 * quad], x + row * kPitch + 4 * quad);  // fault: misaligned access
  cnn::commit_async();
  cnn::wait_async<0>();
  for (int j = 0; j < 4; ++j) y[row * 28 + 4 * quad + j] = rows.value[row * 32 + 4 * quad + j];
}

template <int kPitch>
void run_misaligned(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {4, kPitch});
  float* y = trial.output<float>("y", {4, 28});
  cnn::launch("copy_rows", {dim3(1), dim3(7, 4)}, copy_rows<kPitch>, x, y);
}

CNN_TRIAL(async_copy_faulty_misaligned) { run_misaligned<30>(trial); }
CNN_TRIAL(async_copy_clean_misaligned) { run_misaligned<32>(trial); }
