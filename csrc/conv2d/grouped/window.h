// Host side: windows, images and slabs, for the gather and for wgrad.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <initializer_list>

#include "conv2d/grouped/halo.cuh"
#include "conv2d/problem.h"

namespace cnn::conv2d::grouped {

constexpr int64_t kMostFilterBytes = 48 << 10;  // of shared memory, for the filters of a slab or slice
constexpr int64_t kMostShared = 224 << 10;      // beside 3 KB that are static
constexpr int64_t kSharedOfTwo = 110 << 10;     // with more a multiprocessor has one block, whose loads show

inline bool planar(const Problem& p) { return !(p.x_is_channels_last() && p.y_is_channels_last()); }

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

inline Window make_window(int64_t images, int64_t rows, int64_t columns, int64_t channels, int phases) {
  Window w{};
  columns = round_up(columns, phases);
  w.images = int(images), w.rows = int(rows), w.columns = int(columns);
  w.quads = int(ceil_div(channels, 4)), w.channels = int(channels);
  w.phases = phases;
  w.positions = int(images * rows * columns);
  w.pitch = w.positions | 1;
  w.by_columns = FastDiv<int32_t>(columns), w.by_rows = FastDiv<int32_t>(rows), w.by_images = FastDiv<int32_t>(images);
  w.by_channels = FastDiv<int32_t>(w.channels);
  w.by_pieces = FastDiv<int32_t>(w.quads), w.lane_pixels = 1;
  return w;
}
// channels_last, `pieces` of 16 bytes of a pixel: which lanes take which, so that a quarter of a warp fills different banks.
inline void set_pieces(Window& w, int64_t pieces, int64_t size) {
  w.by_pieces = FastDiv<int32_t>(pieces);
  // 8 neighbouring quads of one pixel, or every second of 8 at two pixels; else one quad at 8 neighbouring pixels.
  w.lane_pixels = (size == 4 ? pieces % 8 == 0 : pieces == 4) ? 1 : 8;
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

// Room in `raw`, in bytes; completes the window. `first_column` is that of the leftmost tile, `only`: it is the only one. `whole`: and it
// has all rows.
inline int64_t plan_runs(Window& w, const Image& image, int64_t first_column, bool only, bool whole, int64_t size) {
  const int64_t vector = 16 / size;
  w.merged = only && first_column <= 0 && first_column + w.columns >= image.columns && (image.h == image.columns || image.rows == 1);
  const int64_t longest = w.merged ? std::min<int64_t>(w.rows, image.rows) * image.columns : std::min<int64_t>(w.columns, image.columns);
  // Channels that are whole vectors are aligned as they are.
  w.planes = w.merged && whole && image.dense && w.channels > 1 && longest == image.c && longest % vector != 0;
  w.run_pitch = int(round_up(longest * (w.planes ? w.channels : 1) + vector - 1, vector));
  w.log_run_lanes = w.run_pitch / vector >= 32 ? 5 : w.run_pitch / vector >= 16 ? 4 : 3;
  w.log_line_lanes = w.columns > 16 ? 5 : w.columns > 8 ? 4 : 3;
  return int64_t(w.images) * (w.planes ? 1 : w.channels * (w.merged ? 1 : w.rows)) * w.run_pitch * size;
}

// How an image of few channels is read: its runs, and the window of them that is under a window of pixels.
inline Few make_few(const void* data, const Problem& p, int64_t channels, int64_t next_columns, const Window& window, bool only,
                    int64_t size, int64_t& raw_bytes) {
  Few few{};
  const bool innermost = p.x_is_channels_last();
  few.channels = int(channels), few.next_columns = next_columns != 0;
  few.column_step = innermost ? int(p.C) : 1;
  few.channel_step = innermost ? 1 : int(next_columns);
  if (innermost) few.runs = make_image(data, {p.x.d0, 0, p.x.d2, 1}, p.N, 1, p.H, p.W * p.C, true, size);
  else few.runs = make_image(data, p.x, p.N, p.C, p.H, p.W, true, size);
  few.runs.dense = (p.x.d2 == p.W * few.column_step || p.H == 1) && (innermost || p.C == 1 || p.x.d1 == p.H * p.W);
  few.window = make_window(window.images, window.rows,
                           window.columns * few.column_step + (next_columns ? (channels - 1) * next_columns : 0), innermost ? 1 : p.C, 1);
  raw_bytes = plan_runs(few.window, few.runs, -p.pad_w * few.column_step, only, false, size);
  return few;
}

// Instructions of threads to bring a window into shared memory, counted in the source: two divisions by multiplication, bounds, address,
// conversions, one or two writes are 40 for 16 bytes of channels_last, and 120 of few channels. Planes: 14 for 16 bytes of a run and 35 for
// each lane that shares it, then 20 for a quad of a pixel and 50 for each lane that shares its row. Machine code (sm_90a) has twice as
// many.
inline double load_instructions(const Window& w, bool planar, int64_t few, int64_t size) {
  if (few) return double(w.positions) * double(few) * double(size) / 16 * 120;
  if (!planar) return double(w.positions) * double(w.quads) * (size == 4 ? 40 : 20);
  const double runs = double(w.images) * (w.planes ? 1 : w.channels * (w.merged ? 1 : w.rows));
  const double lanes = double(int64_t(1) << w.log_line_lanes), rows = double(w.quads) * w.images * w.rows;
  return runs * (double(w.run_pitch) * double(size) / 16 * 14 + 35 * double(int64_t(1) << w.log_run_lanes)) +
         rows * lanes * (50 + 20 * double(ceil_div(w.columns, int64_t(1) << w.log_line_lanes)));
}

// Room in `raw` for the vectors of channels_last halves that are on their way.
inline int64_t ring_bytes(int64_t threads, int64_t size) { return size == 2 ? kInFlight * threads * 16 : 0; }

}  // namespace cnn::conv2d::grouped
