// How much shared memory a block may have.
#pragma once

#include <cstdint>

namespace cnn {

// Of an H200, for which the kernels' tiles are made; sm_100 has as much, sm_80 163 KB, sm_86 and sm_89 99 KB (CUDA C++ programming guide,
// "Technical Specifications per Compute Capability"). There the plan takes what fits.
constexpr int64_t kBlockShared = 227 << 10;

// What a kernel has in static arrays beside its dynamic memory is less, where that is much: 6288 bytes are the most, of the largest tile
// of the implicit GEMM on CUDA cores (ptxas, nvcc 13.0).
constexpr int64_t kStaticShared = 7 << 10;

}  // namespace cnn
