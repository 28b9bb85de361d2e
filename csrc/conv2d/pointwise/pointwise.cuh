// The rows of the pointwise kernels: 1x1 filters as matrix products, fprop with any stride and dgrad with stride 1; of planes with stride 1
// all three passes on tensor cores.
#pragma once

#include <vector>

#include "conv2d/gemm/host.h"
#include "conv2d/plan.h"
#include "conv2d/pointwise/planes_wgrad.h"
#include "conv2d/pointwise/pointwise.h"

namespace cnn::conv2d {

struct Pointwise {
  static constexpr const char* kName = "pointwise";
  static constexpr GemmOptions kOptions{.keep_operands = true};
  static std::vector<Pass> passes() { return {Pass::kFprop, Pass::kDgrad}; }
  static std::string why_not(const Problem& p) {
    if (p.R * p.S != 1) return "filter " + std::to_string(p.R) + "x" + std::to_string(p.S) + ": built for 1x1";
    if (p.pass == Pass::kDgrad && p.stride_h * p.stride_w != 1) return "dgrad with a stride: the transposed kernels have it";
    if (p.is_depthwise()) return "one channel to a group: nothing to multiply";
    return {};
  }
};

template <class T>
void add_pointwise_kernels(std::vector<Kernel>& catalogue) {
  add_gemm_rows<T, Pointwise, GemmTileName::k256x64>(catalogue);
  add_gemm_rows<T, Pointwise, GemmTileName::k128x64>(catalogue);
  add_gemm_rows<T, Pointwise, GemmTileName::k256x16>(catalogue);
  add_tensor_gemm_rows<T, Pointwise>(catalogue);
  add_planes_rows<T>(catalogue);
  add_planes_wgrad_rows<T>(catalogue);
}

}  // namespace cnn::conv2d
