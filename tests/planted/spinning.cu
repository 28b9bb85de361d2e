// Threads that ask again and again for a value that another thread of the block is to change.
#include "emulator/trial.h"

constexpr int kWarp = 32, kWarps = 4, kThreads = kWarp * kWarps;

// A warp hands a row to the next one and raises a flag.
template <bool kFaulty>
__global__ void pass_on(const float* x, float* y) {
  CNN_SHARED(row, float[kWarp]);
  CNN_SHARED(full, int);
  const int t = int(threadIdx.x), lane = t % kWarp;
  if (t == 0) full = 0;
  __syncthreads();
  if (t < kWarp) {
    row[lane] = x[lane];
    __syncwarp();
    __threadfence_block();
    if (!kFaulty && lane == 0) atomicExch(&full, 1);
  } else {
    while (atomicAdd(&full, 0) == 0) continue;  // fault: other
    __threadfence_block();
    y[lane] = row[kWarp - 1 - lane];
  }
}

template <bool kFaulty>
void run_flag(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kWarp});
  float* y = trial.output<float>("y", {kWarp});
  cnn::launch("pass_on", {dim3(1), dim3(2 * kWarp)}, pass_on<kFaulty>, x, y);
}

CNN_TRIAL(spinning_faulty_flag) { run_flag<true>(trial); }
CNN_TRIAL(spinning_clean_flag) { run_flag<false>(trial); }

// A barrier of one's own: a warp that has nothing to do must arrive at it, too.
template <bool kFaulty>
__global__ void sum_warps(const float* x, float* y, int n) {
  CNN_SHARED(partial, float[kWarps]);
  CNN_SHARED(arrived, int);
  const int t = int(threadIdx.x), lane = t % kWarp;
  if (t < kWarps) partial[t] = 0.0f;
  if (t == 0) arrived = 0;
  __syncthreads();
  if (kFaulty && t - lane >= n) return;
  float sum = t < n ? x[t] : 0.0f;
  for (int offset = kWarp / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (lane != 0) return;
  partial[t / kWarp] = sum;
  __threadfence_block();
  atomicAdd(&arrived, 1);
  while (atomicAdd(&arrived, 0) < kWarps) continue;  // fault: other
  __threadfence_block();
  sum = 0.0f;
  for (int w = 0; w < kWarps; ++w) sum += partial[w];
  y[t / kWarp] = sum;
}

template <bool kFaulty>
void run_barrier(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {90});
  float* y = trial.output<float>("y", {kWarps});
  cnn::launch("sum_warps", {dim3(1), dim3(kThreads)}, sum_warps<kFaulty>, x, y, 90);
}

CNN_TRIAL(spinning_faulty_barrier) { run_barrier<true>(trial); }
CNN_TRIAL(spinning_clean_barrier) { run_barrier<false>(trial); }
