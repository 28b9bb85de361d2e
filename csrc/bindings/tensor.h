// What the operators need of torch, through its stable ABI: dtypes, strides, outputs, workspaces, the device and its stream.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/MemoryFormat.h>
#include <torch/headeronly/core/ScalarType.h>

#include <list>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/block_shared.h"
#include "common/integers.h"
#include "common/platform.h"
#include "common/types.h"

#if defined(CNN_TARGET_CUDA)
#define CNN_DISPATCH_KEY CUDA
#else
#define CNN_DISPATCH_KEY CPU
#endif

namespace cnn::bindings {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Sizes = std::vector<int64_t>;

template <class... Parts>
void require(bool condition, const Parts&... parts) {
  if (condition) return;
  std::ostringstream text;
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

// Prints as [2, 3, 4]; costs nothing until it is printed.
struct ShapeOf {
  const Tensor& tensor;
};
inline std::ostream& operator<<(std::ostream& out, const ShapeOf& shape) {
  out << '[';
  for (int64_t i = 0; i < shape.tensor.dim(); ++i) out << (i ? ", " : "") << shape.tensor.size(i);
  return out << ']';
}

inline DType dtype_of(const Tensor& tensor, const char* what) {
  switch (tensor.scalar_type()) {
    case ScalarType::Double: return DType::kFloat64;
    case ScalarType::Float: return DType::kFloat32;
    case ScalarType::Half: return DType::kFloat16;
    case ScalarType::BFloat16: return DType::kBFloat16;
    default: throw std::runtime_error(std::string(what) + " must be float64, float32, float16 or bfloat16");
  }
}

inline void require_4d(const Tensor& tensor, const char* what) {
  require(tensor.dim() == 4, what, " must have 4 dimensions, not ", ShapeOf{tensor});
}

inline void require_like(const Tensor& tensor, const char* what, const Tensor& other, const char* other_what) {
  require(tensor.scalar_type() == other.scalar_type(), what, " and ", other_what, " must have the same dtype");
  require(tensor.is_cuda() == other.is_cuda() && tensor.get_device_index() == other.get_device_index(), what, " and ", other_what,
          " must be on the same device");
}

inline void require_pair(const Sizes& values, const char* what) {
  require(values.size() == 2, what, " must have 2 values, not ", values.size());
}

inline Strides strides_of(const Tensor& tensor) { return {tensor.stride(0), tensor.stride(1), tensor.stride(2), tensor.stride(3)}; }

inline Tensor empty(const Sizes& sizes, ScalarType dtype, const Tensor& like, bool channels_last) {
  using torch::headeronly::MemoryFormat;
  return torch::stable::empty({sizes.data(), sizes.size()}, dtype, std::nullopt, like.device(), std::nullopt,
                              channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

inline Tensor empty_4d(const Sizes& sizes, const Tensor& like, bool channels_last) {
  return empty(sizes, like.scalar_type(), like, channels_last);
}

// Scratch memory of accumulators. Typed, so that torch's own fill of uninitialised memory makes it NaN.
inline std::optional<Tensor> workspace(int64_t bytes, DType dtype, const Tensor& like) {
  if (bytes == 0) return std::nullopt;
  const bool wide = dtype == DType::kFloat64;
  return empty({bytes / (wide ? 8 : 4)}, wide ? ScalarType::Double : ScalarType::Float, like, false);
}

// The memory that an operator's kernels may touch, by name: the checked emulator holds each of their accesses against it.
class Buffers {
 public:
#if defined(CNN_TARGET_CUDA)
  const void* input(const char*, const Tensor& tensor) { return tensor.const_data_ptr(); }
  void* output(const char*, Tensor& tensor) { return tensor.mutable_data_ptr(); }
  void* workspace(Tensor& tensor) { return tensor.mutable_data_ptr(); }
  void require_written(const std::string&) const {}
#else
  const void* input(const char* name, const Tensor& tensor) {
    declare(name, tensor, emulator::Use::kInput);
    return tensor.const_data_ptr();
  }
  void* output(const char* name, Tensor& tensor) {
    declare(name, tensor, emulator::Use::kOutput);
    return tensor.mutable_data_ptr();
  }
  void* workspace(Tensor& tensor) {
    declare("workspace", tensor, emulator::Use::kWorkspace);
    return tensor.mutable_data_ptr();
  }

  // Under the checked emulator: an error unless every element of every output has been written. `kernel`: who should have.
  void require_written(const std::string& kernel) const {
    for (const emulator::Declared* output : outputs_) output->require_written(kernel);
  }

 private:
  void declare(const char* name, const Tensor& tensor, emulator::Use use) {
    if (!emulator::observer) return;
    emulator::Buffer buffer;
    buffer.name = name;
    buffer.data = tensor.const_data_ptr();
    buffer.item_bytes = std::size_t(tensor.element_size());
    for (int64_t axis = 0; axis < tensor.dim(); ++axis) {
      buffer.sizes.push_back(tensor.size(axis));
      buffer.strides.push_back(tensor.stride(axis));
    }
    buffer.use = use;
    switch (tensor.scalar_type()) {
      case ScalarType::Double: buffer.values = emulator::Values::kFloat64; break;
      case ScalarType::Float: buffer.values = emulator::Values::kFloat32; break;
      case ScalarType::Half: buffer.values = emulator::Values::kFloat16; break;
      case ScalarType::BFloat16: buffer.values = emulator::Values::kBFloat16; break;
      default: break;
    }
    declared_.emplace_back(buffer);
    if (use == emulator::Use::kOutput) outputs_.push_back(&declared_.back());
  }

  std::list<emulator::Declared> declared_;
  std::vector<const emulator::Declared*> outputs_;
#endif
};

// Makes the tensor's device current while it lives and knows the stream to launch on.
class Device {
 public:
  explicit Device(const Tensor& tensor);
  cudaStream_t stream() const { return stream_; }
  // Bytes of shared memory that a block may have there.
  int64_t block_shared() const { return block_shared_; }

 private:
#if defined(CNN_TARGET_CUDA)
  torch::stable::accelerator::DeviceGuard guard_;
#endif
  cudaStream_t stream_ = nullptr;
  int64_t block_shared_ = kBlockShared;
};

}  // namespace cnn::bindings
