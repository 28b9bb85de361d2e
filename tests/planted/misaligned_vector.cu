// Vector accesses to rows whose pitch is no multiple of the vector.
#include "emulator/trial.h"

constexpr int kRows = 8, kQuads = 7;

// 30 floats are 120 bytes: every other row begins in the middle of a float4.
template <int kPitch>
__global__ void copy_rows(const float* x, float* y) {
  const int row = int(threadIdx.y), quad = int(threadIdx.x);
  const float4 v = __ldg(reinterpret_cast<const float4*>(x + row * kPitch + 4 * quad));  // fault: misaligned access
  *reinterpret_cast<float4*>(y + 4 * (row * kQuads + quad)) = v;
}

template <int kPitch>
void copy_global(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kRows, kPitch});
  float* y = trial.output<float>("y", {kRows, 4 * kQuads});
  cnn::launch("copy_rows", {dim3(1), dim3(kQuads, kRows)}, copy_rows<kPitch>, x, y);
}

CNN_TRIAL(misaligned_vector_faulty_global) { copy_global<30>(trial); }
CNN_TRIAL(misaligned_vector_clean_global) { copy_global<32>(trial); }

// A tile padded by one column against bank conflicts, then read as float4.
template <int kPitch>
struct alignas(16) Tile {
  float value[kRows][kPitch];
};

template <int kPitch>
__global__ void sum_quads(const float* x, float* y) {
  CNN_SHARED(tile, Tile<kPitch>);
  const int row = int(threadIdx.y), quad = int(threadIdx.x);
  for (int i = quad; i < 4 * kQuads; i += kQuads) tile.value[row][i] = x[row * 4 * kQuads + i];
  __syncthreads();
  const float4 v = *reinterpret_cast<const float4*>(&tile.value[row][4 * quad]);  // fault: misaligned access
  y[row * kQuads + quad] = v.x + v.y + v.z + v.w;
}

template <int kPitch>
void sum_shared(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kRows, 4 * kQuads});
  float* y = trial.output<float>("y", {kRows, kQuads});
  cnn::launch("sum_quads", {dim3(1), dim3(kQuads, kRows)}, sum_quads<kPitch>, x, y);
}

CNN_TRIAL(misaligned_vector_faulty_shared) { sum_shared<33>(trial); }
CNN_TRIAL(misaligned_vector_clean_shared) { sum_shared<36>(trial); }

// Pairs of halves in rows of odd length.
template <int kPitch>
__global__ void add_pairs(const __half* x, __half* y) {
  const int row = int(threadIdx.y), pair = int(threadIdx.x);
  const __half2 v = *reinterpret_cast<const __half2*>(x + row * kPitch + 2 * pair);  // fault: misaligned access
  y[row * 15 + pair] = __float2half(__low2float(v) + __high2float(v));
}

template <int kPitch>
void add_half2(cnn::emulator::Trial& trial) {
  const __half* x = trial.input<__half>("x", {kRows, kPitch});
  __half* y = trial.output<__half>("y", {kRows, 15});
  cnn::launch("add_pairs", {dim3(1), dim3(15, kRows)}, add_pairs<kPitch>, x, y);
}

CNN_TRIAL(misaligned_vector_faulty_half2) { add_half2<31>(trial); }
CNN_TRIAL(misaligned_vector_clean_half2) { add_half2<32>(trial); }

// The write, behind one column of border.
template <int kBorder>
__global__ void store_pairs(const float* x, float* y) {
  const int row = int(threadIdx.y), pair = int(threadIdx.x);
  const float* from = x + row * 16 + 2 * pair;
  *reinterpret_cast<float2*>(y + row * 18 + kBorder + 2 * pair) = make_float2(from[0], from[1]);  // fault: misaligned access
}

template <int kBorder>
void store_float2(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kRows, 16});
  float* y = trial.workspace<float>("y", {kRows, 18});
  cnn::launch("store_pairs", {dim3(1), dim3(8, kRows)}, store_pairs<kBorder>, x, y);
}

CNN_TRIAL(misaligned_vector_faulty_store) { store_float2<1>(trial); }
CNN_TRIAL(misaligned_vector_clean_store) { store_float2<2>(trial); }

// The same with a vector in braces, which is one access, too.
template <int kBorder>
__global__ void store_braces(const float* x, float* y) {
  const int row = int(threadIdx.y), quad = int(threadIdx.x);
  const float* from = x + row * 16 + 4 * quad;
  *reinterpret_cast<float4*>(y + row * 20 + kBorder + 4 * quad) = {from[0], from[1], from[2], from[3]};  // fault: misaligned access
}

template <int kBorder>
void store_float4(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kRows, 16});
  float* y = trial.workspace<float>("y", {kRows, 20});
  cnn::launch("store_braces", {dim3(1), dim3(4, kRows)}, store_braces<kBorder>, x, y);
}

CNN_TRIAL(misaligned_vector_faulty_braces) { store_float4<2>(trial); }
CNN_TRIAL(misaligned_vector_clean_braces) { store_float4<4>(trial); }
