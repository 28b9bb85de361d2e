// The block tile of the implicit GEMM: operands in shared memory as they are in memory, results in registers.
//
// A step brings 64 bytes of channels of every row and column into shared memory, in the tensors' own type. An operand comes in one of two
// forms:
//
//   inner (dense along the channels k):  [slot][64 bytes], four 16-byte chunks to a slot; chunk c lies at c ^ (slot / 2 % 4), so that eight
//                                        neighbouring slots, two of which fill a wavefront, meet in no bank whichever chunk they read
//   outer (dense along rows or columns): [k][row], as long as the tile
//
// and is widened when it is read into registers. A thread has TM x TN results, in segments of four:
//
//   row(i) = i / 4 * (4 * kThreadsM) + 4 * thread_m + i % 4        and columns alike.
//
// In the inner form slot i * kThreadsM + thread_m holds row(i), so that lanes read neighbouring slots. A warp is kLanesM x kLanesN threads.
//
// Per k and thread: TM + TN values read from shared memory for TM * TN FMAs, by 8-byte reads in the inner form (2 k of fp32, 4 of halves),
// by 4 elements in the outer one. A turn of the loop multiplies 4 k: addresses are worked out once for them.
#pragma once

#include "common/recompute.h"
#include "common/types.h"
#include "common/vector.h"
#include "common/widen.h"
#include "conv2d/gemm/gemm.h"

namespace cnn::conv2d {

template <GemmTileName kName>
struct GemmTile {
  static constexpr GemmTileShape kShape = shape_of(kName);
  static constexpr int BM = kShape.bm, BN = kShape.bn, TM = kShape.tm, TN = kShape.tn, kThreads = kShape.threads;
  static constexpr int kBlocks = kShape.blocks, kStages = kShape.stages;
  static constexpr int kThreadsM = BM / TM, kThreadsN = BN / TN;
  static constexpr int kLanesN = kThreadsN < 8 ? kThreadsN : 8, kLanesM = 32 / kLanesN, kWarpsN = kThreadsN / kLanesN;
  static constexpr int kSegmentRows = 4 * kThreadsM;

  static_assert(kThreadsM * kThreadsN == kThreads && kThreads % 32 == 0, "threads tile the block");
  static_assert(TM % 4 == 0 && TN % 4 == 0 && kThreadsM % kLanesM == 0 && kThreadsN % kLanesN == 0, "segments and warps tile it");

  // The byte of the staged rows where byte `byte` of a row, one part of it, lies.
  template <class To>
  __device__ static __forceinline__ int staged(const StagedRows&, int parts, int row, int part, int byte) {
    return staged_row(kShape, row * parts + part, int(sizeof(To))) + byte;
  }
  // What a staged column's chunks (store.cuh) are exchanged by, so that the threads of a warp, which are at different columns of one chunk,
  // meet in no bank.
  __device__ static __forceinline__ int chunk_mask(int column, int columns_per_plane) {
    return column * columns_per_plane / 4 % kLanesN * (8 / kLanesN);
  }
  __device__ static __forceinline__ int thread_m(int thread) { return thread / 32 / kWarpsN * kLanesM + thread % 32 / kLanesN; }
  __device__ static __forceinline__ int thread_n(int thread) { return thread / 32 % kWarpsN * kLanesN + thread % kLanesN; }
};

// The i-th of a thread's rows (or columns), of so many threads along them.
template <int kThreadsAlong>
__device__ __forceinline__ int tile_row(int thread, int i) {
  return i / 4 * (4 * kThreadsAlong) + 4 * thread + i % 4;
}

// The place of row m in a table of which every so-many-th row is asked for, the first of a vector: those lie together. The others follow,
// shifted so that the neighbouring rows which a warp writes lie in different banks.
constexpr int kTableShift = 32;  // of all of a table's rows: words
template <int kRows>
__device__ __forceinline__ int place_of_vectors(int m, int vector) {
  return (m & (vector - 1)) * ((kRows + kTableShift) / vector) + m / vector;
}

// Where byte `byte` of a slot's channels lies in an inner tile.
__device__ __forceinline__ int inner_byte(int slot, int byte) {
  return slot * kGemmRowBytes + ((byte / kGemmChunkBytes) ^ (slot / 2 % 4)) * kGemmChunkBytes + byte % kGemmChunkBytes;
}

// A thread's kCount rows of one operand: where they lie from channel k on, and their values for kDepth channels from there or later on.
template <class T, int kCount, int kThreadsAlong, bool kInner>
struct Fragment {
  static constexpr int kDepth = 8 / int(sizeof(T));
  // Chunks lie alike in every eighth slot: the others' offsets from there are constants.
  static constexpr int kBases = kInner && kThreadsAlong < 8 ? 8 / kThreadsAlong : 1;
  static constexpr int kExtent = kThreadsAlong * kCount;
  const unsigned char* base[kBases];
  float value[kDepth][kCount];

  __device__ __forceinline__ void find(const unsigned char* tile, int thread, int k) {
    if constexpr (kInner) {
      CNN_UNROLL
      for (int i = 0; i < kBases; ++i) base[i] = tile + inner_byte(i * kThreadsAlong + thread, k * int(sizeof(T)));
    } else {
      base[0] = tile + (k * kExtent + tile_row<kThreadsAlong>(thread, 0)) * int(sizeof(T));
    }
  }
  __device__ __forceinline__ void load(int later) {
    if constexpr (kInner) {
      CNN_UNROLL
      for (int i = 0; i < kCount; ++i) {
        const int slots = i / kBases * kBases * kThreadsAlong;
        const unsigned char* const from = base[i % kBases] + slots * kGemmRowBytes + later * int(sizeof(T));
        float channels[kDepth];
        widen_vector(*reinterpret_cast<const Vector<T, kDepth>*>(from), channels);
        CNN_UNROLL
        for (int k = 0; k < kDepth; ++k) value[k][i] = channels[k];
      }
    } else {
      CNN_UNROLL
      for (int k = 0; k < kDepth; ++k) {
        CNN_UNROLL
        for (int i = 0; i < kCount; i += 4) {
          const int elements = (later + k) * kExtent + tile_row<kThreadsAlong>(0, i);
          widen_vector(*reinterpret_cast<const Vector<T, 4>*>(base[0] + elements * int(sizeof(T))), value[k] + i);
        }
      }
    }
  }
};

template <class T, class Tile>
struct GemmResults {
  float value[Tile::TM][Tile::TN];

  __device__ __forceinline__ void clear() {
    CNN_UNROLL
    for (int i = 0; i < Tile::TM; ++i) {
      CNN_UNROLL
      for (int j = 0; j < Tile::TN; ++j) value[i][j] = 0;
    }
  }

  // value += image * filter over `depth` channels of one step.
  template <bool kImageInner, bool kFilterInner>
  __device__ CNN_INNER_LOOP void multiply(const unsigned char* image, const unsigned char* filter, int depth) {
    using Image = Fragment<T, Tile::TM, Tile::kThreadsM, kImageInner>;
    using Filter = Fragment<T, Tile::TN, Tile::kThreadsN, kFilterInner>;
    const int thread = recompute(int(threadIdx.x)), thread_m = Tile::thread_m(thread), thread_n = Tile::thread_n(thread);
    CNN_NO_UNROLL
    for (int first = 0; first < depth; first += kGemmTurn) {
      Image a;
      Filter b;
      a.find(image, thread_m, first);
      b.find(filter, thread_n, first);
      CNN_UNROLL
      for (int later = 0; later < kGemmTurn; later += Image::kDepth) {
        a.load(later);
        b.load(later);
        CNN_UNROLL
        for (int k = 0; k < Image::kDepth; ++k) {
          CNN_UNROLL
          for (int m = 0; m < Tile::TM; ++m) {
            CNN_UNROLL
            for (int n = 0; n < Tile::TN; ++n) value[m][n] += a.value[k][m] * b.value[k][n];
          }
        }
      }
    }
  }
};

}  // namespace cnn::conv2d
