// What a block of the implicit GEMM does: items, positions of rows, the taps that an item has use for.
#pragma once

#include "conv2d/gemm/gemm.h"

namespace cnn::conv2d {

struct GemmItem {
  int column_tile, group, slab, row_tile, class_h, class_w;
};

__device__ inline GemmItem gemm_item(const GemmParams& p, int index) {
  GemmItem item;
  item.column_tile = index % p.column_items * p.column_tiles_per_item;
  index /= p.column_items;
  item.group = index % p.groups;
  index /= p.groups;
  item.slab = index % p.slabs;
  index /= p.slabs;
  item.row_tile = index % p.row_tiles;
  index /= p.row_tiles;
  item.class_w = index % p.class_count_w;
  item.class_h = index / p.class_count_w;
  return item;
}

// A row of the product: image, and row and column within a class.
struct GemmPosition {
  int n, h, w;
  bool exists;
};

template <int BM>
__device__ __forceinline__ GemmPosition gemm_position(const GemmParams& p, int row_tile, int m) {
  GemmPosition at;
  if (p.flat) {
    int in_image;
    at.n = p.positions_hw.divmod(row_tile * BM + m, in_image);
    at.h = p.positions_w.divmod(in_image, at.w);
    at.exists = at.n < p.batch;
  } else {
    const int tile_x = row_tile % p.tiles_w, rest = row_tile / p.tiles_w;
    int w;
    const int h = p.tile_w_div.divmod(m, w);
    at.n = rest / p.tiles_h;
    at.h = rest % p.tiles_h * p.tile_h + h;
    at.w = tile_x * p.tile_w + w;
    at.exists = h < p.tile_h && at.h < p.h.positions && at.w < p.w.positions;
  }
  return at;
}

// The steps of one part of an item, for one tile of columns: taps outermost, then steps of channels; of these the slab's.
struct GemmSpan {
  GemmTaps h, w;
  int begin, end;
};

template <int BM>
__device__ GemmSpan gemm_span(const GemmParams& p, const GemmItem& item, int part) {
  int first_h = 0, last_h = p.h.positions - 1, first_w = 0, last_w = p.w.positions - 1;
  if (p.flat) {
    const int first = item.row_tile * BM, last = min(first + BM, p.batch * p.h.positions * p.w.positions) - 1;
    int low, high;
    if (p.positions_hw.divmod(first, low) == p.positions_hw.divmod(last, high)) {
      int low_w, high_w;
      first_h = p.positions_w.divmod(low, low_w), last_h = p.positions_w.divmod(high, high_w);
      if (first_h == last_h) first_w = low_w, last_w = high_w;
    }
  } else {
    const int tile_x = item.row_tile % p.tiles_w, tile_y = item.row_tile / p.tiles_w % p.tiles_h;
    first_h = tile_y * p.tile_h, last_h = min(first_h + p.tile_h, p.h.positions) - 1;
    first_w = tile_x * p.tile_w, last_w = min(first_w + p.tile_w, p.w.positions) - 1;
  }
  GemmSpan span;
  span.h = p.h.live_taps(p.h.classes[item.class_h], first_h, last_h);
  span.w = p.w.live_taps(p.w.classes[item.class_w + part], first_w, last_w);
  const int steps = (span.h.end - span.h.begin) * (span.w.end - span.w.begin) * p.chunks;
  span.begin = int(int64_t(steps) * item.slab / p.slabs), span.end = int(int64_t(steps) * (item.slab + 1) / p.slabs);
  return span;
}

}  // namespace cnn::conv2d
