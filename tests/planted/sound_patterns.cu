// Kernels that do nothing wrong, though a careless checker might think so.
#include "emulator/trial.h"

constexpr int kWarp = 32, kThreads = 128, kBlocks = 3;
constexpr unsigned kAll = 0xffffffffu;

// A grid-stride loop.
__global__ void grid_stride(const float* x, float* y, int n) {
  for (int i = int(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += int(gridDim.x * blockDim.x)) y[i] = 2.0f * x[i];
}

CNN_TRIAL(sound_patterns_clean_grid_stride) {
  const float* x = trial.input<float>("x", {1003});
  float* y = trial.output<float>("y", {1003});
  cnn::launch("grid_stride", {dim3(kBlocks), dim3(kThreads)}, grid_stride, x, y, 1003);
  for (int i = 0; i < 1003; ++i)
    if (y[i] != 2.0f * float(i + 1)) throw std::runtime_error("grid_stride: wrong result");
}

// A block's sum by shuffles within warps and one barrier between them, the second round by the first warp.
__global__ void sum_blocks(const float* x, float* y) {
  CNN_SHARED(partial, float[kThreads / kWarp]);
  const int t = int(threadIdx.x), lane = t % kWarp;
  float sum = x[int(blockIdx.x) * kThreads + t];
  for (int offset = kWarp / 2; offset > 0; offset /= 2) sum += __shfl_down_sync(kAll, sum, offset);
  if (lane == 0) partial[t / kWarp] = sum;
  __syncthreads();
  if (t >= kWarp) return;
  sum = lane < kThreads / kWarp ? partial[lane] : 0.0f;
  for (int offset = kWarp / 2; offset > 0; offset /= 2) sum += __shfl_down_sync(kAll, sum, offset);
  if (t == 0) y[blockIdx.x] = sum;
}

CNN_TRIAL(sound_patterns_clean_warp_reduction) {
  const float* x = trial.input<float>("x", {kBlocks, kThreads});
  float* y = trial.output<float>("y", {kBlocks});
  cnn::launch("sum_blocks", {dim3(kBlocks), dim3(kThreads)}, sum_blocks, x, y);
  for (int b = 0; b < kBlocks; ++b)
    if (y[b] != float(kThreads * b) * kThreads + kThreads * (kThreads + 1) / 2) throw std::runtime_error("sum_blocks: wrong result");
}

// Lanes of half a warp exchange through shared memory under masks of their own; lanes beyond the tail agree on one by a vote.
__global__ void masks(const float* x, float* y, int n) {
  CNN_SHARED(row, float[kThreads]);
  const int t = int(threadIdx.x), lane = t % kWarp;
  const unsigned tail = __ballot_sync(kAll, t < n);
  if (t >= n) return;
  float value = __shfl_sync(tail, x[t], 0);
  if (tail == kAll) {
    const unsigned half = lane < 16 ? 0xffffu : 0xffff0000u;
    for (int step = 0; step < 1 + lane / 16; ++step) {
      row[t] = value + float(lane);
      __syncwarp(half);
      value = row[t ^ 1];
      __syncwarp(half);
    }
  }
  y[t] = value;
}

CNN_TRIAL(sound_patterns_clean_masks) {
  const float* x = trial.input<float>("x", {kThreads - 12});
  float* y = trial.output<float>("y", {kThreads - 12});
  cnn::launch("masks", {dim3(1), dim3(kThreads)}, masks, x, y, kThreads - 12);
}

// Neighbouring bytes and halves: different memory, though the same word.
__global__ void narrow(const float* x, unsigned char* bytes, __half* halves) {
  CNN_SHARED(flags, unsigned char[kThreads]);
  const int t = int(threadIdx.x), i = int(blockIdx.x) * kThreads + t;
  flags[t] = x[i] > 100.0f;
  __syncthreads();
  bytes[i] = flags[t ^ 1];
  halves[i] = __float2half(x[i]);
}

CNN_TRIAL(sound_patterns_clean_narrow) {
  const float* x = trial.input<float>("x", {kBlocks * kThreads});
  unsigned char* bytes = trial.output<unsigned char>("bytes", {kBlocks * kThreads});
  __half* halves = trial.output<__half>("halves", {kBlocks * kThreads});
  cnn::launch("narrow", {dim3(kBlocks), dim3(kThreads)}, narrow, x, bytes, halves);
}

// Memory written as vectors and read as scalars, and the other way round; a structure copied as a whole.
struct Item {
  float value[5];
  int where;
};

__global__ void widths(const float* x, float* y) {
  CNN_SHARED(quads, float4[kThreads / 4]);
  CNN_SHARED(items, Item[kThreads]);
  const int t = int(threadIdx.x);
  if (t < kThreads / 4) quads[t] = reinterpret_cast<const float4*>(x)[t];
  __syncthreads();
  const float* const scalars = &quads[0].x;
  items[t] = {{scalars[t], scalars[t ^ 1], 0.0f, 0.0f, 1.0f}, t};
  __syncthreads();
  const Item item = items[kThreads - 1 - t];
  y[item.where] = item.value[0] + item.value[1] + item.value[4];
}

CNN_TRIAL(sound_patterns_clean_widths) {
  const float* x = trial.input<float>("x", {kThreads});
  float* y = trial.output<float>("y", {kThreads});
  cnn::launch("widths", {dim3(1), dim3(kThreads)}, widths, x, y);
}

// A barrier that counts; blocks that return as a whole before theirs; rounds that differ between blocks.
__global__ void uniform(const float* x, float* y) {
  CNN_SHARED(tile, float[kThreads]);
  const int t = int(threadIdx.x), block = int(blockIdx.x);
  if (block == kBlocks) return;
  float sum = 0.0f;
  for (int round = 0; round <= block; ++round) {
    tile[t] = x[round * kThreads + t];
    const int large = __syncthreads_count(tile[t] > 50.0f);
    sum += tile[kThreads - 1 - t] + float(large);
    if (__syncthreads_or(sum > 1e9f)) break;
  }
  y[block * kThreads + t] = sum;
}

CNN_TRIAL(sound_patterns_clean_uniform) {
  const float* x = trial.input<float>("x", {kBlocks, kThreads});
  float* y = trial.output<float>("y", {kBlocks, kThreads});
  cnn::launch("uniform", {dim3(kBlocks + 1), dim3(kThreads)}, uniform, x, y);
}

// Between launches everything is visible, also what other blocks wrote.
__global__ void scale(const float* x, float* row) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  row[i] = 0.5f * x[i];
}

__global__ void mirror(const float* row, float* y) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  y[i] = row[int(gridDim.x * blockDim.x) - 1 - i];
}

CNN_TRIAL(sound_patterns_clean_two_launches) {
  const float* x = trial.input<float>("x", {kBlocks * kThreads});
  float* row = trial.workspace<float>("row", {kBlocks * kThreads});
  float* y = trial.output<float>("y", {kBlocks * kThreads});
  const cnn::LaunchShape shape{dim3(kBlocks), dim3(kThreads)};
  cnn::launch("scale", shape, scale, x, row);
  cnn::launch("mirror", shape, mirror, row, y);
  cnn::launch("scale", shape, scale, x, row);  // what the second launch has read may be written again
}

// Padding that nobody writes and nobody reads, registers that are set in one branch and used in the same.
__global__ void padded(const float* x, float* y, int n) {
  CNN_SHARED(tile, float[kWarp][kWarp + 1]);
  const int column = int(threadIdx.x), first = int(threadIdx.y);
  for (int row = first; row < kWarp; row += 4) tile[row][column] = x[row * kWarp + column];
  __syncthreads();
  for (int row = first; row < kWarp; row += 4) {
    float weight;
    const bool inside = row + column < n;
    if (inside) weight = 0.25f;
    y[row * kWarp + column] = inside ? weight * tile[column][row] : 0.0f;
  }
}

CNN_TRIAL(sound_patterns_clean_padded) {
  const float* x = trial.input<float>("x", {kWarp, kWarp});
  float* y = trial.output<float>("y", {kWarp, kWarp});
  cnn::launch("padded", {dim3(1), dim3(kWarp, 4)}, padded, x, y, 40);
}

// Values that are NaN because the data are: 0 / 0 is no sign of memory that nobody set.
__global__ void normalise(const float* x, float* y) {
  const float centred = x[threadIdx.x] - x[threadIdx.x];
  y[threadIdx.x] = centred / centred;
}

CNN_TRIAL(sound_patterns_clean_nan) {
  const float* x = trial.input<float>("x", {kThreads});
  float* y = trial.output<float>("y", {kThreads});
  cnn::launch("normalise", {dim3(1), dim3(kThreads)}, normalise, x, y);
}

// Atomics alone: any order, any blocks, and every old value taken once.
__global__ void take_places(float* y, unsigned* next) { y[atomicAdd(next, 1u)] = 1.0f; }
__global__ void clear(unsigned* next) { *next = 0; }

CNN_TRIAL(sound_patterns_clean_places) {
  unsigned* next = trial.workspace<unsigned>("next", {1});
  float* y = trial.output<float>("y", {kBlocks * kThreads});
  cnn::launch("clear", {dim3(1), dim3(1)}, clear, next);
  cnn::launch("take_places", {dim3(kBlocks), dim3(kThreads)}, take_places, y, next);
}

// A pipeline of asynchronous copies, three stages deep, with one barrier per step.
__global__ void pipeline(const float* x, float* y, int steps) {
  CNN_SHARED(stages, float4[3][kWarp]);
  const int t = int(threadIdx.x);
  const auto fetch = [&](int step) {
    if (step < steps) cnn::copy_async<16>(&stages[step % 3][t], x + 4 * (step * kWarp + t));
    cnn::commit_async();
  };
  fetch(0);
  fetch(1);
  float sum = 0.0f;
  for (int step = 0; step < steps; ++step) {
    cnn::wait_async<1>();
    __syncthreads();  // the step's copies are everybody's, and the stage of the step before is free
    fetch(step + 2);
    const float4 v = stages[step % 3][kWarp - 1 - t];
    sum += v.x + v.y + v.z + v.w;
  }
  y[t] = sum;
}

CNN_TRIAL(sound_patterns_clean_pipeline) {
  const float* x = trial.input<float>("x", {7, 4 * kWarp});
  float* y = trial.output<float>("y", {kWarp});
  cnn::launch("pipeline", {dim3(1), dim3(kWarp)}, pipeline, x, y, 7);
}
