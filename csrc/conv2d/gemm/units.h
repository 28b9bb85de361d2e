// How the implicit GEMM's operands and results move: units of copies, vectors and staged rows of stores.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "conv2d/gemm/cut.h"

namespace cnn::conv2d {

// The largest of 16, 8, 4 bytes, or the element, that divides all of `bytes`.
inline int common_unit(std::initializer_list<int64_t> bytes, int size) {
  for (int unit = 16; unit > size; unit /= 2)
    if (std::all_of(bytes.begin(), bytes.end(), [&](int64_t b) { return b % unit == 0; })) return unit;
  return size;
}

inline int image_unit(const GemmPlan& plan, const Problem& p, const void* in) {
  const GemmParams& q = plan.params;
  const int size = size_of(p.dtype);
  const int64_t address = reinterpret_cast<std::intptr_t>(in);
  if (!plan.in_planar)
    return common_unit(
        {address, int64_t(size) * q.in_n, int64_t(size) * q.in_h, int64_t(size) * q.in_w, q.groups > 1 ? int64_t(size) * q.in_group : 0},
        size);
  if (q.w.in_per_out != 1 || q.in_w != 1) return size;
  const bool one_tap = q.h.classes[0].taps == 1 && q.w.classes[0].taps == 1;
  const bool whole = one_tap && q.parts == 1 && q.class_count_w == 1 && q.h.in_per_out == 1 && q.h.classes[0].first_in == 0 &&
                     q.w.classes[0].first_in == 0 && q.h.in_extent == q.h.positions && q.w.in_extent == q.w.positions &&
                     q.in_h == q.in_w * q.w.in_extent;
  const int64_t n = int64_t(size) * q.in_n, c = int64_t(size) * q.in_c;
  if (whole && q.flat) return common_unit({address, n, c, int64_t(size) * q.h.in_extent * q.w.in_extent}, size);
  int64_t shift = 0;  // of the source's columns: a multiple of the unit for every class and tap
  for_each_axis_class(q.w, [&](const GemmClass& w) { shift = std::gcd(shift, int64_t(w.first_in)); });
  if (q.w.classes[0].taps > 1 || gemm_classes(q.w) > 1) shift = std::gcd(shift, int64_t(q.w.in_per_tap));
  return common_unit({address, n, c, int64_t(size) * q.in_h, int64_t(size) * q.w.in_extent, int64_t(size) * q.w.positions, size * shift,
                      q.flat ? 0 : int64_t(size) * q.tile_w},
                     size);
}

// Of the filter as it is read: packed, where it is packed.
inline int filter_unit(const GemmParams& q, const Problem& p, const void* filter) {
  const int size = size_of(p.dtype);
  if (!q.filter_inner && q.filter_n != 1 && q.columns > 1) return size;
  const int64_t address = reinterpret_cast<std::intptr_t>(filter), bytes = size;
  const auto step = [&](int64_t taps, int64_t stride) { return q.columns_are_taps || taps == 1 ? 0 : bytes * stride; };
  return common_unit({address, bytes * (q.filter_inner ? q.filter_n : q.filter_k), step(p.R, q.filter_r), step(p.S, q.filter_s),
                      q.groups > 1 ? bytes * q.filter_group : 0},
                     size);
}

inline int out_vector(const GemmParams& q, const void* out, int size) {
  const int64_t address = reinterpret_cast<std::intptr_t>(out);
  const int64_t n = int64_t(size) * q.out_n, c = int64_t(size) * q.out_c, h = int64_t(size) * q.out_h, w = int64_t(size) * q.out_w;
  int unit;
  if (!q.out_planar) {
    unit = common_unit({address, n, h, w, int64_t(size) * q.out_channels, int64_t(size) * q.out_group}, size);
  } else if (q.out_w != 1 && q.w.out_extent > 1) {
    unit = size;
  } else {
    const bool rows_whole = q.w.positions * q.planes == q.w.out_extent;  // no row of the result ends within a vector
    const bool plane = q.flat && rows_whole && q.h.out_step == 1 && q.out_h == q.w.out_extent;
    if (plane) unit = common_unit({address, n, c, int64_t(size) * q.h.out_extent * q.w.out_extent}, size);
    else if (q.w.out_step != q.planes) unit = size;
    else
      unit = common_unit(
          {address, n, c, h, rows_whole ? int64_t(size) * q.w.out_extent : 1, q.flat ? 0 : int64_t(size) * q.tile_w * q.planes}, size);
  }
  return unit == 16 ? 16 / size : unit == 8 ? 8 / size : 1;
}

// How results of `size` bytes each go to `out`.
inline void set_stores(GemmParams& q, const GemmTileShape& tile, const void* out, int size) {
  q.out_vector = out_vector(q, out, size);
  q.planes_div = FastDiv<int32_t>(q.planes);
  const auto staged = [&](int columns) {
    StagedRows rows;
    rows.units =
        FastDiv<int32_t>(q.out_planar ? staged_rows(tile, q.parts, size) * q.planes / q.out_vector : ceil_div(columns, q.out_vector));
    // Of floats pairs of chunks are exchanged.
    const int together = size == 4 ? 2 : 1;
    rows.chunks = int(round_up(ceil_div(columns * size, kGemmChunkBytes), together));
    const int in_row = rows.chunks * q.parts / together, most = 8 / together;
    for (rows.log = 0; in_row % (2 << rows.log) == 0 && 2 << rows.log <= most;) ++rows.log;
    return rows;
  };
  q.staged = staged(tile.bn), q.staged_last = staged(q.columns - (q.column_tiles - 1) * tile.bn);
}

}  // namespace cnn::conv2d
