// Division by a number that is fixed for a launch: a multiply-high and a shift instead of some thirty instructions.
//
// For 0 <= n < 2^31 and 1 <= d < 2^31:  n / d = mulhi(n, m) >> s  with  s = ceil(log2 d) - 1,  m = ceil(2^(32+s) / d),
// and n / 1 = n. (Granlund and Montgomery, "Division by invariant integers using multiplication", PLDI 1994, section 4;
// 31 bits of numerator make the 33rd bit of m unnecessary.) For 64-bit indices it divides plainly.
#pragma once

#include <cstdint>

#include "common/platform.h"

namespace cnn {

template <class Index>
struct FastDiv;

template <>
struct FastDiv<int32_t> {
  int32_t divisor;
  uint32_t multiplier;  // 0: the divisor is 1
  uint32_t shift;

  FastDiv() = default;  // trivial, so that it can live in shared memory
  CNN_HOST_DEVICE explicit FastDiv(int64_t d) : divisor(d < 1 ? 1 : int32_t(d)), multiplier(0), shift(0) {
    if (d <= 1) return;
    int log2_ceil = 0;
    while ((int64_t(1) << log2_ceil) < d) ++log2_ceil;
    shift = uint32_t(log2_ceil - 1);
    multiplier = uint32_t(((uint64_t(1) << (32 + shift)) + uint64_t(d) - 1) / uint64_t(d));
  }
  __device__ __forceinline__ int32_t quotient(int32_t n) const {
    return multiplier ? int32_t(__umulhi(uint32_t(n), multiplier) >> shift) : n;
  }
  __device__ __forceinline__ int32_t divmod(int32_t n, int32_t& remainder) const {
    const int32_t q = quotient(n);
    remainder = n - q * divisor;
    return q;
  }
};

template <>
struct FastDiv<int64_t> {
  int64_t divisor;

  FastDiv() = default;
  CNN_HOST_DEVICE explicit FastDiv(int64_t d) : divisor(d < 1 ? 1 : d) {}
  __device__ __forceinline__ int64_t quotient(int64_t n) const { return n / divisor; }
  __device__ __forceinline__ int64_t divmod(int64_t n, int64_t& remainder) const {
    const int64_t q = n / divisor;
    remainder = n - q * divisor;
    return q;
  }
};

}  // namespace cnn
