// The current device and stream, from torch. See tensor.h.
#include "bindings/tensor.h"

#if defined(CNN_TARGET_CUDA)

#include <dlfcn.h>

namespace cnn::bindings {
namespace {

// Lives in libtorch_cuda.so, which a CPU build of torch does not have: looked up when first needed, so that this library loads there.
using GetCurrentStream = int32_t (*)(int32_t device_index, void** stream);

GetCurrentStream find_get_current_stream() {
  void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
  void* symbol = library ? dlsym(library, "aoti_torch_get_current_cuda_stream") : nullptr;
  require(symbol != nullptr, "this torch has no CUDA: libtorch_cuda.so is not loaded");
  return reinterpret_cast<GetCurrentStream>(symbol);
}

}  // namespace

Device::Device(const Tensor& tensor) : guard_(tensor.get_device_index()) {
  static const GetCurrentStream get_current_stream = find_get_current_stream();
  void* stream = nullptr;
  require(get_current_stream(tensor.get_device_index(), &stream) == 0, "torch did not tell the current CUDA stream");
  stream_ = static_cast<cudaStream_t>(stream);
  int bytes = 0;
  require(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, tensor.get_device_index()) == cudaSuccess,
          "CUDA did not tell how much shared memory a block may have");
  block_shared_ = bytes;
}

}  // namespace cnn::bindings

// What the kernels were compiled for: "80, 90a, 100".
extern "C" __attribute__((visibility("default"))) const char* cnnkernels_cuda_architectures() { return CNN_CUDA_ARCHITECTURES; }

#else

namespace cnn::bindings {
Device::Device(const Tensor&) {}
}  // namespace cnn::bindings

#endif
