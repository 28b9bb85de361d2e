// The host side of stack.cuh: what it refuses, how the work is cut, its cost, and the rows of the catalogue.
#pragma once

#include <limits>

#include "conv2d/gemm/resident_host.h"

namespace cnn::conv2d {

constexpr int kWidestStack = 64;  // channels, and columns of the product

// Channels of a group as the kernel has them.
inline int stack_group(const Problem& p) {
  int group = 8;
  while (group < std::max(p.channels_per_group(), p.filters_per_group())) group *= 2;
  return group;
}

// Groups that a block has side by side: their channels and columns have no gaps.
inline int stack_height(const Problem& p) {
  const int group = stack_group(p);
  if (p.channels_per_group() != group || p.filters_per_group() != group) return 1;
  int stack = kWidestStack / group;
  while (p.groups % stack != 0) stack /= 2;
  return stack;
}

// Images and results do not tell a stack from a group.
inline Problem stacked(const Problem& p) {
  Problem of = p;
  of.groups = p.groups / stack_height(p);
  return of;
}

// The pixels of the image, from the first to the last, that the taps of all classes of an axis read for the first result.
struct PixelSpan {
  int first, extent;
};

inline PixelSpan pixels_under_taps(const GemmAxis& axis) {
  int first = std::numeric_limits<int>::max(), last = std::numeric_limits<int>::min();
  for_each_axis_class(axis, [&](const GemmClass& c) {
    if (c.taps == 0) return;
    const int end = c.first_in + (c.taps - 1) * axis.in_per_tap;
    first = std::min({first, c.first_in, end}), last = std::max({last, c.first_in, end});
  });
  return first > last ? PixelSpan{0, 1} : PixelSpan{first, last - first + 1};
}

inline void list_taps(StackParams& r) {
  const GemmParams& q = r.gemm;
  int taps = 0, classes = 0;
  for_each_axis_class(q.h, [&](const GemmClass& h) {
    for_each_axis_class(q.w, [&](const GemmClass& w) {
      r.first_tap[classes++] = taps;
      for (int i = 0; i < h.taps * w.taps; ++i) {
        const int tap_h = i / w.taps, tap_w = i % w.taps, row = h.first_in - r.halo.origin_h + tap_h * q.h.in_per_tap;
        const int column = w.first_in - r.halo.origin_w + tap_w * q.w.in_per_tap, phases = r.halo.phases.divisor;
        const int filter = (h.first_tap + tap_h * q.h.tap_step) * r.taps_across.divisor + w.first_tap + tap_w * q.w.tap_step;
        if (taps < kMostStackTaps) r.tap[taps] = {row * r.halo.pitch + column % phases * r.halo.phase_width + column / phases, filter};
        ++taps;
      }
    });
  });
  r.first_tap[classes] = taps;
}

struct StackPlan : ResidentPlan<StackParams> {
  GemmPlan of_groups;  // of the problem as it is: the filter's
  int group = 0;
};

inline StackPlan plan_stack(const Problem& p, int tile_w) {
  const int size = size_of(p.dtype);
  StackPlan plan;
  plan.plan = plan_gemm(stacked(p), kResidentName, kResidentOptions);
  plan.of_groups = plan_gemm(p, kResidentName, kResidentOptions);
  plan.group = stack_group(p);
  const GemmParams& of_group = plan.of_groups.params;
  StackParams& r = plan.params;
  r.gemm = plan.plan.params;
  GemmParams& q = r.gemm;
  cut_rows(q, tile_w);
  q.filter_inner = of_group.filter_inner;
  r.stacked = stack_height(p);
  r.filter_rows = q.filter_inner ? of_group.columns : of_group.in_channels;
  r.filter_chunks = q.filter_inner ? of_group.in_channels : of_group.columns;
  r.taps = int(p.R * p.S), r.taps_across = FastDiv<int32_t>(p.S);
  r.turns = int(ceil_div(r.stacked == 1 ? of_group.in_channels : plan.group * r.stacked, 16));
  while (1 << r.log_chunks < 2 * r.turns) ++r.log_chunks;
  r.filter_bytes = r.taps * kWidestStack * plan.group * size;

  const PixelSpan span_h = pixels_under_taps(q.h), span_w = pixels_under_taps(q.w);
  // Under a stride in whole lines: what is copied together is then always as many pixels of every phase.
  const int in_line = 8 >> r.log_chunks, halo_w = (q.tile_w - 1) * q.w.in_per_out + span_w.extent;
  set_places(r.halo, (q.tile_h - 1) * q.h.in_per_out + span_h.extent, q.w.in_per_out > 1 ? int(round_up(halo_w, in_line)) : halo_w,
             q.w.in_per_out, in_line);
  r.halo.origin_h = span_h.first, r.halo.origin_w = span_w.first;
  list_taps(r);
  set_blocks(plan, q, r.halo.height * r.halo.pitch * (kGemmChunkBytes << r.log_chunks), size);

  // Of a chunk's copy, estimated from the source: its place, its pixel, bounds, two addresses.
  constexpr double kCopy = 30;
  // A turn of groups of 8, 16, 32 and 64 channels is 21, 22 to 27, 29 to 36 and 38 to 44 instructions: beside its loads and products 14
  // to 22.
  constexpr double kWalk = 22;
  const bool is_short = plan.group == 8;
  const double fragments = is_short ? 2 : plan.group / 8.0, products = 2 * fragments, loads = 2 + (is_short ? 0.5 : fragments / 2);
  const ResidentTurn turn{loads, products, is_short ? kMatrixClocks / 2 : kMatrixClocks, products + loads + kWalk};
  const double halo_chunks = double(q.items) * (r.halo.height * r.halo.width << r.log_chunks);
  const double chunks = halo_chunks + double(plan.blocks) * r.filter_bytes / kGemmChunkBytes;
  plan.work = resident_work(p, q, plan.blocks, double(q.items) * r.taps * r.turns, turn, chunks * kCopy, chunks * kGemmChunkBytes);
  plan.work.dram_bytes += 2 * double(plan.of_groups.packed_bytes);
  plan.work.launches = 1 + plan.of_groups.packs_filter;
  return plan;
}

inline StackPlan plan_stack(const Problem& p) {
  return plan_resident(p, [&](int tile_w) { return plan_stack(p, tile_w); });
}

inline std::string why_not_stack(const Problem& p) {
  const GemmView view(p);
  if (std::string why = why_not_resident(p); !why.empty()) return why;
  if (view.in.d1 != 1) return "the image it reads is not channels_last, nor packed so";
  if (p.R * p.S == 1) return "filter 1x1: the pointwise kernels have it";
  const int64_t channels = std::max(p.channels_per_group(), p.filters_per_group());
  if (channels > kWidestStack) return std::to_string(channels) + " channels: built for up to " + std::to_string(kWidestStack);
  if (taps_are_apart(p)) return "taps that do not meet: one product, which the tiles of the transposed kernels are";
  if (p.R * p.S > kMostStackTaps) return std::to_string(p.R * p.S) + " taps: built for up to " + std::to_string(kMostStackTaps);
  if (p.R * p.S * kWidestStack * stack_group(p) * size_of(p.dtype) > resident_shared(p))
    return "the filter does not fit into shared memory";
  if (plan_stack(p).shared_bytes > resident_shared(p)) return "filter and halo do not fit into shared memory";
  return {};
}

template <class T>
void run_stack(const Kernel& kernel, const Problem& p, const Configuration& configuration, const Arguments& a) {
  const GemmView view(p);
  StackPlan plan = plan_stack(p, tile_columns(configuration));
  StackParams& r = plan.params;
  GemmParams &q = r.gemm, &of_group = plan.of_groups.params;
  q.in = view.fprop ? a.x : a.y, q.epilogue = a.epilogue, q.out = a.out;
  of_group.filter = a.w;
  if (plan.of_groups.packs_filter) pack_filter<T>(of_group, p, a.workspace, a.stream);
  q.filter = of_group.filter, q.filter_r = of_group.filter_r, q.filter_s = of_group.filter_s;
  r.filter_of_group = of_group.filter_group, r.filter_row = q.filter_inner ? of_group.filter_n : of_group.filter_k;
  q.filter_group = r.stacked * of_group.filter_group;
  q.image_unit = image_unit(plan.plan, stacked(p), q.in);
  q.filter_unit = filter_unit(of_group, p, of_group.filter);
  set_stores(q, kResidentTile, a.out, int(sizeof(T)));
  launch_stack<T>(kernel.name.c_str(), plan.group, r, plan.blocks, plan.shared_bytes, a.stream);
}

struct ResidentDense {
  static constexpr const char *kFamily = "dense", *kName = "dense_resident";
  static std::string why_not(const Problem& p) {
    if (p.pass == Pass::kDgrad && p.stride_h * p.stride_w != 1) return "dgrad with a stride: the transposed kernels have it";
    return p.groups == 1 ? "" : "groups: the grouped kernels have them";
  }
};
struct ResidentTransposed {
  static constexpr const char *kFamily = "transposed", *kName = "transposed_resident";
  static std::string why_not(const Problem& p) {
    if (p.pass != Pass::kDgrad || p.stride_h * p.stride_w == 1) return "stride 1: the dense kernels have it";
    return p.groups == 1 ? "" : "groups: the grouped kernels have them";
  }
};
struct ResidentGrouped {
  static constexpr const char *kFamily = "grouped", *kName = "grouped_resident";
  static std::string why_not(const Problem& p) {
    constexpr int64_t kLeastChannels = 8;
    const int64_t least = std::min(p.channels_per_group(), p.filters_per_group());
    if (p.groups == 1) return "one group: the dense kernels have it";
    if (least < kLeastChannels) return "groups of " + std::to_string(least) + " channels: built for 8 and more";
    return {};
  }
};

template <class T, class Family>
struct StackRow {
  static std::string why_not(const Kernel&, const Problem& p) {
    const std::string why = Family::why_not(p);
    return why.empty() ? why_not_stack(p) : why;
  }
  static double cost(const Kernel&, const Problem& p) { return microseconds(plan_stack(p).work); }
  static Configuration configure(const Kernel&, const Problem& p) {
    const StackPlan plan = plan_stack(p);
    Configuration c;
    c.blocks = plan.blocks;
    c.workspace_bytes = plan.of_groups.packs_filter ? plan.of_groups.packed_bytes : 0;
    c.shared_bytes = plan.shared_bytes;
    set_tile(c, plan.params.gemm);
    return c;
  }
  static void run(const Kernel& kernel, const Problem& p, const Configuration& configuration, const Arguments& a) {
    run_stack<T>(kernel, p, configuration, a);
  }
};

// The row for the images as they lie, and the one that packs them.
template <class T, class Family>
void add_stack_rows(std::vector<Kernel>& catalogue, const std::vector<Pass>& passes = {Pass::kFprop, Pass::kDgrad}) {
  if constexpr (sizeof(T) == 2) {
    catalogue.push_back(resident_row<T>(Family::kFamily, Family::kName, passes));
    use_functions<StackRow<T, Family>>(catalogue.back());
    catalogue.push_back(resident_row<T>(Family::kFamily, Family::kName + std::string("_packed"), passes));
    use_functions<PackedRow<T, StackRow<T, Family>>>(catalogue.back());
  }
}

}  // namespace cnn::conv2d
