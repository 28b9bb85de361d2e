// __half and __nv_bfloat16 on the host: storage types whose arithmetic goes through float and rounds to nearest even once per
// operation, which is what one hardware instruction does.
#pragma once

#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

#include "emulator/vector_types.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace cnn::emulator {

// --- The formats.

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

// --- Rounding once. What has more digits than a float is first rounded to odd: of the two neighbours to the one whose last bit is set.
// Rounded again, to at least two bits less, that gives what rounding once would have given.

template <class Narrow, class Wide>
Narrow round_to_odd(Wide exact) {
  using Bits = std::conditional_t<sizeof(Narrow) == 4, std::uint32_t, std::uint64_t>;
  const auto nearest = Narrow(exact);
  auto bits = std::bit_cast<Bits>(nearest);
  const bool differs = Wide(nearest) < exact || Wide(nearest) > exact;  // not of NaNs
  if (differs && bits % 2 == 0) bits += (Wide(nearest) > exact) == (exact > 0) ? Bits(-1) : Bits(1);
  return std::bit_cast<Narrow>(bits);
}

// a * b + c of floats whose product is exact in double precision.
inline float fma_to_odd(float a, float b, float c) {
  const double product = double(a) * double(b), sum = product + double(c);
  const double added = sum - product, error = (product - (sum - added)) + (double(c) - added);  // D. Knuth's TwoSum: exact
  auto bits = std::bit_cast<std::uint64_t>(sum);
  if ((error < 0 || error > 0) && bits % 2 == 0) bits += (error > 0) == (sum > 0) ? std::uint64_t(1) : std::uint64_t(-1);
  return round_to_odd<float>(std::bit_cast<double>(bits));
}

enum class Rounding { rn, rz, rd, ru };  // to nearest even, towards zero, down, up: the suffixes of CUDA's conversions

template <class Half, Rounding mode, class Exact>
Half round_to_half(Exact exact) {
  Half result(exact);
  if constexpr (mode == Rounding::rn) return result;
  const bool up = mode == Rounding::ru || (mode == Rounding::rz && exact < 0);
  if (up ? Exact(float(result)) < exact : Exact(float(result)) > exact) {
    const bool negative = result.bits >> 15;
    result.bits = std::uint16_t(result.bits + (up == negative ? -1 : 1));
  }
  return result;
}

template <Rounding mode, class Float>
Float round_to_integral(Float value) {
  if constexpr (mode == Rounding::rz) return std::trunc(value);
  if constexpr (mode == Rounding::rd) return std::floor(value);
  if constexpr (mode == Rounding::ru) return std::ceil(value);
  return std::nearbyint(value);
}

// What does not fit becomes the nearest integer that there is; of a NaN PTX makes this.
template <std::integral Integer, std::floating_point Float>
Integer to_integer(Float integral) {
  using Limits = std::numeric_limits<Integer>;
  constexpr bool small = sizeof(Float) < 8 && sizeof(Integer) < 8;
  if (integral != integral) return small ? Integer(0) : Integer(std::make_unsigned_t<Integer>(1) << (8 * sizeof(Integer) - 1));
  if (integral <= Float(Limits::min())) return Limits::min();
  if (integral >= 2 * Float(Integer(1) << (Limits::digits - 1))) return Limits::max();
  return Integer(integral);
}

// --- The smaller and the larger of two floats as the hardware has them: a number rather than a NaN, and -0 less than +0.

template <class Float>
constexpr Float smaller(Float a, Float b) {
  return a < b || b != b || (a == b && __builtin_signbit(a)) ? a : b;
}
template <class Float>
constexpr Float larger(Float a, Float b) {
  return a > b || b != b || (a == b && !__builtin_signbit(a)) ? a : b;
}

// --- Functions of a type. Friends of a base class, so that one text serves both types, and yet arguments convert.

// CUDA has six comparisons, each false if an operand is a NaN, and with a `u` in its name true.
#define CNN_EMULATOR_COMPARISONS(ROW) \
  ROW(eq, a == b, !(a < b || a > b))  \
  ROW(ne, (a < b || a > b), a != b)   \
  ROW(lt, a < b, !(a >= b))           \
  ROW(le, a <= b, !(a > b))           \
  ROW(gt, a > b, !(a <= b))           \
  ROW(ge, a >= b, !(a < b))
#define CNN_EMULATOR_FLOAT_FUNCTIONS(ROW) \
  ROW(exp, std::exp(x))                   \
  ROW(exp2, std::exp2(x))                 \
  ROW(exp10, std::pow(10.0f, x))          \
  ROW(log, std::log(x))                   \
  ROW(log2, std::log2(x))                 \
  ROW(log10, std::log10(x))               \
  ROW(sin, std::sin(x))                   \
  ROW(cos, std::cos(x))                   \
  ROW(tanh, std::tanh(x))                 \
  ROW(sqrt, std::sqrt(x))                 \
  ROW(rsqrt, 1.0f / std::sqrt(x))         \
  ROW(rcp, 1.0f / x)                      \
  ROW(floor, std::floor(x))               \
  ROW(ceil, std::ceil(x))                 \
  ROW(trunc, std::trunc(x))               \
  ROW(rint, std::nearbyint(x))

template <class Half>
struct HalfFunctions {
  friend Half operator+(Half a, Half b) { return Half(float(a) + float(b)); }
  friend Half operator-(Half a, Half b) { return Half(float(a) - float(b)); }
  friend Half operator*(Half a, Half b) { return Half(float(a) * float(b)); }
  friend Half operator/(Half a, Half b) { return Half(float(a) / float(b)); }
  friend Half operator+(Half a) { return a; }
  friend Half operator-(Half a) { return __hneg(a); }
  friend Half& operator+=(Half& a, Half b) { return a = a + b; }
  friend Half& operator-=(Half& a, Half b) { return a = a - b; }
  friend Half& operator*=(Half& a, Half b) { return a = a * b; }
  friend Half& operator/=(Half& a, Half b) { return a = a / b; }
  friend Half& operator++(Half& a) { return a += Half(1.0f); }
  friend Half& operator--(Half& a) { return a -= Half(1.0f); }
  friend Half operator++(Half& a, int) { return std::exchange(a, a + Half(1.0f)); }
  friend Half operator--(Half& a, int) { return std::exchange(a, a - Half(1.0f)); }
  friend bool operator==(Half a, Half b) { return float(a) == float(b); }
  friend bool operator!=(Half a, Half b) { return float(a) != float(b); }
  friend bool operator<(Half a, Half b) { return float(a) < float(b); }
  friend bool operator<=(Half a, Half b) { return float(a) <= float(b); }
  friend bool operator>(Half a, Half b) { return float(a) > float(b); }
  friend bool operator>=(Half a, Half b) { return float(a) >= float(b); }
#define CNN_EMULATOR_ROW(name, ordered, unordered)          \
  friend bool __h##name(Half a, Half b) { return ordered; } \
  friend bool __h##name##u(Half a, Half b) { return unordered; }
  CNN_EMULATOR_COMPARISONS(CNN_EMULATOR_ROW)
#undef CNN_EMULATOR_ROW

  friend Half __hadd(Half a, Half b) { return a + b; }
  friend Half __hsub(Half a, Half b) { return a - b; }
  friend Half __hmul(Half a, Half b) { return a * b; }
  friend Half __hdiv(Half a, Half b) { return a / b; }
  friend Half __hadd_rn(Half a, Half b) { return a + b; }
  friend Half __hsub_rn(Half a, Half b) { return a - b; }
  friend Half __hmul_rn(Half a, Half b) { return a * b; }
  friend Half __hfma(Half a, Half b, Half c) { return Half(fma_to_odd(float(a), float(b), float(c))); }
  friend Half __hfma_relu(Half a, Half b, Half c) { return __hmax_nan(__hfma(a, b, c), Half(0.0f)); }
  friend Half __hneg(Half a) { return Half::from_bits(a.bits ^ 0x8000u); }
  friend Half __habs(Half a) { return Half::from_bits(a.bits & 0x7fffu); }
  friend bool __hisnan(Half a) { return a != a; }
  friend int __hisinf(Half a) { return __builtin_isinf_sign(float(a)); }
  friend Half __hmax(Half a, Half b) { return Half(larger(float(a), float(b))); }
  friend Half __hmin(Half a, Half b) { return Half(smaller(float(a), float(b))); }
  friend Half __hmax_nan(Half a, Half b) { return __hisnan(a) ? a : __hisnan(b) ? b : __hmax(a, b); }
  friend Half __hmin_nan(Half a, Half b) { return __hisnan(a) ? a : __hisnan(b) ? b : __hmin(a, b); }
#define CNN_EMULATOR_ROW(name, result) \
  friend Half h##name(Half a) {        \
    const auto x = float(a);           \
    return Half(result);               \
  }
  CNN_EMULATOR_FLOAT_FUNCTIONS(CNN_EMULATOR_ROW)
#undef CNN_EMULATOR_ROW
};

// The same of two at a time.
template <class Pair>
struct HalfPairFunctions {
#define CNN_EMULATOR_ROW(op, op_assign)                                        \
  friend Pair operator op(Pair a, Pair b) { return {a.x op b.x, a.y op b.y}; } \
  friend Pair& operator op_assign(Pair& a, Pair b) { return a = a op b; }
  CNN_EMULATOR_ROW(+, +=)
  CNN_EMULATOR_ROW(-, -=)
  CNN_EMULATOR_ROW(*, *=)
  CNN_EMULATOR_ROW(/, /=)
#undef CNN_EMULATOR_ROW
  friend Pair operator+(Pair a) { return a; }
  friend Pair operator-(Pair a) { return {-a.x, -a.y}; }
  friend Pair& operator++(Pair& a) { return a = {++a.x, ++a.y}; }
  friend Pair& operator--(Pair& a) { return a = {--a.x, --a.y}; }
  friend Pair operator++(Pair& a, int) { return {a.x++, a.y++}; }
  friend Pair operator--(Pair& a, int) { return {a.x--, a.y--}; }
#define CNN_EMULATOR_ROW(op) \
  friend bool operator op(Pair a, Pair b) { return a.x op b.x && a.y op b.y; }
  CNN_EMULATOR_ROW(==)
  CNN_EMULATOR_ROW(!=)
  CNN_EMULATOR_ROW(<)
  CNN_EMULATOR_ROW(<=)
  CNN_EMULATOR_ROW(>)
  CNN_EMULATOR_ROW(>=)
#undef CNN_EMULATOR_ROW
#define CNN_EMULATOR_COMPARISON(name)                                                                           \
  friend bool __hb##name##2(Pair a, Pair b) { return __h##name(a.x, b.x) && __h##name(a.y, b.y); }              \
  friend Pair __h##name##2(Pair a, Pair b) { return {float(__h##name(a.x, b.x)), float(__h##name(a.y, b.y))}; } \
  friend unsigned __h##name##2_mask(Pair a, Pair b) {                                                           \
    return (__h##name(a.x, b.x) ? 0xffffu : 0u) | (__h##name(a.y, b.y) ? 0xffff0000u : 0u);                     \
  }
#define CNN_EMULATOR_ROW(name, ordered, unordered) CNN_EMULATOR_COMPARISON(name) CNN_EMULATOR_COMPARISON(name##u)
  CNN_EMULATOR_COMPARISONS(CNN_EMULATOR_ROW)
#undef CNN_EMULATOR_ROW
#undef CNN_EMULATOR_COMPARISON

#define CNN_EMULATOR_ROW(name, one) \
  friend Pair name(Pair a, Pair b) { return {one(a.x, b.x), one(a.y, b.y)}; }
  CNN_EMULATOR_ROW(__hadd2, __hadd)
  CNN_EMULATOR_ROW(__hsub2, __hsub)
  CNN_EMULATOR_ROW(__hmul2, __hmul)
  CNN_EMULATOR_ROW(__h2div, __hdiv)
  CNN_EMULATOR_ROW(__hadd2_rn, __hadd)
  CNN_EMULATOR_ROW(__hsub2_rn, __hsub)
  CNN_EMULATOR_ROW(__hmul2_rn, __hmul)
  CNN_EMULATOR_ROW(__hmax2, __hmax)
  CNN_EMULATOR_ROW(__hmin2, __hmin)
  CNN_EMULATOR_ROW(__hmax2_nan, __hmax_nan)
  CNN_EMULATOR_ROW(__hmin2_nan, __hmin_nan)
#undef CNN_EMULATOR_ROW
  friend Pair __hfma2(Pair a, Pair b, Pair c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }
  friend Pair __hfma2_relu(Pair a, Pair b, Pair c) { return {__hfma_relu(a.x, b.x, c.x), __hfma_relu(a.y, b.y, c.y)}; }
  friend Pair __hneg2(Pair a) { return {__hneg(a.x), __hneg(a.y)}; }
  friend Pair __habs2(Pair a) { return {__habs(a.x), __habs(a.y)}; }
  friend Pair __hisnan2(Pair a) { return {float(__hisnan(a.x)), float(__hisnan(a.y))}; }
  friend Pair __lowhigh2highlow(Pair a) { return {a.y, a.x}; }
  friend float __low2float(Pair a) { return float(a.x); }
  friend float __high2float(Pair a) { return float(a.y); }
#define CNN_EMULATOR_ROW(name, result) \
  friend Pair h2##name(Pair a) { return {h##name(a.x), h##name(a.y)}; }
  CNN_EMULATOR_FLOAT_FUNCTIONS(CNN_EMULATOR_ROW)
#undef CNN_EMULATOR_ROW
};

#undef CNN_EMULATOR_COMPARISONS
#undef CNN_EMULATOR_FLOAT_FUNCTIONS

}  // namespace cnn::emulator

// --- The types. As in CUDA numbers become halves and halves numbers without a cast, except from one kind of half to the other.

#define CNN_EMULATOR_HALF(type, other, name)                                                              \
  struct type : ::cnn::emulator::HalfFunctions<type> {                                                    \
    std::uint16_t bits;                                                                                   \
    type() = default;                                                                                     \
    type(float value) : bits(::cnn::emulator::float_to_##name(value)) {}                                  \
    type(double value) : type(::cnn::emulator::round_to_odd<float>(value)) {}                             \
    template <std::integral Integer>                                                                      \
    type(Integer value) : type(::cnn::emulator::round_to_odd<double>(static_cast<long double>(value))) {} \
    explicit type(other value);                                                                           \
    operator float() const { return ::cnn::emulator::name##_to_float(bits); }                             \
    operator bool() const { return (bits & 0x7fffu) != 0; }                                               \
    template <std::integral Integer>                                                                      \
    operator Integer() const {                                                                            \
      return ::cnn::emulator::to_integer<Integer>(std::trunc(float(*this)));                              \
    }                                                                                                     \
    static type from_bits(unsigned bits) {                                                                \
      type result;                                                                                        \
      result.bits = std::uint16_t(bits);                                                                  \
      return result;                                                                                      \
    }                                                                                                     \
  };                                                                                                      \
  struct alignas(4) type##2 : ::cnn::emulator::HalfPairFunctions<type##2> {                               \
    type x, y;                                                                                            \
    type##2() = default;                                                                                  \
    type##2(type x, type y) : x(x), y(y) {}                                                               \
  };
struct __nv_bfloat16;
CNN_EMULATOR_HALF(__half, __nv_bfloat16, half)
CNN_EMULATOR_HALF(__nv_bfloat16, __half, bfloat16)
#undef CNN_EMULATOR_HALF
inline __half::__half(__nv_bfloat16 value) : __half(float(value)) {}
inline __nv_bfloat16::__nv_bfloat16(__half value) : __nv_bfloat16(float(value)) {}

using half = __half;
using half2 = __half2;
using nv_half = __half;
using nv_half2 = __half2;
using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;

// --- Conversions by name.

#define CNN_EMULATOR_HALF_CONVERSIONS(type, name)                                       \
  inline float __##name##2float(type a) { return float(a); }                            \
  inline type __float2##name(float a) { return type(a); }                               \
  inline type __double2##name(double a) { return type(a); }                             \
  inline type##2 make_##name##2(type x, type y) { return {x, y}; }                      \
  inline type##2 __halves2##name##2(type x, type y) { return {x, y}; }                  \
  inline type##2 __##name##2##name##2(type a) { return {a, a}; }                        \
  inline type##2 __float2##name##2_rn(float a) { return {type(a), type(a)}; }           \
  inline type##2 __floats2##name##2_rn(float x, float y) { return {type(x), type(y)}; } \
  inline type##2 __float22##name##2_rn(float2 a) { return {type(a.x), type(a.y)}; }     \
  inline float2 __##name##22float2(type##2 a) { return {float(a.x), float(a.y)}; }      \
  inline type __low2##name(type##2 a) { return a.x; }                                   \
  inline type __high2##name(type##2 a) { return a.y; }                                  \
  inline type##2 __low2##name##2(type##2 a) { return {a.x, a.x}; }                      \
  inline type##2 __high2##name##2(type##2 a) { return {a.y, a.y}; }                     \
  inline type##2 __lows2##name##2(type##2 a, type##2 b) { return {a.x, b.x}; }          \
  inline type##2 __highs2##name##2(type##2 a, type##2 b) { return {a.y, b.y}; }         \
  inline unsigned short __##name##_as_ushort(type a) { return a.bits; }                 \
  inline short __##name##_as_short(type a) { return short(a.bits); }                    \
  inline type __ushort_as_##name(unsigned short bits) { return type::from_bits(bits); } \
  inline type __short_as_##name(short bits) { return type::from_bits(unsigned(bits)); } \
  CNN_EMULATOR_ROUNDED(type, name, rn)                                                  \
  CNN_EMULATOR_ROUNDED(type, name, rz)                                                  \
  CNN_EMULATOR_ROUNDED(type, name, rd)                                                  \
  CNN_EMULATOR_ROUNDED(type, name, ru)
#define CNN_EMULATOR_ROUNDED(type, name, mode)                                                                                      \
  inline type __float2##name##_##mode(float a) { return ::cnn::emulator::round_to_half<type, ::cnn::emulator::Rounding::mode>(a); } \
  CNN_EMULATOR_INTEGER(type, name, mode, short, short)                                                                              \
  CNN_EMULATOR_INTEGER(type, name, mode, ushort, unsigned short)                                                                    \
  CNN_EMULATOR_INTEGER(type, name, mode, int, int)                                                                                  \
  CNN_EMULATOR_INTEGER(type, name, mode, uint, unsigned)                                                                            \
  CNN_EMULATOR_INTEGER(type, name, mode, ll, long long)                                                                             \
  CNN_EMULATOR_INTEGER(type, name, mode, ull, unsigned long long)
#define CNN_EMULATOR_INTEGER(type, name, mode, integer_name, integer)                                                           \
  inline integer __##name##2##integer_name##_##mode(type a) {                                                                   \
    return ::cnn::emulator::to_integer<integer>(::cnn::emulator::round_to_integral<::cnn::emulator::Rounding::mode>(float(a))); \
  }                                                                                                                             \
  inline type __##integer_name##2##name##_##mode(integer a) {                                                                   \
    const auto exact = ::cnn::emulator::round_to_odd<double>(static_cast<long double>(a));                                      \
    return ::cnn::emulator::round_to_half<type, ::cnn::emulator::Rounding::mode>(exact);                                        \
  }
CNN_EMULATOR_HALF_CONVERSIONS(__half, half)
CNN_EMULATOR_HALF_CONVERSIONS(__nv_bfloat16, bfloat16)
#undef CNN_EMULATOR_HALF_CONVERSIONS
#undef CNN_EMULATOR_ROUNDED
#undef CNN_EMULATOR_INTEGER
