// CUDA's names for a host compiler: qualifiers, built-in variables, synchronisation, warp operations, atomics, vector and
// half types, and the arithmetic intrinsics that the kernels use. Meaning as in the CUDA C++ programming guide.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "emulator/half.h"
#include "emulator/runtime.h"
#include "emulator/vector_types.h"

#define __global__ __attribute__((flatten))  // as nvcc does: a kernel's calls are inlined
#define __device__
#define __host__
#define __constant__ __attribute__((used)) static  // not const: the compiler does not tell us of what is read from constants
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static_assert(false, "declare shared memory with CNN_SHARED or CNN_DYNAMIC_SHARED (common/platform.h)");

#if defined(CNN_EMULATOR_CHECKED)
#define threadIdx (::cnn::emulator::thread_index())
#define blockIdx (::cnn::emulator::block_index())
#define blockDim (::cnn::emulator::block_dimensions())
#define gridDim (::cnn::emulator::grid_dimensions())
#else
#define threadIdx (::cnn::emulator::current->thread_idx)
#define blockIdx (::cnn::emulator::current->block_idx)
#define blockDim (::cnn::emulator::current->block_dim)
#define gridDim (::cnn::emulator::current->grid_dim)
#endif
constexpr int warpSize = ::cnn::emulator::kWarpSize;

using cudaStream_t = void*;

inline void __syncthreads() { ::cnn::emulator::barrier(0, -1); }
inline int __syncthreads_count(int predicate) { return ::cnn::emulator::barrier_count(predicate != 0); }
inline int __syncthreads_or(int predicate) { return ::cnn::emulator::barrier_count(predicate != 0) != 0; }
inline int __syncthreads_and(int predicate) { return ::cnn::emulator::barrier_count(predicate == 0) == 0; }
inline void __threadfence() { ::cnn::emulator::fence(); }
inline void __threadfence_system() { ::cnn::emulator::fence(); }
inline void __threadfence_block() { ::cnn::emulator::fence_in_block(); }
[[noreturn]] inline void __trap() { ::cnn::emulator::fail("__trap()"); }

namespace cnn::emulator {

#if defined(CNN_EMULATOR_CHECKED)
inline unsigned lane_id() { return linear_thread() % kWarpSize; }
#else
inline unsigned lane_id() { return current->linear % kWarpSize; }
#endif

// __builtin_memcpy: a call of memcpy is an access to the checked build.
template <class T>
std::uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8, "a warp exchange moves at most 8 bytes per lane");
  std::uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <class T>
T from_bits(std::uint64_t bits) {
  T value;
  __builtin_memcpy(&value, &bits, sizeof(T));
  return value;
}

inline unsigned lanes_given(const std::uint64_t* slots) { return unsigned(exchanged(slots, kGiven)); }

// Reads `source` of the exchanged table; a lane outside the mask, or of a block that ends before it, has given nothing, so reading it is an
// error here (undefined on a GPU).
template <class T>
T shuffle(const char* operation, unsigned mask, T value, unsigned source) {
  const std::uint64_t* slots = warp_exchange(operation, mask, to_bits(value));
  if (!(lanes_given(slots) >> source & 1u)) fail_outside_mask(operation, source);
  return from_bits<T>(exchanged(slots, source));
}

template <class T, class Combine>
T warp_reduce(const char* operation, unsigned mask, T value, Combine combine) {
  const std::uint64_t* slots = warp_exchange(operation, mask, to_bits(value));
  T result{};
  bool first = true;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    if (!(lanes_given(slots) >> lane & 1u)) continue;
    const T other = from_bits<T>(exchanged(slots, unsigned(lane)));
    result = first ? other : combine(result, other);
    first = false;
  }
  return result;
}

}  // namespace cnn::emulator

inline void __syncwarp(unsigned mask = 0xffffffffu) { ::cnn::emulator::warp_exchange("__syncwarp", mask, 0); }

// Lanes are grouped in segments of `width`; an out-of-segment source means the lane's own value, as on the GPU.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const unsigned lane = ::cnn::emulator::lane_id();
  return ::cnn::emulator::shuffle("__shfl_sync", mask, value, (lane & ~(width - 1u)) | (source & (width - 1u)));
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const unsigned lane = ::cnn::emulator::lane_id();
  return ::cnn::emulator::shuffle("__shfl_up_sync", mask, value, (lane & (width - 1u)) >= delta ? lane - delta : lane);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const unsigned lane = ::cnn::emulator::lane_id();
  return ::cnn::emulator::shuffle("__shfl_down_sync", mask, value, (lane & (width - 1u)) + delta < unsigned(width) ? lane + delta : lane);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32) {
  const unsigned lane = ::cnn::emulator::lane_id();
  const unsigned source = lane ^ unsigned(lane_mask);
  const bool inside = source / width <= lane / width;
  return ::cnn::emulator::shuffle("__shfl_xor_sync", mask, value, inside ? source : lane);
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const unsigned bit = predicate ? 1u << ::cnn::emulator::lane_id() : 0u;
  return ::cnn::emulator::warp_reduce("__ballot_sync", mask, bit, [](unsigned a, unsigned b) { return a | b; });
}
inline int __any_sync(unsigned mask, int predicate) {
  return ::cnn::emulator::warp_reduce("__any_sync", mask, unsigned(predicate != 0), [](unsigned a, unsigned b) { return a | b; });
}
inline int __all_sync(unsigned mask, int predicate) {
  return ::cnn::emulator::warp_reduce("__all_sync", mask, unsigned(predicate != 0), [](unsigned a, unsigned b) { return a & b; });
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value) {
  const std::uint64_t* slots = ::cnn::emulator::warp_exchange("__match_any_sync", mask, ::cnn::emulator::to_bits(value));
  unsigned same = 0;
  for (unsigned lane = 0; lane < 32; ++lane)
    if ((::cnn::emulator::lanes_given(slots) >> lane & 1u) && ::cnn::emulator::exchanged(slots, lane) == ::cnn::emulator::to_bits(value))
      same |= 1u << lane;
  return same;
}

template <class T>
unsigned __match_all_sync(unsigned mask, T value, int* all_same) {
  const std::uint64_t* slots = ::cnn::emulator::warp_exchange("__match_all_sync", mask, ::cnn::emulator::to_bits(value));
  const unsigned given = ::cnn::emulator::lanes_given(slots);
  *all_same = 1;
  for (unsigned lane = 0; lane < 32; ++lane)
    if ((given >> lane & 1u) && ::cnn::emulator::exchanged(slots, lane) != ::cnn::emulator::to_bits(value)) *all_same = 0;
  return *all_same ? given : 0u;
}
// Which lanes are together is the GPU's affair, from one launch to the next: nothing may depend on it.
[[gnu::error("__activemask() says nothing that a kernel may rely on: name the lanes that take part")]] unsigned __activemask();

#define CNN_EMULATOR_WARP_REDUCE(name, type, expression)                                                        \
  inline type name(unsigned mask, type value) {                                                                 \
    return ::cnn::emulator::warp_reduce(#name, mask, value, [](type a, type b) -> type { return expression; }); \
  }
CNN_EMULATOR_WARP_REDUCE(__reduce_add_sync, unsigned, a + b)
CNN_EMULATOR_WARP_REDUCE(__reduce_add_sync, int, a + b)
CNN_EMULATOR_WARP_REDUCE(__reduce_min_sync, unsigned, a < b ? a : b)
CNN_EMULATOR_WARP_REDUCE(__reduce_min_sync, int, a < b ? a : b)
CNN_EMULATOR_WARP_REDUCE(__reduce_max_sync, unsigned, a > b ? a : b)
CNN_EMULATOR_WARP_REDUCE(__reduce_max_sync, int, a > b ? a : b)
CNN_EMULATOR_WARP_REDUCE(__reduce_and_sync, unsigned, a& b)
CNN_EMULATOR_WARP_REDUCE(__reduce_or_sync, unsigned, a | b)
CNN_EMULATOR_WARP_REDUCE(__reduce_xor_sync, unsigned, a ^ b)
#undef CNN_EMULATOR_WARP_REDUCE

// Atomics. Blocks run on several OS threads, so they are real; relaxed, as on the GPU.
namespace cnn::emulator {
// Not instrumented: what the checked build has to know it is told, as one operation.
template <class T, class Update>
__attribute__((noinline, no_sanitize("thread"), no_sanitize_coverage)) T exchange_atomically(T* address, Update update) {
  T expected;
  __atomic_load(address, &expected, __ATOMIC_RELAXED);
  T desired = update(expected);
  while (!__atomic_compare_exchange(address, &expected, &desired, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) desired = update(expected);
  return expected;
}
template <class T, class Update>
T atomic_update(T* address, Update update) {
  note_atomic(address, sizeof(T));
  return exchange_atomically(address, update);
}
}  // namespace cnn::emulator

template <class T>
T atomicAdd(T* address, T value) {
  return ::cnn::emulator::atomic_update(address, [=](T old) { return T(old + value); });
}
template <class T>
T atomicSub(T* address, T value) {
  return ::cnn::emulator::atomic_update(address, [=](T old) { return T(old - value); });
}
template <class T>
T atomicMin(T* address, T value) {
  return ::cnn::emulator::atomic_update(address, [=](T old) { return value < old ? value : old; });
}
template <class T>
T atomicMax(T* address, T value) {
  return ::cnn::emulator::atomic_update(address, [=](T old) { return old < value ? value : old; });
}
template <class T>
T atomicAnd(T* address, T value) {
  return ::cnn::emulator::atomic_update(address, [=](T old) { return T(old & value); });
}
template <class T>
T atomicOr(T* address, T value) {
  return ::cnn::emulator::atomic_update(address, [=](T old) { return T(old | value); });
}
template <class T>
T atomicXor(T* address, T value) {
  return ::cnn::emulator::atomic_update(address, [=](T old) { return T(old ^ value); });
}
template <class T>
T atomicExch(T* address, T value) {
  return ::cnn::emulator::atomic_update(address, [=](T) { return value; });
}
template <class T>
T atomicCAS(T* address, T compare, T value) {
  return ::cnn::emulator::atomic_update(address, [=](T old) { return old == compare ? value : old; });
}
inline unsigned atomicInc(unsigned* address, unsigned limit) {
  return ::cnn::emulator::atomic_update(address, [=](unsigned old) { return old >= limit ? 0u : old + 1; });
}

// Arithmetic.
template <class T>
T __ldg(const T* address) {
  return *address;
}
// Loads and stores with hints to the caches.
#define CNN_EMULATOR_CACHE_HINTS(load, store) \
  template <class T>                          \
  T load(const T* address) {                  \
    return *address;                          \
  }                                           \
  template <class T>                          \
  void store(T* address, T value) {           \
    *address = value;                         \
  }
CNN_EMULATOR_CACHE_HINTS(__ldca, __stwb)
CNN_EMULATOR_CACHE_HINTS(__ldcg, __stcg)
CNN_EMULATOR_CACHE_HINTS(__ldcs, __stcs)
CNN_EMULATOR_CACHE_HINTS(__ldcv, __stwt)
#undef CNN_EMULATOR_CACHE_HINTS

inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(std::uint64_t(a) * b >> 32); }
inline int __mulhi(int a, int b) { return int(std::int64_t(a) * b >> 32); }
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __clz(int value) { return value ? __builtin_clz(unsigned(value)) : 32; }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
inline int __clzll(long long value) { return value ? __builtin_clzll((unsigned long long)(value)) : 64; }
inline int __ffsll(long long value) { return __builtin_ffsll(value); }
inline int __float_as_int(float value) { return ::cnn::emulator::from_bits<int>(::cnn::emulator::to_bits(value)); }
inline float __int_as_float(int value) { return ::cnn::emulator::from_bits<float>(::cnn::emulator::to_bits(value)); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float value) { return std::exp(value); }
inline float rsqrtf(float value) { return 1.0f / std::sqrt(value); }

template <class T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}
using std::isnan;
