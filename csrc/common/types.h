// Element types: the four the kernels know, the type each is accumulated in, and the conversions between them.
#pragma once

#include "common/platform.h"

namespace cnn {

enum class DType { kFloat64, kFloat32, kFloat16, kBFloat16 };

constexpr int size_of(DType dtype) { return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2; }
constexpr int accumulator_size(DType dtype) { return dtype == DType::kFloat64 ? 8 : 4; }
constexpr const char* short_name(DType dtype) {
  return dtype == DType::kFloat64 ? "f64" : dtype == DType::kFloat32 ? "f32" : dtype == DType::kFloat16 ? "f16" : "bf16";
}

template <class T>
struct TypeTraits;
template <>
struct TypeTraits<double> {
  using Accumulator = double;
  static constexpr DType kDType = DType::kFloat64;
};
template <>
struct TypeTraits<float> {
  using Accumulator = float;
  static constexpr DType kDType = DType::kFloat32;
};
template <>
struct TypeTraits<__half> {
  using Accumulator = float;
  static constexpr DType kDType = DType::kFloat16;
};
template <>
struct TypeTraits<__nv_bfloat16> {
  using Accumulator = float;
  static constexpr DType kDType = DType::kBFloat16;
};
template <class T>
using Accumulator = typename TypeTraits<T>::Accumulator;

__device__ __forceinline__ double widen(double value) { return value; }
__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(__half value) { return __half2float(value); }
__device__ __forceinline__ float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

template <class T>
__device__ __forceinline__ T narrow(Accumulator<T> value) {
  return value;
}
template <>
__device__ __forceinline__ __half narrow<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

}  // namespace cnn
