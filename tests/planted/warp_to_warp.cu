// Partial sums of warps, added up by the first thread of the block.
#include "emulator/trial.h"

constexpr int kWarp = 32, kWarps = 4;

enum class Meeting { kNone, kWarp, kBlock };

template <Meeting kMeeting>
__global__ void sum_block(const float* x, float* y) {
  CNN_SHARED(partial, float[kWarps]);
  const int t = int(threadIdx.x);
  float sum = x[int(blockIdx.x) * kWarp * kWarps + t];
  for (int offset = kWarp / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (t % kWarp == 0) partial[t / kWarp] = sum;  // other
  if (kMeeting == Meeting::kWarp) __syncwarp();
  if (kMeeting == Meeting::kBlock) __syncthreads();
  if (t == 0) {
    float total = 0.0f;
    for (int i = 0; i < kWarps; ++i) total += partial[i];  // fault: race
    y[blockIdx.x] = total;
  }
}

template <Meeting kMeeting>
void run(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {3, kWarp * kWarps});
  float* y = trial.output<float>("y", {3});
  cnn::launch("sum_block", {dim3(3), dim3(kWarp * kWarps)}, sum_block<kMeeting>, x, y);
}

CNN_TRIAL(warp_to_warp_faulty) { run<Meeting::kNone>(trial); }
CNN_TRIAL(warp_to_warp_faulty_syncwarp) { run<Meeting::kWarp>(trial); }
CNN_TRIAL(warp_to_warp_clean) { run<Meeting::kBlock>(trial); }
