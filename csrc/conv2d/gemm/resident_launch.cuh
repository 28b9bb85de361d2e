// The kernels of stack.cuh and strip.cuh, compiled. Included by instantiations/resident_*.cu alone, one file per element type.
#pragma once

#include <stdexcept>
#include <string>

#include "common/launch.h"
#include "conv2d/gemm/stack.cuh"
#include "conv2d/gemm/strip.cuh"

namespace cnn::conv2d {

template <class T, int kGroup>
void launch_stack_of(const char* name, const StackParams& params, const LaunchShape& shape) {
  if (params.gemm.filter_inner) launch(name, shape, resident_gemm_kernel<StackOperands<T, kGroup, true>>, params);
  else launch(name, shape, resident_gemm_kernel<StackOperands<T, kGroup, false>>, params);
}

inline LaunchShape resident_shape(int blocks, int shared_bytes, cudaStream_t stream) {
  return {dim3(unsigned(blocks)), dim3(ResidentTile::kThreads), std::size_t(shared_bytes), stream};
}

template <class T>
void launch_stack(const char* name, int group, const StackParams& params, int blocks, int shared_bytes, cudaStream_t stream) {
  const LaunchShape shape = resident_shape(blocks, shared_bytes, stream);
  switch (group) {
    case 8: return launch_stack_of<T, 8>(name, params, shape);
    case 16: return launch_stack_of<T, 16>(name, params, shape);
    case 32: return launch_stack_of<T, 32>(name, params, shape);
    case 64: return launch_stack_of<T, 64>(name, params, shape);
    default: throw std::runtime_error(std::string(name) + ": no kernel for groups of " + std::to_string(group));
  }
}

template <class T>
void launch_strip(const char* name, const StripParams& params, int blocks, int shared_bytes, cudaStream_t stream) {
  launch(name, resident_shape(blocks, shared_bytes, stream), resident_gemm_kernel<StripOperands<T>>, params);
}

}  // namespace cnn::conv2d
