// The implicit GEMM: see gemm.h for what it computes, tile.cuh for the tile, copy.cuh for how operands come, store.cuh for how results go.
//
//              columns: BN                     A step is one tap and 64 bytes of its channels. Its copies are issued
//            +--------------+                  kGemmStages - 1 steps ahead, and go on from one tile of columns, class and
//    tap, k  | filter       |                  item to the next: the pipeline runs dry at the end of the block alone. One
//            +--------------+                  barrier to a step.
//   +------+ +--------------+
//   |image | |              | rows: BM         An item with several tiles of columns (of one tap) keeps its image tile in the
//   |tap, k| |   results    |                  ring for all of them; a block with several items keeps the filter, where
//   +------+ +--------------+                  `filter_resident` says so.
//
// Bytes per item: rows * taps * C + columns * taps * C + rows * columns elements, for rows * columns * taps * C FMAs.
// In flight: 2 steps of (BM + BN) * 64 bytes in each block: 24 KB for 128 x 64, some 72 KB on a multiprocessor.
#pragma once

#include "common/async_copy.h"
#include "conv2d/gemm/copy.cuh"
#include "conv2d/gemm/items.cuh"
#include "conv2d/gemm/store.cuh"

namespace cnn::conv2d {

// A step of a block, and what follows it.
struct GemmStep {
  int index;  // of the item; at the end none
  GemmItem item;
  GemmSpan span;
  int part, column, step, tap_h, tap_w, chunk;
  int image_slot, filter_slot;
  bool first_item;
  bool another_tap;  // than the step before: other rows of the image
};

// Begins the part of the step's item; false if there is nothing to multiply.
template <int BM>
__device__ __forceinline__ bool begin_span(const GemmParams& p, GemmStep& s) {
  s.span = gemm_span<BM>(p, s.item, s.part);
  s.column = 0, s.step = s.span.begin, s.another_tap = true;
  if (s.step == s.span.end) return false;
  const int taps_w = s.span.w.end - s.span.w.begin, tap = s.step / p.chunks;
  s.chunk = s.step % p.chunks;
  s.tap_h = s.span.h.begin + tap / taps_w, s.tap_w = s.span.w.begin + tap % taps_w;
  return true;
}

// To the first part, from this item on, that has any steps.
template <int BM>
__device__ __forceinline__ void begin_item(const GemmParams& p, GemmStep& s) {
  for (; s.index < p.items; s.index += int(gridDim.x), s.first_item = false) {
    s.item = gemm_item(p, s.index);
    for (s.part = 0; s.part < p.parts; ++s.part)
      if (begin_span<BM>(p, s)) return;
  }
}

// The step behind `s`.
template <int BM>
__device__ __forceinline__ void advance(const GemmParams& p, GemmStep& s) {
  if (s.index >= p.items) return;
  if (s.column == 0 && ++s.image_slot == p.image_slots) s.image_slot = 0;
  if ((s.first_item || !p.filter_resident) && ++s.filter_slot == p.filter_slots) s.filter_slot = 0;
  s.another_tap = false;
  if (++s.step < s.span.end) {
    if (++s.chunk < p.chunks) return;
    s.chunk = 0, s.another_tap = true;
    if (++s.tap_w == s.span.w.end) s.tap_w = s.span.w.begin, ++s.tap_h;
    return;
  }
  if (s.column + 1 < min(p.column_tiles_per_item, p.column_tiles - s.item.column_tile)) {
    ++s.column, s.step = s.span.begin, s.chunk = 0;  // of one tap: its image is there
    return;
  }
  while (++s.part < p.parts)
    if (begin_span<BM>(p, s)) return;
  s.index += int(gridDim.x), s.first_item = false;
  begin_item<BM>(p, s);
}

// Copies the steps of a block's items, in the order in which they are multiplied. In the interval between two barriers in which step i is copied,
// the sources of step i + 1 are worked out, if it has another tap, and step i + 2 is found out, by one thread: what the walk over items, classes and
// taps needs is then in nobody's registers while there is multiplied.
template <class T, class Tile, bool kPlanar>
struct GemmLoader {
  static constexpr int kAhead = 4;
  struct Shared {
    GemmStep steps[kAhead];
    int sources[2][Tile::BM];  // offsets of the image, by slot, or by row if planar; negative: zeros
  };
  const GemmParams& p;
  Shared& shared;
  unsigned char *images, *filters;
  int next;       // step
  int in_source;  // which sources it has

  __device__ __forceinline__ GemmLoader(const GemmParams& params, Shared& state, unsigned char* stages)
      : p(params), shared(state), images(stages), filters(stages + params.image_slots * Tile::BM * kGemmRowBytes), next(0), in_source(0) {
    if (threadIdx.x == 0) {
      GemmStep s{};
      s.index = int(blockIdx.x), s.first_item = true;
      begin_item<Tile::BM>(p, s);
      shared.steps[0] = s;
      advance<Tile::BM>(p, s);
      shared.steps[1] = s;
    }
    __syncthreads();
    locate(shared.steps[0]);
  }

  // Copies the next step, if there is one. A barrier has to lie between two calls, and before the first.
  __device__ __forceinline__ void copy_next() {
    const GemmStep& s = shared.steps[next % kAhead];
    if (s.index >= p.items) return;
    copy(s);
    const GemmStep& following = shared.steps[(next + 1) % kAhead];
    if (following.another_tap && following.index < p.items) {
      in_source ^= 1;
      locate(following);
    }
    if (threadIdx.x == 0) {
      GemmStep after = following;
      advance<Tile::BM>(p, after);
      shared.steps[(next + 2) % kAhead] = after;
    }
    ++next;
  }

 private:
  __device__ __forceinline__ void copy(const GemmStep& s) {
    constexpr int kDepth = kGemmRowBytes / int(sizeof(T));
    const int channel = s.chunk * kDepth, left = p.in_channels - channel;
    if (s.column == 0) {
      const T* const from = static_cast<const T*>(p.in) + (s.item.group * p.in_channels + channel) * p.in_c;
      unsigned char* const tile = images + s.image_slot * Tile::BM * kGemmRowBytes;
      const int* const table = shared.sources[in_source];
      const auto at = [&](int row) { return table[row]; };
      if constexpr (kPlanar) copy_outer<Tile::BM, Tile::kThreads>(tile, from, p.in_c, left, Tile::BM, p.image_unit, at);
      else copy_inner<Tile::BM, Tile::kThreads>(tile, from, left, p.image_unit, at);
    }
    if (s.first_item || !p.filter_resident) {
      const GemmClass &h = p.h.classes[s.item.class_h], &w = p.w.classes[s.item.class_w + s.part];
      const int first = (s.item.column_tile + s.column) * Tile::BN, columns_left = p.columns - first;
      const T* const from = static_cast<const T*>(p.filter) + s.item.group * p.filter_group + channel * p.filter_k + first * p.filter_n +
                            (h.first_tap + s.tap_h * p.h.tap_step) * p.filter_r + (w.first_tap + s.tap_w * p.w.tap_step) * p.filter_s;
      unsigned char* const tile = filters + s.filter_slot * Tile::BN * kGemmRowBytes;
      if (p.filter_inner) {
        copy_inner<Tile::BN, Tile::kThreads>(tile, from, left, p.filter_unit, [&](int slot) {
          const int n = row_of_slot<Tile::kThreadsN>(slot);
          return n < columns_left ? n * p.filter_n : -1;
        });
      } else {
        copy_outer<Tile::BN, Tile::kThreads>(tile, from, p.filter_k, left, columns_left, p.filter_unit,
                                             [&](int n) { return n < columns_left ? n * p.filter_n : -1; });
      }
    }
  }
  __device__ __forceinline__ void locate(const GemmStep& s) {
    if (s.index >= p.items) return;
    const GemmClass &h_class = p.h.classes[s.item.class_h], &w_class = p.w.classes[s.item.class_w + s.part];
    const int h0 = h_class.first_in + s.tap_h * p.h.in_per_tap, w0 = w_class.first_in + s.tap_w * p.w.in_per_tap;
    CNN_NO_UNROLL
    for (int e = int(threadIdx.x); e < Tile::BM; e += Tile::kThreads) {
      const GemmPosition at = gemm_position<Tile::BM>(p, s.item.row_tile, kPlanar ? e : row_of_slot<Tile::kThreadsM>(e));
      const int h = h0 + at.h * p.h.in_per_out, w = w0 + at.w * p.w.in_per_out;
      const bool inside = at.exists && unsigned(h) < unsigned(p.h.in_extent) && unsigned(w) < unsigned(p.w.in_extent);
      shared.sources[in_source][e] = inside ? at.n * p.in_n + h * p.in_h + w * p.in_w : -1;
    }
  }
};

template <class T, class Tile, bool kPlanar>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks) gemm_kernel(const __grid_constant__ GemmParams p) {
  using Loader = GemmLoader<T, Tile, kPlanar>;
  CNN_DYNAMIC_SHARED(shared, unsigned char);
  CNN_SHARED(loading, typename Loader::Shared);
  CNN_SHARED(table, GemmStoreTable<Tile>);
  constexpr int kDepth = kGemmRowBytes / int(sizeof(T));
  unsigned char* const images = shared;
  unsigned char* const filters = shared + p.image_slots * Tile::BM * kGemmRowBytes;

  Loader loader(p, loading, shared);
  CNN_NO_UNROLL
  for (int i = 0; i < kGemmStages - 1; ++i) {
    __syncthreads();
    loader.copy_next();
    commit_async();
  }

  GemmResults<T, Tile> results;
  int image_slot = 0, filter_slot = 0;
  CNN_NO_UNROLL
  for (int index = int(blockIdx.x); index < p.items; index += int(gridDim.x)) {
    table.set_rows(p, gemm_item(p, index));
    CNN_NO_UNROLL
    for (int part = 0; part < p.parts; ++part) {
      int first_step, last_step;
      {
        const GemmSpan span = gemm_span<Tile::BM>(p, gemm_item(p, index), part);
        first_step = span.begin, last_step = span.end;
      }
      const int first_image_slot = image_slot;
      CNN_NO_UNROLL
      for (int column = 0; column < p.column_tiles_per_item; ++column) {
        const int column_tile = index % p.column_items * p.column_tiles_per_item + column;
        if (column_tile >= p.column_tiles) break;
        if (part == 0) table.template set_columns<T>(p, gemm_item(p, index), column_tile);
        results.clear();
        image_slot = first_image_slot;
        int left = p.in_channels - first_step % p.chunks * kDepth;
        CNN_NO_UNROLL
        for (int steps = last_step - first_step; steps > 0; --steps) {
          wait_async<kGemmStages - 2>();
          __syncthreads();
          loader.copy_next();
          commit_async();
          const unsigned char* const image = images + image_slot * Tile::BM * kGemmRowBytes;
          const unsigned char* const filter = filters + filter_slot * Tile::BN * kGemmRowBytes;
          if (p.filter_inner) results.template multiply<!kPlanar, true>(image, filter, min(kDepth, left));
          else results.template multiply<!kPlanar, false>(image, filter, min(kDepth, left));
          if (++image_slot == p.image_slots) image_slot = 0;
          if (++filter_slot == p.filter_slots) filter_slot = 0;
          left = left > kDepth ? left - kDepth : p.in_channels;
        }
        __syncthreads();  // the staged results may lie where stages were, and the tables are set
        const int slab = index / p.column_items / p.groups % p.slabs;
        if (p.partial) store_results<float, Tile>(p, slab, column_tile, part, table, results.value, shared + p.staging);
        else store_results<T, Tile>(p, slab, column_tile, part, table, results.value, shared + p.staging);
      }
    }
  }
}

}  // namespace cnn::conv2d
