// Trials: small programs that launch a kernel on memory of their own, to be held against every check or counted. docs/emulator.md.
//
//   __global__ void twice(const float* in, float* out, int n) { ... }
//
//   CNN_TRIAL(twice_of_1000) {
//     const float* in = trial.input<float>("in", {1000});  // 1, 2, 3, ...
//     float* out = trial.output<float>("out", {1000});     // NaN; each element has to be written
//     cnn::launch("twice", {dim3(4), dim3(256)}, twice, in, out, 1000);
//   }
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <type_traits>
#include <vector>

#include "common/async_copy.h"
#include "common/launch.h"

namespace cnn::emulator {

// A trial's memory; released when it ends. Sizes and strides are in elements; without strides a tensor is dense, its last axis innermost.
class Trial {
 public:
  using Extents = std::vector<std::int64_t>;

  // Holds 1, 2, 3, ... in memory order. Kernels must not write to it.
  template <class T>
  const T* input(const char* name, const Extents& sizes, const Extents& strides = {}) {
    T* data = make<T>(name, sizes, strides, Use::kInput);
    for (std::int64_t i = 0; i < span(sizes, strides); ++i) data[i] = T(float(i + 1));
    return data;
  }
  // Holds nothing. When the trial ends, each element must have been written. The trial may write to it itself, and to workspaces: between
  // launches, as a host does with cudaMemcpy.
  template <class T>
  T* output(const char* name, const Extents& sizes, const Extents& strides = {}) {
    return make<T>(name, sizes, strides, Use::kOutput);
  }
  // Holds nothing.
  template <class T>
  T* workspace(const char* name, const Extents& sizes, const Extents& strides = {}) {
    return make<T>(name, sizes, strides, Use::kWorkspace);
  }
  void require_written(const std::string& name) const {
    for (const auto& buffer : outputs_) buffer->require_written(name);
  }

 private:
  static constexpr std::size_t kAlignment = 512;  // of torch's allocator on a GPU
  static constexpr std::size_t kGap = 1 << 20;    // around a tensor, so that leaving it does not end in another

  static Extents dense(const Extents& sizes) {
    Extents strides(sizes.size(), 1);
    for (std::size_t axis = sizes.size(); axis-- > 1;) strides[axis - 1] = strides[axis] * sizes[axis];
    return strides;
  }
  static std::int64_t span(const Extents& sizes, const Extents& strides) {
    const Extents steps = strides.empty() ? dense(sizes) : strides;
    std::int64_t last = 0;
    for (std::size_t axis = 0; axis < sizes.size(); ++axis) last += (sizes[axis] - 1) * steps[axis];
    return last + 1;
  }
  template <class T>
  T* make(const char* name, const Extents& sizes, const Extents& strides, Use use) {
    const std::size_t bytes = (std::size_t(span(sizes, strides)) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    memory_.emplace_back(std::aligned_alloc(kAlignment, bytes + 2 * kGap), &std::free);
    T* const data = reinterpret_cast<T*>(static_cast<unsigned char*>(memory_.back().get()) + kGap);
    const std::uint32_t filling = poison();
    for (std::size_t i = 0; i < bytes; i += sizeof filling)
      std::memcpy(reinterpret_cast<unsigned char*>(data) + i, &filling, sizeof filling);
    Buffer buffer;
    buffer.name = name;
    buffer.data = data;
    buffer.item_bytes = sizeof(T);
    buffer.sizes = sizes;
    buffer.strides = strides.empty() ? dense(sizes) : strides;
    buffer.use = use;
    buffer.poisoned = use != Use::kInput;
    if constexpr (std::is_same_v<T, double>) buffer.values = Values::kFloat64;
    if constexpr (std::is_same_v<T, float>) buffer.values = Values::kFloat32;
    if constexpr (std::is_same_v<T, __half>) buffer.values = Values::kFloat16;
    if constexpr (std::is_same_v<T, __nv_bfloat16>) buffer.values = Values::kBFloat16;
    buffers_.push_back(std::make_shared<Declared>(buffer));
    if (use == Use::kOutput) outputs_.push_back(buffers_.back());
    return data;
  }

  std::vector<std::unique_ptr<void, decltype(&std::free)>> memory_;
  std::vector<std::shared_ptr<Declared>> buffers_, outputs_;
};

struct TrialEntry {
  const char* name;
  void (*run)(Trial&);
};
inline std::vector<TrialEntry>& trial_entries() {
  static std::vector<TrialEntry> entries;
  return entries;
}
struct AddTrial {
  AddTrial(const char* name, void (*run)(Trial&)) { trial_entries().push_back({name, run}); }
};

}  // namespace cnn::emulator

#define CNN_TRIAL(name)                                                          \
  static void trial_##name(::cnn::emulator::Trial& trial);                       \
  static const ::cnn::emulator::AddTrial add_trial_##name(#name, &trial_##name); \
  static void trial_##name([[maybe_unused]] ::cnn::emulator::Trial& trial)

// How cnnkernels.testing.trials finds and runs them.
extern "C" __attribute__((visibility("default"), used, weak)) int cnn_trial_count() { return int(cnn::emulator::trial_entries().size()); }
extern "C" __attribute__((visibility("default"), used, weak)) const char* cnn_trial_name(int index) {
  return cnn::emulator::trial_entries()[std::size_t(index)].name;
}
// 0, or 1 with the error's text.
extern "C" __attribute__((visibility("default"), used, weak)) int cnn_trial_run(int index, char* error, int error_size) {
  const cnn::emulator::TrialEntry& entry = cnn::emulator::trial_entries()[std::size_t(index)];
  try {
    cnn::emulator::Trial trial;
    entry.run(trial);
    trial.require_written(entry.name);
    return 0;
  } catch (const std::exception& wrong) {
    std::strncpy(error, wrong.what(), std::size_t(error_size) - 1);
    error[error_size - 1] = '\0';
    return 1;
  }
}
