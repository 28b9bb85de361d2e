// Vectors that are not copied but used through a pointer or a reference: the row has to be aligned all the same.
#include "emulator/trial.h"

constexpr int kRows = 32;

// By pointer. 6 floats are 24 bytes: every other row begins in the middle of a float4.
template <int kPitch>
__global__ void sum_quads(const float* x, float* y) {
  const int row = int(threadIdx.x);
  const auto* quad = reinterpret_cast<const float4*>(x + row * kPitch);
  y[row] = quad->x + quad->y + quad->z + quad->w;  // fault: misaligned access
}

template <int kPitch>
void run_pointer(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kRows, kPitch});
  float* y = trial.output<float>("y", {kRows});
  cnn::launch("sum_quads", {dim3(1), dim3(kRows)}, sum_quads<kPitch>, x, y);
}

CNN_TRIAL(aligned_members_faulty_pointer) { run_pointer<6>(trial); }
CNN_TRIAL(aligned_members_clean_pointer) { run_pointer<8>(trial); }

// By reference.
template <int kPitch>
__global__ void multiply_ends(const float* x, float* y) {
  const int row = int(threadIdx.x);
  const float4& quad = *reinterpret_cast<const float4*>(x + row * kPitch);  // fault: misaligned access
  y[row] = quad.x * quad.w;
}

template <int kPitch>
void run_reference(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kRows, kPitch});
  float* y = trial.output<float>("y", {kRows});
  cnn::launch("multiply_ends", {dim3(1), dim3(kRows)}, multiply_ends<kPitch>, x, y);
}

CNN_TRIAL(aligned_members_faulty_reference) { run_reference<6>(trial); }
CNN_TRIAL(aligned_members_clean_reference) { run_reference<8>(trial); }

// The write, in shared memory whose rows are padded by one column.
template <int kPitch>
__global__ void store_members(const float* x, float* y) {
  CNN_DYNAMIC_SHARED(tile, float4);
  const int row = int(threadIdx.x);
  float* const values = reinterpret_cast<float*>(tile);
  auto* quad = reinterpret_cast<float4*>(values + row * kPitch);
  quad->x = x[2 * row];  // fault: misaligned access
  quad->w = x[2 * row + 1];
  __syncthreads();
  y[row] = values[(kRows - 1 - row) * kPitch] + values[(kRows - 1 - row) * kPitch + 3];
}

template <int kPitch>
void run_store(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kRows, 2});
  float* y = trial.output<float>("y", {kRows});
  cnn::launch("store_members", {dim3(1), dim3(kRows), kRows * kPitch * sizeof(float)}, store_members<kPitch>, x, y);
}

CNN_TRIAL(aligned_members_faulty_store) { run_store<5>(trial); }
CNN_TRIAL(aligned_members_clean_store) { run_store<4>(trial); }

// A structure of 16 bytes whose members need 8, behind a header of 8.
struct Pair {
  double value;
  long long where;
};

__global__ void scatter_pairs(const float* x, double* y) {
  CNN_DYNAMIC_SHARED(memory, double);
  double& scale = memory[0];
  Pair* const pairs = reinterpret_cast<Pair*>(memory + 1);
  const int t = int(threadIdx.x);
  if (t == 0) scale = 2.0;
  pairs[t] = Pair{double(x[t]), t};
  __syncthreads();
  const Pair pair = pairs[kRows - 1 - t];
  y[pair.where] = scale * pair.value;
}

CNN_TRIAL(aligned_members_clean_pairs) {
  const float* x = trial.input<float>("x", {kRows});
  double* y = trial.output<double>("y", {kRows});
  cnn::launch("scatter_pairs", {dim3(1), dim3(kRows), sizeof(double) + kRows * sizeof(Pair)}, scatter_pairs, x, y);
}
