// Host side of wgrad: slabs, tiles, their cost, and the kernel's parameters.
#pragma once

#include <algorithm>

#include "common/cost.h"
#include "conv2d/grouped/wgrad.cuh"
#include "conv2d/grouped/window.h"
#include "conv2d/plan.h"
#include "conv2d/sum_slabs/sum_slabs.h"

namespace cnn::conv2d::grouped {

constexpr int64_t kMostCopyBytes = 48 << 10;  // of shared memory, for copies of a block's sums

// The view of wgrad.
struct WgradView {
  const Problem& problem;
  int64_t filters_of_thread, taps_of_thread;
  int64_t channels, taps_w, dilation_w;  // of a group's filter
  bool x_planar, y_planar, channel_innermost;
  int64_t few = 0, few_columns = 0;

  WgradView(const Kernel& kernel, const Problem& p)
      : problem(p),
        filters_of_thread(kernel.tm),
        taps_of_thread(kernel.tn),
        channels(p.channels_per_group()),
        taps_w(p.S),
        dilation_w(p.dilation_w),
        x_planar(planar(p)),
        y_planar(planar(p)),
        channel_innermost(p.x_is_channels_last()) {}
  int64_t taps() const { return problem.R * taps_w; }
  bool single() const { return few_columns != 0; }  // one channel, taps of a row for channels
};

struct WgradShape {
  int64_t groups, parts, filter_slabs, filters, channels, chunks, low, tap_groups, units, near, readers, threads;
  int64_t images, rows, columns, tiles_h, tiles_w, tiles, tiles_per_block, slabs;
  Window x, y;
  int64_t elements, element_pitch, copy_pad, copies;
  int64_t x_at, y_at, table_at, raw_at, shared;
};

// The pitch of rows of sums, and what to leave between copies, with the fewest bank conflicts: tried out on the stores of a first warp and
// on its reads (wgrad.cuh).
inline void place_sums(WgradShape& s, const WgradView& view) {
  const bool vectors = view.channel_innermost && !view.few;  // a quarter of a warp at a time
  const int64_t width = vectors ? 4 : 1, lanes = 32 / width;
  const int64_t part_channels = view.channels / s.parts, quads = ceil_div(part_channels, 4);
  const int64_t quad_step = 4 * (view.channel_innermost ? 1 : view.taps());
  const int64_t group_step = view.taps_of_thread * (view.channel_innermost ? part_channels : 1);
  struct At {
    int64_t copy, row, element;
  } stores[32], reads[32];
  for (int64_t lane = 0; lane < 32; ++lane) {
    const int64_t groups = lane / s.low / quads, readers = groups / s.tap_groups, high = readers / s.near;
    stores[lane] = {high / (s.chunks / s.low) * s.near + readers % s.near, lane % s.low + high % (s.chunks / s.low) * s.low,
                    lane / s.low % quads * quad_step + groups % s.tap_groups * group_step};
    const int64_t k = lane * width / s.elements;
    reads[lane] = {0, k % view.filters_of_thread * s.chunks + k / view.filters_of_thread, lane * width % s.elements};
  }
  const auto wavefronts = [&](const At* at, int64_t pitch, int64_t pad) {
    int64_t sum = 0;
    for (int64_t first = 0; first < 32; first += lanes) {
      int hits[32] = {}, most = 0;
      for (const At* a = at + first; a < at + first + lanes; ++a)
        most = std::max(most, ++hits[(a->copy * (s.filters * pitch + pad) + a->row * pitch + a->element) / width % lanes]);
      sum += most;
    }
    return sum;
  };
  const int64_t copies = std::clamp<int64_t>(kMostCopyBytes / (s.filters * s.elements * 4), 1, s.readers);
  const int64_t least_pitch = round_up(s.elements, width), none = (s.readers + copies) * width;
  int64_t fewest = 0;
  for (int64_t pitch = least_pitch; pitch < least_pitch + 32; pitch += width) {
    for (int64_t pad = 0; pad < 8 * width && fewest != none; pad += width) {
      const int64_t count = s.readers * wavefronts(stores, pitch, pad) + copies * wavefronts(reads, pitch, pad);
      if (fewest != 0 && count >= fewest) continue;
      s.element_pitch = pitch, s.copy_pad = pad, fewest = count;
    }
  }
}

// What follows from a slab of s.groups groups, s.filters filters and s.channels channels.
inline void complete_slab(WgradShape& s, const WgradView& view) {
  s.tap_groups = ceil_div(view.taps(), view.taps_of_thread);
  s.chunks = s.filters / view.filters_of_thread, s.low = low_lanes(s.chunks, view.filters_of_thread);
  s.units = s.chunks * ceil_div(view.channels / s.parts, 4) * s.tap_groups;
  s.readers = std::max<int64_t>(1, kMostWgradThreads / s.units);
  s.threads = round_up(s.units * s.readers, 32);
  s.elements = view.channels / s.parts * view.taps(), s.near = s.readers % 2 == 0 ? 2 : 1;
  place_sums(s, view);
}

inline WgradShape wgrad_slab(const WgradView& view) {
  const Problem& p = view.problem;
  const int64_t kg = p.filters_per_group(), cg = p.channels_per_group();
  WgradShape s{};
  s.groups = groups_of_slab(p, kg, 64), s.parts = 1;
  const auto complete = [&] {
    s.filter_slabs = p.groups / s.groups, s.filters = s.groups * kg, s.channels = s.groups * cg / s.parts;
    complete_slab(s, view);
  };
  complete();
  if (s.units > kMostWgradThreads) s.groups = 1, complete();
  while (s.units > kMostWgradThreads && s.parts < cg / 4) {
    do ++s.parts;
    while (cg / 4 % s.parts != 0);
    complete();
  }
  // Of 6 quads a quarter of a warp has 4, then 2 and 2 of the next taps, which lie anywhere: rather 4 and 4 and 4.
  if (s.parts > 1 && cg / 4 / s.parts == 6) s.parts = s.parts * 3 / 2, complete();
  return s;
}

// Columns to add to a window, so that the tap groups of neighbouring lanes look at different banks: of 0, 1 and 2 phases.
inline int64_t spare_columns(const WgradView& view, int64_t columns, int phases) {
  if (!view.few) return 0;
  int64_t best = 0, fewest = 0;
  for (int64_t spare = 0; spare <= 2 * phases; spare += phases) {
    const int64_t width = round_up(columns + spare, phases);
    const auto position = [&](int64_t tap) {
      const int64_t column = tap % view.taps_w * view.dilation_w;
      return tap / view.taps_w * view.problem.dilation_h * width + column % phases * (width / phases) + column / phases;
    };
    int64_t conflicts = 0;
    for (int64_t tap = 0; tap + view.taps_of_thread < view.taps(); ++tap)
      conflicts += (position(tap) - position(tap + view.taps_of_thread)) % 8 == 0;
    if (spare > 0 && conflicts >= fewest) continue;
    best = spare, fewest = conflicts;
  }
  return best;
}

inline void wgrad_tile(WgradShape& s, const WgradView& view, int64_t images, int64_t rows, int64_t columns) {
  const Problem& p = view.problem;
  const int64_t size = size_of(p.dtype);
  s.images = images, s.rows = rows, s.columns = columns;
  s.tiles_h = ceil_div(p.P, rows), s.tiles_w = ceil_div(p.Q, columns), s.tiles = ceil_div(p.N, images) * s.tiles_h * s.tiles_w;
  const int64_t channel_slabs = s.filter_slabs * s.parts;
  s.tiles_per_block = ceil_div(s.tiles, std::clamp<int64_t>(kTargetBlocks / channel_slabs, 1, s.tiles));
  s.slabs = ceil_div(s.tiles, s.tiles_per_block);
  const int phases = p.stride_w == 2 ? 2 : 1;
  const int64_t window_columns = (columns - 1) * p.stride_w + (view.taps_w - 1) * view.dilation_w + 1;
  s.x = make_window(images, (rows - 1) * p.stride_h + (p.R - 1) * p.dilation_h + 1,
                    window_columns + spare_columns(view, window_columns, phases), s.channels, phases);
  s.y = make_window(images, rows, columns, s.filters, 1);
  s.x_at = 0;
  s.y_at = s.x_at + window_bytes(s.x);
  s.table_at = s.y_at + window_bytes(s.y);
  s.raw_at = s.shared = s.table_at + ceil_div(images * rows * columns, 2) * int64_t(sizeof(PixelPair));
  int64_t x_raw = view.x_planar ? 0 : ring_bytes(s.threads, size), y_raw = view.y_planar ? 0 : ring_bytes(s.threads, size);
  if (view.few) {
    make_few(nullptr, p, view.few, view.few_columns, s.x, s.tiles_w == 1, size, x_raw);
  } else if (view.x_planar) {
    x_raw = plan_runs(s.x, make_image(nullptr, p.x, p.N, p.C, p.H, p.W, true, size), -p.pad_w, s.tiles_w == 1, s.tiles_w * s.tiles_h == 1,
                      size);
  }
  if (view.y_planar)
    y_raw = plan_runs(s.y, make_image(nullptr, p.y, p.N, p.K, p.P, p.Q, true, size), 0, s.tiles_w == 1,
                      s.tiles_w * s.tiles_h == 1 && p.K % s.filters == 0, size);
  s.shared += std::max(x_raw, y_raw);
  const int64_t copy = (s.filters * s.element_pitch + s.copy_pad) * 4;
  s.copies = std::clamp<int64_t>(kMostCopyBytes / copy, 1, s.readers);
  s.shared = std::max(s.shared, s.copies * copy);
}

// Instructions, counted in the inner loop: for each pixel 4 FMAs per filter and tap, the reads of y and x, an address for each, and a half
// of the table's read and the loop. Loads as in gather_work.
inline Work wgrad_work(const WgradShape& s, const WgradView& view) {
  const Problem& p = view.problem;
  const double size = size_of(p.dtype), channel_slabs = double(s.filter_slabs * s.parts);
  const double reads = double(view.filters_of_thread) / 4 + double(view.taps_of_thread);
  const double per_pixel = double((view.few ? view.few : 4) * view.filters_of_thread * view.taps_of_thread) + 2 * reads + 3;
  const double tile_pixels = double(s.images * s.rows * s.columns), tiles = double(s.tiles) * channel_slabs;
  const double pixels_of_reader = 2 * double(ceil_div(ceil_div(s.images * s.rows * s.columns, 2), s.readers));
  const double bytes = (double(s.x.positions) * double(s.channels) + tile_pixels * double(s.filters)) * size;
  const double loads =
      load_instructions(s.x, view.x_planar, view.few, size_of(p.dtype)) + load_instructions(s.y, view.y_planar, 0, size_of(p.dtype));
  Work work;
  work.instructions = tiles * (double(s.threads) * (pixels_of_reader * per_pixel + 60) + loads) +
                      channel_slabs * double(s.slabs) * double(s.filters * s.elements) * (15 + 4.0 * double(s.readers));
  const double partial = p.sums_in_workspace(s.slabs) ? double(s.slabs) * double(p.filter_numel()) * 4 : 0;
  work.dram_bytes = p.tensor_bytes() + 2 * partial;
  work.l2_bytes = tiles * bytes + 2 * partial;
  work.l1_bytes = tiles * (double(s.threads) * pixels_of_reader * reads * 16 / 2 + bytes * 4 / size * 2);
  work.blocks = channel_slabs * double(s.slabs), work.threads = int(s.threads), work.launches = p.sums_in_workspace(s.slabs) ? 2 : 1;
  return work;
}

inline WgradShape wgrad_shape(const WgradShape& slab, const WgradView& view, double* cost = nullptr) {
  const Problem& p = view.problem;
  WgradShape s = slab, best = slab;
  best.shared = kMostShared + 1;
  double least = 0;
  const auto attempt = [&](int64_t images, int64_t rows, int64_t columns) {
    wgrad_tile(s, view, images, rows, columns);
    if (s.shared > kMostShared) return;
    const double time = microseconds(wgrad_work(s, view)) * (s.shared > kSharedOfTwo ? 1.25 : 1.0);
    if (best.shared <= kMostShared && time >= least) return;
    best = s, least = time;
  };
  for (int64_t pixels = 512; pixels >= 32; pixels /= 2) {
    if (p.P * p.Q <= pixels) attempt(std::min(p.N, pixels / (p.P * p.Q)), p.P, p.Q);
    int64_t last = 0;
    for (int64_t parts = 1; parts <= 8; ++parts) {
      const int64_t columns = ceil_div(p.Q, parts), most = std::min(pixels / columns, p.P);
      if (most == 0 || columns == last) continue;
      last = columns;
      attempt(1, ceil_div(p.P, ceil_div(p.P, most)), columns);
      if (view.y_planar) break;
    }
  }
  if (cost) *cost = least;
  return best;
}

template <class T>
WgradParams wgrad_params(const WgradShape& s, const WgradView& view, const Arguments& a) {
  const Problem& p = view.problem;
  const Strides& w = p.w;
  constexpr int64_t size = sizeof(T), vector = 16 / size;
  WgradParams q{};
  q.x = make_image(a.x, p.x, p.N, p.C, p.H, p.W, view.x_planar, size);
  q.y = make_image(a.y, p.y, p.N, p.K, p.P, p.Q, view.y_planar, size);
  q.x_window = s.x, q.y_window = s.y;
  q.x.vector = !view.x_planar && aligned(a.x, {p.x.d0, p.x.d2, p.x.d3, s.channels}, size);
  q.y.vector = !view.y_planar && p.K % vector == 0 && aligned(a.y, {p.y.d0, p.y.d2, p.y.d3, s.filters}, size);
  if (q.x.vector) set_pieces(q.x_window, s.channels / vector, size);
  if (q.y.vector) set_pieces(q.y_window, s.filters / vector, size);
  int64_t raw = 0;
  if (view.few) q.few = make_few(a.x, p, view.few, view.few_columns, s.x, s.tiles_w == 1, size, raw);
  q.w = a.out, q.partial = p.sums_in_workspace(s.slabs) ? a.workspace : nullptr;
  q.w_k = int(w.d0), q.w_c = int(w.d1), q.w_r = int(w.d2), q.w_s = int(w.d3);
  q.stride_h = int(p.stride_h), q.stride_w = int(p.stride_w), q.pad_h = int(p.pad_h), q.pad_w = int(p.pad_w);
  q.taps = int(view.taps()), q.columns_of_filter = int(view.taps_w);
  q.dilation_h = int(p.dilation_h), q.dilation_w = int(view.dilation_w);
  q.slabs = int(s.filter_slabs), q.parts = int(s.parts), q.filters = int(s.filters), q.channels = int(s.channels);
  q.group_filters = int(p.filters_per_group()), q.group_quads = int(ceil_div(view.channels / s.parts, 4));
  q.chunks = int(s.chunks), q.low_lanes = int(s.low), q.tap_groups = int(s.tap_groups), q.near_readers = int(s.near),
  q.readers = int(s.readers);
  q.by_tiles_h = FastDiv<int32_t>(s.tiles_h), q.by_tiles_w = FastDiv<int32_t>(s.tiles_w);
  q.tiles = int(s.tiles), q.tiles_per_block = int(s.tiles_per_block);
  q.images = int(s.images), q.rows = int(s.rows), q.columns = int(s.columns);
  q.all_filters = int(p.K), q.part_channels = int(view.channels / s.parts);
  q.elements = int(s.elements), q.element_pitch = int(s.element_pitch), q.copy_pad = int(s.copy_pad), q.copies = int(s.copies);
  q.channel_innermost = view.channel_innermost;
  q.by_elements = FastDiv<int32_t>(s.elements);
  // One channel: rows of taps, of which a last quad may have too many. Else channels innermost, of which a part has some, or one run.
  const int64_t inner = view.single() ? view.taps_w * view.channels : view.channel_innermost ? q.part_channels : s.elements;
  q.by_inner = FastDiv<int32_t>(inner), q.inner_exists = int(view.single() ? p.S : inner);
  q.inner_step = int(view.single() ? p.S : view.channels), q.part_step = int(view.channel_innermost ? inner : s.elements);
  q.filter_elements = int(p.channels_per_group() * p.R * p.S);
  q.low_is_tap = view.single() || !view.channel_innermost;
  q.by_low = FastDiv<int32_t>(q.low_is_tap ? p.R * p.S : p.channels_per_group()), q.by_columns = FastDiv<int32_t>(p.S);
  const bool dense = q.low_is_tap ? w.d3 == 1 && w.d2 == p.S && (w.d1 == p.R * p.S || p.channels_per_group() == 1)
                                  : w.d1 == 1 && w.d3 == p.channels_per_group() && w.d2 == p.S * w.d3;
  q.w_vector = dense && (view.few || (reinterpret_cast<uintptr_t>(a.out) % (4 * size) == 0 && w.d0 % 4 == 0));
  q.x_at = int(s.x_at), q.y_at = int(s.y_at), q.table_at = int(s.table_at), q.raw_at = int(s.raw_at);
  return q;
}

// Adds the slabs' partial sums, which lie in the order of the filter.
template <class T>
void sum_wgrad_slabs(const WgradShape& s, const WgradView& view, const Arguments& a) {
  const Problem& p = view.problem;
  if (!p.sums_in_workspace(s.slabs)) return;
  const int64_t channels = p.channels_per_group();
  if (view.channel_innermost) add_slabs<T>({a.workspace, s.slabs, {p.K, p.R, p.S, channels}, a.out, {p.w.d0, p.w.d2, p.w.d3, p.w.d1}}, a);
  else add_slabs<T>({a.workspace, s.slabs, {p.K, channels, p.R, p.S}, a.out, {p.w.d0, p.w.d1, p.w.d2, p.w.d3}}, a);
}

inline Configuration wgrad_configuration(const WgradShape& s, const Problem& p) {
  return {s.filter_slabs * s.parts * s.slabs,
          s.slabs,
          p.sums_in_workspace(s.slabs) ? s.slabs * p.filter_numel() * 4 : 0,
          int(s.threads),
          int(s.shared),
          {int(s.rows), int(s.columns), int(s.images)}};
}

}  // namespace cnn::conv2d::grouped
