// A slice of a wider tensor: its rows lie apart, and what lies between them belongs to somebody else.
#include "emulator/trial.h"

constexpr int kRows = 8, kColumns = 24, kPitch = 32;

template <bool kFaulty>
__global__ void sum_rows(const float* x, float* y) {
  const float* row = x + int(threadIdx.x) * kPitch;
  float sum = 0.0f;
  for (int i = 0; i < (kFaulty ? kPitch : kColumns); ++i) sum += row[i];  // fault: out of bounds
  y[threadIdx.x] = sum;
}

template <bool kFaulty>
void run_reading(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kRows, kColumns}, {kPitch, 1});
  float* y = trial.output<float>("y", {kRows});
  cnn::launch("sum_rows", {dim3(1), dim3(kRows)}, sum_rows<kFaulty>, x, y);
}

CNN_TRIAL(sliced_tensor_faulty_reading) { run_reading<true>(trial); }
CNN_TRIAL(sliced_tensor_clean_reading) { run_reading<false>(trial); }

// Every other column: a vector read takes the columns between along.
template <bool kFaulty>
__global__ void copy_columns(const float* x, float* y) {
  const int i = int(threadIdx.x);
  if (kFaulty) {
    const float2 pair = *reinterpret_cast<const float2*>(x + 2 * i);  // fault: out of bounds
    y[i] = pair.x;
  } else {
    y[i] = x[2 * i];
  }
}

template <bool kFaulty>
void run_columns(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kColumns}, {2});
  float* y = trial.output<float>("y", {kColumns});
  cnn::launch("copy_columns", {dim3(1), dim3(kColumns)}, copy_columns<kFaulty>, x, y);
}

CNN_TRIAL(sliced_tensor_faulty_columns) { run_columns<true>(trial); }
CNN_TRIAL(sliced_tensor_clean_columns) { run_columns<false>(trial); }

// A write to a slice, of whole rows of the tensor behind it.
template <bool kFaulty>
__global__ void fill_rows(float* y, float value) {
  const int column = int(threadIdx.x), row = int(blockIdx.x);
  if (kFaulty || column < kColumns) y[row * kPitch + column] = value;  // fault: out of bounds
}

template <bool kFaulty>
void run_writing(cnn::emulator::Trial& trial) {
  float* y = trial.output<float>("y", {kRows, kColumns}, {kPitch, 1});
  cnn::launch("fill_rows", {dim3(kRows), dim3(kPitch)}, fill_rows<kFaulty>, y, 0.5f);
}

CNN_TRIAL(sliced_tensor_faulty_writing) { run_writing<true>(trial); }
CNN_TRIAL(sliced_tensor_clean_writing) { run_writing<false>(trial); }
