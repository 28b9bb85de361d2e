// A tile is read four elements at a time, but the row ends in the middle of the last four, and nobody cleared the rest.
#include "emulator/trial.h"

constexpr int kRow = 30, kQuads = 8, kThreads = 32;

struct alignas(16) Row {
  float value[4 * kQuads];
};

template <bool kFaulty>
__global__ void sum_quads(const float* x, float* y) {
  CNN_SHARED(row, Row);
  const int t = int(threadIdx.x);
  if (t < kRow) row.value[t] = x[int(blockIdx.x) * kRow + t];
  if (!kFaulty && t >= kRow) row.value[t] = 0.0f;
  __syncthreads();
  if (t >= kQuads) return;
  const float4 v = *reinterpret_cast<const float4*>(&row.value[4 * t]);  // fault: uninitialised read
  y[int(blockIdx.x) * kQuads + t] = v.x + v.y + v.z + v.w;               // other
}

template <bool kFaulty>
void run(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {3, kRow});
  float* y = trial.output<float>("y", {3, kQuads});
  cnn::launch("sum_quads", {dim3(3), dim3(kThreads)}, sum_quads<kFaulty>, x, y);
}

CNN_TRIAL(tile_tail_faulty) { run<true>(trial); }
CNN_TRIAL(tile_tail_clean) { run<false>(trial); }
