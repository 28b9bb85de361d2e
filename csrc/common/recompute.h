// Keeps a value's consequences out of registers.
#pragma once

#include "common/platform.h"

namespace cnn {

// The value, of which the compiler does not see that it is the same each time: what follows from it is worked out where it is used, not
// ahead of the loops around it. For addresses that are needed seldom, in kernels whose results take the registers.
__device__ __forceinline__ int recompute(int value) {
#if defined(__CUDACC__)
  asm volatile("" : "+r"(value));
#endif
  return value;
}

}  // namespace cnn
