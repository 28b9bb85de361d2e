// The implicit GEMM on tensor cores: see gemm.h for what it computes, store.cuh for how results go.
//
//              columns: BN                     A step is one tap and 64 bytes of its channels: two instructions deep. Copies are issued
//            +--------------+                  kStages - 1 steps ahead, one barrier to a step. A block has one item; classes of columns
//    tap, k  | filter       |                  that interleave in the result come one after the other, and are written together.
//            +--------------+
//   +------+ +--------------+                  A warp has BM / kWarpsM x BN / kWarpsN results in registers, as 16x8 fragments of mma
//   |image | | warp |  warp | rows: BM         (common/matrix.h), and reads its operands by ldmatrix, four 8x8 matrices each.
//   |tap, k| |------+-------|
//   +------+ +--------------+
//
// Shared memory, in 16-byte chunks of 8 halves or 4 floats:
//   image, and the filter where it is dense along the reduction:   [row][4 chunks]; chunk c lies at c ^ (row / 2 % 4)
//   halves of a filter that is dense along the columns:            [k][BN / 8 chunks]; chunk c lies at c ^ (k % 8)
//   floats of one:                                                 [k][BN / 4 chunks]; chunk c lies at c ^ (k % 4 * 2)
// so that the eight rows of a matrix, the eight threads whose copies are a wavefront, and the lanes that read floats of four rows and
// eight columns, meet in no bank. These are read one by one: ldmatrix turns matrices of halves alone.
//
// Floats are multiplied as tf32, to which they are rounded in registers.
//
// A thread copies the same chunk of every so-many-th row. Of each of these rows of the image it has the offset, which a step moves by one
// number for all of them, and a bit for each tap that reads inside the image, as CUTLASS's "optimized" iterators of conv2d do.
//
// Bytes per item: (BM + BN) * taps * C from L2, BM * BN elements written, for BM * BN * taps * C FMAs: 32 FMAs to a byte of halves for
// 128 x 128. In flight: 3 steps of (BM + BN) * 64 bytes in each block.
#pragma once

#include "common/async_copy.h"
#include "common/matrix.h"
#include "common/recompute.h"
#include "conv2d/gemm/items.cuh"
#include "conv2d/gemm/store.cuh"

namespace cnn::conv2d {

template <GemmTileName kName>
struct TensorTile {
  static constexpr GemmTileShape kShape = shape_of(kName);
  static constexpr int BM = kShape.bm, BN = kShape.bn, kThreads = kShape.threads, kBlocks = kShape.blocks, kStages = kShape.stages;
  static constexpr int kWarpsN = kShape.warps_n, kSegments = kShape.warps_m;
  static constexpr int kSegmentRows = BM / kSegments, kWarpColumns = BN / kWarpsN;

  static_assert(kSegments * kWarpsN * 32 == kThreads, "warps tile the block");
  static_assert(kSegmentRows % 16 == 0 && kWarpColumns % 16 == 0, "ldmatrix loads 16 rows or columns");
  static_assert(64 % kWarpColumns == 0, "a warp's columns lie within 128 bytes of halves");

  // The byte of the staged rows where byte `byte` of a row, one part of it, lies. Rows follow each other without gaps, so that threads
  // which read one chunk after the other meet in no bank, however many a row has. Where a power of two divides these, rows begin in few
  // banks, and a warp writes chunks of eight rows at once (of floats: pairs of chunks of four): those are exchanged among each eight.
  template <class To>
  __device__ static __forceinline__ int staged(const StagedRows& rows, int parts, int row, int part, int byte) {
    constexpr int kLog = sizeof(To) == 4 ? 2 : 3;
    const int exchange = (row >> (kLog - rows.log) & ((1 << rows.log) - 1)) << (3 - kLog);
    return (((row * parts + part) * rows.chunks + byte / kGemmChunkBytes) ^ exchange) * kGemmChunkBytes + byte % kGemmChunkBytes;
  }
  // What a staged column's chunks (store.cuh) are exchanged by: a warp is at every second of eight columns, and eight rows.
  __device__ static __forceinline__ int chunk_mask(int column, int columns_per_plane) { return column * columns_per_plane / 2 % 4 * 2; }
};

// A chunk from global to shared memory, of which `valid` bytes exist: kWhole: all or none; else in units of so many bytes.
template <bool kWhole, class T>
__device__ __forceinline__ void copy_chunk(unsigned char* to, const T* from, int valid, int unit) {
  if constexpr (kWhole) return copy_async_if(valid > 0, to, from);
  if (unit == kGemmChunkBytes) {
    copy_async<kGemmChunkBytes>(to, from, valid);
  } else if (unit == 8) {
    CNN_UNROLL
    for (int i = 0; i < 2; ++i) copy_async<8>(to + 8 * i, from + i * (8 / int(sizeof(T))), max(0, min(8, valid - 8 * i)));
  } else if (unit == 4) {
    CNN_UNROLL
    for (int i = 0; i < 4; ++i) copy_async<4>(to + 4 * i, from + i * (4 / int(sizeof(T))), max(0, min(4, valid - 4 * i)));
  } else if constexpr (sizeof(T) == 2) {
    Vector<T, 8> chunk;
    CNN_UNROLL
    for (int i = 0; i < 8; ++i) chunk.value[i] = 2 * i < valid ? from[i] : T(0.0f);
    *reinterpret_cast<Vector<T, 8>*>(to) = chunk;
  }
}

// A thread's part of the copies of an item, step by step.
template <class T, class Tile, bool kFilterInner, bool kWhole>
struct TensorLoader {
  static constexpr int kSize = int(sizeof(T)), kDepth = kGemmRowBytes / kSize, kChunk = kGemmChunkBytes / kSize;
  static constexpr int kRowsTogether = Tile::kThreads / 4, kImageRows = Tile::BM / kRowsTogether;
  // The filter's chunks along what is dense, rows that are copied together, and how often.
  static constexpr int kFilterChunks = kFilterInner ? 4 : Tile::BN / kChunk, kFilterTogether = Tile::kThreads / kFilterChunks;
  static constexpr int kFilterTimes = (kFilterInner ? Tile::BN : kDepth) / kFilterTogether;
  static constexpr int kFilterRowBytes = kFilterChunks * kGemmChunkBytes;
  static_assert(Tile::BM % kRowsTogether == 0 && kRowsTogether % 8 == 0 && kFilterTogether % (kFilterInner ? 8 : kChunk) == 0,
                "a thread's rows are swizzled alike");

  const GemmParams& p;
  int image[kImageRows];      // offsets
  unsigned taps[kImageRows];  // a bit for each tap that reads inside the image: rows, then columns; none of a row that does not exist
  int filter;
  unsigned char *image_to, *filter_to;  // in the first slot
  int columns_left;                     // from the thread's first row (inner) or chunk (outer) of the filter on
  GemmTaps w;
  int tap_h, tap_w, chunk;  // of the next step

  __device__ __forceinline__ TensorLoader(const GemmParams& params, const GemmItem& item, int part, const GemmSpan& span,
                                          unsigned char* shared)
      : p(params), w(span.w) {
    const int thread = int(threadIdx.x), taps_across = max(1, span.w.end - span.w.begin);
    tap_h = span.h.begin + span.begin / p.chunks / taps_across, tap_w = span.w.begin + span.begin / p.chunks % taps_across;
    chunk = span.begin % p.chunks;
    const GemmClass &h_class = p.h.classes[item.class_h], &w_class = p.w.classes[item.class_w + part];

    const int row = thread / 4, image_chunk = thread % 4;
    image_to = shared + row * kGemmRowBytes + (image_chunk ^ (row / 2 % 4)) * kGemmChunkBytes;
    CNN_UNROLL
    for (int i = 0; i < kImageRows; ++i) {
      const GemmPosition at = gemm_position<Tile::BM>(p, item.row_tile, row + i * kRowsTogether);
      const int h = h_class.first_in + at.h * p.h.in_per_out, w0 = w_class.first_in + at.w * p.w.in_per_out;
      taps[i] = at.exists ? inside(h, p.h, span.h) | inside(w0, p.w, span.w) << kMostTensorTaps : 0;
      image[i] = at.n * p.in_n + (h + tap_h * p.h.in_per_tap) * p.in_h + (w0 + tap_w * p.w.in_per_tap) * p.in_w + item.group * p.in_group +
                 chunk * kDepth + image_chunk * kChunk;
    }

    const int filter_row = thread / kFilterChunks, filter_chunk = thread % kFilterChunks;
    const int swizzled = filter_chunk ^ (kFilterInner ? filter_row / 2 % 4 : filter_row % kChunk * (8 / kChunk));
    filter_to = shared + Tile::kStages * Tile::BM * kGemmRowBytes + filter_row * kFilterRowBytes + swizzled * kGemmChunkBytes;
    const int n = item.column_tile * Tile::BN + (kFilterInner ? filter_row : filter_chunk * kChunk);
    const int k = chunk * kDepth + (kFilterInner ? filter_chunk * kChunk : filter_row);
    columns_left = p.columns - n;
    filter = item.group * p.filter_group + k * p.filter_k + n * p.filter_n + (h_class.first_tap + tap_h * p.h.tap_step) * p.filter_r +
             (w_class.first_tap + tap_w * p.w.tap_step) * p.filter_s;
  }

  // Copies the next step into a slot, and goes on to the one after it.
  __device__ __forceinline__ void copy(int slot) {
    const int image_left = p.in_channels - chunk * kDepth - int(threadIdx.x) % 4 * kChunk;
    const int image_valid = max(0, min(kGemmChunkBytes, image_left * kSize));
    CNN_UNROLL
    for (int i = 0; i < kImageRows; ++i) {
      const bool reads = taps[i] >> tap_h & taps[i] >> (kMostTensorTaps + tap_w) & 1u;
      copy_chunk<kWhole>(image_to + (slot * Tile::BM + i * kRowsTogether) * kGemmRowBytes, static_cast<const T*>(p.in) + image[i],
                         reads ? image_valid : 0, p.image_unit);
    }
    const int left = kFilterInner ? p.in_channels - chunk * kDepth - int(threadIdx.x) % kFilterChunks * kChunk
                                  : p.in_channels - chunk * kDepth - int(threadIdx.x) / kFilterChunks;
    const int filter_valid = max(0, min(kGemmChunkBytes, (kFilterInner ? left : columns_left) * kSize));
    CNN_UNROLL
    for (int i = 0; i < kFilterTimes; ++i) {
      const bool exists = i * kFilterTogether < (kFilterInner ? columns_left : left);
      copy_chunk<kWhole>(filter_to + slot * Tile::BN * kGemmRowBytes + i * kFilterTogether * kFilterRowBytes,
                         static_cast<const T*>(p.filter) + filter + i * kFilterTogether * (kFilterInner ? p.filter_n : p.filter_k),
                         exists ? filter_valid : 0, p.filter_unit);
    }
    advance();
  }

 private:
  // Taps of a row or column that begins at `first`.
  __device__ static __forceinline__ unsigned inside(int first, const GemmAxis& axis, const GemmTaps& taps) {
    unsigned bits = 0;
    for (int tap = taps.begin; tap < taps.end; ++tap)
      bits |= unsigned(unsigned(first + tap * axis.in_per_tap) < unsigned(axis.in_extent)) << tap;
    return bits;
  }
  __device__ __forceinline__ void advance() {
    int image_step = kDepth, filter_step = kDepth * p.filter_k;
    if (++chunk == p.chunks) {
      chunk = 0;
      image_step -= p.chunks * kDepth, filter_step -= p.chunks * kDepth * p.filter_k;
      int to_h = 0, to_w = 1;
      if (++tap_w == w.end) to_h = 1, to_w -= w.end - w.begin, tap_w = w.begin, ++tap_h;
      image_step += to_h * p.h.in_per_tap * p.in_h + to_w * p.w.in_per_tap * p.in_w;
      filter_step += to_h * p.h.tap_step * p.filter_r + to_w * p.w.tap_step * p.filter_s;
    }
    CNN_UNROLL
    for (int i = 0; i < kImageRows; ++i) image[i] += image_step;
    filter += filter_step;
  }
};

// A warp's results.
template <class T, class Tile, bool kFilterInner>
struct TensorResults {
  using Shape = MatrixShape<T>;
  static constexpr int kRows = Tile::kSegmentRows / 16, kColumns = Tile::kWarpColumns / 8;  // fragments
  static constexpr int kTurns = 2;                                                          // instructions of a step: two chunks each
  float sum[kRows][kColumns][4];

  __device__ static __forceinline__ int lane() { return int(threadIdx.x) % 32; }
  __device__ static __forceinline__ int warp_m() { return int(threadIdx.x) / 32 / Tile::kWarpsN; }
  __device__ static __forceinline__ int warp_n() { return int(threadIdx.x) / 32 % Tile::kWarpsN; }

  __device__ __forceinline__ void clear() {
    CNN_UNROLL
    for (int m = 0; m < kRows; ++m) CNN_UNROLL
    for (int n = 0; n < kColumns; ++n) CNN_UNROLL
    for (int i = 0; i < 4; ++i) sum[m][n][i] = 0;
  }

  // Of channels that are rows. What is staged is taken as it is then.
  __device__ __forceinline__ void finish_rows(const GemmStoreTable<Tile>& table) {
    CNN_UNROLL
    for (int m = 0; m < kRows; ++m) CNN_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = warp_m() * Tile::kSegmentRows + m * 16 + half * 8 + lane() / 4;
      const float factor = table.factor[row], offset = table.offset[row];
      CNN_UNROLL
      for (int n = 0; n < kColumns; ++n) CNN_UNROLL
      for (int i = 0; i < 2; ++i) sum[m][n][2 * half + i] = sum[m][n][2 * half + i] * factor + offset;
    }
  }

  // sum += image * filter of one step.
  __device__ __forceinline__ void multiply(const unsigned char* image, const unsigned char* filter) {
    CNN_UNROLL
    for (int turn = 0; turn < kTurns; ++turn) {
      std::uint32_t a[kRows][4], b[kColumns][2];
      const int row = warp_m() * Tile::kSegmentRows + lane() % 16;
      const unsigned char* const rows = image + row * kGemmRowBytes + ((2 * turn + lane() / 16) ^ (row / 2 % 4)) * kGemmChunkBytes;
      CNN_UNROLL
      for (int m = 0; m < kRows; ++m) ldmatrix<4>(a[m], rows + m * 16 * kGemmRowBytes);
      CNN_UNROLL
      for (int n = 0; n < kColumns; n += 2) load_filter(b[n], b[n + 1], filter, turn, n);
      if constexpr (sizeof(T) == 4) {
        CNN_UNROLL
        for (int m = 0; m < kRows; ++m) CNN_UNROLL
        for (int i = 0; i < 4; ++i) a[m][i] = to_tfloat32(a[m][i]);
        CNN_UNROLL
        for (int n = 0; n < kColumns; ++n) CNN_UNROLL
        for (int i = 0; i < 2; ++i) b[n][i] = to_tfloat32(b[n][i]);
      }
      CNN_UNROLL
      for (int m = 0; m < kRows; ++m) {
        CNN_UNROLL
        for (int n = 0; n < kColumns; ++n) mma<T>(sum[m][n], a[m], b[n]);
      }
    }
  }

  // Fragments n and n + 1 of the filter for one turn.
  __device__ static __forceinline__ void load_filter(std::uint32_t (&first)[2], std::uint32_t (&second)[2], const unsigned char* filter,
                                                     int turn, int n) {
    constexpr int kChunk = kGemmChunkBytes / int(sizeof(T)), kChunks = Tile::BN / kChunk, kChunksOfWarp = Tile::kWarpColumns / kChunk;
    if constexpr (kFilterInner || sizeof(T) == 2) {
      std::uint32_t two[4];
      if constexpr (kFilterInner) {
        const int column = warp_n() * Tile::kWarpColumns + lane() / 16 * 8 + lane() % 8;
        ldmatrix<4>(two, filter + (column + n * 8) * kGemmRowBytes + ((2 * turn + lane() / 8 % 2) ^ (column / 2 % 4)) * kGemmChunkBytes);
      } else {
        const int k = turn * 16 + lane() % 16, chunk = warp_n() * kChunksOfWarp + lane() / 16;
        ldmatrix<4, true>(two, filter + (k * kChunks + ((chunk + n) ^ (lane() % 8))) * kGemmChunkBytes);
      }
      first[0] = two[0], first[1] = two[1], second[0] = two[2], second[1] = two[3];
    } else {
      const int k = turn * 8 + lane() % 4, chunk = warp_n() * kChunksOfWarp + lane() / 16, in_chunk = lane() / 4 % 4;
      const auto read = [&](int further, int fragment) {
        const int at = (k + further) * kChunks + ((chunk + 2 * fragment) ^ (lane() % 4 * 2));
        return reinterpret_cast<const std::uint32_t*>(filter + at * kGemmChunkBytes)[in_chunk];
      };
      first[0] = read(0, n), first[1] = read(4, n), second[0] = read(0, n + 1), second[1] = read(4, n + 1);
    }
  }

  // Staged and written as store.cuh has it: of floats the warps of one segment after the other, of halves all.
  template <class To>
  __device__ __forceinline__ void store(const GemmParams& p, int slab, int column_tile, int part, const GemmStoreTable<Tile>& table,
                                        unsigned char* staging) const {
    const int rows = staged_rows(Tile::kShape, p.parts, int(sizeof(To))), segments = rows < Tile::BM ? Tile::kSegments : 1;
    CNN_NO_UNROLL
    for (int segment = 0; segment < segments; ++segment) {
      if (segments == 1 || warp_m() == segment) {
        const StagedRows& staged = column_tile + 1 == p.column_tiles ? p.staged_last : p.staged;
        stage<To>(p, staged, recompute(int(threadIdx.x)), part, rows, table, staging);
      }
      if (segments > 1 || part + 1 == p.parts) write_results<To>(p, slab, column_tile, segment * Tile::kSegmentRows, rows, table, staging);
    }
  }

 private:
  // A lane has pairs of columns of every eighth row.
  template <class To>
  __device__ __forceinline__ void stage(const GemmParams& p, const StagedRows& staged, int thread, int part, int rows,
                                        const GemmStoreTable<Tile>& table, unsigned char* staging) const {
    constexpr int kSize = int(sizeof(To));
    using Two = Vector<To, 2>;
    const int lane = thread % 32, first_row = thread / 32 / Tile::kWarpsN * Tile::kSegmentRows % rows + lane / 4;
    const int per_plane = p.parts > 1 ? 1 : p.planes, columns = Tile::BN / per_plane;
    CNN_UNROLL
    for (int n = 0; n < kColumns; ++n) {
      const int column = thread / 32 % Tile::kWarpsN * Tile::kWarpColumns + lane % 4 * 2 + n * 8;
      const bool by_rows = p.channels_are_rows;
      const float factor[2] = {by_rows ? 1 : table.factor[column], by_rows ? 1 : table.factor[column + 1]};
      const float offset[2] = {by_rows ? 0 : table.offset[column], by_rows ? 0 : table.offset[column + 1]};
      const auto result = [&](int m, int half, int i) { return narrow<To>(sum[m][n][2 * half + i] * factor[i] + offset[i]); };
      if (!p.out_planar) {
        if (column * kSize >= staged.chunks * kGemmChunkBytes) continue;
        // Eight rows further on chunks are exchanged alike.
        unsigned char* to = staging + Tile::template staged<To>(staged, p.parts, first_row, part, column * kSize);
        CNN_UNROLL
        for (int m = 0; m < kRows; ++m) CNN_UNROLL
        for (int half = 0; half < 2; ++half) {
          Two two;
          two.value[0] = result(m, half, 0), two.value[1] = result(m, half, 1);
          *reinterpret_cast<Two*>(to) = two;
          to += 8 * p.parts * staged.chunks * kGemmChunkBytes;
        }
      } else {
        CNN_UNROLL
        for (int i = 0; i < 2; ++i) {
          const int at = per_plane == 1 ? column + i : p.planes_div.quotient(column + i);
          const int plane = per_plane == 1 ? part : column + i - at * per_plane, mask = Tile::chunk_mask(at, per_plane);
          unsigned char* const line = staging + (plane * columns + at) * rows * kSize;
          CNN_UNROLL
          for (int m = 0; m < kRows; ++m) CNN_UNROLL
          for (int half = 0; half < 2; ++half) {
            const int byte = (first_row + m * 16 + half * 8) * kSize;
            *reinterpret_cast<To*>(line + (byte / 16 ^ mask) * 16 + byte % 16) = result(m, half, i);
          }
        }
      }
    }
  }
};

// kWhole: both operands are of whole chunks, and are copied by these.
template <class T, class Tile, bool kFilterInner, bool kWhole>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks) tensor_gemm_kernel(const __grid_constant__ GemmParams p) {
  CNN_DYNAMIC_SHARED(shared, unsigned char);
  CNN_SHARED(table, GemmStoreTable<Tile>);
  // Worked out again where it is asked for: registers are for results.
  const auto item = [&] { return gemm_item(p, recompute(int(blockIdx.x))); };
  table.set_rows(p, item());
  table.template set_columns<T>(p, item(), item().column_tile);
  if (p.channels_are_rows) table.template set_row_channels<T>(p, item());

  CNN_NO_UNROLL
  for (int part = 0; part < p.parts; ++part) {
    const GemmSpan span = gemm_span<Tile::BM>(p, item(), part);
    const int steps = span.end - span.begin;
    TensorLoader<T, Tile, kFilterInner, kWhole> loader(p, item(), part, span, shared);
    TensorResults<T, Tile, kFilterInner> results;
    results.clear();

    CNN_NO_UNROLL
    for (int i = 0; i < Tile::kStages - 1; ++i) {
      if (i < steps) loader.copy(i);
      commit_async();
    }
    int slot = 0;
    CNN_NO_UNROLL
    for (int i = 0; i < steps; ++i) {
      wait_async<Tile::kStages - 2>();
      __syncthreads();
      if (i + Tile::kStages - 1 < steps) loader.copy(slot == 0 ? Tile::kStages - 1 : slot - 1);  // what was multiplied last
      commit_async();
      results.multiply(shared + slot * Tile::BM * kGemmRowBytes, shared + (Tile::kStages * Tile::BM + slot * Tile::BN) * kGemmRowBytes);
      slot = slot + 1 == Tile::kStages ? 0 : slot + 1;
    }
    wait_async<0>();
    __syncthreads();  // the staged results may lie where stages were, and the tables are set

    unsigned char* const staging = shared + p.staging;
    if (p.channels_are_rows) results.finish_rows(table);
    if (sizeof(T) == 4 || p.partial) results.template store<float>(p, item().slab, item().column_tile, part, table, staging);
    else results.template store<T>(p, item().slab, item().column_tile, part, table, staging);
  }
}

}  // namespace cnn::conv2d
