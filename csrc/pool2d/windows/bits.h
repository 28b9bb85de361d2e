// The bits of small values, and back.
#pragma once

#include "common/platform.h"

namespace cnn::pool2d {

__device__ __forceinline__ uint32_t bits_of(uint8_t value) { return value; }
__device__ __forceinline__ uint32_t bits_of(__half value) { return __half_as_ushort(value); }
__device__ __forceinline__ uint32_t bits_of(__nv_bfloat16 value) { return __bfloat16_as_ushort(value); }

// Of the lowest bits.
template <class T>
__device__ __forceinline__ T from_bits(uint32_t bits);
template <>
__device__ __forceinline__ uint8_t from_bits<uint8_t>(uint32_t bits) {
  return uint8_t(bits);
}
template <>
__device__ __forceinline__ __half from_bits<__half>(uint32_t bits) {
  return __ushort_as_half(static_cast<unsigned short>(bits));
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_bits<__nv_bfloat16>(uint32_t bits) {
  return __ushort_as_bfloat16(static_cast<unsigned short>(bits));
}

}  // namespace cnn::pool2d
