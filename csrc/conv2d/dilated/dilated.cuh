// The rows of the dilated kernels: dense convolutions with dilation and stride 1, whose taps often fall on padding.
#pragma once

#include <vector>

#include "conv2d/dilated/dilated.h"
#include "conv2d/gemm/host.h"
#include "conv2d/plan.h"

namespace cnn::conv2d {

constexpr GemmOptions kDilatedOptions{.rectangles = true};

inline std::string why_not_dilated(const Kernel&, const Problem& p) {
  if (p.dilation_h * p.dilation_w == 1) return "dilation 1: built for more";
  if (p.stride_h * p.stride_w != 1) return "a stride: built for stride 1";
  if (p.groups != 1) return "groups " + std::to_string(p.groups) + ": built for 1";
  return why_not_gemm(p);
}

template <class T, GemmTileName kTile>
void add_dilated(std::vector<Kernel>& catalogue) {
  Kernel row = gemm_row<T>("dilated", kTile);
  row.why_not = why_not_dilated;
  row.cost = [](const Kernel&, const Problem& p) { return gemm_cost(p, kTile, kDilatedOptions); };
  row.configure = [](const Kernel&, const Problem& p) { return configure_gemm(p, kTile, kDilatedOptions); };
  row.run = [](const Kernel& kernel, const Problem& p, const Configuration&, const Arguments& a) {
    run_gemm<T>(kernel, p, kTile, kDilatedOptions, a);
  };
  catalogue.push_back(row);
}

template <class T>
void add_dilated_kernels(std::vector<Kernel>& catalogue) {
  add_dilated<T, GemmTileName::k128x64>(catalogue);
  add_dilated<T, GemmTileName::k256x16>(catalogue);
}

}  // namespace cnn::conv2d
