// Launches that no GPU accepts.
#include "emulator/trial.h"

// fault: launch
__global__ void copy(const float* x, float* y) {
  const int i = int(threadIdx.y * blockDim.x + threadIdx.x);
  y[i] = x[i];
}

void run(cnn::emulator::Trial& trial, int rows) {
  const float* x = trial.input<float>("x", {rows, 32});
  float* y = trial.workspace<float>("y", {rows, 32});
  cnn::launch("copy", {dim3(1), dim3(32, rows)}, copy, x, y);
}

CNN_TRIAL(launch_limits_faulty) { run(trial, 33); }
CNN_TRIAL(launch_limits_clean) { run(trial, 32); }
