// The host side of strip.cuh: what it refuses, how the work is cut, its cost, and the row of the catalogue.
#pragma once

#include "conv2d/gemm/resident_host.h"

namespace cnn::conv2d {

using StripPlan = ResidentPlan<StripParams>;

inline StripPlan plan_strip(const Problem& p, int tile_w) {
  constexpr int kTapsOfTurn = 4, kTurnBytes = 64 * 2 * kGemmChunkBytes;
  const int size = size_of(p.dtype);
  StripPlan plan;
  plan.plan = plan_gemm(p, kResidentName, kResidentOptions);
  StripParams& r = plan.params;
  r.gemm = plan.plan.params;
  GemmParams& q = r.gemm;
  cut_rows(q, tile_w);
  r.taps_h = int(p.R), r.taps_w = int(p.S);
  r.turns = int(ceil_div(p.S, kTapsOfTurn));
  r.filter_bytes = r.taps_h * r.turns * kTurnBytes;
  r.chunk_pixels = p.stride_w % 2 == 0 ? 2 : 1;
  const int pixels = (q.tile_w - 1) * q.w.in_per_out + kTapsOfTurn * r.turns;
  r.pixels = FastDiv<int32_t>(pixels);
  set_places(r.halo, (q.tile_h - 1) * q.h.in_per_out + r.taps_h, r.chunk_pixels == 2 ? pixels / 2 : pixels - 1,
             q.w.in_per_out / r.chunk_pixels, 8);
  r.halo.origin_h = q.h.classes[0].first_in, r.halo.origin_w = q.w.classes[0].first_in;
  set_blocks(plan, q, r.halo.height * r.halo.pitch * kGemmChunkBytes, size);

  // Of a value of the halo, estimated from the source: its pixel, bounds, the address, its place.
  constexpr double kValue = 20;
  const ResidentTurn turn{2 + 4, 2 * 8, kMatrixClocks, 57};
  const double values = double(q.items) * r.halo.height * pixels * double(p.C) + double(plan.blocks) * r.filter_bytes / size;
  plan.work = resident_work(p, q, plan.blocks, double(q.items) * r.taps_h * r.turns, turn, values, kValue, values * size);
  return plan;
}

inline StripPlan plan_strip(const Problem& p) {
  return plan_resident([&](int tile_w) { return plan_strip(p, tile_w); });
}

// What has no strip.
inline std::string why_not_strip(const Problem& p) {
  constexpr int64_t kMostChannels = 4;
  if (p.groups != 1) return "grouped";
  if (p.C > kMostChannels) return std::to_string(p.C) + " channels: built for up to " + std::to_string(kMostChannels);
  if (p.R * p.S == 1) return "1x1 filter";
  if (p.dilation_h * p.dilation_w != 1) return "a dilation: neighbouring taps are neighbouring pixels";
  return {};
}

struct StripRow {
  static std::string why_not(const Kernel&, const Problem& p) {
    if (std::string why = why_not_resident(p); !why.empty()) return why;
    if (std::string why = why_not_strip(p); !why.empty()) return why;
    if (plan_strip(p).shared_bytes > kResidentMostShared) return "filter and halo do not fit into shared memory";
    return {};
  }
  static double cost(const Kernel&, const Problem& p) { return microseconds(plan_strip(p).work); }
  static Configuration configure(const Kernel&, const Problem& p) {
    const StripPlan plan = plan_strip(p);
    Configuration c;
    c.blocks = plan.blocks;
    c.shared_bytes = plan.shared_bytes;
    set_tile(c, plan.params.gemm);
    return c;
  }
  template <class T>
  static void run(const Kernel& kernel, const Problem& p, const Configuration& configuration, const Arguments& a) {
    StripPlan plan = plan_strip(p, tile_columns(configuration));
    GemmParams& q = plan.params.gemm;
    q.in = a.x, q.filter = a.w, q.epilogue = a.epilogue, q.out = a.out;
    set_stores(q, kResidentTile, a.out, int(sizeof(T)));
    launch_strip<T>(kernel.name.c_str(), plan.params, plan.blocks, plan.shared_bytes, a.stream);
  }
};

template <class T>
void add_strip_row(std::vector<Kernel>& catalogue) {
  if constexpr (sizeof(T) == 2) {
    Kernel row = resident_row<T>("first_layer", "first_layer_tensor", {Pass::kFprop});
    row.why_not = StripRow::why_not, row.cost = StripRow::cost, row.configure = StripRow::configure, row.run = StripRow::run<T>;
    catalogue.push_back(row);
  }
}

}  // namespace cnn::conv2d
