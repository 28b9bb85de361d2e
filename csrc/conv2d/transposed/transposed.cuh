// The rows of the transposed kernels: dgrad with a stride, or into a larger image than it came from.
#pragma once

#include <vector>

#include "conv2d/gemm/host.h"
#include "conv2d/plan.h"
#include "conv2d/transposed/transposed.h"

namespace cnn::conv2d {

constexpr GemmOptions kTransposedOptions{.keep_operands = true};

inline std::string why_not_transposed(const Kernel&, const Problem& p) {
  constexpr int64_t kLeastChannels = 8;  // of a group
  if (p.stride_h * p.stride_w == 1 && p.H <= p.P && p.W <= p.Q)
    return "stride 1, and no larger image: built for transposed and strided convolutions";
  if (p.groups > 1 && std::min(p.channels_per_group(), p.filters_per_group()) < kLeastChannels)
    return "groups of " + std::to_string(std::min(p.channels_per_group(), p.filters_per_group())) + " channels: built for 8 and more";
  return why_not_gemm(p);
}

template <class T, GemmTileName kTile>
void add_transposed(std::vector<Kernel>& catalogue) {
  Kernel row = gemm_row<T>("transposed", kTile);
  row.passes = {Pass::kDgrad};
  row.why_not = why_not_transposed;
  row.cost = [](const Kernel&, const Problem& p) { return gemm_cost(p, kTile, kTransposedOptions); };
  row.configure = [](const Kernel&, const Problem& p) { return configure_gemm(p, kTile, kTransposedOptions); };
  row.run = [](const Kernel& kernel, const Problem& p, const Configuration&, const Arguments& a) {
    run_gemm<T>(kernel, p, kTile, kTransposedOptions, a);
  };
  catalogue.push_back(row);
}

template <class T>
void add_transposed_kernels(std::vector<Kernel>& catalogue) {
  add_transposed<T, GemmTileName::k256x64>(catalogue);
  add_transposed<T, GemmTileName::k128x64>(catalogue);
  add_transposed<T, GemmTileName::k256x16>(catalogue);
}

}  // namespace cnn::conv2d
