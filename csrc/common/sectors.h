// Where addresses lie in the 32-byte sectors in which memory moves.
#pragma once

#include <cstdint>

#include "common/platform.h"

namespace cnn {

// How many units of so many bytes, a power of two, the sector with `address` has before it. Threads that take units in order, moved on by
// as many, ask for whole sectors wherever a row begins.
__device__ __forceinline__ int sector_phase(std::uintptr_t address, int unit_bytes) {
  constexpr int kSectorBytes = 32;
  return int(address % kSectorBytes) / unit_bytes;
}
__device__ __forceinline__ int sector_phase(const void* address, int unit_bytes) {
  return sector_phase(reinterpret_cast<std::uintptr_t>(address), unit_bytes);
}

}  // namespace cnn
