// Producer and consumer warps, one box between them. "full" tells that the box has been filled, "empty" that it has been read; who
// only has something to tell arrives without waiting.
#include "emulator/trial.h"

using cnn::emulator::barrier;
using cnn::emulator::barrier_arrive;

constexpr int kHalf = 64, kBlock = 2 * kHalf, kSteps = 4, kFull = 1, kEmpty = 2;

// The consumers do not wait until the box is full. A box and a barrier per step, so that none has to be emptied.
template <bool kFaulty>
__global__ void pass_on_unfilled(const float* x, float* y) {
  CNN_SHARED(boxes, float[kSteps][kHalf]);
  const int t = int(threadIdx.x) % kHalf;
  for (int step = 0; step < kSteps; ++step) {
    if (int(threadIdx.x) < kHalf) {
      boxes[step][t] = x[step * kHalf + t];  // other
      if (!kFaulty) barrier_arrive(kFull + step, kBlock);
    } else {
      if (!kFaulty) barrier(kFull + step, kBlock);
      y[step * kHalf + t] = boxes[step][kHalf - 1 - t];  // fault: race
    }
  }
}

template <bool kFaulty>
void run_unfilled(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kSteps, kHalf});
  float* y = trial.output<float>("y", {kSteps, kHalf});
  cnn::launch("pass_on_unfilled", {dim3(1), dim3(kBlock)}, pass_on_unfilled<kFaulty>, x, y);
}

CNN_TRIAL(named_barrier_faulty_unfilled) { run_unfilled<true>(trial); }
CNN_TRIAL(named_barrier_clean_unfilled) { run_unfilled<false>(trial); }

// The producers do not wait until the box is empty.
template <bool kFaulty>
__global__ void pass_on_unread(const float* x, float* y) {
  CNN_SHARED(box, float[kHalf]);
  const int t = int(threadIdx.x) % kHalf;
  for (int step = 0; step < kSteps; ++step) {
    if (int(threadIdx.x) < kHalf) {
      if (!kFaulty && step > 0) barrier(kEmpty, kBlock);
      box[t] = x[step * kHalf + t];  // fault: race
      barrier(kFull, kBlock);
    } else {
      barrier(kFull, kBlock);
      y[step * kHalf + t] = box[kHalf - 1 - t];  // other
      if (!kFaulty && step + 1 < kSteps) barrier_arrive(kEmpty, kBlock);
    }
  }
}

template <bool kFaulty>
void run_unread(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kSteps, kHalf});
  float* y = trial.output<float>("y", {kSteps, kHalf});
  cnn::launch("pass_on_unread", {dim3(1), dim3(kBlock)}, pass_on_unread<kFaulty>, x, y);
}

CNN_TRIAL(named_barrier_faulty_unread) { run_unread<true>(trial); }
CNN_TRIAL(named_barrier_clean_unread) { run_unread<false>(trial); }

// A barrier for half of the block, but the data is the other half's.
template <bool kFaulty>
__global__ void mirror_block(const float* x, float* y) {
  CNN_SHARED(row, float[kBlock]);
  const int t = int(threadIdx.x);
  row[t] = x[t];  // other
  if (kFaulty) barrier(1 + t / kHalf, kHalf);
  else barrier(1, kBlock);
  y[t] = row[kBlock - 1 - t];  // fault: race
}

template <bool kFaulty>
void run_halves(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kBlock});
  float* y = trial.output<float>("y", {kBlock});
  cnn::launch("mirror_block", {dim3(1), dim3(kBlock)}, mirror_block<kFaulty>, x, y);
}

CNN_TRIAL(named_barrier_faulty_halves) { run_halves<true>(trial); }
CNN_TRIAL(named_barrier_clean_halves) { run_halves<false>(trial); }
