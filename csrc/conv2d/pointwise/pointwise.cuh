// The rows of the pointwise kernels: 1x1 filters as matrix products, fprop with any stride and dgrad with stride 1.
#pragma once

#include <vector>

#include "conv2d/gemm/host.h"
#include "conv2d/plan.h"
#include "conv2d/pointwise/pointwise.h"

namespace cnn::conv2d {

constexpr GemmOptions kPointwiseOptions{.keep_operands = true};

inline std::string why_not_pointwise(const Kernel&, const Problem& p) {
  if (p.R * p.S != 1) return "filter " + std::to_string(p.R) + "x" + std::to_string(p.S) + ": built for 1x1";
  if (p.pass == Pass::kDgrad && p.stride_h * p.stride_w != 1) return "dgrad with a stride: the transposed kernels have it";
  if (p.is_depthwise()) return "one channel to a group: nothing to multiply";
  return why_not_gemm(p);
}

template <class T, GemmTileName kTile>
void add_pointwise(std::vector<Kernel>& catalogue) {
  Kernel row = gemm_row<T>("pointwise", kTile);
  row.why_not = why_not_pointwise;
  row.cost = [](const Kernel&, const Problem& p) { return gemm_cost(p, kTile, kPointwiseOptions); };
  row.configure = [](const Kernel&, const Problem& p) { return configure_gemm(p, kTile, kPointwiseOptions); };
  row.run = [](const Kernel& kernel, const Problem& p, const Configuration&, const Arguments& a) {
    run_gemm<T>(kernel, p, kTile, kPointwiseOptions, a);
  };
  catalogue.push_back(row);
}

template <class T>
void add_pointwise_kernels(std::vector<Kernel>& catalogue) {
  add_pointwise<T, GemmTileName::k256x64>(catalogue);
  add_pointwise<T, GemmTileName::k128x64>(catalogue);
  add_pointwise<T, GemmTileName::k256x16>(catalogue);
}

}  // namespace cnn::conv2d
