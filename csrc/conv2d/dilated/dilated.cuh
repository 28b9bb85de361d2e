// The rows of the dilated kernels: dense convolutions with dilation and stride 1, whose taps often fall on padding.
#pragma once

#include <vector>

#include "conv2d/dilated/dilated.h"
#include "conv2d/gemm/host.h"
#include "conv2d/plan.h"

namespace cnn::conv2d {

struct Dilated {
  static constexpr const char* kName = "dilated";
  static constexpr GemmOptions kOptions{.rectangles = true};
  static std::vector<Pass> passes() { return {Pass::kFprop, Pass::kDgrad}; }
  static std::string why_not(const Problem& p) {
    if (p.dilation_h * p.dilation_w == 1) return "dilation 1: built for more";
    if (p.stride_h * p.stride_w != 1) return "a stride: built for stride 1";
    if (p.groups != 1) return "groups " + std::to_string(p.groups) + ": built for 1";
    return {};
  }
};

template <class T>
void add_dilated_kernels(std::vector<Kernel>& catalogue) {
  add_gemm_rows<T, Dilated, GemmTileName::k128x64>(catalogue);
  add_gemm_rows<T, Dilated, GemmTileName::k256x16>(catalogue);
  add_tensor_gemm_rows<T, Dilated>(catalogue);
}

}  // namespace cnn::conv2d
