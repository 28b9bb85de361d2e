// One way to launch a kernel on either target.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

#include "common/launch_log.h"
#include "common/platform.h"

namespace cnn {

struct LaunchShape {
  dim3 grid;
  dim3 block;
  std::size_t dynamic_shared_bytes = 0;
  cudaStream_t stream = nullptr;
};

#if defined(__CUDACC__)

inline void check_cuda(cudaError_t error, const char* kernel) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("kernel '") + kernel + "': " + cudaGetErrorString(error));
}

template <class... Params, class... Args>
void launch(const char* name, const LaunchShape& shape, void (*kernel)(Params...), const Args&... args) {
  constexpr std::size_t kDefaultShared = 48 * 1024;  // beyond it a kernel has to opt in
  if (shape.dynamic_shared_bytes > kDefaultShared)
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shape.dynamic_shared_bytes)), name);
  kernel<<<shape.grid, shape.block, shape.dynamic_shared_bytes, shape.stream>>>(args...);
  check_cuda(cudaGetLastError(), name);
  log_launch(name);
}

#else

template <class... Params, class... Args>
void launch(const char* name, const LaunchShape& shape, void (*kernel)(Params...), const Args&... args) {
  const auto body = [&] { kernel(args...); };
  emulator::launch(name, shape.grid, shape.block, shape.dynamic_shared_bytes, body, reinterpret_cast<const void*>(kernel));
  log_launch(name);
}

#endif

}  // namespace cnn
