// The one header through which kernel code gets CUDA: the toolkit's when nvcc compiles (or for a host file of the CUDA library,
// which defines CNN_TARGET_CUDA), the emulator's otherwise.
//
// Beyond CUDA itself a kernel may use, on either target:
//   CNN_SHARED(name, type)          static shared memory:  CNN_SHARED(tile, float[8][68]);
//   CNN_DYNAMIC_SHARED(name, type)  the launch's dynamic shared memory as `type* name`, 16-byte aligned
//   CNN_UNROLL                      before a loop whose trip count is a compile-time constant
//   CNN_NO_UNROLL                   before a loop that must not take registers from those around it
//   CNN_INNER_LOOP                  for the function that holds the arithmetic: inlined on a GPU, where its results must stay in
//                                   registers; a call on a host, whose compiler vectorises them only while they lie in memory
//   CNN_HOST_DEVICE                 for functions that the planner and the kernels share
// The shared-memory macros exist because a host compiler has no storage class that is "per block": through them the
// emulator gives every array its own guarded, NaN-filled memory (emulator/runtime.h).
#pragma once

namespace cnn {
template <class T>
struct Identity {
  using type = T;
};
}  // namespace cnn

#if defined(__CUDACC__) || defined(CNN_TARGET_CUDA)

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define CNN_SHARED(name, ...) __shared__ typename ::cnn::Identity<__VA_ARGS__>::type name
#define CNN_DYNAMIC_SHARED(name, ...)                         \
  extern __shared__ __align__(16) unsigned char name##_raw[]; \
  auto* const name = reinterpret_cast<__VA_ARGS__*>(name##_raw)
#define CNN_UNROLL _Pragma("unroll")
#define CNN_NO_UNROLL _Pragma("unroll 1")
#define CNN_INNER_LOOP __forceinline__
#define CNN_HOST_DEVICE __host__ __device__

#else

#include "emulator/cuda.h"

#define CNN_SHARED(name, ...)                                                       \
  static const ::cnn::emulator::SharedSite name##_site{#name, sizeof(__VA_ARGS__)}; \
  auto& name = *static_cast<typename ::cnn::Identity<__VA_ARGS__>::type*>(::cnn::emulator::static_shared(&name##_site))
#define CNN_DYNAMIC_SHARED(name, ...) auto* const name = static_cast<__VA_ARGS__*>(::cnn::emulator::dynamic_shared())
// On a GPU registers have no index: a loop over them is unrolled. On a host that doubles the time to compile, for runs a tenth to a quarter
// shorter.
#define CNN_UNROLL
#define CNN_NO_UNROLL _Pragma("GCC unroll 1")
#if defined(CNN_EMULATOR_CHECKED)
#define CNN_INNER_LOOP inline __attribute__((always_inline))  // nothing is vectorised there, and locals in registers are not instrumented
#else
#define CNN_INNER_LOOP __attribute__((noinline))
#endif
#define CNN_HOST_DEVICE inline

#endif
