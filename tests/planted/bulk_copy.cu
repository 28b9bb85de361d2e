// memset and memcpy of whole rows, which the compiler leaves to functions of the C library.
#include "emulator/trial.h"

constexpr int kRows = 32, kColumns = 64;

// Sums of columns over rows that were cleared, one row left out.
template <bool kFaulty>
__global__ void column_sums(float* y) {
  CNN_SHARED(tile, float[kRows][kColumns]);
  const int t = int(threadIdx.x);
  memset(tile[t], 0, (kFaulty && t == 7 ? kColumns - 1 : kColumns) * sizeof(float));
  __syncthreads();
  float sum = 0.0f;
  for (int row = 0; row < kRows; ++row) sum += tile[row][kRows + t];  // fault: uninitialised read
  y[t] = sum;
}

template <bool kFaulty>
void clear(cnn::emulator::Trial& trial) {
  cnn::launch("column_sums", {dim3(1), dim3(kRows)}, column_sums<kFaulty>, trial.output<float>("y", {kRows}));
}
CNN_TRIAL(bulk_copy_faulty_uncleared) { clear<true>(trial); }
CNN_TRIAL(bulk_copy_clean_uncleared) { clear<false>(trial); }

// Rows in the opposite order, each copied whole; of the last of them more than there is.
template <bool kFaulty>
__global__ void reverse_rows(const float* x, float* y, int bytes) {
  CNN_SHARED(tile, float[kRows][kColumns]);
  const int t = int(threadIdx.x);
  memcpy(tile[t], x + t * kColumns, kColumns * sizeof(float));
  __syncthreads();
  memcpy(y + t * kColumns, tile[kRows - 1 - t], (kFaulty && t == 0 ? 2 : 1) * bytes);  // fault: out of bounds
}

template <bool kFaulty>
void reverse(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kRows, kColumns});
  cnn::launch("reverse_rows", {dim3(1), dim3(kRows)}, reverse_rows<kFaulty>, x, trial.output<float>("y", {kRows, kColumns}),
              int(kColumns * sizeof(float)));
}
CNN_TRIAL(bulk_copy_faulty_overrun) { reverse<true>(trial); }
CNN_TRIAL(bulk_copy_clean_overrun) { reverse<false>(trial); }

// The same without the barrier.
template <bool kFaulty>
__global__ void swap_rows(const float* x, float* y) {
  CNN_SHARED(tile, float[kRows][kColumns]);
  const int t = int(threadIdx.x);
  memcpy(tile[t], x + t * kColumns, kColumns * sizeof(float));  // other
  if (!kFaulty) __syncthreads();
  memcpy(y + t * kColumns, tile[t ^ 1], kColumns * sizeof(float));  // fault: race
}

template <bool kFaulty>
void swap(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kRows, kColumns});
  cnn::launch("swap_rows", {dim3(1), dim3(kRows)}, swap_rows<kFaulty>, x, trial.output<float>("y", {kRows, kColumns}));
}
CNN_TRIAL(bulk_copy_faulty_unmet) { swap<true>(trial); }
CNN_TRIAL(bulk_copy_clean_unmet) { swap<false>(trial); }
