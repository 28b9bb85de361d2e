// 1x1 convolutions with stride 1 of planes as they lie, on tensor cores: what the three passes have in common, and fprop and dgrad. Nothing
// is packed but, for dgrad, the filter. planes_wgrad.h has wgrad.
//
//   y[n, k, pixel] = sum over c of  w[k, c] * x[n, c, pixel]          x[n, c, pixel] = sum over k of  w[k, c] * y[n, k, pixel]
//
// Rows are filters (channels, in dgrad), columns are pixels, along which planes are dense, and every image is a group with a filter of its
// own: the image. So an fprop does it
//
//                 fprop's                       is here
//   x   [pixel][channel], of every group        w[k][c]; in dgrad packed as [c][k]
//   w   [group][column][channel]                x[n][c][pixel], y[n][k][pixel]
//   y   [pixel][group][column]                  y[n][k][pixel], x[n][c][pixel]
//
// but for groups that lie apart, and an epilogue whose channels are the rows.
//
// Bytes: the planes once for every tile of rows, the filter once for every tile of pixels. FMAs: N * P * Q * K * C.
#pragma once

#include <string>
#include <vector>

#include "conv2d/gemm/host.h"

namespace cnn::conv2d {

inline std::string why_not_planes(const Problem& p) {
  const auto are_planes = [](const Strides& s, int64_t h, int64_t w) { return (s.d3 == 1 || w == 1) && (s.d2 == w || h == 1); };
  if (p.R * p.S != 1) return "filter " + std::to_string(p.R) + "x" + std::to_string(p.S) + ": built for 1x1";
  if (p.stride_h * p.stride_w != 1 || p.pad_h != 0 || p.pad_w != 0 || p.P != p.H || p.Q != p.W)
    return "a stride or padding: built for as many results as pixels";
  if (p.groups != 1) return "groups: built for one";
  if (p.P * p.Q == 1 || !are_planes(p.x, p.H, p.W) || !are_planes(p.y, p.P, p.Q)) return "x and y are not of dense planes";
  if (p.w.d1 != 1 && p.C > 1) return "the channels of w are not dense";
  // Smaller units are copied by one thread one after another: a warp touches each sector several times.
  constexpr int64_t kUnit = 16;
  const auto in_units = [&](const Strides& s) {
    return s.d1 * size_of(p.dtype) % kUnit == 0 && (p.N == 1 || s.d0 * size_of(p.dtype) % kUnit == 0);
  };
  if (!in_units(p.x) || !in_units(p.y)) return "planes of " + std::to_string(p.P * p.Q) + " pixels: built for multiples of 16 bytes";
  return why_not_tuned(p);
}

template <class T, GemmTileName kTile>
struct PlanesRow {
  // Of the product: its rows, and what is summed over.
  struct View {
    const Strides &in, &out;
    int64_t rows, depth;
    bool packs;  // the filter

    explicit View(const Problem& p)
        : in(p.pass == Pass::kFprop ? p.x : p.y),
          out(p.pass == Pass::kFprop ? p.y : p.x),
          rows(p.pass == Pass::kFprop ? p.K : p.C),
          depth(p.pass == Pass::kFprop ? p.C : p.K),
          packs(p.pass == Pass::kDgrad) {}
    int64_t pitch() const { return round_up(depth, 8); }  // of packed rows
    int64_t packed_bytes() const { return packs ? rows * pitch() * int64_t(sizeof(T)) : 0; }
  };

  static Problem as_fprop(const Problem& p) {
    const View view(p);
    Problem f;
    f.pass = Pass::kFprop, f.dtype = p.dtype, f.allow_tf32 = p.allow_tf32, f.padding_mode = p.padding_mode;
    f.groups = p.N, f.N = f.H = f.P = f.R = f.S = 1;
    f.C = p.N * view.depth, f.K = p.N * p.P * p.Q, f.W = f.Q = view.rows;
    f.x = {0, 1, 0, view.packs ? view.pitch() : p.w.d0};
    f.w = {1, view.in.d1, 0, 0};
    f.y = {0, 1, 0, view.out.d1};
    return f;
  }
  static GemmOptions options(const Problem& p) {
    const View view(p);
    return {.slabs = false, .groups_apart = std::array{0, int(view.in.d0), int(view.out.d0)}};
  }
  static std::string why_not(const Kernel&, const Problem& p) {
    const std::string why = why_not_planes(p);
    return why.empty() ? why_not_gemm(as_fprop(p), kTile) : why;
  }
  static double cost(const Kernel&, const Problem& p) {
    // The filter is packed by a launch of its own, which reads as much as it writes.
    Work packing;
    packing.dram_bytes = packing.l2_bytes = 2 * double(View(p).packed_bytes());
    packing.blocks = std::max(1.0, double(View(p).packed_bytes()) / (16 * 1024));
    const double time = gemm_cost(as_fprop(p), kTile, options(p), p.tensor_bytes());
    return View(p).packs ? time + microseconds(packing) : time;
  }
  static Configuration configure(const Kernel&, const Problem& p) {
    Configuration c = configure_gemm(as_fprop(p), kTile, options(p));
    c.workspace_bytes = View(p).packed_bytes();
    return c;
  }
  static void run(const Kernel& kernel, const Problem& p, const Configuration&, const Arguments& a) {
    const View view(p);
    Arguments of_fprop = a;
    of_fprop.x = a.w, of_fprop.w = p.pass == Pass::kFprop ? a.x : a.y;
    if (view.packs) {
      of_fprop.x = a.workspace;
      PackFilterParams f{};
      f.filter = a.w, f.packed = a.workspace;
      f.filter_k = int(p.w.d1), f.filter_n = int(p.w.d0);
      f.groups = f.taps = 1, f.k = int(p.C), f.n = int(p.K), f.pitch = int(view.pitch()), f.n_before_k = f.filter_k < f.filter_n;
      f.width = FastDiv<int32_t>(1);
      launch_pack_filter<T>(pack_filter_name<T>(), f, a.stream);
    }
    run_gemm<T>(kernel, as_fprop(p), kTile, options(p), of_fprop);
  }
};

template <class T>
void add_planes_rows(std::vector<Kernel>& catalogue) {
  for_each_tensor_tile<T>([&]<GemmTileName kTile>() {
    catalogue.push_back(gemm_row<T, kTile>("pointwise", "pointwise_planes", {Pass::kFprop, Pass::kDgrad}));
    use_functions<PlanesRow<T, kTile>>(catalogue.back());
  });
}

}  // namespace cnn::conv2d
