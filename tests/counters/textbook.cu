// Access patterns whose sectors and bank conflicts every textbook gives. tests/test_counters.py works the numbers out.
#include "emulator/trial.h"

constexpr int kWarp = 32, kThreads = 128, kBlocks = 8, kCount = kThreads * kBlocks, kTile = 32;

__device__ __forceinline__ int index() { return int(blockIdx.x * blockDim.x + threadIdx.x); }

// --- Global memory.

template <class T>
__global__ void copy(const T* x, T* y) {
  y[index()] = x[index()];
}

template <class T>
__global__ void copy_strided(const T* x, T* y, int stride) {
  y[index()] = x[index() * stride];
}

template <class T>
__global__ void store_strided(const T* x, T* y, int stride) {
  y[index() * stride] = x[index()];
}

template <class T>
__global__ void copy_offset(const T* x, T* y, int offset) {
  y[index()] = x[index() + offset];
}

__global__ void copy_broadcast(const float* x, float* y) { y[index()] = x[blockIdx.x]; }

// Lane after lane goes down a column.
__global__ void copy_column(const float* x, float* y, int pitch) { y[index()] = x[int(threadIdx.x) * pitch + int(blockIdx.x)]; }

template <class T>
void launch_copy(cnn::emulator::Trial& trial, const char* name, void (*kernel)(const T*, T*)) {
  const T* x = trial.input<T>("x", {kCount});
  T* y = trial.output<T>("y", {kCount});
  cnn::launch(name, {dim3(kBlocks), dim3(kThreads)}, kernel, x, y);
}

// As vectors V of scalars T.
template <class V, class T>
void launch_vector_copy(cnn::emulator::Trial& trial, const char* name) {
  constexpr int kScalars = kCount * int(sizeof(V) / sizeof(T));
  const auto* x = reinterpret_cast<const V*>(trial.input<T>("x", {kScalars}));
  auto* y = reinterpret_cast<V*>(trial.output<T>("y", {kScalars}));
  cnn::launch(name, {dim3(kBlocks), dim3(kThreads)}, copy<V>, x, y);
}

CNN_TRIAL(copy_float4) { launch_vector_copy<float4, float>(trial, "copy_float4"); }
CNN_TRIAL(copy_float2) { launch_vector_copy<float2, float>(trial, "copy_float2"); }
CNN_TRIAL(copy_float) { launch_copy<float>(trial, "copy_float", copy<float>); }
CNN_TRIAL(copy_half) { launch_copy<__half>(trial, "copy_half", copy<__half>); }
CNN_TRIAL(copy_half2) { launch_vector_copy<__half2, __half>(trial, "copy_half2"); }
CNN_TRIAL(copy_broadcast) { launch_copy<float>(trial, "copy_broadcast", copy_broadcast); }

CNN_TRIAL(copy_float4_stride2) {
  const auto* x = reinterpret_cast<const float4*>(trial.input<float>("x", {2 * 4 * kCount}));
  auto* y = reinterpret_cast<float4*>(trial.output<float>("y", {4 * kCount}));
  cnn::launch("copy_float4_stride2", {dim3(kBlocks), dim3(kThreads)}, copy_strided<float4>, x, y, 2);
}

CNN_TRIAL(copy_float_stride2) {
  const float* x = trial.input<float>("x", {2 * kCount});
  float* y = trial.output<float>("y", {kCount});
  cnn::launch("copy_float_stride2", {dim3(kBlocks), dim3(kThreads)}, copy_strided<float>, x, y, 2);
}

CNN_TRIAL(store_float_stride2) {
  const float* x = trial.input<float>("x", {kCount});
  float* y = trial.workspace<float>("y", {2 * kCount});
  cnn::launch("store_float_stride2", {dim3(kBlocks), dim3(kThreads)}, store_strided<float>, x, y, 2);
}

CNN_TRIAL(copy_float_offset1) {
  const float* x = trial.input<float>("x", {kCount + 1});
  float* y = trial.output<float>("y", {kCount});
  cnn::launch("copy_float_offset1", {dim3(kBlocks), dim3(kThreads)}, copy_offset<float>, x, y, 1);
}

CNN_TRIAL(copy_float4_offset1) {
  const auto* x = reinterpret_cast<const float4*>(trial.input<float>("x", {4 * (kCount + 1)}));
  auto* y = reinterpret_cast<float4*>(trial.output<float>("y", {4 * kCount}));
  cnn::launch("copy_float4_offset1", {dim3(kBlocks), dim3(kThreads)}, copy_offset<float4>, x, y, 1);
}

CNN_TRIAL(copy_column) {
  const float* x = trial.input<float>("x", {kThreads, 16});
  float* y = trial.output<float>("y", {kCount});
  cnn::launch("copy_column", {dim3(kBlocks), dim3(kThreads)}, copy_column, x, y, 16);
}

// A vector made of braces is stored as one.
__global__ void spread(const float* x, float* y) {
  const float value = x[index()];
  reinterpret_cast<float4*>(y)[index()] = {value, 2.0f * value, 3.0f * value, 4.0f * value};
}

CNN_TRIAL(spread_float4) {
  const float* x = trial.input<float>("x", {kCount});
  float* y = trial.output<float>("y", {4 * kCount});
  cnn::launch("spread_float4", {dim3(kBlocks), dim3(kThreads)}, spread, x, y);
}

// Tiles with a halo: blocks read their neighbours' columns again.
__global__ void sum_three(const float* x, float* y) { y[index()] = x[index()] + x[index() + 1] + x[index() + 2]; }

CNN_TRIAL(sum_three) {
  const float* x = trial.input<float>("x", {kCount + 2});
  float* y = trial.output<float>("y", {kCount});
  cnn::launch("sum_three", {dim3(kBlocks), dim3(kThreads)}, sum_three, x, y);
}

// A row of 20 in a warp of 32.
__global__ void copy_predicated(const float* x, float* y, int width) {
  const int column = int(threadIdx.x);
  y[column] = column < width ? x[column] : 0.0f;
}

CNN_TRIAL(copy_predicated) {
  const float* x = trial.input<float>("x", {20});
  float* y = trial.output<float>("y", {kWarp});
  cnn::launch("copy_predicated", {dim3(1), dim3(kWarp)}, copy_predicated, x, y, 20);
}

// A block of 20 x 3 threads has two warps: 32 and 28 lanes.
__global__ void copy_odd_block(const float* x, float* y) {
  const int i = int(threadIdx.y * blockDim.x + threadIdx.x);
  y[i] = x[i];
}

CNN_TRIAL(copy_odd_block) {
  const float* x = trial.input<float>("x", {3, 20});
  float* y = trial.output<float>("y", {3, 20});
  cnn::launch("copy_odd_block", {dim3(1), dim3(20, 3)}, copy_odd_block, x, y);
}

__global__ void clear(int* bins) { bins[threadIdx.x] = 0; }

// Each warp's lanes add to four bins.
__global__ void count(int* bins) { atomicAdd(&bins[threadIdx.x % 4], 1); }

CNN_TRIAL(count_atomically) {
  int* bins = trial.output<int>("bins", {4});
  cnn::launch("clear", {dim3(1), dim3(4)}, clear, bins);
  cnn::launch("count_atomically", {dim3(kBlocks), dim3(kThreads)}, count, bins);
}

// --- Shared memory.

template <int kPitch>
__global__ void transpose(const float* x, float* y) {
  CNN_SHARED(tile, float[kTile][kPitch]);
  const int column = int(threadIdx.x), first = int(threadIdx.y);
  for (int row = first; row < kTile; row += 8) tile[row][column] = x[row * kTile + column];
  __syncthreads();
  for (int row = first; row < kTile; row += 8) y[row * kTile + column] = tile[column][row];
}

template <int kPitch>
void launch_transpose(cnn::emulator::Trial& trial, const char* name) {
  const float* x = trial.input<float>("x", {kTile, kTile});
  float* y = trial.output<float>("y", {kTile, kTile});
  cnn::launch(name, {dim3(1), dim3(kTile, 8)}, transpose<kPitch>, x, y);
}

CNN_TRIAL(transpose) { launch_transpose<kTile>(trial, "transpose"); }
CNN_TRIAL(transpose_padded) { launch_transpose<kTile + 1>(trial, "transpose_padded"); }

// One warp; each lane its own element of type T, `stride` elements from the next lane's.
template <class T, int kStride>
__global__ void through_shared(const T* x, T* y) {
  CNN_SHARED(row, T[kWarp * kStride]);
  const int lane = int(threadIdx.x);
  row[lane * kStride] = x[lane];
  __syncwarp();
  y[lane] = row[lane * kStride];
}

template <class T, class Scalar, int kStride>
void launch_shared(cnn::emulator::Trial& trial, const char* name) {
  constexpr int kScalars = kWarp * int(sizeof(T) / sizeof(Scalar));
  const auto* x = reinterpret_cast<const T*>(trial.input<Scalar>("x", {kScalars}));
  auto* y = reinterpret_cast<T*>(trial.output<Scalar>("y", {kScalars}));
  cnn::launch(name, {dim3(1), dim3(kWarp)}, through_shared<T, kStride>, x, y);
}

CNN_TRIAL(shared_half) { launch_shared<__half, __half, 1>(trial, "shared_half"); }
CNN_TRIAL(shared_float) { launch_shared<float, float, 1>(trial, "shared_float"); }
CNN_TRIAL(shared_float_stride2) { launch_shared<float, float, 2>(trial, "shared_float_stride2"); }
CNN_TRIAL(shared_float_stride3) { launch_shared<float, float, 3>(trial, "shared_float_stride3"); }
CNN_TRIAL(shared_float_stride8) { launch_shared<float, float, 8>(trial, "shared_float_stride8"); }
CNN_TRIAL(shared_float2) { launch_shared<float2, float, 1>(trial, "shared_float2"); }
CNN_TRIAL(shared_float2_stride2) { launch_shared<float2, float, 2>(trial, "shared_float2_stride2"); }
CNN_TRIAL(shared_float4) { launch_shared<float4, float, 1>(trial, "shared_float4"); }
CNN_TRIAL(shared_float4_stride2) { launch_shared<float4, float, 2>(trial, "shared_float4_stride2"); }

// All lanes read one word; lanes of the two halves read the same words.
__global__ void read_shared_again(const float* x, float* y) {
  CNN_SHARED(row, float[kWarp]);
  const int lane = int(threadIdx.x);
  row[lane] = x[lane];
  __syncwarp();
  const float first = row[0];
  y[lane] = first + row[lane % 16];
}

CNN_TRIAL(read_shared_again) {
  const float* x = trial.input<float>("x", {kWarp});
  float* y = trial.output<float>("y", {kWarp});
  cnn::launch("read_shared_again", {dim3(1), dim3(kWarp)}, read_shared_again, x, y);
}

// --- Asynchronous copies, 16 bytes a lane.

__global__ void copy_asynchronously(const float* x, float* y) {
  CNN_SHARED(row, float4[kWarp]);
  const int lane = int(threadIdx.x);
  cnn::copy_async<16>(&row[lane], x + 4 * lane);
  cnn::commit_async();
  cnn::wait_async<0>();
  reinterpret_cast<float4*>(y)[lane] = row[lane];
}

CNN_TRIAL(copy_asynchronously) {
  const float* x = trial.input<float>("x", {4 * kWarp});
  float* y = trial.output<float>("y", {4 * kWarp});
  cnn::launch("copy_asynchronously", {dim3(1), dim3(kWarp)}, copy_asynchronously, x, y);
}

// --- Control flow.

// Lane l goes round l % 4 + 1 times.
__global__ void loop_divergent(const float* x, float* y) {
  const int lane = int(threadIdx.x);
  float sum = 0.0f;
  for (int j = 0; j < lane % 4 + 1; ++j) sum += x[j * kWarp + lane];
  y[lane] = sum;
}

CNN_TRIAL(loop_divergent) {
  const float* x = trial.input<float>("x", {4, kWarp});
  float* y = trial.output<float>("y", {kWarp});
  cnn::launch("loop_divergent", {dim3(1), dim3(kWarp)}, loop_divergent, x, y);
}

// A padded 3 x 3 window in an image of one warp's width: the lanes at the border leave out taps.
__global__ void loop_with_continue(const float* x, float* y, int height, int taps) {
  const int column = int(threadIdx.x), row = int(blockIdx.x);
  float sum = 0.0f;
  for (int r = 0; r < taps; ++r) {
    const int h = row + r - 1;
    if (h < 0 || h >= height) continue;
    for (int s = 0; s < taps; ++s) {
      const int w = column + s - 1;
      if (w < 0 || w >= kWarp) continue;
      sum += x[h * kWarp + w];
    }
  }
  y[row * kWarp + column] = sum;
}

CNN_TRIAL(loop_with_continue) {
  const float* x = trial.input<float>("x", {4, kWarp});
  float* y = trial.output<float>("y", {4, kWarp});
  cnn::launch("loop_with_continue", {dim3(4), dim3(kWarp)}, loop_with_continue, x, y, 4, 3);
}

// Lanes leave the loop by `break`, and search on together.
__global__ void loop_with_break(const float* x, float* y, int n) {
  const int lane = int(threadIdx.x);
  int found = n;
  for (int j = 0; j < n; ++j) {
    if (x[j * kWarp + lane] > float((n - 1) * kWarp - lane % 2 * kWarp)) {
      found = j;
      break;
    }
  }
  y[lane] = float(found);
}

CNN_TRIAL(loop_with_break) {
  const float* x = trial.input<float>("x", {8, kWarp});
  float* y = trial.output<float>("y", {kWarp});
  cnn::launch("loop_with_break", {dim3(1), dim3(kWarp)}, loop_with_break, x, y, 8);
}

// Both sides of a branch load.
__global__ void branch(const float* x, float* y) {
  const int lane = int(threadIdx.x);
  float value;
  if (lane % 2 == 0) {
    value = 2.0f * x[lane / 2];
  } else {
    value = x[kWarp - 1 - lane / 2] - 1.0f;
  }
  y[lane] = value;
}

CNN_TRIAL(branch) {
  const float* x = trial.input<float>("x", {kWarp});
  float* y = trial.output<float>("y", {kWarp});
  cnn::launch("branch", {dim3(1), dim3(kWarp)}, branch, x, y);
}

// --- What is neither: arithmetic, barriers, exchanges.

__global__ void multiply_add(const float* x, float* y, int rounds) {
  float sum = x[index()];
  for (int j = 0; j < rounds; ++j) {
    sum = __fmaf_rn(sum, 0.5f, 1.0f);  // body
  }
  y[index()] = sum;
}

CNN_TRIAL(multiply_add) {
  const float* x = trial.input<float>("x", {kCount});
  float* y = trial.output<float>("y", {kCount});
  cnn::launch("multiply_add", {dim3(kBlocks), dim3(kThreads)}, multiply_add, x, y, 100);
}

__global__ void meet(const float* x, float* y) {
  CNN_SHARED(first, float);
  CNN_DYNAMIC_SHARED(scratch, float);
  const int lane = int(threadIdx.x) % kWarp;
  float sum = x[index()];
  for (int offset = kWarp / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  scratch[threadIdx.x] = sum;
  __syncwarp();
  sum += scratch[int(threadIdx.x) ^ 1];
  if (threadIdx.x == 0) first = sum;
  __syncthreads();
  const float shift = first;
  __syncthreads();
  y[index()] = sum - shift + float(lane);
}

CNN_TRIAL(meet) {
  const float* x = trial.input<float>("x", {kCount});
  float* y = trial.output<float>("y", {kCount});
  cnn::launch("meet", {dim3(kBlocks), dim3(kThreads), kThreads * sizeof(float)}, meet, x, y);
}
