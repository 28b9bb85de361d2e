// Small kernels for tests/test_emulator.py: what each part of the CUDA execution model must do, and the classic faults that the
// emulator must catch. Each is launched by name with one int32 result array that Python checks.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <sys/mman.h>

#include <map>
#include <new>
#include <string>
#include <vector>

#include "common/fastdiv.h"
#include "common/matrix.h"
#include "common/platform.h"

namespace {

using cnn::emulator::launch;

struct Case {
  dim3 grid, block;
  std::size_t dynamic_shared;
  void (*kernel)(int* out);
};

__device__ unsigned linear_block() { return blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z); }
__device__ unsigned linear_thread() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }

// Sound kernels.

__global__ void indices(int* out) {
  const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  out[linear_block() * threads + linear_thread()] =
      int(threadIdx.x + 10 * threadIdx.y + 100 * threadIdx.z + 1000 * blockIdx.x + 10000 * blockIdx.y + 100000 * blockIdx.z);
}

__global__ void reverse_through_shared(int* out) {
  CNN_SHARED(tile, int[64]);
  tile[threadIdx.x] = int(threadIdx.x);
  __syncthreads();
  out[threadIdx.x] = tile[63 - threadIdx.x];
}

__global__ void reverse_through_dynamic_shared(int* out) {
  CNN_DYNAMIC_SHARED(tile, int);
  tile[threadIdx.x] = int(threadIdx.x);
  __syncthreads();
  out[threadIdx.x] = tile[63 - threadIdx.x];
}

__global__ void poison(int* out) {
  CNN_SHARED(values, float[64]);
  CNN_SHARED(halves, __half[64]);
  CNN_DYNAMIC_SHARED(dynamic, double);
  out[threadIdx.x] = isnan(values[threadIdx.x]) && __hisnan(halves[threadIdx.x]) && isnan(dynamic[threadIdx.x]);
  values[threadIdx.x] = 1.0f;  // the next block must not see it
  dynamic[threadIdx.x] = 1.0;
}

// Two halves of the block meet at barriers of their own, several times, before they meet at barrier 0.
__global__ void named_barriers(int* out) {
  CNN_SHARED(values, int[128]);
  const int half = int(threadIdx.x) / 64, lane = int(threadIdx.x) % 64;
  values[threadIdx.x] = lane;
  for (int step = 0; step < 3 + half; ++step) {
    cnn::emulator::barrier(1 + half, 64);
    const int next = values[half * 64 + (lane + 1) % 64];
    cnn::emulator::barrier(1 + half, 64);
    values[threadIdx.x] = next;
  }
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x];
}

// A producer warp arrives without waiting; the consumer warp waits for it.
__global__ void arrive_and_wait(int* out) {
  CNN_SHARED(box, int[32]);
  if (threadIdx.x < 32) {
    box[threadIdx.x] = int(threadIdx.x) + 7;
    cnn::emulator::barrier_arrive(3, 64);
  } else {
    cnn::emulator::barrier(3, 64);
    out[threadIdx.x - 32] = box[threadIdx.x - 32];
  }
}

__global__ void barrier_reductions(int* out) {
  const int count = __syncthreads_count(threadIdx.x % 3 == 0);
  const int any = __syncthreads_or(threadIdx.x == 5), all = __syncthreads_and(threadIdx.x != 5);
  out[threadIdx.x] = count * 100 + any * 10 + all;
}

__global__ void shuffles(int* out) {
  const int lane = int(threadIdx.x) % 32;
  int* row = out + threadIdx.x * 8;
  row[0] = __shfl_sync(0xffffffffu, lane, 3);
  row[1] = __shfl_up_sync(0xffffffffu, lane, 2);
  row[2] = __shfl_down_sync(0xffffffffu, lane, 2);
  row[3] = __shfl_xor_sync(0xffffffffu, lane, 5);
  row[4] = __shfl_sync(0xffffffffu, lane, 9, 8);
  row[5] = __shfl_up_sync(0xffffffffu, lane, 3, 8);
  row[6] = __shfl_down_sync(0xffffffffu, lane, 3, 8);
  row[7] = int(__shfl_xor_sync(0xffffffffu, double(lane), 16));
}

__global__ void votes(int* out) {
  const int lane = int(threadIdx.x) % 32;
  int* row = out + threadIdx.x * 6;
  row[0] = int(__ballot_sync(0xffffffffu, lane % 2));
  row[1] = __any_sync(0xffffffffu, lane == 31);
  row[2] = __all_sync(0xffffffffu, lane != 31);
  row[3] = int(__match_any_sync(0xffffffffu, lane / 8));
  row[4] = int(__reduce_add_sync(0xffffffffu, unsigned(lane)));
  row[5] = __reduce_max_sync(0xffffffffu, lane * (lane % 2 ? -1 : 1));
}

// The two halves of each warp exchange under masks of their own, at different times.
__global__ void half_warp_masks(int* out) {
  const unsigned lane = threadIdx.x % 32, half = lane / 16;
  const unsigned mask = half ? 0xffff0000u : 0x0000ffffu;
  int value = int(lane);
  for (unsigned step = 0; step < 1 + 2 * half; ++step) value = __shfl_xor_sync(mask, value, 1);
  out[threadIdx.x] = value;
}

// A small integer for each place of a register: tests/test_matrix.py has the same.
__device__ int matrix_value(unsigned lane, int place) { return int((lane * 8 + unsigned(place)) * 2654435761u >> 20) % 41 - 20; }

// Two warps multiply matrices of which every register's place has a value of its own, and add to sums that are there.
template <class T, bool kShort = false>
__global__ void multiply_matrices(int* out) {
  using Shape = cnn::MatrixShape<T>;
  constexpr int kHalves = sizeof(T) == 2 ? 2 : 1, kA = Shape::kA / (kShort ? 2 : 1), kB = Shape::kB / (kShort ? 2 : 1);
  typename Shape::Operand a[kA], b[kB];
  typename Shape::Sum sum[Shape::kSums];
  const auto operand = [](int place) {
    if constexpr (sizeof(T) == 8) return double(matrix_value(threadIdx.x, place));
    else if constexpr (sizeof(T) == 4) return __float_as_uint(float(matrix_value(threadIdx.x, place))) | 0x1fffu;  // bits that do not count
    else {
      const T low = cnn::narrow<T>(float(matrix_value(threadIdx.x, 2 * place)));
      const T high = cnn::narrow<T>(float(matrix_value(threadIdx.x, 2 * place + 1)));
      return unsigned(low.bits) | unsigned(high.bits) << 16;
    }
  };
  for (int i = 0; i < kA; ++i) a[i] = operand(i);
  for (int i = 0; i < kB; ++i) b[i] = operand(kA + i);
  for (int i = 0; i < Shape::kSums; ++i) sum[i] = matrix_value(threadIdx.x, kHalves * (kA + kB) + i);
  if constexpr (kShort) cnn::mma_short<T>(sum, a, b);
  else cnn::mma<T>(sum, a, b);
  for (int i = 0; i < Shape::kSums; ++i) out[threadIdx.x * Shape::kSums + i] = int(sum[i]);
}

// Every lane's registers of matrices whose rows lie in no order; element e of row r is 8 r + e.
template <int kMatrices, bool kTransposed>
__global__ void load_matrices(int* out) {
  CNN_SHARED(rows, uint4[64]);
  auto* const elements = reinterpret_cast<unsigned short*>(rows);
  for (unsigned i = threadIdx.x; i < 512; i += blockDim.x) elements[i] = static_cast<unsigned short>(i);
  __syncthreads();
  std::uint32_t registers[kMatrices];
  const unsigned lane = threadIdx.x % 32;
  // Addresses of lanes that have none to give are not looked at.
  cnn::ldmatrix<kMatrices, kTransposed>(registers, lane < 8 * kMatrices ? &rows[threadIdx.x * 29 % 64] : nullptr);
  for (int i = 0; i < kMatrices; ++i) out[threadIdx.x * kMatrices + i] = int(registers[i]);
}

__global__ void atomics(int* out) {
  atomicAdd(&out[0], 1);
  atomicMax(&out[1], int(linear_block() * blockDim.x + threadIdx.x));
  atomicMin(&out[2], -int(threadIdx.x));
  atomicOr(&out[3], 1 << (threadIdx.x % 8));
  if (atomicCAS(&out[4], 0, 1) == 0) atomicExch(&out[5], 42);
  atomicInc(reinterpret_cast<unsigned*>(&out[6]), 9);
}

// float and double addition of whole numbers is exact in any order.
__global__ void floating_atomics(int* out) {
  CNN_SHARED(sums, double[2]);
  CNN_SHARED(narrow, float[1]);
  if (threadIdx.x == 0) sums[0] = 0, narrow[0] = 0;
  __syncthreads();
  atomicAdd(&sums[0], double(threadIdx.x));
  atomicAdd(&narrow[0], float(threadIdx.x));
  __syncthreads();
  if (threadIdx.x == 0) out[0] = int(sums[0]), out[1] = int(narrow[0]);
}

// What the order of threads is, seen from a kernel that (wrongly) depends on it.
__global__ void order_of_threads(int* out) { out[1 + atomicAdd(&out[0], 1)] = int(threadIdx.x); }

__global__ void vector_types(int* out) {
  const float4 f = make_float4(1, 2, 3, 4);
  const uint2 u = make_uint2(5, 6);
  out[0] = int(f.x + f.y + f.z + f.w);
  out[1] = int(u.x + u.y);
  out[2] = int(alignof(float4) * 100 + sizeof(float4));
  out[3] = int(alignof(uchar4) * 100 + sizeof(uchar4));
  out[4] = int(alignof(double2) * 100 + sizeof(float3));
}

// Planted faults.

__global__ void divergent_barrier(int*) {
  if (threadIdx.x < 96) __syncthreads();
}

__global__ void barrier_after_return(int*) {
  if (threadIdx.x == 7) return;
  __syncthreads();
}

__global__ void barriers_crossed(int*) {
  if (threadIdx.x < 64) cnn::emulator::barrier(1, 128);
  else cnn::emulator::barrier(2, 128);
}

__global__ void barrier_counts_disagree(int*) { cnn::emulator::barrier(1, threadIdx.x < 32 ? 64 : 96); }

__global__ void barrier_count_not_warps(int*) { cnn::emulator::barrier(1, 40); }

__global__ void barrier_unknown(int*) { cnn::emulator::barrier(16, 32); }

__global__ void shared_past_end(int* out) {
  CNN_SHARED(tile, int[64]);
  tile[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x + (threadIdx.x == 63)];
}

__global__ void shared_before_start(int* out) {
  CNN_SHARED(tile, int[64]);
  tile[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[int(threadIdx.x) - 1];
}

__global__ void shared_write_past_end(int*) {
  CNN_SHARED(tile, int[61]);
  tile[threadIdx.x] = 1;
}

__global__ void dynamic_shared_past_end(int*) {
  CNN_DYNAMIC_SHARED(tile, int);
  tile[threadIdx.x * 2] = 1;
}

__global__ void too_much_static_shared(int* out) {
  CNN_SHARED(tile, int[12289]);
  out[threadIdx.x] = tile[0];
}

__global__ void null_pointer(int* out) {
  int* nothing = out;
  asm volatile("" : "=r"(nothing) : "0"(static_cast<int*>(nullptr)));
  if (threadIdx.x == 5) nothing[2] = 1;
}

__global__ void stack_overflow(int* out) {
  volatile char large[1 << 20];
  large[threadIdx.x] = 1;
  out[threadIdx.x] = large[threadIdx.x];
}

__global__ void shuffle_without_itself(int* out) { out[threadIdx.x] = __shfl_sync(0x0000ffffu, 1, 0); }

__global__ void shuffle_from_outside_mask(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0x0000ffffu, 1, 20);
}

__global__ void shuffle_of_returned_lane(int* out) {
  if (threadIdx.x == 31) return;
  out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
}

__global__ void shuffle_divergent(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
  __syncthreads();
}

__global__ void multiply_in_part_of_a_warp(int* out) {
  float sum[4]{};
  if (threadIdx.x < 16) cnn::mma<__half>(sum, {0, 0, 0, 0}, {0, 0});
  __syncthreads();
  out[threadIdx.x] = int(sum[0]);
}

__global__ void warp_operations_disagree(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
  else out[threadIdx.x] = __any_sync(0xffffffffu, 1);
}

__global__ void trap(int*) {
  if (threadIdx.x == 33 && blockIdx.x == 1) __trap();
}

__global__ void nothing(int*) {}

const std::map<std::string, Case> cases = {
    {"indices", {dim3(2, 3, 2), dim3(4, 3, 2), 0, indices}},
    {"reverse_through_shared", {1, 64, 0, reverse_through_shared}},
    {"reverse_through_dynamic_shared", {1, 64, 64 * sizeof(int), reverse_through_dynamic_shared}},
    {"poison", {2, 64, 64 * sizeof(double), poison}},
    {"named_barriers", {1, 128, 0, named_barriers}},
    {"arrive_and_wait", {1, 64, 0, arrive_and_wait}},
    {"barrier_reductions", {1, 64, 0, barrier_reductions}},
    {"shuffles", {1, 64, 0, shuffles}},
    {"votes", {1, 32, 0, votes}},
    {"half_warp_masks", {1, 64, 0, half_warp_masks}},
    {"atomics", {40, 32, 0, atomics}},
    {"floating_atomics", {1, 64, 0, floating_atomics}},
    {"order_of_threads", {1, 64, 0, order_of_threads}},
    {"vector_types", {1, 1, 0, vector_types}},
    {"divergent_barrier", {dim3(2, 2), 128, 0, divergent_barrier}},
    {"barrier_after_return", {1, 64, 0, barrier_after_return}},
    {"barriers_crossed", {1, 128, 0, barriers_crossed}},
    {"barrier_counts_disagree", {1, 96, 0, barrier_counts_disagree}},
    {"barrier_count_not_warps", {1, 64, 0, barrier_count_not_warps}},
    {"barrier_unknown", {1, 32, 0, barrier_unknown}},
    {"shared_past_end", {3, 64, 0, shared_past_end}},
    {"shared_before_start", {3, 64, 0, shared_before_start}},
    {"shared_write_past_end", {3, 64, 0, shared_write_past_end}},
    {"dynamic_shared_past_end", {1, 64, 100 * sizeof(int), dynamic_shared_past_end}},
    {"too_much_static_shared", {1, 32, 0, too_much_static_shared}},
    {"too_much_shared_together", {1, 64, 227 * 1024, reverse_through_shared}},
    {"null_pointer", {1, 32, 0, null_pointer}},
    {"stack_overflow", {1, 32, 0, stack_overflow}},
    {"shuffle_without_itself", {1, 32, 0, shuffle_without_itself}},
    {"shuffle_from_outside_mask", {1, 32, 0, shuffle_from_outside_mask}},
    {"shuffle_of_returned_lane", {1, 32, 0, shuffle_of_returned_lane}},
    {"shuffle_divergent", {1, 32, 0, shuffle_divergent}},
    {"warp_operations_disagree", {1, 32, 0, warp_operations_disagree}},
    {"multiply_f16", {1, 64, 0, multiply_matrices<__half>}},
    {"multiply_bf16", {1, 64, 0, multiply_matrices<__nv_bfloat16>}},
    {"multiply_short_f16", {1, 64, 0, multiply_matrices<__half, true>}},
    {"multiply_short_bf16", {1, 64, 0, multiply_matrices<__nv_bfloat16, true>}},
    {"multiply_tf32", {1, 64, 0, multiply_matrices<float>}},
    {"multiply_f64", {1, 64, 0, multiply_matrices<double>}},
    {"load_1", {1, 64, 0, load_matrices<1, false>}},
    {"load_2", {1, 64, 0, load_matrices<2, false>}},
    {"load_4", {1, 64, 0, load_matrices<4, false>}},
    {"load_1_transposed", {1, 64, 0, load_matrices<1, true>}},
    {"load_2_transposed", {1, 64, 0, load_matrices<2, true>}},
    {"load_4_transposed", {1, 64, 0, load_matrices<4, true>}},
    {"multiply_in_part_of_a_warp", {1, 32, 0, multiply_in_part_of_a_warp}},
    {"multiply_with_missing_lanes", {1, 48, 0, multiply_matrices<__half>}},
    {"trap", {2, 64, 0, trap}},
    {"block_too_large", {1, 1025, 0, nothing}},
    {"grid_too_tall", {dim3(1, 65536), 32, 0, nothing}},
    {"too_much_dynamic_shared", {1, 32, 228 * 1024, nothing}},
};

// Zeros that end where a page begins that nobody may touch: a kernel that writes more than its test asks for is caught there by the
// emulator, and does not spoil the process's heap for whoever comes later.
class Results {
 public:
  explicit Results(std::size_t count) : count_(count), bytes_((count * sizeof(int) + kPage - 1) / kPage * kPage) {
    void* pages = mmap(nullptr, bytes_ + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) throw std::bad_alloc();
    pages_ = static_cast<unsigned char*>(pages);
    mprotect(pages_ + bytes_, kPage, PROT_NONE);
  }
  ~Results() { munmap(pages_, bytes_ + kPage); }
  Results(const Results&) = delete;
  Results& operator=(const Results&) = delete;
  int* data() const { return reinterpret_cast<int*>(pages_ + bytes_) - count_; }
  std::vector<int> values() const { return std::vector<int>(data(), data() + count_); }

 private:
  static constexpr std::size_t kPage = 4096;
  std::size_t count_, bytes_;
  unsigned char* pages_;
};

std::vector<int> run(const std::string& name, int count) {
  const Case& c = cases.at(name);
  const Results results{std::size_t(count)};
  launch(name.c_str(), c.grid, c.block, c.dynamic_shared, [&] { c.kernel(results.data()); });
  return results.values();
}

// The host side of the arithmetic helpers.
int fast_divide(int n, int d) { return cnn::FastDiv<int32_t>(d).quotient(n); }
unsigned to_half(float value) { return cnn::emulator::float_to_half(value); }
float from_half(unsigned bits) { return cnn::emulator::half_to_float(std::uint16_t(bits)); }
unsigned to_bfloat16(float value) { return cnn::emulator::float_to_bfloat16(value); }
float from_bfloat16(unsigned bits) { return cnn::emulator::bfloat16_to_float(std::uint16_t(bits)); }

}  // namespace

PYBIND11_MODULE(_emulator_kernels, m) {
  m.doc() = "Kernels for the emulator's own tests.";
  m.def("run", &run, pybind11::arg("name"), pybind11::arg("results") = 0, pybind11::call_guard<pybind11::gil_scoped_release>());
  m.def("names", [] {
    std::vector<std::string> names;
    for (const auto& item : cases) names.push_back(item.first);
    return names;
  });
  m.def("fast_divide", &fast_divide);
  m.def("to_half", &to_half);
  m.def("from_half", &from_half);
  m.def("to_bfloat16", &to_bfloat16);
  m.def("from_bfloat16", &from_bfloat16);
}
