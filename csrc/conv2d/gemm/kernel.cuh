// The implicit GEMM on CUDA cores: see gemm.h for what it computes, tile.cuh for the tile, copy.cuh for how operands come, store.cuh for
// how results go.
//
//              columns: BN                     A step is one tap and 64 bytes of its channels. Its copies are issued
//            +--------------+                  Tile::kStages - 1 steps ahead, and go on from one tile of columns, class and
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

// A step of a block.
struct GemmStep {
  int number;  // of the item; `items` and more at the end
  GemmItem item;
  int part, column;
  GemmSpan span;
  int step, tap_h, tap_w, chunk;
  int image_slot, next_image_slot, filter_slot;
  int source;        // which table says where its rows come from
  bool another_tap;  // than the step before: that table is to be written
  bool first_item;

  // A part that no tap reads has one step all the same, which brings nothing: its results are written too.
  __device__ __forceinline__ bool empty() const { return span.begin == span.end; }
  __device__ __forceinline__ bool begins() const { return step == span.begin; }
  __device__ __forceinline__ bool ends() const { return step + 1 >= span.end; }
};

__device__ __forceinline__ int next_slot(int slot, int slots) { return slot + 1 == slots ? 0 : slot + 1; }

// Begins the step's part of its item.
template <int BM>
__device__ __forceinline__ void begin_part(const GemmParams& p, GemmStep& s) {
  s.span = gemm_span<BM>(p, s.item, s.part);
  s.column = 0, s.step = s.span.begin, s.chunk = 0;
  if (s.empty()) return;
  const int taps_w = s.span.w.end - s.span.w.begin, tap = s.step / p.chunks;
  s.chunk = s.step % p.chunks;
  s.tap_h = s.span.h.begin + tap / taps_w, s.tap_w = s.span.w.begin + tap % taps_w;
  s.another_tap = true, s.source ^= 1;
  s.image_slot = s.next_image_slot;
  s.next_image_slot = next_slot(s.image_slot, p.image_slots);
}

template <int BM>
__device__ __forceinline__ GemmStep first_step(const GemmParams& p) {
  GemmStep s{};
  s.number = int(blockIdx.x), s.first_item = true;
  s.item = gemm_item(p, s.number);
  begin_part<BM>(p, s);
  return s;
}

// To the step behind `s`.
template <int BM>
__device__ __forceinline__ void advance(const GemmParams& p, GemmStep& s) {
  if (s.number >= p.items) return;
  s.another_tap = false;
  if (!s.empty()) s.filter_slot = next_slot(s.filter_slot, p.filter_slots);
  if (!s.ends()) {
    ++s.step;
    s.image_slot = next_slot(s.image_slot, p.image_slots);
    if (s.column == 0) s.next_image_slot = next_slot(s.image_slot, p.image_slots);
    if (++s.chunk < p.chunks) return;
    s.chunk = 0, s.another_tap = true, s.source ^= 1;
    if (++s.tap_w == s.span.w.end) s.tap_w = s.span.w.begin, ++s.tap_h;
  } else if (s.column + 1 < min(p.column_tiles_per_item, p.column_tiles - s.item.column_tile)) {
    // Several tiles of columns are of one tap, whose image is there.
    ++s.column, s.step = s.span.begin;
    if (s.empty()) return;
    s.chunk = 0, s.image_slot -= p.chunks - 1;
    if (s.image_slot < 0) s.image_slot += p.image_slots;
  } else {
    if (++s.part == p.parts) {
      s.number += int(gridDim.x);
      if (s.number >= p.items) return;
      s.part = 0, s.first_item = false, s.item = gemm_item(p, s.number);
    }
    begin_part<BM>(p, s);
  }
}

// Copies the steps of a block's items, in the order in which they are multiplied. In the interval between two barriers in which step i is
// copied, the sources of step i + 1 are worked out, if it has another tap, and one thread finds out what step i + 2 is: so nobody has the
// walk over items, classes and taps in registers while results are there.
template <class T, class Tile, bool kPlanar>
struct GemmLoader {
  static constexpr int kRing = 8;
  static_assert(Tile::kStages + 2 <= kRing, "from the step that is multiplied to the one that is found out");

  GemmStep steps[kRing];
  // Offsets of the image, by slot; negative: zeros. If planar, by row, those that units begin with before the others: units are asked for.
  int sources[2][Tile::BM + kTableShift];
  int begins[2];  // of the first row, whether it is there or not

  __device__ __forceinline__ const GemmStep& step(int i) const { return steps[i % kRing]; }

  // Before the first copy, with a barrier in between.
  __device__ __forceinline__ void begin(const GemmParams& p) {
    if (threadIdx.x == 0) {
      steps[0] = first_step<Tile::BM>(p);
      steps[1] = steps[0];
      advance<Tile::BM>(p, steps[1]);
    }
    __syncthreads();
    locate(p, steps[0]);
  }

  // Copies step i, if there is one. A barrier has to lie between two calls.
  __device__ __forceinline__ void copy(const GemmParams& p, int i, unsigned char* images, unsigned char* filters) {
    if (step(i).number >= p.items) return;
    if (!step(i).empty()) copy(p, step(i), images, filters);
    if (step(i + 1).another_tap && step(i + 1).number < p.items) locate(p, step(i + 1));
    if (threadIdx.x == 0) {
      GemmStep& after = steps[(i + 2) % kRing];
      after = step(i + 1);
      advance<Tile::BM>(p, after);
    }
  }

 private:
  __device__ __forceinline__ void copy(const GemmParams& p, const GemmStep& s, unsigned char* images, unsigned char* filters) const {
    constexpr int kDepth = kGemmRowBytes / int(sizeof(T));
    const int channel = s.chunk * kDepth, left = p.in_channels - channel;
    if (s.column == 0) {
      const T* const from = static_cast<const T*>(p.in) + (s.item.group * p.in_channels + channel) * p.in_c;
      unsigned char* const tile = images + s.image_slot * Tile::BM * kGemmRowBytes;
      const int* const table = sources[s.source];
      if constexpr (kPlanar)
        copy_outer<Tile::BM, Tile::kThreads>(tile, from, p.in_c, left, Tile::BM, begins[s.source], p.image_unit,
                                             [&](int, int unit) { return table[unit]; });
      else copy_inner<Tile::BM, Tile::kThreads>(tile, from, left, p.image_unit, [&](int slot) { return table[slot]; });
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
        copy_outer<Tile::BN, Tile::kThreads>(tile, from, p.filter_k, left, columns_left, 0, p.filter_unit,
                                             [&](int n, int) { return n < columns_left ? n * p.filter_n : -1; });
      }
    }
  }
  __device__ __forceinline__ void locate(const GemmParams& p, const GemmStep& s) {
    const GemmClass &h_class = p.h.classes[s.item.class_h], &w_class = p.w.classes[s.item.class_w + s.part];
    const int h0 = h_class.first_in + s.tap_h * p.h.in_per_tap, w0 = w_class.first_in + s.tap_w * p.w.in_per_tap;
    CNN_NO_UNROLL
    for (int e = recompute(int(threadIdx.x)); e < Tile::BM; e += Tile::kThreads) {
      const GemmPosition at = gemm_position<Tile::BM>(p, s.item.row_tile, kPlanar ? e : row_of_slot<Tile::kThreadsM>(e));
      const int h = h0 + at.h * p.h.in_per_out, w = w0 + at.w * p.w.in_per_out;
      const bool inside = at.exists && unsigned(h) < unsigned(p.h.in_extent) && unsigned(w) < unsigned(p.w.in_extent);
      const int offset = at.n * p.in_n + h * p.in_h + w * p.in_w;
      const int place = kPlanar ? place_of_vectors<Tile::BM>(e, p.image_unit / int(sizeof(T))) : e;
      sources[s.source][place] = inside ? offset : -1;
      if (kPlanar && e == 0) begins[s.source] = offset;
    }
  }
};

// A segment's results, from the threads' registers to where store.cuh has them.
template <class To, class Tile>
__device__ __forceinline__ void stage_results(const GemmParams& p, int part, int segment, const GemmStoreTable<Tile>& table,
                                              const float (&value)[Tile::TM][Tile::TN], unsigned char* staging) {
  const int thread = recompute(int(threadIdx.x)), thread_m = Tile::thread_m(thread), thread_n = Tile::thread_n(thread);
  const int rows = staged_rows(Tile::kShape, p.parts, int(sizeof(To)));
  const int first_row = segment * Tile::kSegmentRows % rows;
  using Four = Vector<To, 4>;
  if (!p.out_planar) {
    CNN_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int row = first_row + 4 * thread_m + i;
      CNN_UNROLL
      for (int j = 0; j < Tile::TN; j += 4) {
        const int n = tile_row<Tile::kThreadsN>(thread_n, j);
        Four four;
        CNN_UNROLL
        for (int e = 0; e < 4; ++e) four.value[e] = narrow<To>(value[segment * 4 + i][j + e] * table.factor[n + e] + table.offset[n + e]);
        *reinterpret_cast<Four*>(staging + Tile::template staged<To>(p.staged, p.parts, row, part, n * int(sizeof(To)))) = four;
      }
    }
  } else {
    const int per_plane = p.parts > 1 ? 1 : p.planes, columns = Tile::BN / per_plane;
    CNN_UNROLL
    for (int j = 0; j < Tile::TN; ++j) {
      const int n = tile_row<Tile::kThreadsN>(thread_n, j);
      const int column = per_plane == 1 ? n : p.planes_div.quotient(n), plane = per_plane == 1 ? part : n - column * per_plane;
      const int byte = (first_row + 4 * thread_m) * int(sizeof(To));
      const int place = (byte / 16 ^ Tile::chunk_mask(column, per_plane)) * 16 + byte % 16;
      Four four;
      CNN_UNROLL
      for (int i = 0; i < 4; ++i) four.value[i] = narrow<To>(value[segment * 4 + i][j] * table.factor[n] + table.offset[n]);
      *reinterpret_cast<Four*>(staging + (plane * columns + column) * rows * int(sizeof(To)) + place) = four;
    }
  }
}

template <class To, class Tile>
__device__ __forceinline__ void store_item(const GemmParams& p, int slab, int column_tile, int part, const GemmStoreTable<Tile>& table,
                                           const float (&value)[Tile::TM][Tile::TN], unsigned char* staging) {
  store_results<To, Tile, Tile::TM / 4>(p, slab, column_tile, part, table, staging,
                                        [&](int segment) { stage_results<To, Tile>(p, part, segment, table, value, staging); });
}

template <class T, class Tile, bool kPlanar>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks) gemm_kernel(const __grid_constant__ GemmParams p) {
  using Loader = GemmLoader<T, Tile, kPlanar>;
  CNN_DYNAMIC_SHARED(shared, unsigned char);
  CNN_SHARED(loader, Loader);
  CNN_SHARED(table, GemmStoreTable<Tile>);
  constexpr int kDepth = kGemmRowBytes / int(sizeof(T));
  unsigned char* const images = shared;
  unsigned char* const filters = shared + p.image_slots * Tile::BM * kGemmRowBytes;

  loader.begin(p);
  CNN_NO_UNROLL
  for (int i = 0; i < Tile::kStages - 1; ++i) {
    __syncthreads();
    loader.copy(p, i, images, filters);
    commit_async();
  }

  GemmResults<T, Tile> results;
  for (int i = 0;; ++i) {
    wait_async<Tile::kStages - 2>();
    __syncthreads();
    const GemmStep& s = loader.step(i);
    if (s.number >= p.items) break;
    loader.copy(p, i + Tile::kStages - 1, images, filters);
    commit_async();
    if (s.begins()) {
      results.clear();
      if (s.part == 0 && s.column == 0) table.set_rows(p, s.item);
      if (s.part == 0) table.template set_columns<T>(p, s.item, s.item.column_tile + s.column);
    }
    if (!s.empty()) {
      const unsigned char* const image = images + s.image_slot * Tile::BM * kGemmRowBytes;
      const unsigned char* const filter = filters + s.filter_slot * Tile::BN * kGemmRowBytes;
      const int depth = min(kDepth, p.in_channels - s.chunk * kDepth);
      if (p.filter_inner) results.template multiply<!kPlanar, true>(image, filter, depth);
      else results.template multiply<!kPlanar, false>(image, filter, depth);
    }
    if (s.ends()) {
      __syncthreads();  // the staged results may lie where stages were, and the tables are set
      if (p.partial)
        store_item<float, Tile>(p, s.item.slab, s.item.column_tile + s.column, s.part, table, results.value, shared + p.staging);
      else store_item<T, Tile>(p, s.item.slab, s.item.column_tile + s.column, s.part, table, results.value, shared + p.staging);
    }
  }
}

}  // namespace cnn::conv2d
