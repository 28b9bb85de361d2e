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
// by 4 elements in the outer one.
#pragma once

#include "common/recompute.h"
#include "common/types.h"
#include "common/vector.h"
#include "conv2d/gemm/gemm.h"

namespace cnn::conv2d {

template <GemmTileName kName, int kBlocksPerMultiprocessor>
struct GemmTile {
  static constexpr GemmTileShape kShape = shape_of(kName);
  static constexpr int BM = kShape.bm, BN = kShape.bn, TM = kShape.tm, TN = kShape.tn, kThreads = kShape.threads;
  static constexpr int kBlocks = kBlocksPerMultiprocessor;  // what registers have to allow
  static constexpr int kThreadsM = BM / TM, kThreadsN = BN / TN;
  static constexpr int kLanesN = kThreadsN < 8 ? kThreadsN : 8, kLanesM = 32 / kLanesN, kWarpsN = kThreadsN / kLanesN;
  static constexpr int kSegmentRows = 4 * kThreadsM;

  static_assert(kThreadsM * kThreadsN == kThreads && kThreads % 32 == 0, "threads tile the block");
  static_assert(TM % 4 == 0 && TN % 4 == 0 && kThreadsM % kLanesM == 0 && kThreadsN % kLanesN == 0, "segments and warps tile it");

  __device__ static __forceinline__ int thread_m(int thread) { return thread / 32 / kWarpsN * kLanesM + thread % 32 / kLanesN; }
  __device__ static __forceinline__ int thread_n(int thread) { return thread / 32 % kWarpsN * kLanesN + thread % kLanesN; }
};

// The i-th of a thread's rows (or columns), of so many threads along them.
template <int kThreadsAlong>
__device__ __forceinline__ int tile_row(int thread, int i) {
  return i / 4 * (4 * kThreadsAlong) + 4 * thread + i % 4;
}

// Where byte `byte` of a slot's channels lies in an inner tile.
__device__ __forceinline__ int inner_byte(int slot, int byte) {
  return slot * kGemmRowBytes + (((byte / 16) ^ (slot / 2 % 4)) * 16) + byte % 16;
}

// A thread's kCount rows of one operand, for kDepth channels.
template <class T, int kCount, int kThreadsAlong, bool kInner>
struct Fragment {
  static constexpr int kDepth = 8 / int(sizeof(T));
  using Part = Vector<T, kInner ? kDepth : 4>;
  Part part[kInner ? kCount : kDepth * kCount / 4];

  __device__ __forceinline__ void load(const unsigned char* tile, int thread, int k) {
    if constexpr (kInner) {
      constexpr bool kSameChunk = kThreadsAlong % 8 == 0;  // of all its slots: their offsets are constants
      const int first = inner_byte(thread, k * int(sizeof(T)));
      CNN_UNROLL
      for (int i = 0; i < kCount; ++i) {
        const int byte =
            kSameChunk ? first + i * kThreadsAlong * kGemmRowBytes : inner_byte(i * kThreadsAlong + thread, k * int(sizeof(T)));
        part[i] = *reinterpret_cast<const Part*>(tile + byte);
      }
    } else {
      constexpr int kExtent = kThreadsAlong * kCount;
      CNN_UNROLL
      for (int j = 0; j < kDepth; ++j) {
        CNN_UNROLL
        for (int i = 0; i < kCount; i += 4)
          part[(j * kCount + i) / 4] =
              *reinterpret_cast<const Part*>(tile + ((k + j) * kExtent + tile_row<kThreadsAlong>(thread, i)) * int(sizeof(T)));
      }
    }
  }
  __device__ __forceinline__ float get(int j, int i) const {
    return kInner ? widen(part[i].value[j]) : widen(part[(j * kCount + i) / 4].value[i % 4]);
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
    for (int k = 0; k < depth; k += Image::kDepth) {
      Image a;
      Filter b;
      a.load(image, thread_m, k);
      b.load(filter, thread_n, k);
      CNN_UNROLL
      for (int j = 0; j < Image::kDepth; ++j) {
        float bj[Tile::TN];
        CNN_UNROLL
        for (int n = 0; n < Tile::TN; ++n) bj[n] = b.get(j, n);
        CNN_UNROLL
        for (int m = 0; m < Tile::TM; ++m) {
          const float am = a.get(j, m);
          CNN_UNROLL
          for (int n = 0; n < Tile::TN; ++n) value[m][n] += am * bj[n];
        }
      }
    }
  }
};

}  // namespace cnn::conv2d
