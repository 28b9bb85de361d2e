// How the implicit GEMM writes its results: staged in shared memory in the order in which they lie in the tensor, and from there by
// vectors, consecutive threads writing consecutive addresses.
//
//   dense along the channels:  staged[row][column]
//   dense along the pixels:    staged[plane][column][row], 16-byte chunks exchanged by the column's place in a warp
//
// Planes are what interleaves in a row of the result: the classes of the columns of a strided dgrad, or the taps s of columns that are
// taps. Half of the rows of floats are staged at a time, all of halves; where classes interleave all, and they are written with the last of
// them.
#pragma once

#include "common/recompute.h"
#include "common/sectors.h"
#include "common/vector.h"
#include "conv2d/epilogue.cuh"
#include "conv2d/gemm/items.cuh"
#include "conv2d/gemm/tile.cuh"

namespace cnn::conv2d {

// Where the item's rows and columns go in the result.
template <class Tile>
struct GemmStoreTable {
  __device__ static __forceinline__ int place(int m, int vector) { return place_of_vectors<Tile::BM>(m, vector); }

  int row[Tile::BM + kTableShift];           // offset; -1: does not exist
  int planes[Tile::BM + kTableShift];        // how many of its planes exist
  int column[Tile::BN];                      // offset, but for the plane
  float factor[Tile::BN], offset[Tile::BN];  // epilogue.cuh

  __device__ __forceinline__ void set_rows(const GemmParams& p, const GemmItem& item) {
    const GemmClass &h = p.h.classes[item.class_h], &w = p.w.classes[item.class_w];
    for (int m = recompute(int(threadIdx.x)); m < Tile::BM; m += Tile::kThreads) {
      const GemmPosition at = gemm_position<Tile::BM>(p, item.row_tile, m);
      // With several parts they are the classes 0, 1, ... of the columns, in the order of their residue.
      const int first_w = p.parts > 1 ? 0 : w.first_out;
      const int out_h = at.h * p.h.out_step + h.first_out, out_w = at.w * p.w.out_step + first_w;
      const bool exists = at.exists && out_h < p.h.out_extent && out_w < p.w.out_extent;
      const int place_m = place(m, p.out_planar ? p.out_vector : 1);
      row[place_m] = exists ? at.n * p.out_n + out_h * p.out_h + out_w * p.out_w : -1;
      planes[place_m] = exists ? (p.parts > 1 ? min(p.parts, p.w.out_extent - out_w) : p.planes) : 0;
    }
  }
  template <class T>
  __device__ __forceinline__ void set_columns(const GemmParams& p, const GemmItem& item, int column_tile) {
    for (int n = recompute(int(threadIdx.x)); n < Tile::BN; n += Tile::kThreads) {
      const int index = column_tile * Tile::BN + n;
      column[n] = 0, factor[n] = 1, offset[n] = 0;
      if (index >= p.columns) continue;
      int channel = index, r = 0, s = 0;
      if (p.columns_are_taps && p.taps_outermost) r = p.column_s.divmod(p.column_inner.divmod(index, channel), s);
      else if (p.columns_are_taps) channel = p.column_inner.divmod(index, r), r = p.column_s.divmod(r, s);
      channel += item.group * p.out_channels;
      column[n] = channel * p.out_c + r * p.out_h + (p.out_planar ? 0 : s * p.out_w);
      const PerChannel<T> z = per_channel<T>(p.epilogue, channel);
      factor[n] = z.factor, offset[n] = z.offset;
    }
  }
};

// What a staged column's chunks are exchanged by, so that the threads of a warp, which are at different columns of one chunk, meet in no
// bank.
template <class Tile>
__device__ __forceinline__ int chunk_mask(int column, int columns_per_plane) {
  return column * columns_per_plane / 4 % Tile::kLanesN * (8 / Tile::kLanesN);
}

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
      const int row = (first_row + 4 * thread_m + i) * p.parts + part;
      CNN_UNROLL
      for (int j = 0; j < Tile::TN; j += 4) {
        const int n = tile_row<Tile::kThreadsN>(thread_n, j);
        Four four;
        CNN_UNROLL
        for (int e = 0; e < 4; ++e) four.value[e] = narrow<To>(value[segment * 4 + i][j + e] * table.factor[n + e] + table.offset[n + e]);
        *reinterpret_cast<Four*>(staging + staged_row(row, Tile::BN * int(sizeof(To))) + n * int(sizeof(To))) = four;
      }
    }
  } else {
    const int per_plane = p.parts > 1 ? 1 : p.planes, columns = Tile::BN / per_plane;
    CNN_UNROLL
    for (int j = 0; j < Tile::TN; ++j) {
      const int n = tile_row<Tile::kThreadsN>(thread_n, j);
      const int column = per_plane == 1 ? n : p.planes_div.quotient(n), plane = per_plane == 1 ? part : n - column * per_plane;
      const int byte = (first_row + 4 * thread_m) * int(sizeof(To));
      const int place = (byte / 16 ^ chunk_mask<Tile>(column, per_plane)) * 16 + byte % 16;
      Four four;
      CNN_UNROLL
      for (int i = 0; i < 4; ++i) four.value[i] = narrow<To>(value[segment * 4 + i][j] * table.factor[n] + table.offset[n]);
      *reinterpret_cast<Four*>(staging + (plane * columns + column) * rows * int(sizeof(To)) + place) = four;
    }
  }
}

// Writes `rows` staged rows, the first of which is the tile's first_row.
template <class To, class Tile, int kVector>
__device__ __forceinline__ void write_results(const GemmParams& p, int column_tile, int first_row, int rows,
                                              const GemmStoreTable<Tile>& table, const unsigned char* staging, To* out) {
  using Several = Vector<To, kVector>;
  const int columns_left = min(Tile::BN, p.columns - column_tile * Tile::BN);
  const FastDiv<int32_t> units = column_tile + 1 == p.column_tiles ? p.out_units_last : p.out_units;
  if (!p.out_planar) {
    // Unit: kVector columns of one row.
    const int count = rows * p.parts * units.divisor;
    for (int e = recompute(int(threadIdx.x)); e < count; e += Tile::kThreads) {
      int unit, part = 0;
      const int line = units.divmod(e, unit);
      const int row = p.parts == 1 ? line : p.planes_div.divmod(line, part), m = first_row + row, n = unit * kVector;
      if (part >= table.planes[m]) continue;
      To* const to = out + table.row[m] + part * p.out_w + table.column[n];
      const unsigned char* const staged = staging + staged_row(line, Tile::BN * int(sizeof(To))) + n * int(sizeof(To));
      *reinterpret_cast<Several*>(to) = finish(p.epilogue, to, *reinterpret_cast<const Several*>(staged));
    }
  } else {
    // Unit: kVector pixels of one column, which lie side by side in the result.
    const int per_plane = p.parts > 1 ? 1 : p.planes;
    const int staged_columns = Tile::BN / per_plane, plane_bytes = staged_columns * rows * int(sizeof(To));
    const auto place = [](int m) { return GemmStoreTable<Tile>::place(m, kVector); };
    const int count = (per_plane == 1 ? columns_left : p.planes_div.quotient(columns_left)) * units.divisor;
    for (int e = recompute(int(threadIdx.x)); e < count; e += Tile::kThreads) {
      int unit, plane = 0;
      const int column = units.divmod(e, unit);
      // Planes of odd sizes: the threads begin where a sector does, and the first of the pixels come last.
      if (kVector * sizeof(To) < 16 && p.planes == 1)
        unit = (unit - sector_phase(out + table.row[place(first_row)] + table.column[column], kVector * int(sizeof(To)))) &
               (units.divisor - 1);
      const int pixel = unit * kVector;
      const int row = p.planes == 1 ? pixel : p.planes_div.divmod(pixel, plane), m = place(first_row + row);
      if (plane >= table.planes[m]) continue;
      const int mask = chunk_mask<Tile>(column, per_plane);
      const unsigned char* const line = staging + column * rows * int(sizeof(To));
      Several several;
      if (p.planes == 1) {
        const int byte = row * int(sizeof(To));
        several = *reinterpret_cast<const Several*>(line + (byte / 16 ^ mask) * 16 + byte % 16);
      } else {
        int at = row, of = plane;
        CNN_UNROLL
        for (int v = 0; v < kVector; ++v) {
          const int byte = at * int(sizeof(To));
          several.value[v] = *reinterpret_cast<const To*>(line + of * plane_bytes + (byte / 16 ^ mask) * 16 + byte % 16);
          if (++of == p.planes) of = 0, ++at;
        }
      }
      To* const to = out + table.row[m] + plane * p.out_w + table.column[column * per_plane];
      *reinterpret_cast<Several*>(to) = finish(p.epilogue, to, several);
    }
  }
}

template <class To, class Tile>
__device__ __forceinline__ void store_results(const GemmParams& p, int slab, int column_tile, int part, const GemmStoreTable<Tile>& table,
                                              const float (&value)[Tile::TM][Tile::TN], unsigned char* staging) {
  To* const out = p.partial ? reinterpret_cast<To*>(p.partial + slab * p.slab_stride) : static_cast<To*>(p.out);
  const auto write = [&](int first_row, int rows) {
    __syncthreads();
    constexpr int kMost = 16 / int(sizeof(To));
    if (p.out_vector == kMost) write_results<To, Tile, kMost>(p, column_tile, first_row, rows, table, staging, out);
    else if (p.out_vector == kMost / 2) write_results<To, Tile, kMost / 2>(p, column_tile, first_row, rows, table, staging, out);
    else write_results<To, Tile, 1>(p, column_tile, first_row, rows, table, staging, out);
    __syncthreads();
  };
  const int rows = staged_rows(Tile::kShape, p.parts, int(sizeof(To)));
  CNN_UNROLL
  for (int segment = 0; segment < Tile::TM / 4; ++segment) {
    stage_results<To, Tile>(p, part, segment, table, value, staging);
    if (rows < Tile::BM) write(segment * Tile::kSegmentRows, rows);
  }
  if (rows == Tile::BM && part + 1 == p.parts) write(0, rows);
}

}  // namespace cnn::conv2d
