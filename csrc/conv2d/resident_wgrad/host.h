// The host side of kernel.cuh: what it refuses, how the work is cut, its cost, and the rows of the catalogue. Configuration::tile is the
// pixels of a tile down and across.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "common/cost.h"
#include "common/matrix.h"
#include "conv2d/eligibility.h"
#include "conv2d/gemm/host.h"
#include "conv2d/gemm/strip_host.h"
#include "conv2d/pack_images/pack_images.h"
#include "conv2d/plan.h"
#include "conv2d/resident_wgrad/params.h"
#include "conv2d/sum_slabs/sum_slabs.h"

namespace cnn::conv2d {

// What a kernel of kernel.cuh has in registers: its constants of the same names.
struct ResidentWgradShape {
  int group;  // channels, as the kernel has them; 0: of a first layer
  int bands, sets, columns, blocks;
  int groups_together = 1;  // groups of 4 in pairs

  bool is_strip() const { return group == 0; }
};

inline bool are_pairs(const Problem& p) { return p.channels_per_group() == 4 && p.filters_per_group() == 4 && p.groups % 2 == 0; }
inline ResidentWgradShape strip_wgrad_shape() { return {0, 14, 1, 2, 3}; }
inline ResidentWgradShape stack_wgrad_shape(const Problem& p) {
  const int64_t channels = std::max(p.channels_per_group(), p.filters_per_group());
  if (are_pairs(p)) return {8, 5, 2, 1, 4, 2};
  if (channels <= 8) return {8, 5, 2, 1, 4};
  if (channels <= 16) return {16, 9, 1, 2, 4};
  return {32, 9, 1, 4, 2};
}

struct ResidentWgradPlan {
  ResidentWgradParams params{};  // but for pointers and units
  int64_t slabs = 0, partial_bytes = 0;
  int blocks = 0, shared_bytes = 0;
  Work work;
};

// How the partial sums of a slab lie, innermost what a fragment has eight of: channels, but of a first layer, which has four, filters. The
// rest as in w, so that partial_sums are turned round by whole rows of it.
inline Strides partial_strides(const Problem& p, const ResidentWgradParams& q, const ResidentWgradShape& shape) {
  const int64_t channels = q.channels_of_filter;
  const bool channels_inside = p.w.d1 == 1;
  if (shape.is_strip() && channels_inside) return {1, p.K, p.S * channels * p.K, channels * p.K};
  if (shape.is_strip()) return {1, p.R * p.S * p.K, p.S * p.K, p.K};
  return {p.R * p.S * channels, 1, p.S * channels, channels};
}

inline ResidentWgradPlan plan_resident_wgrad(const Problem& p, const ResidentWgradShape& shape, int64_t tile_h, int64_t tile_w,
                                             int64_t slabs) {
  constexpr int kChunks = kResidentWgradChannels / 8, kTapsOfTurn = 4;
  ResidentWgradPlan plan;
  ResidentWgradParams& q = plan.params;
  q.x_n = int(p.x.d0), q.x_c = int(p.x.d1), q.x_h = int(p.x.d2), q.x_w = int(p.x.d3);
  q.y_n = int(p.y.d0), q.y_h = int(p.y.d2), q.y_w = int(p.y.d3);
  q.H = int(p.H), q.W = int(p.W), q.P = int(p.P), q.Q = int(p.Q);
  q.stride_h = int(p.stride_h), q.stride_w = int(p.stride_w), q.pad_h = int(p.pad_h), q.pad_w = int(p.pad_w);
  q.dilation_h = int(p.dilation_h), q.dilation_w = int(p.dilation_w);
  const int together = shape.groups_together;
  q.groups = int(p.groups) / together, q.channels = int(p.channels_per_group()) * together;
  q.filters = int(p.filters_per_group()) * together;
  q.channels_of_filter = int(p.channels_per_group()), q.filters_of_group = int(p.filters_per_group());
  q.taps = int(p.R * p.S), q.S = FastDiv<int32_t>(p.S);
  const int turns = int(ceil_div(p.S, kTapsOfTurn));
  q.turns = FastDiv<int32_t>(turns);
  q.bands = shape.is_strip() ? int(p.R) * turns : shape.group == 8 ? int(ceil_div(q.taps, 2)) : q.taps;
  q.band_groups = int(ceil_div(q.bands, shape.bands));
  q.stacks = int(shape.is_strip() ? ceil_div(p.K, kResidentWgradChannels) : ceil_div(q.groups, kResidentWgradChannels / shape.group));

  q.tile_h = int(tile_h), q.tile_w = FastDiv<int32_t>(tile_w);
  const int64_t across = ceil_div(p.Q, tile_w);
  q.last_tile_w = FastDiv<int32_t>(p.Q - (across - 1) * tile_w);
  q.tiles_h = FastDiv<int32_t>(ceil_div(p.P, tile_h)), q.tiles_w = FastDiv<int32_t>(across);
  q.tiles = int(p.N * q.tiles_h.divisor * across);
  q.tiles_per_slab = int(ceil_div(q.tiles, slabs));
  plan.slabs = ceil_div(q.tiles, q.tiles_per_slab);

  // Rows and columns under a stride in phases: neighbouring pixels are neighbours. Rows at a pitch of the tile's pixels modulo eight.
  q.chunk_pixels = shape.is_strip() ? (p.stride_w % 2 == 0 ? 2 : 1) : 1;
  const int64_t height = (tile_h - 1) * p.stride_h + (p.R - 1) * p.dilation_h + 1;
  const int64_t pixels = (tile_w - 1) * p.stride_w + (shape.is_strip() ? kTapsOfTurn * turns : (p.S - 1) * p.dilation_w + 1);
  q.pixels = int(pixels);
  const int64_t width = !shape.is_strip() ? pixels : q.chunk_pixels == 2 ? ceil_div(pixels, 2) : pixels - 1;
  set_places(q.halo, int(height), int(width), int(p.stride_w) / q.chunk_pixels, shape.is_strip() ? 8 : 1);
  while (q.halo.pitch % 8 != tile_w % 8) ++q.halo.pitch;
  q.row_phases = FastDiv<int32_t>(p.stride_h);
  q.row_phase_pitch = int(ceil_div(height, p.stride_h)) * q.halo.pitch;
  q.zero_place = int(round_up(q.row_phase_pitch * p.stride_h, 8));
  const int place_bytes = kGemmChunkBytes * (shape.is_strip() ? 1 : kChunks);
  const int x_bytes = (q.zero_place + 8) * place_bytes;
  if (shape.is_strip()) q.rows = strip_rows(p, pixels, width, q.chunk_pixels);
  q.stages_at = shape.is_strip() ? x_bytes : 0;
  q.y_at = shape.is_strip() ? strip_rows_bytes(q.rows, height) : x_bytes;
  q.stage_bytes = q.y_at + int(round_up(tile_h * tile_w, 16)) * kChunks * kGemmChunkBytes;
  plan.shared_bytes = q.stages_at + 2 * q.stage_bytes;

  const int64_t columns = int64_t(q.stacks) * q.band_groups;
  plan.blocks = int(columns * plan.slabs);
  q.partial = p.sums_in_workspace(plan.slabs);
  if (q.partial) plan.partial_bytes = plan.slabs * p.filter_numel() * 4;
  const Strides to = !q.partial ? p.w : partial_strides(p, q, shape);
  q.out_k = int(to.d0), q.out_c = int(to.d1), q.out_r = int(to.d2), q.out_s = int(to.d3);
  q.pairs = q.partial && q.out_k == 1 && p.K % 2 == 0;
  q.out_slab = int(q.partial ? p.filter_numel() : 0);

  // 16 pixels take a warp so many instructions beside the loads of matrices and the products, and each band so many, 62 to 78 in all; a
  // chunk of a strip takes a thread so many: counted in the machine code. A chunk's copy and a sum's store are estimated from the source.
  constexpr double kPixels = 30, kBand = 4, kCopy = 24, kStore = 6, kTurned = 128;
  const double warps = kResidentWgradThreads / 32.0, size = size_of(p.dtype), bands = double(q.bands) / q.band_groups;
  const double turns_of_tiles = double(columns) * q.tiles * double(ceil_div(tile_h * tile_w, 16));
  const double fragments = shape.sets * shape.columns, loads = fragments / 2 + shape.sets * bands, products = bands * fragments;
  const double tiles = double(columns) * q.tiles, y_chunks = tiles * double(tile_h * tile_w) * kChunks;
  const double x_values = tiles * double(height) * double(pixels) * double(shape.is_strip() ? p.C : kResidentWgradChannels);
  const double x_copies = shape.is_strip() ? tiles * strip_instructions(q.rows, q.halo, kTurned) : x_values / 8 * kCopy;
  const double sums = double(plan.slabs) * double(p.filter_numel());
  Work& work = plan.work;
  work.instructions =
      32 * warps * turns_of_tiles * (kPixels + loads + products + kBand * shape.sets * bands) + y_chunks * kCopy + x_copies + sums * kStore;
  work.matrix_clocks = warps * turns_of_tiles * products * kMatrixClocks;
  const double x_bytes_asked = shape.is_strip() ? tiles * strip_bytes(q.rows, height) : x_values * size;
  const double copied = x_bytes_asked + y_chunks * kGemmChunkBytes;
  work.l1_bytes = 512 * warps * turns_of_tiles * loads + copied;
  work.l2_bytes = copied + 2 * double(plan.partial_bytes);
  work.dram_bytes = p.tensor_bytes() + 2 * double(plan.partial_bytes);
  // Of those that registers and shared memory allow, all have a tile on its way.
  work.blocks = plan.blocks, work.threads = kResidentWgradThreads, work.launches = q.partial ? 2 : 1;
  return plan;
}

// Tiles and slabs: the fastest that fit. A block keeps a multiprocessor busy only beside others. `in_phase`: a row's last tile is as wide
// as the others, modulo eight, so that the pitch of the halo's rows is right for it too.
inline ResidentWgradPlan plan_resident_wgrad(const Problem& p, const ResidentWgradShape& shape, bool in_phase) {
  constexpr int64_t kPerMultiprocessor = 228 * 1024, kMostAcross = 8, kMostPixels = 256, kLeastPixels = 32;
  const int64_t most_shared = resident_shared(p);
  ResidentWgradPlan best;
  best.shared_bytes = int(most_shared) + 1;
  for (int64_t parts = 1; parts <= kMostAcross; ++parts) {
    const int64_t tile_w = ceil_div(p.Q, parts);
    if (ceil_div(p.Q, tile_w) != parts || tile_w > kMostPixels) continue;
    if (in_phase && (parts * tile_w - p.Q) % 8 != 0) continue;
    int64_t last = 0;
    for (int64_t pixels = kMostPixels; pixels >= kLeastPixels; pixels /= 2) {
      const int64_t most = std::clamp<int64_t>(pixels / tile_w, 1, p.P), tile_h = ceil_div(p.P, ceil_div(p.P, most));
      if (tile_h == last) continue;
      last = tile_h;
      const ResidentWgradPlan one = plan_resident_wgrad(p, shape, tile_h, tile_w, 1);
      if (one.shared_bytes > most_shared) continue;
      const int64_t beside = std::clamp<int64_t>(kPerMultiprocessor / (one.shared_bytes + 1024), 1, shape.blocks);
      for (int64_t blocks = 1; blocks <= beside; ++blocks) {
        const int64_t slabs = std::clamp<int64_t>(int64_t(kMultiprocessors) * blocks / one.blocks, 1, one.params.tiles);
        const ResidentWgradPlan plan = plan_resident_wgrad(p, shape, tile_h, tile_w, slabs);
        if (best.shared_bytes <= most_shared && microseconds(plan.work) >= microseconds(best.work)) continue;
        best = plan;
      }
    }
  }
  return best;
}

inline ResidentWgradPlan plan_resident_wgrad(const Problem& p, const ResidentWgradShape& shape) {
  const ResidentWgradPlan plan = plan_resident_wgrad(p, shape, true);
  return plan.shared_bytes <= resident_shared(p) ? plan : plan_resident_wgrad(p, shape, false);
}

inline std::string why_not_resident_wgrad(const Problem& p) {
  if (std::string why = why_not_tuned(p); !why.empty()) return why;
  if (p.R * p.S == 1) return "filter 1x1: the pointwise kernels have it";
  if (p.y.d1 != 1 && p.K > 1) return "the channels of y are not dense";
  if (std::max(p.stride_h, p.stride_w) > kMostClasses)
    return "stride " + std::to_string(std::max(p.stride_h, p.stride_w)) + ": built for strides up to " + std::to_string(kMostClasses);
  return {};
}

struct StackWgradRow {
  static constexpr bool kPacksX = true;
  static ResidentWgradShape shape(const Problem& p) { return stack_wgrad_shape(p); }
  static std::string why_not(const Kernel&, const Problem& p) {
    constexpr int64_t kLeast = 8, kMost = 32;
    if (std::string why = why_not_resident_wgrad(p); !why.empty()) return why;
    const int64_t least = std::min(p.channels_per_group(), p.filters_per_group());
    const int64_t most = std::max(p.channels_per_group(), p.filters_per_group());
    if (p.groups == 1) return "one group: the dense kernels have it";
    if (!are_pairs(p) && (least < kLeast || most > kMost))
      return "groups of " + std::to_string(p.channels_per_group()) + " channels and " + std::to_string(p.filters_per_group()) +
             " filters: built for " + std::to_string(kLeast) + " to " + std::to_string(kMost) + ", and pairs of groups of 4";
    if (p.x.d1 != 1) return "the channels of x are not dense";
    if (plan_resident_wgrad(p, shape(p)).shared_bytes > resident_shared(p)) return "no tile with its halo fits in shared memory";
    return {};
  }
  static void set_copies(ResidentWgradParams&, const Problem&) {}
  static Slabs partial_sums(const Problem& p, const ResidentWgradParams& q, int64_t slabs, const Arguments& a) {
    return {a.workspace, slabs, {p.K, p.R, p.S, q.channels_of_filter}, a.out, {p.w.d0, p.w.d2, p.w.d3, p.w.d1}};
  }
  template <class T>
  static void launch(const char* name, const Problem& p, const ResidentWgradPlan& plan, cudaStream_t stream) {
    launch_stack_wgrad<T>(name, shape(p).group, plan.params, plan.blocks, plan.shared_bytes, stream);
  }
};

struct StripWgradRow {
  static constexpr bool kPacksX = false;  // the strip is made of planes too
  static ResidentWgradShape shape(const Problem&) { return strip_wgrad_shape(); }
  static std::string why_not(const Kernel&, const Problem& p) {
    if (std::string why = why_not_resident_wgrad(p); !why.empty()) return why;
    if (std::string why = why_not_strip(p); !why.empty()) return why;
    if (plan_resident_wgrad(p, shape(p)).shared_bytes > resident_shared(p)) return "no tile with its halo fits in shared memory";
    return {};
  }
  static void set_copies(ResidentWgradParams& q, const Problem& p) { copy_by_chunks(q.rows, p, q.x); }
  static Slabs partial_sums(const Problem& p, const ResidentWgradParams&, int64_t slabs, const Arguments& a) {
    const bool channels_inside = p.w.d1 == 1;
    if (channels_inside) return {a.workspace, slabs, {p.R, p.S, p.C, p.K}, a.out, {p.w.d2, p.w.d3, p.w.d1, p.w.d0}};
    return {a.workspace, slabs, {p.C, p.R, p.S, p.K}, a.out, {p.w.d1, p.w.d2, p.w.d3, p.w.d0}};
  }
  template <class T>
  static void launch(const char* name, const Problem&, const ResidentWgradPlan& plan, cudaStream_t stream) {
    launch_strip_wgrad<T>(name, plan.params, plan.blocks, plan.shared_bytes, stream);
  }
};

// A row's functions, from one of the two above.
template <class T, class Row>
struct ResidentWgradFunctions : Row {
  static double cost(const Kernel&, const Problem& p) { return microseconds(plan_resident_wgrad(p, Row::shape(p)).work); }
  static Configuration configure(const Kernel&, const Problem& p) {
    const ResidentWgradPlan plan = plan_resident_wgrad(p, Row::shape(p));
    Configuration c;
    c.blocks = plan.blocks, c.slabs = plan.slabs, c.workspace_bytes = plan.partial_bytes, c.shared_bytes = plan.shared_bytes;
    c.tile[0] = plan.params.tile_h, c.tile[1] = plan.params.tile_w.divisor;
    return c;
  }
  static void run(const Kernel& kernel, const Problem& p, const Configuration& c, const Arguments& a) {
    constexpr int64_t kSize = sizeof(T);
    ResidentWgradPlan plan = plan_resident_wgrad(p, Row::shape(p), c.tile[0], c.tile[1], c.slabs);
    ResidentWgradParams& q = plan.params;
    q.x = a.x, q.y = a.y, q.out = q.partial ? a.workspace : a.out;
    const auto unit = [&](const void* data, const Strides& s, int64_t channels) {
      const int64_t address = int64_t(reinterpret_cast<std::intptr_t>(data));
      return common_unit({address, kSize * s.d0, kSize * s.d2, kSize * s.d3, p.groups > 1 ? kSize * channels : 0}, int(kSize));
    };
    q.x_unit = unit(a.x, p.x, q.channels), q.y_unit = unit(a.y, p.y, q.filters);
    Row::set_copies(q, p);
    Row::template launch<T>(kernel.name.c_str(), p, plan, a.stream);
    if (q.partial) add_slabs<T>(Row::partial_sums(p, q, plan.slabs, a), a);
  }
};

// The row for images of dense channels, and the one that packs them.
template <class T, class Row>
void add_resident_wgrad_rows(std::vector<Kernel>& catalogue, const char* family, const std::string& before, const std::string& after) {
  if constexpr (sizeof(T) == 2) {
    using Functions = ResidentWgradFunctions<T, Row>;
    Kernel row{};
    row.family = family;
    row.dtype = TypeTraits<T>::kDType;
    row.passes = {Pass::kWgrad};
    row.threads = kResidentWgradThreads;
    row.index_bits = 32;
    row.stages = 2;
    const auto add = [&](const char* packed) {
      row.name = "conv2d_" + before + packed + after + "_" + short_name(row.dtype);
      catalogue.push_back(row);
    };
    use_functions<Functions>(row);
    add("");
    use_functions<PackedRow<T, Functions, Row::kPacksX>>(row);
    add("packed_");
  }
}

}  // namespace cnn::conv2d
