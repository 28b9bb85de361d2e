// The rows of the dense kernels: filters of several taps whose channels all meet, fprop with any stride and dgrad with stride 1.
#pragma once

#include <vector>

#include "conv2d/dense/dense.h"
#include "conv2d/gemm/stack_host.h"
#include "conv2d/plan.h"

namespace cnn::conv2d {

struct Dense {
  static constexpr const char* kName = "dense";
  static constexpr GemmOptions kOptions{.rectangles = true};
  static std::vector<Pass> passes() { return {Pass::kFprop, Pass::kDgrad}; }
  static std::string why_not(const Problem& p) {
    constexpr int64_t kLeastChannels = 8;  // of a group
    const bool strided = p.stride_h * p.stride_w != 1;
    if (p.R * p.S == 1) return "filter 1x1: the pointwise kernels have it";
    if (p.pass == Pass::kDgrad && (strided || p.H > p.P || p.W > p.Q)) return "dgrad to a larger image: the transposed kernels have it";
    if (!strided && p.dilation_h * p.dilation_w != 1 && p.groups == 1) return "a dilation: the dilated kernels have it";
    if (p.groups > 1 && std::min(p.channels_per_group(), p.filters_per_group()) < kLeastChannels)
      return "groups of " + std::to_string(std::min(p.channels_per_group(), p.filters_per_group())) + " channels: built for 8 and more";
    return {};
  }
};

template <class T>
void add_dense_kernels(std::vector<Kernel>& catalogue) {
  add_gemm_rows<T, Dense, GemmTileName::k256x64>(catalogue);
  add_gemm_rows<T, Dense, GemmTileName::k128x64>(catalogue);
  add_gemm_rows<T, Dense, GemmTileName::k256x16>(catalogue);
  add_tensor_gemm_rows<T, Dense>(catalogue);
  add_stack_rows<T, ResidentDense>(catalogue);
}

}  // namespace cnn::conv2d
