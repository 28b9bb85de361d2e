// The kernels of kernel.cuh, compiled. Included by instantiations/*.cu alone, one file per element type.
#pragma once

#include <stdexcept>
#include <string>

#include "common/launch.h"
#include "conv2d/resident_wgrad/kernel.cuh"

namespace cnn::conv2d {

template <class Operands>
void launch_resident_wgrad(const char* name, const ResidentWgradParams& params, int blocks, int shared_bytes, cudaStream_t stream) {
  const LaunchShape shape{dim3(unsigned(blocks)), dim3(kResidentWgradThreads), std::size_t(shared_bytes), stream};
  launch(name, shape, resident_wgrad_kernel<Operands>, params);
}

template <class T>
void launch_stack_wgrad(const char* name, int group, const ResidentWgradParams& params, int blocks, int shared_bytes, cudaStream_t stream) {
  switch (group) {
    case 8: return launch_resident_wgrad<StackWgrad<T, 8>>(name, params, blocks, shared_bytes, stream);
    case 16: return launch_resident_wgrad<StackWgrad<T, 16>>(name, params, blocks, shared_bytes, stream);
    case 32: return launch_resident_wgrad<StackWgrad<T, 32>>(name, params, blocks, shared_bytes, stream);
    default: throw std::runtime_error(std::string(name) + ": no kernel for groups of " + std::to_string(group));
  }
}

template <class T>
void launch_strip_wgrad(const char* name, const ResidentWgradParams& params, int blocks, int shared_bytes, cudaStream_t stream) {
  launch_resident_wgrad<StripWgrad<T>>(name, params, blocks, shared_bytes, stream);
}

}  // namespace cnn::conv2d
