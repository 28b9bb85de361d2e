// The rows of the transposed kernels: dgrad with a stride, or into a larger image than it came from.
#pragma once

#include <vector>

#include "conv2d/gemm/stack_host.h"
#include "conv2d/plan.h"
#include "conv2d/transposed/transposed.h"

namespace cnn::conv2d {

struct Transposed {
  static constexpr const char* kName = "transposed";
  static constexpr GemmOptions kOptions{.keep_operands = true};
  static std::vector<Pass> passes() { return {Pass::kDgrad}; }
  static std::string why_not(const Problem& p) {
    constexpr int64_t kLeastChannels = 8;  // of a group
    if (p.stride_h * p.stride_w == 1 && p.H <= p.P && p.W <= p.Q)
      return "stride 1, and no larger image: built for transposed and strided convolutions";
    if (p.groups > 1 && std::min(p.channels_per_group(), p.filters_per_group()) < kLeastChannels)
      return "groups of " + std::to_string(std::min(p.channels_per_group(), p.filters_per_group())) + " channels: built for 8 and more";
    return {};
  }
};

template <class T>
void add_transposed_kernels(std::vector<Kernel>& catalogue) {
  add_gemm_rows<T, Transposed, GemmTileName::k256x64>(catalogue);
  add_gemm_rows<T, Transposed, GemmTileName::k128x64>(catalogue);
  add_gemm_rows<T, Transposed, GemmTileName::k256x16>(catalogue);
  add_tensor_gemm_rows<T, Transposed>(catalogue);
  add_stack_rows<T, ResidentTransposed>(catalogue, {Pass::kDgrad});
}

}  // namespace cnn::conv2d
