// The implicit GEMM's host side, for the families that use it: what it refuses, its launches, and the rows of the catalogue. cut.h, units.h
// and cost.h have how a problem is cut, how operands move, and what that costs.
#pragma once

#include <string>

#include "conv2d/eligibility.h"
#include "conv2d/gemm/cost.h"
#include "conv2d/pack_images/pack_images.h"
#include "conv2d/plan.h"
#include "conv2d/sum_slabs/sum_slabs.h"

namespace cnn::conv2d {

template <class T>
const char* pack_filter_name() {
  static const std::string name = std::string("conv2d_pack_filter_") + short_name(TypeTraits<T>::kDType);
  return name.c_str();
}

// Launches the packing of the filter into `packed`, where it is read from then on.
template <class T>
void pack_filter(GemmParams& q, const Problem& p, void* packed, cudaStream_t stream) {
  PackFilterParams f{};
  f.filter = q.filter, f.packed = packed;
  f.filter_group = q.filter_group, f.filter_k = q.filter_k, f.filter_n = q.filter_n, f.filter_r = q.filter_r, f.filter_s = q.filter_s;
  f.groups = q.groups, f.k = q.in_channels, f.n = q.columns, f.taps = int(p.R * p.S);
  f.pitch = int(round_up(q.columns, 8));
  f.n_before_k = q.filter_k < q.filter_n;
  f.width = FastDiv<int32_t>(p.S);
  launch_pack_filter<T>(pack_filter_name<T>(), f, stream);
  q.filter = packed;
  q.filter_n = 1, q.filter_k = f.pitch, q.filter_s = f.k * f.pitch, q.filter_r = int(p.S) * q.filter_s;
  q.filter_group = f.taps * q.filter_s;
}

template <class T>
void run_gemm(const Kernel& kernel, const Problem& p, GemmTileName name, const GemmOptions& options, const Arguments& a) {
  const GemmView view(p);
  const GemmTileShape tile = shape_of(name);
  GemmPlan plan = plan_gemm(p, name, options);
  GemmParams& q = plan.params;
  const int size = int(sizeof(T));
  q.in = view.fprop ? a.x : a.y;
  q.filter = a.w, q.epilogue = a.epilogue, q.out = a.out;
  if (q.slabs > 1) q.partial = static_cast<float*>(a.workspace), q.epilogue = {};  // which sum_slabs has
  if (plan.packs_filter) pack_filter<T>(q, p, static_cast<unsigned char*>(a.workspace) + round_up(plan.partial_bytes, 16), a.stream);
  q.image_unit = image_unit(plan, p, q.in);
  q.filter_unit = filter_unit(q, p, q.filter);
  set_stores(q, tile, q.partial ? a.workspace : a.out, q.partial ? 4 : size);
  if constexpr (tensor_cores_have<T>) {
    if (tile.is_tensor()) launch_tensor_gemm<T>(kernel.name.c_str(), name, q, plan.blocks, plan.shared_bytes, a.stream);
  }
  if (!tile.is_tensor()) launch_gemm<T>(kernel.name.c_str(), name, plan.in_planar, q, plan.blocks, plan.shared_bytes, a.stream);
  if (q.slabs == 1) return;
  const int64_t channels = view.out_channels * p.groups;
  const Strides& out = view.out;
  if (q.out_planar)
    sum_slabs<T>({a.workspace, q.slabs, {p.N, channels, view.out_h, view.out_w}, a.out, {out.d0, out.d1, out.d2, out.d3}, a.epilogue, 1},
                 a.stream);
  else
    sum_slabs<T>({a.workspace, q.slabs, {p.N, view.out_h, view.out_w, channels}, a.out, {out.d0, out.d2, out.d3, out.d1}, a.epilogue, 3},
                 a.stream);
}

inline Configuration configure_gemm(const Problem& p, GemmTileName name, const GemmOptions& options) {
  const GemmPlan plan = plan_gemm(p, name, options);
  Configuration c;
  c.blocks = plan.blocks;
  c.slabs = plan.params.slabs;
  c.workspace_bytes = plan.packs_filter ? round_up(plan.partial_bytes, 16) + plan.packed_bytes : plan.partial_bytes;
  c.shared_bytes = plan.shared_bytes;
  return c;
}

// What every family that uses the implicit GEMM refuses.
inline std::string why_not_gemm(const Problem& p, GemmTileName name) {
  const GemmView view(p);
  if (shape_of(name).is_tensor()) {
    if (std::string why = why_not_tensor_cores(p); !why.empty()) return why;
    if (view.in.d1 != 1 && view.in_channels * p.groups > 1) return "the image it reads is not channels_last, nor packed so";
    if (std::max(p.R, p.S) > kMostTensorTaps)
      return "filter " + std::to_string(p.R) + "x" + std::to_string(p.S) + ": built for up to " + std::to_string(kMostTensorTaps) +
             " rows and columns";
  }
  if (std::string why = why_not_tuned(p); !why.empty()) return why;
  if (!view.fprop && std::max(p.stride_h, p.stride_w) > kMostClasses)
    return "stride " + std::to_string(std::max(p.stride_h, p.stride_w)) + ": built for strides up to " + std::to_string(kMostClasses);
  return {};
}

inline std::string name_of(GemmTileName name) {
  const GemmTileShape tile = shape_of(name);
  return (tile.is_tensor() ? "tensor_" : "") + std::to_string(tile.bm) + "x" + std::to_string(tile.bn);
}

// What a row of a family does. Family: kName, kOptions, passes and why_not, as static members.
template <class T, class Family, GemmTileName kTile>
struct GemmRow {
  static std::string why_not(const Kernel&, const Problem& p) {
    const std::string why = Family::why_not(p);
    return why.empty() ? why_not_gemm(p, kTile) : why;
  }
  static double cost(const Kernel&, const Problem& p) { return gemm_cost(p, kTile, Family::kOptions, p.tensor_bytes()); }
  static Configuration configure(const Kernel&, const Problem& p) { return configure_gemm(p, kTile, Family::kOptions); }
  static void run(const Kernel& kernel, const Problem& p, const Configuration&, const Arguments& a) {
    run_gemm<T>(kernel, p, kTile, Family::kOptions, a);
  }
};

// A row of the catalogue, but for its functions.
template <class T, GemmTileName kTile>
Kernel gemm_row(const char* family, const std::string& what, const std::vector<Pass>& passes) {
  const GemmTileShape tile = shape_of(kTile);
  Kernel row{};
  row.tf32 = tile.is_tensor() && sizeof(T) == 4;
  row.family = family;
  row.dtype = TypeTraits<T>::kDType;
  row.name = "conv2d_" + what + "_" + name_of(kTile) + "_" + arithmetic_of(row);
  row.passes = passes;
  row.bm = tile.bm, row.bn = tile.bn, row.bk = kGemmRowBytes / int(sizeof(T)), row.tm = tile.tm, row.tn = tile.tn;
  row.threads = tile.threads;
  row.index_bits = 32;
  row.stages = tile.stages;
  return row;
}

// The row for the images as they lie, and the one that packs them: of halves for tensor cores alone, since those have all that is packed.
template <class T, class Family, GemmTileName kTile>
void add_gemm_rows(std::vector<Kernel>& catalogue) {
  catalogue.push_back(gemm_row<T, kTile>(Family::kName, Family::kName, Family::passes()));
  use_functions<GemmRow<T, Family, kTile>>(catalogue.back());
  if (sizeof(T) == 2 && !shape_of(kTile).is_tensor()) return;
  catalogue.push_back(gemm_row<T, kTile>(Family::kName, Family::kName + std::string("_packed"), Family::passes()));
  use_functions<PackedRow<T, GemmRow<T, Family, kTile>>>(catalogue.back());
}

// `add` is called with each tile of the tensor cores, where these multiply the type.
template <class T, class Add>
void for_each_tensor_tile(const Add& add) {
  if constexpr (tensor_cores_have<T>) {
    add.template operator()<GemmTileName::kTensor128x256>();
    add.template operator()<GemmTileName::kTensor128x128>();
    add.template operator()<GemmTileName::kTensor128x64>();
    add.template operator()<GemmTileName::kTensor64x64>();
  }
}

// A family's rows on tensor cores.
template <class T, class Family>
void add_tensor_gemm_rows(std::vector<Kernel>& catalogue) {
  for_each_tensor_tile<T>([&]<GemmTileName kTile>() { add_gemm_rows<T, Family, kTile>(catalogue); });
}

}  // namespace cnn::conv2d
