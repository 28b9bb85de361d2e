// Activation in place, on a tensor that the caller still needs.
#include "emulator/trial.h"

template <bool kFaulty>
__global__ void relu_then_copy(float* x, float* y) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  const float value = max(x[i] - 10.0f, 0.0f);
  if (kFaulty) x[i] = value;  // fault: write to input
  y[i] = value;
}

template <bool kFaulty>
void run(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {256});
  float* y = trial.output<float>("y", {256});
  cnn::launch("relu_then_copy", {dim3(4), dim3(64)}, relu_then_copy<kFaulty>, const_cast<float*>(x), y);
}

CNN_TRIAL(write_to_input_faulty) { run<true>(trial); }
CNN_TRIAL(write_to_input_clean) { run<false>(trial); }
