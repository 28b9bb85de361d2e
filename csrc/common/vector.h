// N neighbouring values that move as one access of up to 16 bytes.
#pragma once

#include "common/platform.h"

namespace cnn {

template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Vector {
  T value[N];
};

// Reads the N values at `from`, which is aligned as they are.
template <int N, class T>
__device__ __forceinline__ Vector<T, N> load_vector(const T* from) {
  return *reinterpret_cast<const Vector<T, N>*>(from);
}

}  // namespace cnn
