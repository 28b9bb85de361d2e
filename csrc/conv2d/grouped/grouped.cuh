// The grouped family's host side: what it can run, tiles and their costs, and the rows of the catalogue. Included by instantiations/*.cu
// alone, one file per element type.
#pragma once

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "common/cost.h"
#include "conv2d/eligibility.h"
#include "conv2d/grouped/gather.cuh"
#include "conv2d/grouped/grouped.h"
#include "conv2d/grouped/wgrad.cuh"
#include "conv2d/plan.h"
#include "conv2d/sum_slabs/sum_slabs.h"

namespace cnn::conv2d {
namespace grouped {

constexpr int64_t kMostGroupWidth = 64;         // channels or filters: wider groups fill the tiles of a dense convolution
constexpr int64_t kMostFilterBytes = 48 << 10;  // of shared memory, for the filters of a slab or slice
constexpr int64_t kMostShared = 224 << 10;      // beside 3 KB that are static
constexpr int64_t kSharedOfTwo = 110 << 10;     // with more a multiprocessor has one block, whose loads show

inline bool planar(const Problem& p) { return !(p.x_is_channels_last() && p.y_is_channels_last()); }

inline std::string why_not_grouped(const Problem& p) {
  const std::string why = why_not_tuned(p);
  if (!why.empty()) return why;
  if (p.groups == 1) return "not grouped";
  if (p.R * p.S == 1) return "1x1 filter: the pointwise kernels have it";
  const int64_t cg = p.channels_per_group(), kg = p.filters_per_group();
  if (cg % 4 != 0 || kg % 4 != 0)
    return "groups of " + std::to_string(cg) + " channels and " + std::to_string(kg) + " filters: built for multiples of 4";
  if (cg > kMostGroupWidth || kg > kMostGroupWidth)
    return "groups of " + std::to_string(cg) + " channels and " + std::to_string(kg) + " filters: built for up to 64";
  if (std::max(p.stride_h, p.stride_w) > kMostStride) return "stride above 4";
  if (planar(p) && !(p.x_is_planar() && p.y_is_planar())) return "neither the channels nor the columns of both images are dense";
  return {};
}

// How many groups a block takes: 32 results per pixel if that is possible, else a multiple of as much as possible near it.
inline int64_t groups_of_slab(const Problem& p, int64_t width, int64_t most_width) {
  int64_t best = 1;
  const auto rank = [&](int64_t groups) {
    const int64_t results = groups * width;
    const int64_t kind = results % 32 == 0 ? 0 : results % 16 == 0 ? 1 : results % 8 == 0 ? 2 : 3;
    return kind * 1000 + std::abs(results - 32);
  };
  for (int64_t groups = 1; groups <= p.groups && groups * width <= most_width; ++groups)
    if (p.groups % groups == 0 && rank(groups) < rank(best)) best = groups;
  return best;
}

// Lanes that take neighbouring chunks of one pixel: with 8 results each 4, so that a quarter of a warp spans two pixels.
inline int64_t low_lanes(int64_t chunks, int64_t results) {
  int64_t lanes = results == 8 ? 4 : 8;
  while (chunks % lanes != 0) lanes /= 2;
  return lanes;
}

inline Window make_window(int64_t images, int64_t rows, int64_t columns, int64_t channels, int phases, int64_t pieces_of) {
  Window w{};
  columns = round_up(columns, phases);
  w.images = int(images), w.rows = int(rows), w.columns = int(columns), w.quads = int(channels / 4);
  w.phases = phases;
  w.positions = int(images * rows * columns);
  w.pitch = w.positions | 1;
  w.by_columns = FastDiv<int32_t>(columns), w.by_rows = FastDiv<int32_t>(rows), w.by_positions = FastDiv<int32_t>(w.positions);
  w.by_pieces = FastDiv<int32_t>(channels / pieces_of);
  return w;
}
inline int64_t window_bytes(const Window& w) { return int64_t(w.quads) * w.pitch * 16; }

inline Image make_image(const void* data, const Strides& s, int64_t batch, int64_t channels, int64_t rows, int64_t columns, bool planar,
                        int64_t size) {
  Image image{};
  image.data = data;
  image.n = int(s.d0), image.c = int(s.d1), image.h = int(s.d2), image.w = int(s.d3);
  image.batch = int(batch), image.channels = int(channels), image.rows = int(rows), image.columns = int(columns);
  image.planar = planar;
  image.skew = int(reinterpret_cast<uintptr_t>(data) % 16 / size);
  image.dense = planar && s.d1 == rows * columns && (s.d2 == columns || rows == 1);
  return image;
}

// Whether all of these offsets keep an address at a 16-byte boundary.
inline bool aligned(const void* data, std::initializer_list<int64_t> strides, int64_t size) {
  int64_t bytes = int64_t(reinterpret_cast<uintptr_t>(data));
  for (int64_t stride : strides) bytes |= stride * size;
  return bytes % 16 == 0;
}

// Room in `raw`, in bytes; completes the window. `first_column` is that of the leftmost tile, `only`: it is the only one.
inline int64_t plan_runs(Window& w, const Image& image, int64_t first_column, bool only, int64_t size) {
  const int64_t vector = 16 / size;
  w.merged = only && first_column <= 0 && first_column + w.columns >= image.columns && (image.h == image.columns || image.rows == 1);
  const int64_t longest = w.merged ? std::min<int64_t>(w.rows, image.rows) * image.columns : std::min<int64_t>(w.columns, image.columns);
  w.run_pitch = int(round_up(longest + vector - 1, vector));
  w.by_run_vectors = FastDiv<int32_t>(w.run_pitch / vector);
  return int64_t(w.images) * w.quads * 4 * (w.merged ? 1 : w.rows) * w.run_pitch * size;
}

// Room in `raw` for the vectors of channels_last halves that are on their way.
inline int64_t ring_bytes(int64_t threads, int64_t size) { return size == 2 ? kInFlight * threads * 16 : 0; }

// --- fprop and dgrad

// fprop and dgrad seen as a gather: which tensor is read, which is written.
struct View {
  const Strides &in, &out;
  int64_t in_channels, out_channels, in_group, out_group, in_h, in_w, out_h, out_w;

  explicit View(const Problem& p) : View(p, p.pass == Pass::kFprop) {}

 private:
  View(const Problem& p, bool fprop)
      : in(fprop ? p.x : p.y),
        out(fprop ? p.y : p.x),
        in_channels(fprop ? p.C : p.K),
        out_channels(fprop ? p.K : p.C),
        in_group(in_channels / p.groups),
        out_group(out_channels / p.groups),
        in_h(fprop ? p.H : p.P),
        in_w(fprop ? p.W : p.Q),
        out_h(fprop ? p.P : p.H),
        out_w(fprop ? p.Q : p.W) {}
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

constexpr int pixels_of_thread_for(int64_t results) { return results == 8 ? 7 : 14; }  // 448 pixels for 256 threads

// A launch of the gather: what depends on the problem alone, then on the tile.
struct GatherShape {
  int64_t results;  // of a thread and pixel
  int64_t groups, filters, in_channels, slice, slices, chunks, low;
  int64_t filter_bytes;
  Axis h, w;
  int64_t halo_h, halo_w;
  int phases;
  int64_t images, rows, columns, pixels, slots, threads;
  int64_t tiles_h, tiles_w, tiles, tiles_per_block, blocks;
  Window window;
  int64_t tile_at, table_at, raw_at, staged_at, shared;
  int64_t staged_row, staged_pitch, staged_image;
  bool staged_merged;

  int64_t pixels_of_thread() const { return pixels_of_thread_for(results); }
};

inline int64_t results_of_thread(const Kernel& kernel) { return kernel.tn; }

inline GatherShape gather_slab(const Kernel& kernel, const Problem& p) {
  const View view(p);
  GatherShape s{};
  s.results = results_of_thread(kernel);
  const auto filter_bytes = [&](int64_t slice, int64_t filters) { return slice * p.R * p.S * (filters + 4) * 4; };
  s.groups = groups_of_slab(p, view.out_group, 64);
  if (filter_bytes(view.in_group, s.groups * view.out_group) > kMostFilterBytes) s.groups = 1;
  s.filters = s.groups * view.out_group, s.in_channels = s.groups * view.in_group;
  s.slice = view.in_group, s.slices = 1;
  if (s.groups == 1)
    while (filter_bytes(s.slice, s.filters) > kMostFilterBytes && s.slice > 4) {
      do ++s.slices;
      while (view.in_group % (4 * s.slices) != 0);
      s.slice = view.in_group / s.slices;
    }
  s.filter_bytes = round_up(filter_bytes(s.slice, s.filters), 16);
  s.chunks = s.filters / s.results, s.low = low_lanes(s.chunks, s.results);
  s.h = make_axis(p.pass, view.out_h, p.R, p.stride_h, p.pad_h, p.dilation_h, s.halo_h);
  s.w = make_axis(p.pass, view.out_w, p.S, p.stride_w, p.pad_w, p.dilation_w, s.halo_w);
  s.phases = s.w.in_per_out == 2 ? 2 : 1;
  return s;
}

// The rest of the shape, for a tile. `shared` is above kMostShared if it does not fit.
inline void gather_tile(GatherShape& s, const Problem& p, int64_t images, int64_t rows, int64_t columns) {
  const View view(p);
  const int64_t size = size_of(p.dtype), vector = 16 / size, near = 8 / s.low;
  s.images = images, s.rows = rows, s.columns = columns, s.pixels = images * rows * columns;
  s.slots = round_up(ceil_div(s.pixels, s.pixels_of_thread()), near);
  s.threads = round_up(s.slots * s.chunks, 32);
  s.tiles_h = ceil_div(s.h.of[0].outs, rows), s.tiles_w = ceil_div(s.w.of[0].outs, columns);
  s.tiles = ceil_div(p.N, images) * s.tiles_h * s.tiles_w;
  const int64_t slabs = p.groups / s.groups;
  s.tiles_per_block = std::clamp<int64_t>(s.tiles * slabs / (4 * kTargetBlocks), 1, 8);
  s.blocks = ceil_div(s.tiles, s.tiles_per_block) * slabs;
  s.window = make_window(images, (rows - 1) * s.h.in_per_out + s.halo_h + 1, (columns - 1) * s.w.in_per_out + s.halo_w + 1,
                         s.groups * s.slice, s.phases, 4);
  s.tile_at = s.filter_bytes;
  s.table_at = s.tile_at + window_bytes(s.window);
  s.raw_at = s.staged_at = s.shared = s.table_at + s.pixels * int64_t(sizeof(Pixel));
  if (!planar(p)) {
    s.shared += ring_bytes(s.threads, size);
    return;
  }
  const Image image = make_image(nullptr, view.in, p.N, view.in_channels, view.in_h, view.in_w, true, size);
  const int64_t raw = plan_runs(s.window, image, s.w.low, s.tiles_w == 1, size);
  s.staged_merged = s.tiles_w == 1 && (view.out.d2 == view.out_w || view.out_h == 1);
  s.staged_row = s.staged_merged ? view.out_w : columns * s.w.out_step;
  s.staged_pitch = round_up(s.staged_row * rows * s.h.out_step + vector - 1, 2 * vector);
  s.staged_image = s.filters * s.staged_pitch + s.filters / 4 * vector;
  const bool refilled = s.slices > 1 && s.h.classes * s.w.classes > 1;  // `raw`, while results of the first classes are staged
  if (refilled) s.staged_at += round_up(raw, 16);
  s.shared = std::max(s.raw_at + raw, s.staged_at + images * s.staged_image * size);
}

// Instructions, counted in the inner loop: for each quad of channels and tap 224 FMAs, 15 (4 results: 18) reads of shared memory, and 16 of
// addresses and the loop. 40 for each 16 bytes that are loaded (two divisions by multiplication, bounds, address, conversions, one or two
// writes), three times that where they pass through `raw`; 20 for each pixel of a thread that is written.
inline Work gather_work(const GatherShape& s, const Problem& p) {
  const View view(p);
  const int64_t size = size_of(p.dtype), slabs = p.groups / s.groups;
  double class_taps = 0;
  for (int h = 0; h < s.h.classes; ++h)
    for (int w = 0; w < s.w.classes; ++w) class_taps += double(s.h.of[h].taps) * double(s.w.of[w].taps);
  const double classes = double(s.h.classes) * s.w.classes, tiles = double(s.tiles) * double(slabs);
  const double halo_bytes = double(s.window.positions) * double(s.in_channels) * double(size) * (s.slices > 1 ? classes : 1);
  const double quads = double(view.in_group) / 4, threads = double(s.threads);
  const double filter_loads = double(s.slices > 1 ? s.tiles * slabs : s.blocks);
  Work work;
  work.instructions = tiles * (threads * (class_taps * quads * (double(4 * s.results * s.pixels_of_thread()) + 32) +
                                          classes * double(s.pixels_of_thread()) * 20) +
                               halo_bytes / 16 * (planar(p) ? 120 : 40)) +
                      filter_loads * double(s.filter_bytes) / 4 * 20;
  work.dram_bytes = p.tensor_bytes();
  work.l2_bytes = tiles * halo_bytes + double(view.out_channels * view.out_h * view.out_w * p.N * size) +
                  filter_loads * double(s.filter_bytes) / 4 * double(size);
  // A vector of filters or of the halo is read by at least two lanes of a quarter or by two quarters at once.
  work.l1_bytes = tiles * (threads * class_taps * quads * 16 * 16 / 2 + halo_bytes * 4 / double(size) * 2);
  work.blocks = double(s.blocks), work.threads = int(s.threads);
  return work;
}

// Tries tiles: whole rows or a part of them, as many rows as give each thread its pixels, or fewer; several images if they are small.
inline GatherShape gather_shape(const Kernel& kernel, const Problem& p, double* cost = nullptr) {
  GatherShape s = gather_slab(kernel, p), best = s;
  best.shared = kMostShared + 1;
  double least = 0;
  const int64_t outs_h = s.h.of[0].outs, outs_w = s.w.of[0].outs;
  const auto attempt = [&](int64_t images, int64_t rows, int64_t columns) {
    gather_tile(s, p, images, rows, columns);
    if (s.shared > kMostShared || s.threads > kMostThreads) return;
    const double time = microseconds(gather_work(s, p)) * (s.shared > kSharedOfTwo ? 1.25 : 1.0);
    if (best.shared <= kMostShared && time >= least) return;
    best = s, least = time;
  };
  for (int64_t pixels = kMostThreads / s.chunks / (8 / s.low) * (8 / s.low) * s.pixels_of_thread(); pixels >= 32; pixels /= 2) {
    if (outs_h * outs_w <= pixels) attempt(std::min(p.N, pixels / (outs_h * outs_w)), outs_h, outs_w);
    int64_t last = 0;
    for (int64_t parts = 1; parts <= 8; ++parts) {
      const int64_t columns = ceil_div(outs_w, parts), most = std::min(pixels / columns, outs_h);
      if (most == 0 || columns == last) continue;
      last = columns;
      attempt(1, ceil_div(outs_h, ceil_div(outs_h, most)), columns);
      if (planar(p)) break;  // in runs as long as possible
    }
  }
  if (cost) *cost = least;
  return best;
}

inline std::string why_not_gather(const Kernel& kernel, const Problem& p) {
  const std::string why = why_not_grouped(p);
  if (!why.empty()) return why;
  const View view(p);
  if (view.out_group % results_of_thread(kernel) != 0)
    return "groups of " + std::to_string(view.out_group) + " results: this one computes " + std::to_string(results_of_thread(kernel)) +
           " at a time";
  if (gather_shape(kernel, p).shared > kMostShared) return "no tile with its halo fits in shared memory";
  return {};
}

inline double gather_cost(const Kernel& kernel, const Problem& p) {
  double cost = 0;
  gather_shape(kernel, p, &cost);
  return cost;
}

inline Configuration configure_gather(const Kernel& kernel, const Problem& p) {
  const GatherShape s = gather_shape(kernel, p);
  return {s.blocks, 1, 0, int(s.threads), int(s.shared), {int(s.rows), int(s.columns), int(s.images)}};
}

template <class T, int kResults>
void run_gather(const Kernel& kernel, const Problem& p, const Configuration& configuration, const Arguments& a) {
  const bool fprop = p.pass == Pass::kFprop, is_planar = planar(p);
  const View view(p);
  GatherShape s = gather_slab(kernel, p);
  gather_tile(s, p, configuration.tile[2], configuration.tile[0], configuration.tile[1]);
  constexpr int64_t size = sizeof(T), vector = 16 / size;
  const int64_t group_taps = p.R * p.S;

  GatherParams q{};
  q.in = make_image(fprop ? a.x : a.y, view.in, p.N, view.in_channels, view.in_h, view.in_w, is_planar, size);
  q.in.vector = !is_planar && aligned(q.in.data, {view.in.d0, view.in.d2, view.in.d3, s.in_channels, s.groups * s.slice}, size);
  q.window = s.window;
  if (q.in.vector) q.window.by_pieces = FastDiv<int32_t>(s.groups * s.slice / vector);
  q.filter = a.w, q.bias = a.bias, q.out = a.out;
  q.bias_stride = int(a.bias_stride);
  q.out_n = int(view.out.d0), q.out_c = int(view.out.d1), q.out_h = int(view.out.d2), q.out_w = int(view.out.d3);
  q.out_rows = int(view.out_h), q.out_columns = int(view.out_w);
  q.out_skew = int(reinterpret_cast<uintptr_t>(a.out) % 16 / size);
  const bool swaps = s.results * size != 16;  // with the lane of the neighbouring chunk
  q.out_vector =
      is_planar ? s.staged_merged : (!swaps || s.low % 2 == 0) && aligned(a.out, {view.out.d0, view.out.d2, view.out.d3, s.filters}, size);
  q.dgrad = !fprop;
  const bool taps_inner = !(p.w.d1 == 1 && p.channels_per_group() > 1);
  const int64_t second = fprop ? s.slice : view.out_group;
  q.walk = {int(p.w.d0),
            int(p.w.d1),
            int(p.w.d2),
            int(p.w.d3),
            FastDiv<int32_t>(taps_inner ? group_taps : second),
            FastDiv<int32_t>(taps_inner ? second : group_taps),
            FastDiv<int32_t>(p.S),
            FastDiv<int32_t>(s.slice),
            taps_inner,
            int((fprop ? s.filters : s.groups * s.slice) * second * group_taps)};
  q.h = s.h, q.w = s.w;
  q.columns_of_filter = int(p.S), q.taps = int(group_taps);
  q.images = int(s.images), q.rows = int(s.rows), q.columns = int(s.columns);
  q.by_rows = FastDiv<int32_t>(s.rows), q.by_columns = FastDiv<int32_t>(s.columns);
  q.pixels = int(s.pixels), q.slots = int(s.slots), q.low_lanes = int(s.low);
  q.by_filters = FastDiv<int32_t>(s.filters);
  q.slabs = int(p.groups / s.groups), q.filters = int(s.filters), q.in_channels = int(s.in_channels);
  q.group_out = int(view.out_group), q.group_in = int(view.in_group);
  q.slice = int(s.slice), q.slices = int(s.slices);
  q.by_tiles_h = FastDiv<int32_t>(s.tiles_h), q.by_tiles_w = FastDiv<int32_t>(s.tiles_w);
  q.tiles = int(s.tiles), q.tiles_per_block = int(s.tiles_per_block);
  q.tile_at = int(s.tile_at), q.table_at = int(s.table_at), q.raw_at = int(s.raw_at), q.staged_at = int(s.staged_at);
  q.staged_row = int(s.staged_row), q.staged_pitch = int(s.staged_pitch), q.staged_image = int(s.staged_image);
  q.by_staged_vectors = FastDiv<int32_t>(s.staged_pitch / vector);
  const LaunchShape shape{dim3(unsigned(s.blocks)), dim3(unsigned(s.threads)), std::size_t(s.shared), a.stream};
  launch(kernel.name.c_str(), shape, gather_kernel<T, kResults, pixels_of_thread_for(kResults)>, q);
}

// --- wgrad

struct WgradShape {
  int64_t filters_of_thread, taps_of_thread;
  int64_t groups, parts, filters, channels, chunks, low, tap_groups, units, readers, threads;
  int64_t images, rows, columns, tiles_h, tiles_w, tiles, tiles_per_block, slabs;
  Window x, y;
  int64_t elements, element_pitch, copies;
  int64_t x_at, y_at, table_at, raw_at, shared;
};

inline WgradShape wgrad_slab(const Kernel& kernel, const Problem& p) {
  const int64_t kg = p.filters_per_group(), cg = p.channels_per_group();
  WgradShape s{};
  s.filters_of_thread = kernel.tm, s.taps_of_thread = kernel.tn;
  s.tap_groups = ceil_div(p.R * p.S, s.taps_of_thread);
  s.groups = groups_of_slab(p, kg, 64);
  s.parts = 1;
  const auto units = [&] { return s.groups * kg / s.filters_of_thread * (cg / 4 / s.parts) * s.tap_groups; };
  if (units() > kMostWgradThreads) s.groups = 1;
  while (units() > kMostWgradThreads && s.parts < cg / 4) {
    do ++s.parts;
    while (cg / 4 % s.parts != 0);
  }
  s.filters = s.groups * kg, s.channels = s.groups * cg / s.parts;
  s.chunks = s.filters / s.filters_of_thread, s.low = low_lanes(s.chunks, s.filters_of_thread);
  s.units = units();
  s.readers = std::max<int64_t>(1, kMostWgradThreads / std::max<int64_t>(1, s.units));
  s.threads = round_up(s.units * s.readers, 32);
  s.elements = cg / s.parts * p.R * p.S, s.element_pitch = s.elements | 1;
  return s;
}

inline void wgrad_tile(WgradShape& s, const Problem& p, int64_t images, int64_t rows, int64_t columns) {
  constexpr int64_t kMostCopyBytes = 48 << 10;
  const int64_t size = size_of(p.dtype);
  s.images = images, s.rows = rows, s.columns = columns;
  s.tiles_h = ceil_div(p.P, rows), s.tiles_w = ceil_div(p.Q, columns), s.tiles = ceil_div(p.N, images) * s.tiles_h * s.tiles_w;
  const int64_t channel_slabs = p.groups / s.groups * s.parts;
  s.tiles_per_block = ceil_div(s.tiles, std::min(s.tiles, ceil_div(kTargetBlocks, channel_slabs)));
  s.slabs = ceil_div(s.tiles, s.tiles_per_block);
  s.x = make_window(images, (rows - 1) * p.stride_h + (p.R - 1) * p.dilation_h + 1,
                    (columns - 1) * p.stride_w + (p.S - 1) * p.dilation_w + 1, s.channels, p.stride_w == 2 ? 2 : 1, 4);
  s.y = make_window(images, rows, columns, s.filters, 1, 4);
  s.x_at = 0;
  s.y_at = s.x_at + window_bytes(s.x);
  s.table_at = s.y_at + window_bytes(s.y);
  s.raw_at = s.shared = s.table_at + ceil_div(images * rows * columns, 2) * int64_t(sizeof(PixelPair));
  if (planar(p)) {
    const Image x = make_image(nullptr, p.x, p.N, p.C, p.H, p.W, true, size), y = make_image(nullptr, p.y, p.N, p.K, p.P, p.Q, true, size);
    const int64_t x_raw = plan_runs(s.x, x, -p.pad_w, s.tiles_w == 1, size), y_raw = plan_runs(s.y, y, 0, s.tiles_w == 1, size);
    s.shared += std::max(x_raw, y_raw);
  } else {
    s.shared += ring_bytes(s.threads, size);
  }
  const int64_t copy = s.filters * s.element_pitch * 4;
  s.copies = std::clamp<int64_t>(kMostCopyBytes / copy, 1, s.readers);
  s.shared = std::max(s.shared, s.copies * copy);
}

// Instructions, counted in the inner loop: for each pixel 4 FMAs per filter and tap, the reads of y and x, an address for each, and a half
// of the table's read and the loop. Loads as in gather_work.
inline Work wgrad_work(const WgradShape& s, const Problem& p) {
  const double size = size_of(p.dtype), channel_slabs = double(p.groups / s.groups * s.parts);
  const double reads = double(s.filters_of_thread) / 4 + double(s.taps_of_thread);
  const double per_pixel = 4 * double(s.filters_of_thread * s.taps_of_thread) + 2 * reads + 3;
  const double tile_pixels = double(s.images * s.rows * s.columns), tiles = double(s.tiles) * channel_slabs;
  const double pixels_of_reader = 2 * double(ceil_div(ceil_div(s.images * s.rows * s.columns, 2), s.readers));
  const double bytes = (double(s.x.positions) * double(s.channels) + tile_pixels * double(s.filters)) * size;
  Work work;
  work.instructions = tiles * (double(s.threads) * (pixels_of_reader * per_pixel + 60) + bytes / 16 * (planar(p) ? 120 : 40)) +
                      channel_slabs * double(s.slabs) * double(s.filters * s.elements) * (15 + 4.0 * double(s.readers));
  const double partial = s.slabs > 1 ? double(s.slabs) * double(p.filter_numel()) * 4 : 0;
  work.dram_bytes = p.tensor_bytes() + 2 * partial;
  work.l2_bytes = tiles * bytes + 2 * partial;
  work.l1_bytes = tiles * (double(s.threads) * pixels_of_reader * reads * 16 / 2 + bytes * 4 / size * 2);
  work.blocks = channel_slabs * double(s.slabs), work.threads = int(s.threads), work.launches = s.slabs > 1 ? 2 : 1;
  return work;
}

inline WgradShape wgrad_shape(const Kernel& kernel, const Problem& p, double* cost = nullptr) {
  WgradShape s = wgrad_slab(kernel, p), best = s;
  best.shared = kMostShared + 1;
  double least = 0;
  const auto attempt = [&](int64_t images, int64_t rows, int64_t columns) {
    wgrad_tile(s, p, images, rows, columns);
    if (s.shared > kMostShared) return;
    const double time = microseconds(wgrad_work(s, p)) * (s.shared > kSharedOfTwo ? 1.25 : 1.0);
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
      if (planar(p)) break;
    }
  }
  if (cost) *cost = least;
  return best;
}

inline std::string why_not_wgrad(const Kernel& kernel, const Problem& p) {
  const std::string why = why_not_grouped(p);
  if (!why.empty()) return why;
  if (p.filters_per_group() % kernel.tm != 0)
    return "groups of " + std::to_string(p.filters_per_group()) + " filters: this one takes " + std::to_string(kernel.tm) + " at a time";
  if (wgrad_slab(kernel, p).units > kMostWgradThreads) return "the elements of a group's filters need more threads than a block has";
  if (wgrad_shape(kernel, p).shared > kMostShared) return "no tile with its halo fits in shared memory";
  return {};
}

inline double wgrad_cost(const Kernel& kernel, const Problem& p) {
  double cost = 0;
  wgrad_shape(kernel, p, &cost);
  return cost;
}

inline Configuration configure_wgrad(const Kernel& kernel, const Problem& p) {
  const WgradShape s = wgrad_shape(kernel, p);
  return {
      p.groups / s.groups * s.parts * s.slabs,     s.slabs, s.slabs > 1 ? s.slabs * p.filter_numel() * 4 : 0, int(s.threads), int(s.shared),
      {int(s.rows), int(s.columns), int(s.images)}};
}

template <class T, int kFilters, int kTaps>
void run_wgrad(const Kernel& kernel, const Problem& p, const Configuration& configuration, const Arguments& a) {
  WgradShape s = wgrad_slab(kernel, p);
  wgrad_tile(s, p, configuration.tile[2], configuration.tile[0], configuration.tile[1]);
  constexpr int64_t size = sizeof(T), vector = 16 / size;
  const bool is_planar = planar(p);
  WgradParams q{};
  q.x = make_image(a.x, p.x, p.N, p.C, p.H, p.W, is_planar, size);
  q.y = make_image(a.y, p.y, p.N, p.K, p.P, p.Q, is_planar, size);
  q.x_window = s.x, q.y_window = s.y;
  q.x.vector = !is_planar && aligned(a.x, {p.x.d0, p.x.d2, p.x.d3, s.channels}, size);
  q.y.vector = !is_planar && aligned(a.y, {p.y.d0, p.y.d2, p.y.d3, s.filters}, size);
  if (q.x.vector) q.x_window.by_pieces = FastDiv<int32_t>(s.channels / vector);
  if (q.y.vector) q.y_window.by_pieces = FastDiv<int32_t>(s.filters / vector);
  q.w = a.out, q.partial = s.slabs > 1 ? a.workspace : nullptr;
  q.w_k = int(p.w.d0), q.w_c = int(p.w.d1), q.w_r = int(p.w.d2), q.w_s = int(p.w.d3);
  q.stride_h = int(p.stride_h), q.stride_w = int(p.stride_w), q.pad_h = int(p.pad_h), q.pad_w = int(p.pad_w);
  q.taps = int(p.R * p.S), q.columns_of_filter = int(p.S), q.dilation_h = int(p.dilation_h), q.dilation_w = int(p.dilation_w);
  q.slabs = int(p.groups / s.groups), q.parts = int(s.parts), q.filters = int(s.filters), q.channels = int(s.channels);
  q.group_filters = int(p.filters_per_group()), q.group_quads = int(p.channels_per_group() / 4 / s.parts);
  q.chunks = int(s.chunks), q.low_lanes = int(s.low), q.tap_groups = int(s.tap_groups), q.readers = int(s.readers);
  q.by_tiles_h = FastDiv<int32_t>(s.tiles_h), q.by_tiles_w = FastDiv<int32_t>(s.tiles_w);
  q.tiles = int(s.tiles), q.tiles_per_block = int(s.tiles_per_block);
  q.images = int(s.images), q.rows = int(s.rows), q.columns = int(s.columns);
  q.group_channels = int(p.channels_per_group()), q.elements = int(s.elements), q.element_pitch = int(s.element_pitch),
  q.copies = int(s.copies);
  q.channel_innermost = p.x_is_channels_last();
  q.by_elements = FastDiv<int32_t>(s.elements);
  q.by_inner = FastDiv<int32_t>(q.channel_innermost ? p.channels_per_group() / s.parts : p.R * p.S);
  q.x_at = int(s.x_at), q.y_at = int(s.y_at), q.table_at = int(s.table_at), q.raw_at = int(s.raw_at);
  const LaunchShape shape{dim3(unsigned(configuration.blocks)), dim3(unsigned(s.threads)), std::size_t(s.shared), a.stream};
  launch(kernel.name.c_str(), shape, wgrad_kernel<T, kFilters, kTaps>, q);
  if (s.slabs == 1) return;
  const int64_t channels = p.channels_per_group();
  if (q.channel_innermost)
    sum_slabs<T>({a.workspace, s.slabs, {p.K, p.R, p.S, channels}, a.out, {p.w.d0, p.w.d2, p.w.d3, p.w.d1}}, a.stream);
  else sum_slabs<T>({a.workspace, s.slabs, {p.K, channels, p.R, p.S}, a.out, {p.w.d0, p.w.d1, p.w.d2, p.w.d3}}, a.stream);
}

template <class T>
Kernel row(const char* what, int tm, int tn) {
  Kernel r{};
  r.name =
      std::string("conv2d_grouped_") + what + "_" + std::to_string(tm) + "x" + std::to_string(tn) + "_" + short_name(TypeTraits<T>::kDType);
  r.family = "grouped";
  r.dtype = TypeTraits<T>::kDType;
  r.tm = tm, r.tn = tn;
  r.index_bits = 32;
  return r;
}

template <class T, int kResults>
void add_gather(std::vector<Kernel>& catalogue) {
  Kernel r = row<T>("gather", pixels_of_thread_for(kResults), kResults);
  r.passes = {Pass::kFprop, Pass::kDgrad};
  r.why_not = why_not_gather, r.cost = gather_cost, r.configure = configure_gather, r.run = run_gather<T, kResults>;
  catalogue.push_back(r);
}

template <class T, int kFilters, int kTaps>
void add_wgrad(std::vector<Kernel>& catalogue) {
  Kernel r = row<T>("wgrad", kFilters, kTaps);
  r.passes = {Pass::kWgrad};
  r.why_not = why_not_wgrad, r.cost = wgrad_cost, r.configure = configure_wgrad, r.run = run_wgrad<T, kFilters, kTaps>;
  catalogue.push_back(r);
}

}  // namespace grouped

// By the results of a thread: 8 where a group has a multiple of 8, else 4.
template <class T>
void add_grouped_kernels(std::vector<Kernel>& catalogue) {
  grouped::add_gather<T, 8>(catalogue);
  grouped::add_gather<T, 4>(catalogue);
  grouped::add_wgrad<T, 8, 3>(catalogue);
  grouped::add_wgrad<T, 4, 3>(catalogue);
}

}  // namespace cnn::conv2d
