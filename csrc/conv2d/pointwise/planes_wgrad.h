// The gradient of a 1x1 filter from planes as they lie, on tensor cores.
//
//   dw[k, c] = sum over n and pixels of  dy[n, k, pixel] * x[n, c, pixel]
//
// Both operands are dense along the pixels, over which is summed: what channels are to an fprop. So it is one, whose pixels are the filters
// k, whose channels are the pixels and whose taps are the images:
//
//                 fprop's       is here
//   x   [row r][column s * K + k][channel]    dy[n = r * across + s][k][pixel]
//   w   [column of the product][tap (r, s)]   x [n = r * across + s][c][pixel]
//   y   [pixel][column]                       dw[k][c]
//
// Bytes: dy once for every tile of columns, x once for every tile of rows; nothing is packed, and nothing turned round. FMAs: N * P * Q * K
// * C.
#pragma once

#include <string>
#include <vector>

#include "conv2d/gemm/host.h"
#include "conv2d/pointwise/planes.h"

namespace cnn::conv2d {

// Images side by side among the fprop's columns; 0: so many are no such rectangle.
inline int64_t images_across(int64_t images) {
  if (images <= kMostTensorTaps) return 1;
  for (int64_t across = kMostTensorTaps; across > 1; --across)
    if (images % across == 0 && images / across <= kMostTensorTaps) return across;
  return 0;
}

inline Problem planes_wgrad_as_fprop(const Problem& p) {
  const int64_t across = std::max<int64_t>(1, images_across(p.N));
  Problem f;
  f.pass = Pass::kFprop, f.dtype = p.dtype, f.allow_tf32 = p.allow_tf32, f.padding_mode = p.padding_mode;
  f.N = 1, f.C = p.P * p.Q, f.K = p.C;
  f.H = f.R = p.N / across, f.S = across, f.W = p.K * across;
  f.P = 1, f.Q = p.K, f.dilation_w = p.K;
  f.x = {0, 1, across * p.y.d0, p.y.d1};
  f.w = {p.x.d1, 1, across * p.x.d0, p.x.d0};
  f.y = {0, p.w.d1, 0, p.w.d0};
  return f;
}

template <class T, GemmTileName kTile>
struct PlanesWgradRow {
  static constexpr GemmOptions kOptions{.most_slabs = int(kTargetBlocks)};

  static std::string why_not(const Kernel&, const Problem& p) {
    if (std::string why = why_not_planes(p); !why.empty()) return why;
    const int64_t across = images_across(p.N);
    if (across == 0) return std::to_string(p.N) + " images: built for products of two numbers up to " + std::to_string(kMostTensorTaps);
    if (across > 1 && p.y.d0 != p.K * p.y.d1) return "the images of y do not follow each other";
    if (p.in_batches) return "one of several batches: built for all images";
    return why_not_gemm(planes_wgrad_as_fprop(p), kTile);
  }
  static double cost(const Kernel&, const Problem& p) { return gemm_cost(planes_wgrad_as_fprop(p), kTile, kOptions, p.tensor_bytes()); }
  static Configuration configure(const Kernel&, const Problem& p) { return configure_gemm(planes_wgrad_as_fprop(p), kTile, kOptions); }
  static void run(const Kernel& kernel, const Problem& p, const Configuration&, const Arguments& a) {
    Arguments of_fprop = a;
    of_fprop.x = a.y, of_fprop.w = a.x;
    run_gemm<T>(kernel, planes_wgrad_as_fprop(p), kTile, kOptions, of_fprop);
  }
};

template <class T>
void add_planes_wgrad_rows(std::vector<Kernel>& catalogue) {
  for_each_tensor_tile<T>([&]<GemmTileName kTile>() {
    catalogue.push_back(gemm_row<T, kTile>("pointwise", "pointwise_wgrad_planes", {Pass::kWgrad}));
    use_functions<PlanesWgradRow<T, kTile>>(catalogue.back());
  });
}

}  // namespace cnn::conv2d
