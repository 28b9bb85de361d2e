// Host side of the gather: slabs, tiles, their cost, and the kernel's parameters.
#pragma once

#include <algorithm>
#include <numeric>
#include <span>

#include "common/cost.h"
#include "conv2d/grouped/gather.cuh"
#include "conv2d/grouped/window.h"
#include "conv2d/plan.h"

namespace cnn::conv2d::grouped {

// fprop and dgrad seen as a gather: which tensor is read, which is written. The first layer has its own (first_layer/first_layer.cuh).
struct View {
  const Problem& problem;
  bool fprop;
  const Strides &in, &out;
  int64_t in_channels, out_channels, in_group, out_group, in_h, in_w, out_h, out_w;
  int64_t taps_w, dilation_w;  // of a filter row: fewer of them where `few` takes neighbouring taps for channels
  bool in_planar, out_planar;
  int64_t few = 0;          // channels of a quad, of an image of few channels
  int64_t few_columns = 0;  // that many columns apart: taps; or 0: channels

  explicit View(const Problem& p) : View(p, p.pass == Pass::kFprop) {}
  View(const Problem& p, bool is_fprop)
      : problem(p),
        fprop(is_fprop),
        in(fprop ? p.x : p.y),
        out(fprop ? p.y : p.x),
        in_channels(fprop ? p.C : p.K),
        out_channels(fprop ? p.K : p.C),
        in_group(in_channels / p.groups),
        out_group(out_channels / p.groups),
        in_h(fprop ? p.H : p.P),
        in_w(fprop ? p.W : p.Q),
        out_h(fprop ? p.P : p.H),
        out_w(fprop ? p.Q : p.W),
        taps_w(p.S),
        dilation_w(p.dilation_w),
        in_planar(planar(p)),
        out_planar(planar(p)) {}
};

// The classes of one axis, and by how much the window of a pixel spans more than a row.
inline Axis make_axis(Pass pass, int64_t out, int64_t taps, int64_t stride, int64_t pad, int64_t dilation, int64_t& halo) {
  Axis a{};
  if (pass == Pass::kFprop) {
    a.classes = 1, a.out_step = 1, a.tap_step = 1, a.in_per_out = int(stride), a.in_per_tap = int(dilation), a.low = int(-pad);
    a.of[0] = {0, int(out), 0, int(taps), int(-pad)};
    halo = (taps - 1) * dilation;
    return a;
  }
  a.classes = int(std::min(stride, out)), a.out_step = int(stride), a.tap_step = int(stride / std::gcd(stride, dilation)), a.in_per_out = 1;
  a.in_per_tap = int(-(a.tap_step * dilation / stride));
  bool any = false;
  int high = 0;
  for (int k = 0; k < a.classes; ++k) {
    Axis::Class& c = a.of[k];
    c.first_out = k, c.outs = int((out - k - 1) / stride + 1);
    const int64_t candidates = std::min<int64_t>(a.tap_step, taps);
    while (c.first_tap < candidates && (k + pad - c.first_tap * dilation) % stride != 0) ++c.first_tap;
    if (c.first_tap == candidates) {
      c.first_tap = 0;
      continue;
    }
    c.taps = int((taps - 1 - c.first_tap) / a.tap_step + 1);
    c.first_in = int((k + pad - c.first_tap * dilation) / stride);
    const int last_in = c.first_in + (c.taps - 1) * a.in_per_tap;
    a.low = any ? std::min(a.low, last_in) : last_in;
    high = any ? std::max(high, c.first_in) : c.first_in;
    any = true;
  }
  for (int k = 0; k < a.classes; ++k)
    if (a.of[k].taps == 0) a.of[k].first_in = a.low;
  halo = high - a.low;
  return a;
}

// A launch of the gather: what depends on the problem alone, then on the tile.
struct GatherShape {
  int64_t results, pixels_of_thread;  // of a thread: results of a pixel, pixels
  int64_t slabs, groups, filters, in_channels, slice, slices, chunks, low;
  int64_t filter_bytes;
  Axis h, w;
  int64_t halo_h, halo_w;
  int phases;
  int64_t images, rows, columns, pixels, slots, threads;
  int64_t tiles_h, tiles_w, tiles, tiles_per_block, blocks;
  Window window;
  int64_t tile_at, table_at, raw_at, staged_at, shared;
  int64_t staged_row, staged_pitch, staged_image;
  bool staged_merged, staged_planes;
};

inline int64_t filter_bytes(const View& view, int64_t slice, int64_t filters) {
  return slice * view.problem.R * view.taps_w * (filters + 4) * 4;
}

// What follows from the slab.
inline void complete_slab(GatherShape& s, const View& view) {
  const Problem& p = view.problem;
  s.filter_bytes = round_up(filter_bytes(view, s.slice, s.filters), 16);
  s.chunks = s.filters / s.results, s.low = low_lanes(s.chunks, s.results);
  s.h = make_axis(p.pass, view.out_h, p.R, p.stride_h, p.pad_h, p.dilation_h, s.halo_h);
  s.w = make_axis(p.pass, view.out_w, view.taps_w, p.stride_w, p.pad_w, view.dilation_w, s.halo_w);
  s.phases = s.w.in_per_out == 2 ? 2 : 1;
}

inline GatherShape gather_slab(int64_t pixels_of_thread, int64_t results, const View& view) {
  const Problem& p = view.problem;
  GatherShape s{};
  s.results = results, s.pixels_of_thread = pixels_of_thread;
  s.groups = groups_of_slab(p, view.out_group, 64), s.slices = 1;
  if (filter_bytes(view, view.in_group, s.groups * view.out_group) > kMostFilterBytes) s.groups = 1;
  s.filters = s.groups * view.out_group, s.slice = view.in_group;
  const auto too_large = [&] { return filter_bytes(view, s.slice, s.filters) > kMostFilterBytes; };
  // Channels of a wide group come in slices, so that the filters fit: in whole sectors, if there are.
  const int64_t sector = 32 / size_of(p.dtype);
  const int64_t unit = view.in_group % sector == 0 ? sector : 4;
  while (too_large() && s.slice > unit) {
    do ++s.slices;
    while (view.in_group % (unit * s.slices) != 0);
    s.slice = view.in_group / s.slices;
  }
  s.slabs = p.groups / s.groups, s.in_channels = s.groups * view.in_group;
  complete_slab(s, view);
  return s;
}

// The rest of the shape, for a tile. `shared` is above kMostShared if it does not fit.
inline void gather_tile(GatherShape& s, const View& view, int64_t images, int64_t rows, int64_t columns) {
  const Problem& p = view.problem;
  const int64_t size = size_of(p.dtype), vector = 16 / size, near = 8 / s.low, block_slabs = view.few ? 1 : s.slabs;
  s.images = images, s.rows = rows, s.columns = columns, s.pixels = images * rows * columns;
  s.slots = round_up(ceil_div(s.pixels, s.pixels_of_thread), near);
  s.threads = round_up(s.slots * s.chunks, 32);
  s.tiles_h = ceil_div(s.h.of[0].outs, rows), s.tiles_w = ceil_div(s.w.of[0].outs, columns);
  s.tiles = ceil_div(p.N, images) * s.tiles_h * s.tiles_w;
  s.tiles_per_block = std::clamp<int64_t>(s.tiles * block_slabs / (4 * kTargetBlocks), 1, 8);
  s.blocks = ceil_div(s.tiles, s.tiles_per_block) * block_slabs;
  s.window = make_window(images, (rows - 1) * s.h.in_per_out + s.halo_h + 1, (columns - 1) * s.w.in_per_out + s.halo_w + 1,
                         s.groups * s.slice, s.phases);
  s.tile_at = s.filter_bytes;
  s.table_at = s.tile_at + window_bytes(s.window);
  s.raw_at = s.staged_at = s.table_at + round_up(s.pixels * int64_t(4 * sizeof(int)), 16);
  int64_t raw = view.in_planar ? 0 : ring_bytes(s.threads, size);
  if (view.few) {
    make_few(nullptr, p, view.few, view.few_columns, s.window, s.tiles_w == 1, size, raw);
  } else if (view.in_planar) {
    const Image image = make_image(nullptr, view.in, p.N, view.in_channels, view.in_h, view.in_w, true, size);
    raw = plan_runs(s.window, image, s.w.low, s.tiles_w == 1, s.tiles_w * s.tiles_h == 1 && s.slices == 1, size);
  }
  s.shared = s.raw_at + raw;
  if (!view.out_planar) return;
  s.staged_merged = s.tiles_w == 1 && (view.out.d2 == view.out_w || view.out_h == 1);
  s.staged_row = s.staged_merged ? view.out_w : columns * s.w.out_step;
  const int64_t plane = view.out_h * view.out_w;
  s.staged_planes = s.staged_merged && s.tiles_h == 1 && view.out.d1 == plane && plane % vector != 0;
  s.staged_pitch = s.staged_planes ? plane : round_up(s.staged_row * rows * s.h.out_step + 2 * vector - 1, 2 * vector);
  s.staged_image = s.filters * s.staged_pitch + s.filters / 4 * vector;
  if (s.staged_planes) s.staged_image = round_up(s.filters * plane + 2 * vector - 1, 2 * vector);
  const bool refilled = s.slices > 1 && s.h.classes * s.w.classes > 1;  // `raw`, while results of the first classes are staged
  if (refilled) s.staged_at += round_up(raw, 16);
  s.shared = std::max(s.shared, s.staged_at + images * s.staged_image * size);
}

// Instructions, counted in the source. Machine code has more, about twice as many for what is loaded and some 95 for four bytes of the
// filter; the direct kernels' are counted there, so the comparison with them leans this way until these are. For each quad of channels and
// tap the FMAs (224 of 56 sums, 64 of 16), the reads of shared memory, and 16 of addresses and the loop (sm_90a's machine code has 28); 20
// for each 4 bytes of a filter that are read and each pixel of a thread that is written. Loads: window.h.
inline Work gather_work(const GatherShape& s, const View& view) {
  const Problem& p = view.problem;
  const int64_t size = size_of(p.dtype);
  double class_taps = 0;
  for (int h = 0; h < s.h.classes; ++h)
    for (int w = 0; w < s.w.classes; ++w) class_taps += double(s.h.of[h].taps) * double(s.w.of[w].taps);
  const double classes = double(s.h.classes) * s.w.classes, tiles = double(s.tiles), slabs = double(s.slabs);
  const double halo_bytes = double(s.window.positions) * double(s.in_channels) * double(size) * (s.slices > 1 ? classes : 1);
  const double halos = tiles * (view.few ? 1 : slabs);
  const double quads = double(ceil_div(view.in_group, 4)), threads = double(s.threads);
  const double fmas = double(s.results * s.pixels_of_thread * (view.few ? view.few : 4)),
               reads = fmas / double(s.pixels_of_thread) / 4 + double(s.pixels_of_thread);
  const double filter_loads = s.slices > 1 || (view.few && s.slabs > 1) ? tiles * slabs : double(s.blocks);
  Work work;
  work.instructions =
      tiles * slabs * threads * (class_taps * quads * (fmas + reads + 16) + classes * double(s.pixels_of_thread) * 20) +
      halos * (s.slices > 1 ? classes : 1) * double(s.slices) * load_instructions(s.window, view.in_planar, view.few, size) +
      filter_loads * double(s.filter_bytes) / 4 * (size == 2 ? 10 : 20);
  work.dram_bytes = p.tensor_bytes();
  work.l2_bytes = halos * halo_bytes + double(view.out_channels * view.out_h * view.out_w * p.N * size) +
                  filter_loads * double(s.filter_bytes) / 4 * double(size);
  // A vector of filters or of the halo is read by at least two lanes of a quarter or by two quarters at once.
  work.l1_bytes = tiles * slabs * threads * class_taps * quads * reads * 16 / 2 + halos * halo_bytes * 8 / double(size);
  work.blocks = double(s.blocks), work.threads = int(s.threads);
  return work;
}

// Tries tiles: whole rows or a part of them, as many rows as give each thread its pixels, or fewer; several images if they are small.
// `best`, or what is the cheapest of these: its `shared` is above kMostShared if nothing fits.
inline void try_tiles(const GatherShape& slab, const View& view, bool whole_rows, GatherShape& best, double& least) {
  GatherShape s = slab;
  const int64_t outs_h = s.h.of[0].outs, outs_w = s.w.of[0].outs;
  const auto attempt = [&](int64_t images, int64_t rows, int64_t columns) {
    gather_tile(s, view, images, rows, columns);
    if (s.shared > kMostShared || s.threads > kMostThreads) return;
    const double time = microseconds(gather_work(s, view)) * (s.shared > kSharedOfTwo ? 1.25 : 1.0);
    if (best.shared <= kMostShared && time >= least) return;
    best = s, least = time;
  };
  for (int64_t pixels = kMostThreads / s.chunks / (8 / s.low) * (8 / s.low) * s.pixels_of_thread; pixels >= 16; pixels /= 2) {
    if (outs_h * outs_w <= pixels) attempt(std::min(view.problem.N, pixels / (outs_h * outs_w)), outs_h, outs_w);
    int64_t last = 0;
    for (int64_t parts = 1; parts <= (whole_rows ? 1 : 8); ++parts) {
      const int64_t columns = ceil_div(outs_w, parts), most = std::min(pixels / columns, outs_h);
      if (most == 0 || columns == last) continue;
      last = columns;
      attempt(1, ceil_div(outs_h, ceil_div(outs_h, most)), columns);
    }
  }
}

// The best tile for the best of some slabs. Planes are read and written in whole rows if those fit.
inline GatherShape gather_shape(std::span<const GatherShape> slabs, const View& view, double* cost = nullptr) {
  GatherShape best = slabs[0];
  best.shared = kMostShared + 1;
  double least = 0;
  const bool planes = view.out_planar || (view.in_planar && !view.few);
  for (const bool whole_rows : {true, false}) {
    if (whole_rows && !planes) continue;
    if (best.shared <= kMostShared) break;
    for (const GatherShape& slab : slabs) try_tiles(slab, view, whole_rows, best, least);
  }
  if (cost) *cost = least;
  return best;
}
inline GatherShape gather_shape(const GatherShape& slab, const View& view, double* cost = nullptr) {
  return gather_shape(std::span(&slab, 1), view, cost);
}

// A launch's parameters but for the filters' walk, which the caller knows.
template <class T>
GatherParams gather_params(const GatherShape& s, const View& view, const Arguments& a) {
  const Problem& p = view.problem;
  constexpr int64_t size = sizeof(T), vector = 16 / size;
  GatherParams q{};
  q.in = make_image(view.fprop ? a.x : a.y, view.in, p.N, view.in_channels, view.in_h, view.in_w, view.in_planar, size);
  q.in.vector = !view.in_planar && aligned(q.in.data, {view.in.d0, view.in.d2, view.in.d3, s.in_channels, s.groups * s.slice}, size);
  q.window = s.window;
  if (q.in.vector) set_pieces(q.window, s.groups * s.slice / vector, size);
  int64_t raw = 0;
  if (view.few) q.few = make_few(a.x, p, view.few, view.few_columns, s.window, s.tiles_w == 1, size, raw);
  q.filter = a.w, q.epilogue = a.epilogue, q.out = a.out;
  q.out_n = int(view.out.d0), q.out_c = int(view.out.d1), q.out_h = int(view.out.d2), q.out_w = int(view.out.d3);
  q.out_rows = int(view.out_h), q.out_columns = int(view.out_w);
  q.out_skew = int(reinterpret_cast<uintptr_t>(a.out) % 32 / size);
  q.out_planar = view.out_planar;
  const bool swaps = s.results * size != 16;  // with the lane of the neighbouring chunk
  const bool whole = s.slabs * s.filters == view.out_channels;
  q.out_vector = view.out_planar
                     ? s.staged_merged
                     : whole && (!swaps || s.low % 2 == 0) && aligned(a.out, {view.out.d0, view.out.d2, view.out.d3, s.filters}, size);
  q.dgrad = !view.fprop;
  q.h = s.h, q.w = s.w;
  q.columns_of_filter = int(view.taps_w), q.taps = int(p.R * view.taps_w);
  q.images = int(s.images), q.rows = int(s.rows), q.columns = int(s.columns);
  q.by_rows = FastDiv<int32_t>(s.rows), q.by_columns = FastDiv<int32_t>(s.columns);
  q.pixels = int(s.pixels), q.slots = int(s.slots), q.low_lanes = int(s.low);
  q.staged_planes = view.out_planar && s.staged_planes;
  q.by_filters = FastDiv<int32_t>(q.staged_planes ? 1 : s.filters);
  q.staged_skew = q.staged_planes ? 0 : int(vector / 4);
  q.slabs = int(s.slabs), q.filters = int(s.filters), q.in_channels = int(s.in_channels), q.all_results = int(view.out_channels);
  q.filter_channels = int(view.few ? view.few : view.in_group);
  q.row_taps = int(view.few_columns ? p.S : 1 << 30);
  q.group_out = int(view.out_group), q.group_in = int(view.in_group);
  q.group_quads = int(ceil_div(s.slice, 4)), q.slice = int(s.slice), q.slices = int(s.slices);
  q.by_tiles_h = FastDiv<int32_t>(s.tiles_h), q.by_tiles_w = FastDiv<int32_t>(s.tiles_w);
  q.tiles = int(s.tiles), q.tiles_per_block = int(s.tiles_per_block);
  q.tile_at = int(s.tile_at), q.table_at = int(s.table_at), q.raw_at = int(s.raw_at), q.staged_at = int(s.staged_at);
  q.staged_row = int(s.staged_row), q.staged_pitch = int(s.staged_pitch), q.staged_image = int(s.staged_image);
  q.out_unit = q.staged_planes ? int(vector) : 1;
  if (q.out_planar && q.out_vector && !q.staged_planes) {
    const int64_t tile_rows = s.tiles_h > 1 ? s.rows * s.h.out_step : 0;
    q.out_unit = int(vector);
    for (const int64_t step : {int64_t(q.out_skew), p.N > 1 ? view.out.d0 : 0, view.out_channels > 1 ? view.out.d1 : 0,
                               tile_rows * view.out.d2, tile_rows * view.out_w, view.out_h * view.out_w})
      q.out_unit = int(std::gcd(int64_t(q.out_unit), step));
    // Long runs are written by vectors, and their ends one by one: at most 14 instructions more for a run, where 32 units are one.
    constexpr int kLong = 256;
    if (s.staged_row * s.rows * s.h.out_step >= kLong * q.out_unit) q.out_unit = int(vector);
  }
  q.by_staged_units = FastDiv<int32_t>((q.staged_planes ? s.staged_image : s.staged_pitch) / q.out_unit);
  q.by_staged_row = FastDiv<int32_t>(s.staged_row);
  return q;
}

// How filters are read: `rows` of them, and of each `second` channels and all taps, in the order of memory.
inline FilterWalk filter_walk(const View& view, const void* data, int64_t rows, int64_t second, int64_t slice, const Strides& w) {
  const Problem& p = view.problem;
  const int64_t taps = p.R * view.taps_w, size = size_of(p.dtype);
  FilterWalk walk{};
  walk.k = int(w.d0), walk.c = int(w.d1), walk.r = int(w.d2), walk.s = int(w.d3);
  walk.taps_inner = !(w.d1 == 1 && second > 1);
  walk.rows = int(rows), walk.row_elements = int(second * taps);
  // Two halves at once where they are neighbours in memory, always.
  const bool dense = walk.taps_inner ? w.d3 == 1 && w.d2 == p.S && w.d1 == taps : second % 2 == 0;
  walk.pair = size == 2 && !view.few && dense && (w.d0 | w.d1 * (slice == second ? slice : 0) | walk.row_elements) % 2 == 0 &&
                      (walk.taps_inner || (w.d2 | w.d3) % 2 == 0) && reinterpret_cast<uintptr_t>(data) % 4 == 0
                  ? 2
                  : 1;
  // Lanes: 4 filters by 8 (pairs of) elements, 32 bytes each and all in different banks. Single halves: 2 by 16. dgrad's results lie
  // along the row, and there one row is enough.
  walk.lane_rows = !view.fprop ? 1 : size == 2 && walk.pair == 1 ? 2 : 4;
  walk.row_lanes = 32 / walk.lane_rows;
  walk.by_inner = FastDiv<int32_t>(walk.taps_inner ? taps : second);
  walk.by_columns = FastDiv<int32_t>(view.taps_w), walk.by_slice = FastDiv<int32_t>(slice);
  walk.by_steps = FastDiv<int32_t>(ceil_div(walk.row_elements, walk.row_lanes * walk.pair));
  walk.elements = int(round_up(rows, walk.lane_rows) * walk.by_steps.divisor * walk.row_lanes);
  return walk;
}

// The same for few channels: the filters of a slab are one run of memory, which passes through `room` bytes of shared memory.
inline FilterWalk few_filter_walk(const View& view, const void* data, int64_t rows, int64_t room, const Strides& w) {
  FilterWalk walk = filter_walk(view, data, rows, view.in_group, view.in_group, w);
  const Problem& p = view.problem;
  const int64_t size = size_of(p.dtype), vector = 16 / size, row = p.C * p.R * p.S;
  const bool planar = (p.w.d3 == 1 || p.S == 1) && (p.w.d2 == p.S || p.R == 1) && (p.w.d1 == p.R * p.S || p.C == 1);
  const bool innermost = p.w.d1 == 1 && p.w.d3 == p.C && p.w.d2 == p.S * p.C;
  walk.chunk_rows = int((room / size - vector) / row / 4 * 4);
  walk.run = (planar || innermost) && p.w.d0 == row && walk.chunk_rows > 0 && reinterpret_cast<uintptr_t>(data) % 16 == 0;
  walk.end = int(p.K * row);
  walk.by_taps = FastDiv<int32_t>(p.R * view.taps_w);
  return walk;
}

inline Configuration gather_configuration(const GatherShape& s) {
  return {s.blocks, 1, 0, int(s.threads), int(s.shared), {int(s.rows), int(s.columns), int(s.images)}};
}

}  // namespace cnn::conv2d::grouped
