// CUDA's names for a host compiler: qualifiers, built-in variables, synchronisation, warp operations, atomics, vector and
// half types, and arithmetic intrinsics. Meaning as in the CUDA C++ programming guide and in the CUDA math API. Overloads as CUDA has
// them: a call compiles where nvcc compiles it, and is an error where nvcc finds no function or too many.
#pragma once

#include <assert.h>
#include <time.h>

#include <bit>
#include <climits>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <type_traits>

#include "emulator/half.h"
#include "emulator/runtime.h"
#include "emulator/vector_types.h"

#define __global__ __attribute__((flatten))  // as nvcc does: a kernel's calls are inlined
#define __device__
#define __host__
#define __constant__ __attribute__((used))  // not const: the compiler does not tell us of what is read from constants
#define __managed__
#define __grid_constant__
#define __launch_bounds__(...)
#define __maxnreg__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __forceinline__ inline __attribute__((always_inline))
#if defined(CNN_EMULATOR_CHECKED)
#define __noinline__  // how a structure comes back from a call is not instrumented
#else
#define __noinline__ __attribute__((noinline))
#endif
#define __shared__ _Pragma("GCC error \"declare shared memory with CNN_SHARED or CNN_DYNAMIC_SHARED (common/platform.h)\"")

#pragma GCC diagnostic ignored "-Wunknown-pragmas"  // #pragma unroll
#if defined(CNN_EMULATOR_CHECKED)
#pragma GCC diagnostic warning "-Wnarrowing"  // of constants an error in C++, and a warning of nvcc's: dim3{-1}
#endif

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
template <class T, class... Types>
concept OneOf = (std::same_as<T, Types> || ...);
}  // namespace cnn::emulator

// For the types that CUDA has them for; the value is converted. _block and _system say who else takes part: here always everyone.
#define CNN_EMULATOR_ATOMIC(name, expression, ...)                  \
  CNN_EMULATOR_SCOPED_ATOMIC(name, expression, __VA_ARGS__)         \
  CNN_EMULATOR_SCOPED_ATOMIC(name##_block, expression, __VA_ARGS__) \
  CNN_EMULATOR_SCOPED_ATOMIC(name##_system, expression, __VA_ARGS__)
#define CNN_EMULATOR_SCOPED_ATOMIC(name, expression, ...)                                                  \
  template <::cnn::emulator::OneOf<__VA_ARGS__> T>                                                         \
  T name(T* address, std::type_identity_t<T> value) {                                                      \
    return ::cnn::emulator::atomic_update(address, [=]([[maybe_unused]] T old) { return T(expression); }); \
  }
CNN_EMULATOR_ATOMIC(atomicAdd, old + value, int, unsigned, unsigned long long, float, double)
CNN_EMULATOR_SCOPED_ATOMIC(atomicAdd, old + value, __half, __half2, __nv_bfloat16, __nv_bfloat162)
CNN_EMULATOR_ATOMIC(atomicSub, old - value, int, unsigned)
CNN_EMULATOR_ATOMIC(atomicMin, value < old ? value : old, int, unsigned, long long, unsigned long long)
CNN_EMULATOR_ATOMIC(atomicMax, old < value ? value : old, int, unsigned, long long, unsigned long long)
CNN_EMULATOR_ATOMIC(atomicAnd, (old & value), int, unsigned, long long, unsigned long long)
CNN_EMULATOR_ATOMIC(atomicOr, old | value, int, unsigned, long long, unsigned long long)
CNN_EMULATOR_ATOMIC(atomicXor, old ^ value, int, unsigned, long long, unsigned long long)
CNN_EMULATOR_ATOMIC(atomicExch, value, int, unsigned, unsigned long long, float)
CNN_EMULATOR_ATOMIC(atomicInc, old >= value ? 0 : old + 1, unsigned)
CNN_EMULATOR_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1, unsigned)
#undef CNN_EMULATOR_SCOPED_ATOMIC
#undef CNN_EMULATOR_ATOMIC

#define CNN_EMULATOR_COMPARE_AND_SWAP(name)                                                              \
  template <::cnn::emulator::OneOf<int, unsigned, unsigned long long, unsigned short> T>                 \
  T name(T* address, std::type_identity_t<T> compare, std::type_identity_t<T> value) {                   \
    return ::cnn::emulator::atomic_update(address, [=](T old) { return old == compare ? value : old; }); \
  }
CNN_EMULATOR_COMPARE_AND_SWAP(atomicCAS)
CNN_EMULATOR_COMPARE_AND_SWAP(atomicCAS_block)
CNN_EMULATOR_COMPARE_AND_SWAP(atomicCAS_system)
#undef CNN_EMULATOR_COMPARE_AND_SWAP

// One access, but each component is updated for itself.
template <::cnn::emulator::OneOf<float2, float4> T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  ::cnn::emulator::note_atomic(address, sizeof(T));
  auto* const components = reinterpret_cast<float*>(&value);  // those added, then those found
  for (unsigned i = 0; i < sizeof(T) / sizeof(float); ++i) {
    const float added = components[i];
    components[i] = ::cnn::emulator::exchange_atomically(reinterpret_cast<float*>(address) + i, [=](float old) { return old + added; });
  }
  return value;
}

// Loads and stores with hints to the caches.
#define CNN_EMULATOR_LOAD(name) \
  template <class T>            \
  T name(const T* address) {    \
    return *address;            \
  }
CNN_EMULATOR_LOAD(__ldg)
CNN_EMULATOR_LOAD(__ldca)
CNN_EMULATOR_LOAD(__ldcg)
CNN_EMULATOR_LOAD(__ldcs)
CNN_EMULATOR_LOAD(__ldlu)
CNN_EMULATOR_LOAD(__ldcv)
#undef CNN_EMULATOR_LOAD
#define CNN_EMULATOR_STORE(name)                         \
  template <class T>                                     \
  void name(T* address, std::type_identity_t<T> value) { \
    *address = value;                                    \
  }
CNN_EMULATOR_STORE(__stwb)
CNN_EMULATOR_STORE(__stcg)
CNN_EMULATOR_STORE(__stcs)
CNN_EMULATOR_STORE(__stwt)
#undef CNN_EMULATOR_STORE

// --- What else a kernel may ask for.

inline void __nanosleep(unsigned) {}  // who waits in a loop is found out by what he reads there (Worker::poll)
#if defined(__x86_64__)
inline long long clock64() { return (long long)(__builtin_ia32_rdtsc()); }
#else
inline long long clock64() { return (long long)(clock()); }
#endif

// Not evaluated: a kernel does not read what is in it.
#define __builtin_assume(...) static_cast<void>(sizeof(bool(__VA_ARGS__)))

// A failed assert() ends the launch. Where NDEBUG is defined, as it is for trials, there is none.
#if defined(__GLIBC__)
namespace cnn::emulator {
__attribute__((noinline, no_sanitize("thread"), no_sanitize_coverage)) inline bool in_kernel() { return current; }
}  // namespace cnn::emulator
extern "C" {
[[noreturn]] __forceinline__ void __assert_fail(const char* what, const char* file, unsigned line, const char*) noexcept {
  char text[1024];
  std::snprintf(text, sizeof text, "assertion failed: %s (%s:%u)", what, file, line);
  if (::cnn::emulator::in_kernel()) ::cnn::emulator::fail(text);
  std::fputs(text, stderr);
  std::abort();
}
}
#endif

// Copies of the host to and from variables that are __constant__ or __device__.
enum cudaError_t { cudaSuccess = 0 };
enum cudaMemcpyKind { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice, cudaMemcpyDefault };
template <class T>
cudaError_t cudaMemcpyToSymbol(const T& symbol, const void* from, std::size_t bytes, std::size_t offset = 0,
                               cudaMemcpyKind = cudaMemcpyHostToDevice) {
  std::memcpy(const_cast<char*>(reinterpret_cast<const char*>(&symbol)) + offset, from, bytes);
  return cudaSuccess;
}
template <class T>
cudaError_t cudaMemcpyFromSymbol(void* to, const T& symbol, std::size_t bytes, std::size_t offset = 0,
                                 cudaMemcpyKind = cudaMemcpyDeviceToHost) {
  std::memcpy(to, reinterpret_cast<const char*>(&symbol) + offset, bytes);
  return cudaSuccess;
}

// --- Integers.

inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
inline int __clz(int value) { return value ? __builtin_clz(unsigned(value)) : 32; }
inline int __clzll(long long value) { return value ? __builtin_clzll((unsigned long long)(value)) : 64; }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __ffsll(long long value) { return __builtin_ffsll(value); }
inline unsigned __brev(unsigned value) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= (value >> bit & 1u) << (31 - bit);
  return reversed;
}
inline unsigned long long __brevll(unsigned long long value) {
  return (unsigned long long)(__brev(unsigned(value))) << 32 | __brev(unsigned(value >> 32));
}
// The bytes of y:x that the lowest three bits of the selector's digits name.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const std::uint64_t bytes = std::uint64_t(y) << 32 | x;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) result |= unsigned(bytes >> 8 * (selector >> 4 * i & 7u) & 0xffu) << 8 * i;
  return result;
}
// Of hi:lo, shifted; the shift is taken modulo 32, by the `c` functions at most 32.
inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned shift) {
  return unsigned((std::uint64_t(hi) << 32 | lo) << (shift & 31u) >> 32);
}
inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned shift) {
  return unsigned((std::uint64_t(hi) << 32 | lo) >> (shift & 31u));
}
inline unsigned __funnelshift_lc(unsigned lo, unsigned hi, unsigned shift) { return shift < 32 ? __funnelshift_l(lo, hi, shift) : lo; }
inline unsigned __funnelshift_rc(unsigned lo, unsigned hi, unsigned shift) { return shift < 32 ? __funnelshift_r(lo, hi, shift) : hi; }

inline int __mulhi(int a, int b) { return int(std::int64_t(a) * b >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(std::uint64_t(a) * b >> 32); }
inline long long __mul64hi(long long a, long long b) { return (long long)(__extension__(__int128(a) * b) >> 64); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  __extension__ using Wide = unsigned __int128;
  return (unsigned long long)(Wide(a) * b >> 64);
}
inline unsigned __umul24(unsigned a, unsigned b) { return (a & 0xffffffu) * (b & 0xffffffu); }
inline int __mul24(int a, int b) { return int(unsigned(int(unsigned(a) << 8) >> 8) * unsigned(int(unsigned(b) << 8) >> 8)); }
inline unsigned __sad(int a, int b, unsigned c) { return (a < b ? unsigned(b) - unsigned(a) : unsigned(a) - unsigned(b)) + c; }
inline unsigned __usad(unsigned a, unsigned b, unsigned c) { return (a < b ? b - a : a - b) + c; }
inline int __hadd(int a, int b) { return int((std::int64_t(a) + b) >> 1); }
inline int __rhadd(int a, int b) { return int((std::int64_t(a) + b + 1) >> 1); }
inline unsigned __uhadd(unsigned a, unsigned b) { return unsigned((std::uint64_t(a) + b) >> 1); }
inline unsigned __urhadd(unsigned a, unsigned b) { return unsigned((std::uint64_t(a) + b + 1) >> 1); }

// Dot products of four bytes, added to c.
inline int __dp4a(char4 a, char4 b, int c) { return int(unsigned(a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w) + unsigned(c)); }
inline unsigned __dp4a(uchar4 a, uchar4 b, unsigned c) { return unsigned(a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w) + c; }
inline int __dp4a(int a, int b, int c) { return __dp4a(std::bit_cast<char4>(a), std::bit_cast<char4>(b), c); }
inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) { return __dp4a(std::bit_cast<uchar4>(a), std::bit_cast<uchar4>(b), c); }

// --- Floats.

// <cmath>'s overloads, in the global namespace too: there alone abs() would be an integer's.
using std::abs, std::fabs, std::fma, std::fmax, std::fmin, std::fdim, std::fmod, std::remainder, std::copysign, std::nextafter;
using std::acos, std::asin, std::atan, std::atan2, std::cos, std::sin, std::tan;
using std::acosh, std::asinh, std::atanh, std::cosh, std::sinh, std::tanh;
using std::cbrt, std::hypot, std::pow, std::sqrt, std::exp, std::exp2, std::expm1, std::log, std::log10, std::log1p, std::log2;
using std::ceil, std::floor, std::llrint, std::llround, std::lrint, std::lround, std::nearbyint, std::rint, std::round, std::trunc;
using std::erf, std::erfc, std::lgamma, std::tgamma;
using std::frexp, std::ilogb, std::ldexp, std::logb, std::modf, std::remquo, std::scalbn;
using std::isfinite, std::isinf, std::isnan, std::isnormal, std::signbit;

// CUDA's overloads, for the types that it has them for: of an int and a long, say, it has none.
#define CNN_EMULATOR_EXTREMA(result, type_a, type_b, least, most)      \
  constexpr result min(type_a x, type_b y) {                           \
    const auto a = static_cast<result>(x), b = static_cast<result>(y); \
    return least;                                                      \
  }                                                                    \
  constexpr result max(type_a x, type_b y) {                           \
    const auto a = static_cast<result>(x), b = static_cast<result>(y); \
    return most;                                                       \
  }
#define CNN_EMULATOR_INTEGER_EXTREMA(result, type_a, type_b) CNN_EMULATOR_EXTREMA(result, type_a, type_b, b < a ? b : a, a < b ? b : a)
#define CNN_EMULATOR_FLOAT_EXTREMA(result, type_a, type_b) \
  CNN_EMULATOR_EXTREMA(result, type_a, type_b, ::cnn::emulator::smaller(a, b), ::cnn::emulator::larger(a, b))
#define CNN_EMULATOR_INTEGERS_EXTREMA(type, unsigned_type)                  \
  CNN_EMULATOR_INTEGER_EXTREMA(type, type, type)                            \
  CNN_EMULATOR_INTEGER_EXTREMA(unsigned_type, unsigned_type, unsigned_type) \
  CNN_EMULATOR_INTEGER_EXTREMA(unsigned_type, type, unsigned_type)          \
  CNN_EMULATOR_INTEGER_EXTREMA(unsigned_type, unsigned_type, type)
CNN_EMULATOR_INTEGERS_EXTREMA(int, unsigned)
CNN_EMULATOR_INTEGERS_EXTREMA(long, unsigned long)
CNN_EMULATOR_INTEGERS_EXTREMA(long long, unsigned long long)
CNN_EMULATOR_FLOAT_EXTREMA(float, float, float)
CNN_EMULATOR_FLOAT_EXTREMA(double, double, double)
CNN_EMULATOR_FLOAT_EXTREMA(double, float, double)
CNN_EMULATOR_FLOAT_EXTREMA(double, double, float)
#undef CNN_EMULATOR_INTEGERS_EXTREMA
#undef CNN_EMULATOR_FLOAT_EXTREMA
#undef CNN_EMULATOR_INTEGER_EXTREMA
#undef CNN_EMULATOR_EXTREMA

inline float rsqrt(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float rsqrtf(float x) { return rsqrt(x); }
inline double rcbrt(double x) { return 1.0 / std::cbrt(x); }
inline float rcbrtf(float x) { return 1.0f / std::cbrt(x); }
inline float fdividef(float a, float b) { return a / b; }

// The fast ones are as exact here as the others.
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return std::exp(x); }
inline float __exp10f(float x) { return std::pow(10.0f, x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __log10f(float x) { return std::log10(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline float __sinf(float x) { return std::sin(x); }
inline float __cosf(float x) { return std::cos(x); }
inline float __tanf(float x) { return std::tan(x); }
inline void __sincosf(float x, float* sine, float* cosine) { *sine = std::sin(x), *cosine = std::cos(x); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }  // 0 of a NaN

// Operations that are not contracted with others: what the compiler does not see the origin of, or the use, it cannot.
namespace cnn::emulator {
template <class Float>
Float opaque(Float value) {
  auto bits = std::bit_cast<std::conditional_t<sizeof(Float) == 4, std::int32_t, std::int64_t>>(value);
  asm("" : "+r"(bits));
  return std::bit_cast<Float>(bits);
}
}  // namespace cnn::emulator
#define CNN_EMULATOR_ROUNDED(type, f, d)                                                                        \
  inline type __##d##add_rn(type a, type b) { return ::cnn::emulator::opaque(a) + ::cnn::emulator::opaque(b); } \
  inline type __##d##sub_rn(type a, type b) { return ::cnn::emulator::opaque(a) - ::cnn::emulator::opaque(b); } \
  inline type __##d##mul_rn(type a, type b) { return ::cnn::emulator::opaque(a * b); }                          \
  inline type __##d##div_rn(type a, type b) { return a / b; }                                                   \
  inline type __##d##rcp_rn(type a) { return type(1) / a; }                                                     \
  inline type __##d##sqrt_rn(type a) { return std::sqrt(a); }                                                   \
  inline type __fma##f##_rn(type a, type b, type c) { return std::fma(a, b, c); }
CNN_EMULATOR_ROUNDED(float, f, f)
CNN_EMULATOR_ROUNDED(double, , d)
#undef CNN_EMULATOR_ROUNDED
inline float __frsqrt_rn(float x) { return float(1.0 / std::sqrt(double(x))); }

// Bits.
inline int __float_as_int(float value) { return std::bit_cast<int>(value); }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline float __int_as_float(int value) { return std::bit_cast<float>(value); }
inline float __uint_as_float(unsigned value) { return std::bit_cast<float>(value); }
inline long long __double_as_longlong(double value) { return std::bit_cast<long long>(value); }
inline double __longlong_as_double(long long value) { return std::bit_cast<double>(value); }
inline int __double2hiint(double value) { return int(std::bit_cast<std::int64_t>(value) >> 32); }
inline int __double2loint(double value) { return int(std::bit_cast<std::int64_t>(value)); }
inline double __hiloint2double(int hi, int lo) { return std::bit_cast<double>(std::int64_t(hi) << 32 | unsigned(lo)); }

// Conversions, rounded to nearest even, towards zero, down or up.
namespace cnn::emulator {
template <Rounding mode, class Float, class Exact>
Float round_to_float(Exact exact) {
  const auto nearest = Float(exact);
  if constexpr (mode == Rounding::rn) return nearest;
  using Wide = long double;  // holds both
  const bool up = mode == Rounding::ru || (mode == Rounding::rz && exact < 0);
  if (up ? Wide(nearest) < Wide(exact) : Wide(nearest) > Wide(exact))
    return std::nextafter(nearest, up ? std::numeric_limits<Float>::infinity() : -std::numeric_limits<Float>::infinity());
  return nearest;
}
}  // namespace cnn::emulator
#define CNN_EMULATOR_MODES(ROW, ...) ROW(rn, __VA_ARGS__) ROW(rz, __VA_ARGS__) ROW(rd, __VA_ARGS__) ROW(ru, __VA_ARGS__)
#define CNN_EMULATOR_TO_INTEGER(mode, name, type, integer_name, integer)                                                     \
  inline integer __##name##2##integer_name##_##mode(type value) {                                                            \
    return ::cnn::emulator::to_integer<integer>(::cnn::emulator::round_to_integral<::cnn::emulator::Rounding::mode>(value)); \
  }
#define CNN_EMULATOR_TO_FLOAT(mode, name, type, float_name, float_type)                         \
  inline float_type __##name##2##float_name##_##mode(type value) {                              \
    return ::cnn::emulator::round_to_float<::cnn::emulator::Rounding::mode, float_type>(value); \
  }
CNN_EMULATOR_MODES(CNN_EMULATOR_TO_INTEGER, float, float, int, int)
CNN_EMULATOR_MODES(CNN_EMULATOR_TO_INTEGER, float, float, uint, unsigned)
CNN_EMULATOR_MODES(CNN_EMULATOR_TO_INTEGER, float, float, ll, long long)
CNN_EMULATOR_MODES(CNN_EMULATOR_TO_INTEGER, float, float, ull, unsigned long long)
CNN_EMULATOR_MODES(CNN_EMULATOR_TO_INTEGER, double, double, int, int)
CNN_EMULATOR_MODES(CNN_EMULATOR_TO_INTEGER, double, double, uint, unsigned)
CNN_EMULATOR_MODES(CNN_EMULATOR_TO_INTEGER, double, double, ll, long long)
CNN_EMULATOR_MODES(CNN_EMULATOR_TO_INTEGER, double, double, ull, unsigned long long)
CNN_EMULATOR_MODES(CNN_EMULATOR_TO_FLOAT, int, int, float, float)
CNN_EMULATOR_MODES(CNN_EMULATOR_TO_FLOAT, uint, unsigned, float, float)
CNN_EMULATOR_MODES(CNN_EMULATOR_TO_FLOAT, ll, long long, float, float)
CNN_EMULATOR_MODES(CNN_EMULATOR_TO_FLOAT, ull, unsigned long long, float, float)
CNN_EMULATOR_MODES(CNN_EMULATOR_TO_FLOAT, ll, long long, double, double)
CNN_EMULATOR_MODES(CNN_EMULATOR_TO_FLOAT, ull, unsigned long long, double, double)
CNN_EMULATOR_MODES(CNN_EMULATOR_TO_FLOAT, double, double, float, float)
CNN_EMULATOR_TO_FLOAT(rn, int, int, double, double)
CNN_EMULATOR_TO_FLOAT(rn, uint, unsigned, double, double)
#undef CNN_EMULATOR_MODES
#undef CNN_EMULATOR_TO_INTEGER
#undef CNN_EMULATOR_TO_FLOAT
