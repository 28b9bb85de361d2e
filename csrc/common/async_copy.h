// cp.async: copies from global to shared memory that pass by the registers and land while the thread goes on.
//
//   copy_async<16>(&tile[0], x);   any number of them,
//   commit_async();                which this closes into a group;
//   wait_async<1>();               until all groups but the newest one have landed,
//   __syncthreads();               and then the other threads may read them too.
//
// Each thread waits for its own copies alone. The emulator lets a copy land only at the wait that covers it.
// PTX ISA, "Data Movement and Conversion Instructions: Asynchronous copy"; sm_80 and newer.
#pragma once

#include "common/platform.h"

namespace cnn {

// Copies Bytes (4, 8 or 16; both addresses aligned to as many), of which only the first `valid` are read: the rest are zeros.
// With `valid` 0 the global address is not touched.
template <int Bytes>
__device__ __forceinline__ void copy_async(void* shared, const void* global, int valid = Bytes) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16, "cp.async copies 4, 8 or 16 bytes");
#if defined(__CUDACC__)
  const unsigned address = unsigned(__cvta_generic_to_shared(shared));
  if constexpr (Bytes == 16) {  // .cg: through L2 alone
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "r"(valid) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(address), "l"(global), "n"(Bytes), "r"(valid) : "memory");
  }
#else
  emulator::copy_async(shared, global, Bytes, valid);
#endif
}

// The same of 16 bytes, all or none: zeros where `exists` is false, and the global address is not touched. In the machine code that is a
// predicate, where a number of bytes takes six instructions.
__device__ __forceinline__ void copy_async_if(bool exists, void* shared, const void* global) {
#if defined(__CUDACC__)
  const unsigned address = unsigned(__cvta_generic_to_shared(shared));
  asm volatile(
      "{\n"
      "  .reg .pred ignored;\n"
      "  setp.eq.s32 ignored, %2, 0;\n"
      "  cp.async.cg.shared.global [%0], [%1], 16, ignored;\n"
      "}\n" ::"r"(address),
      "l"(global), "r"(int(exists))
      : "memory");
#else
  emulator::copy_async(shared, global, 16, exists ? 16 : 0);
#endif
}

// Closes the copies since the last call into a group.
__device__ __forceinline__ void commit_async() {
#if defined(__CUDACC__)
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  emulator::commit_async();
#endif
}

// Waits until at most the newest `Groups` of this thread's groups are in flight.
template <int Groups>
__device__ __forceinline__ void wait_async() {
#if defined(__CUDACC__)
  asm volatile("cp.async.wait_group %0;" ::"n"(Groups) : "memory");
#else
  emulator::wait_async(Groups);
#endif
}

}  // namespace cnn
