// Vectors of values as floats.
#pragma once

#include "common/types.h"
#include "common/vector.h"

namespace cnn {

template <int N>
struct Words {
  unsigned word[N];
};

// v = the N values as floats. Of two bf16 in a word one is its upper half and the other is shifted there: one instruction each.
template <class T, int N>
__device__ __forceinline__ void widen_vector(const Vector<T, N>& from, float* v) {
  CNN_UNROLL
  for (int i = 0; i < N; ++i) v[i] = widen(from.value[i]);
}
template <int N>
__device__ __forceinline__ void widen_vector(const Vector<__nv_bfloat16, N>& from, float* v) {
  const auto words = __builtin_bit_cast(Words<N / 2>, from);
  CNN_UNROLL
  for (int i = 0; i < N; i += 2) {
    v[i] = __uint_as_float(words.word[i / 2] << 16);
    v[i + 1] = __uint_as_float(words.word[i / 2] & 0xffff0000u);
  }
}

}  // namespace cnn
