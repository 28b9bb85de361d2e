// __half and __nv_bfloat16 on the host: storage types whose arithmetic goes through float and rounds to nearest even once per
// operation, which is what one hardware instruction does.
#pragma once

#include <bit>
#include <cstdint>

#include "emulator/vector_types.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace cnn::emulator {

inline float bits_to_float(std::uint32_t bits) { return std::bit_cast<float>(bits); }
inline std::uint32_t float_to_bits(float value) { return std::bit_cast<std::uint32_t>(value); }

#if defined(__F16C__)
inline float half_to_float(std::uint16_t bits) { return _cvtsh_ss(bits); }
inline std::uint16_t float_to_half(float value) { return std::uint16_t(_cvtss_sh(value, 0)); }
#else
inline float half_to_float(std::uint16_t bits) {
  const std::uint32_t sign = std::uint32_t(bits & 0x8000u) << 16;
  const std::uint32_t exponent = bits >> 10 & 0x1fu, mantissa = bits & 0x3ffu;
  if (exponent == 0x1fu) return bits_to_float(sign | 0x7f800000u | mantissa << 13);
  if (exponent != 0) return bits_to_float(sign | (exponent + 112) << 23 | mantissa << 13);
  const float magnitude = float(mantissa) * 5.9604644775390625e-08f;  // subnormal: mantissa * 2^-24
  return sign ? -magnitude : magnitude;
}
inline std::uint16_t float_to_half(float value) {
  const std::uint32_t bits = float_to_bits(value);
  const std::uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return std::uint16_t(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return std::uint16_t(sign | 0x7c00u);  // rounds to 2^16 or beyond
  if (magnitude < 0x38800000u) {                                       // subnormal half: let float addition round at bit 2^-24
    const float shifted = bits_to_float(magnitude) + 0.5f;
    return std::uint16_t(sign | (float_to_bits(shifted) - float_to_bits(0.5f)));
  }
  const std::uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
  return std::uint16_t(sign | (rounded - 0x38000000u) >> 13);
}
#endif

inline float bfloat16_to_float(std::uint16_t bits) { return bits_to_float(std::uint32_t(bits) << 16); }
inline std::uint16_t float_to_bfloat16(float value) {
  const std::uint32_t bits = float_to_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;
  return std::uint16_t((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

}  // namespace cnn::emulator

struct __half {
  std::uint16_t bits;
  __half() = default;
  explicit __half(float value) : bits(::cnn::emulator::float_to_half(value)) {}
  explicit operator float() const { return ::cnn::emulator::half_to_float(bits); }
};
struct __nv_bfloat16 {
  std::uint16_t bits;
  __nv_bfloat16() = default;
  explicit __nv_bfloat16(float value) : bits(::cnn::emulator::float_to_bfloat16(value)) {}
  explicit operator float() const { return ::cnn::emulator::bfloat16_to_float(bits); }
};
struct alignas(4) __half2 {
  __half x, y;
  CNN_EMULATOR_COPIES_2(__half2, __half)
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
  CNN_EMULATOR_COPIES_2(__nv_bfloat162, __nv_bfloat16)
};

inline float __half2float(__half value) { return float(value); }
inline __half __float2half(float value) { return __half(value); }
inline __half __float2half_rn(float value) { return __half(value); }
inline float __bfloat162float(__nv_bfloat16 value) { return float(value); }
inline __nv_bfloat16 __float2bfloat16(float value) { return __nv_bfloat16(value); }
inline __nv_bfloat16 __float2bfloat16_rn(float value) { return __nv_bfloat16(value); }
inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__nv_bfloat16(x), __nv_bfloat16(y)}; }
inline float __low2float(__half2 value) { return float(value.x); }
inline float __high2float(__half2 value) { return float(value.y); }
inline float __low2float(__nv_bfloat162 value) { return float(value.x); }
inline float __high2float(__nv_bfloat162 value) { return float(value.y); }

inline bool __hisnan(__half value) { return (value.bits & 0x7fffu) > 0x7c00u; }
inline bool __hisnan(__nv_bfloat16 value) { return (value.bits & 0x7fffu) > 0x7f80u; }

#define CNN_EMULATOR_HALF_ARITHMETIC(type)                                                                          \
  inline type operator+(type a, type b) { return type(float(a) + float(b)); }                                       \
  inline type operator-(type a, type b) { return type(float(a) - float(b)); }                                       \
  inline type operator*(type a, type b) { return type(float(a) * float(b)); }                                       \
  inline type operator/(type a, type b) { return type(float(a) / float(b)); }                                       \
  inline bool operator<(type a, type b) { return float(a) < float(b); }                                             \
  inline bool operator>(type a, type b) { return float(a) > float(b); }                                             \
  inline bool operator==(type a, type b) { return float(a) == float(b); }                                           \
  inline type __hadd(type a, type b) { return a + b; }                                                              \
  inline type __hsub(type a, type b) { return a - b; }                                                              \
  inline type __hmul(type a, type b) { return a * b; }                                                              \
  inline type __hfma(type a, type b, type c) { return type(__builtin_fmaf(float(a), float(b), float(c))); }         \
  inline type __hmax(type a, type b) { return __hisnan(a) ? b : (float(a) < float(b) ? b : a); }                    \
  inline type __hmin(type a, type b) { return __hisnan(a) ? b : (float(b) < float(a) ? b : a); }                    \
  inline type __hmax_nan(type a, type b) { return __hisnan(a) ? a : (__hisnan(b) || float(a) < float(b) ? b : a); } \
  inline type __hmin_nan(type a, type b) { return __hisnan(a) ? a : (__hisnan(b) || float(b) < float(a) ? b : a); }
CNN_EMULATOR_HALF_ARITHMETIC(__half)
CNN_EMULATOR_HALF_ARITHMETIC(__nv_bfloat16)
#undef CNN_EMULATOR_HALF_ARITHMETIC

#define CNN_EMULATOR_HALF2_ARITHMETIC(type)                                                              \
  inline type __hadd2(type a, type b) { return {a.x + b.x, a.y + b.y}; }                                 \
  inline type __hsub2(type a, type b) { return {a.x - b.x, a.y - b.y}; }                                 \
  inline type __hmul2(type a, type b) { return {a.x * b.x, a.y * b.y}; }                                 \
  inline type __hfma2(type a, type b, type c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; } \
  inline type __hmax2(type a, type b) { return {__hmax(a.x, b.x), __hmax(a.y, b.y)}; }                   \
  inline type __hmin2(type a, type b) { return {__hmin(a.x, b.x), __hmin(a.y, b.y)}; }                   \
  inline type __hmax2_nan(type a, type b) { return {__hmax_nan(a.x, b.x), __hmax_nan(a.y, b.y)}; }       \
  inline type __hmin2_nan(type a, type b) { return {__hmin_nan(a.x, b.x), __hmin_nan(a.y, b.y)}; }
CNN_EMULATOR_HALF2_ARITHMETIC(__half2)
CNN_EMULATOR_HALF2_ARITHMETIC(__nv_bfloat162)
#undef CNN_EMULATOR_HALF2_ARITHMETIC
