// One way to launch a kernel on either target.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

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

// Without leave a block has 48 KB of shared memory, static and dynamic together. Every kernel that takes dynamic memory gets leave once,
// for all that the device has: were it for what this launch takes, another thread's smaller launch could come between.
inline void allow_shared_memory(const void* kernel, std::size_t dynamic_bytes, const char* name) {
  static std::mutex mutex;
  static std::map<std::pair<int, const void*>, int> allowed;  // by device and kernel: bytes
  int device = 0;
  check_cuda(cudaGetDevice(&device), name);
  const std::lock_guard<std::mutex> lock(mutex);
  int& most = allowed[{device, kernel}];
  if (most == 0) {
    cudaFuncAttributes attributes{};
    int all = 0;
    check_cuda(cudaFuncGetAttributes(&attributes, kernel), name);
    check_cuda(cudaDeviceGetAttribute(&all, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), name);
    all -= int(attributes.sharedSizeBytes);
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, all), name);
    most = all;
  }
  if (dynamic_bytes > std::size_t(most))
    throw std::runtime_error(std::string("kernel '") + name + "' takes " + std::to_string(dynamic_bytes) +
                             " bytes of dynamic shared memory, of which a block has " + std::to_string(most) + " on this device");
}

template <class... Params, class... Args>
void launch(const char* name, const LaunchShape& shape, void (*kernel)(Params...), const Args&... args) {
  if (shape.dynamic_shared_bytes > 0) allow_shared_memory(reinterpret_cast<const void*>(kernel), shape.dynamic_shared_bytes, name);
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
