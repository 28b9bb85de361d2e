// How the implicit GEMM writes its results: staged in shared memory in the order in which they lie in the tensor, and from there by
// vectors, consecutive threads writing consecutive addresses.
//
//   dense along the channels:  staged[row][part][column]; Tile::staged says where
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

// Of what all kernels of a tile have alike: inlined on a GPU, one function on a host, since compiling it again for each kernel is most of
// their compilation.
#if defined(__CUDACC__)
#define CNN_ONE_COPY __forceinline__
#else
#define CNN_ONE_COPY __attribute__((noinline))
#endif

namespace cnn::conv2d {

// Where the item's rows and columns go in the result.
template <class Tile>
struct GemmStoreTable {
  __device__ static __forceinline__ int place(int m, int vector) { return place_of_vectors<Tile::BM>(m, vector); }

  int row[Tile::BM + kTableShift];     // offset; -1: does not exist
  int planes[Tile::BM + kTableShift];  // how many of its planes exist
  int column[Tile::BN + kTableShift];  // offset, but for the plane
  static constexpr int kMostChannels = Tile::BM > Tile::BN ? Tile::BM : Tile::BN;
  float factor[kMostChannels], offset[kMostChannels];  // epilogue.cuh

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
  __device__ __forceinline__ void set_row_channels(const GemmParams& p, const GemmItem& item) {
    for (int m = recompute(int(threadIdx.x)); m < Tile::BM; m += Tile::kThreads) {
      const GemmPosition at = gemm_position<Tile::BM>(p, item.row_tile, m);
      factor[m] = 1, offset[m] = 0;
      if (!at.exists) continue;
      const PerChannel<T> z = per_channel<T>(p.epilogue, at.w);
      factor[m] = z.factor, offset[m] = z.offset;
    }
  }
  template <class T>
  __device__ __forceinline__ void set_columns(const GemmParams& p, const GemmItem& item, int column_tile) {
    for (int n = recompute(int(threadIdx.x)); n < Tile::BN; n += Tile::kThreads) {
      const int index = column_tile * Tile::BN + n;
      // Along the channels a store asks for the first of its columns alone.
      int& place_n = column[p.out_planar ? n : place_of_vectors<Tile::BN>(n, p.out_vector)];
      place_n = 0;
      if (!p.channels_are_rows) factor[n] = 1, offset[n] = 0;
      if (index >= p.columns) continue;
      int channel = index, r = 0, s = 0;
      if (p.columns_are_taps && p.taps_outermost) r = p.column_s.divmod(p.column_inner.divmod(index, channel), s);
      else if (p.columns_are_taps) channel = p.column_inner.divmod(index, r), r = p.column_s.divmod(r, s);
      place_n = item.group * p.out_group + channel * p.out_c + r * p.out_h + (p.out_planar ? 0 : s * p.out_w);
      if (p.channels_are_rows) continue;
      const PerChannel<T> z = per_channel<T>(p.epilogue, item.group * p.out_channels + channel);
      factor[n] = z.factor, offset[n] = z.offset;
    }
  }
};

// Writes `rows` staged rows, the first of which is the tile's first_row.
template <class To, class Tile, int kVector>
__device__ __forceinline__ void write_results_by(const GemmParams& p, int column_tile, int first_row, int rows,
                                                 const GemmStoreTable<Tile>& table, const unsigned char* staging, To* out) {
  using Several = Vector<To, kVector>;
  const int columns_left = min(Tile::BN, p.columns - column_tile * Tile::BN);
  const StagedRows& lines = column_tile + 1 == p.column_tiles ? p.staged_last : p.staged;
  const FastDiv<int32_t> units = lines.units;
  if (!p.out_planar) {
    // Unit: kVector columns of one row.
    const int count = rows * p.parts * units.divisor;
    for (int e = recompute(int(threadIdx.x)); e < count; e += Tile::kThreads) {
      int unit, part = 0;
      const int line = units.divmod(e, unit);
      const int row = p.parts == 1 ? line : p.planes_div.divmod(line, part), m = first_row + row, n = unit * kVector;
      if (part >= table.planes[m]) continue;
      // Of channels the table's first says all; more than 32 others, begun anywhere, would meet in banks.
      const int column = p.columns_are_taps ? table.column[unit] : table.column[0] + n * p.out_c;
      To* const to = out + table.row[m] + part * p.out_w + column;
      const unsigned char* const staged = staging + Tile::template staged<To>(lines, p.parts, row, part, n * int(sizeof(To)));
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
      const int mask = Tile::chunk_mask(column, per_plane);
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
__device__ CNN_ONE_COPY void write_results(const GemmParams& p, int slab, int column_tile, int first_row, int rows,
                                           const GemmStoreTable<Tile>& table, const unsigned char* staging) {
  To* const out = p.partial ? reinterpret_cast<To*>(p.partial + slab * p.slab_stride) : static_cast<To*>(p.out);
  __syncthreads();
  constexpr int kMost = 16 / int(sizeof(To));
  if (p.out_vector == kMost) write_results_by<To, Tile, kMost>(p, column_tile, first_row, rows, table, staging, out);
  else if (p.out_vector == kMost / 2) write_results_by<To, Tile, kMost / 2>(p, column_tile, first_row, rows, table, staging, out);
  else write_results_by<To, Tile, 1>(p, column_tile, first_row, rows, table, staging, out);
  __syncthreads();
}

// `stage(segment)` stages the results of one segment of the tile's rows; there are so many.
template <class To, class Tile, int kSegments, class Stage>
__device__ __forceinline__ void store_results(const GemmParams& p, int slab, int column_tile, int part, const GemmStoreTable<Tile>& table,
                                              const unsigned char* staging, Stage stage) {
  const int rows = staged_rows(Tile::kShape, p.parts, int(sizeof(To)));
  CNN_UNROLL
  for (int segment = 0; segment < kSegments; ++segment) {
    stage(segment);
    if (rows < Tile::BM) write_results<To>(p, slab, column_tile, segment * Tile::kSegmentRows, rows, table, staging);
  }
  if (rows == Tile::BM && part + 1 == p.parts) write_results<To>(p, slab, column_tile, 0, rows, table, staging);
}

}  // namespace cnn::conv2d
