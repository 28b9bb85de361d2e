// The block tile of the direct convolutions: what fprop, dgrad and wgrad share once their operands are in shared memory.
//
// A block computes BM x BN results as an outer-product sum over a reduction that it walks BK at a time:
//
//            n: BN                 thread (tm, tn) owns TM x TN results, cut into segments of up to 4 so that a warp reads
//        +---------+               each operand row in whole 128-byte wavefronts:
//   BK   |    b    |                 m(tm, i) = i / 4 * (BM / segments) + tm * 4 + i % 4,      n(tn, j) alike.
//        +---------+
// +----+ +---------+               Shared memory per step and block: BK * (BM + BN) values written once, and
// | a  | |         |               BK * (TM + TN) values read per thread for BK * TM * TN FMAs.
// |    | | results | BM
// +----+ +---------+
//
// Two shared-memory stages and a register prefetch: the global loads of step i+1 are in flight while step i is multiplied,
// and one barrier per step is enough.
#pragma once

#include "common/types.h"
#include "common/vector.h"

namespace cnn::conv2d {

template <int BM_, int BN_, int BK_, int TM_, int TN_>
struct Tile {
  static constexpr int BM = BM_, BN = BN_, BK = BK_, TM = TM_, TN = TN_;
  static constexpr int kThreads = (BM / TM) * (BN / TN);
  static constexpr int kSegmentM = TM < 4 ? TM : 4, kSegmentN = TN < 4 ? TN : 4;
  // Rows are padded by 16 bytes of fp32: aligned for vector access, and a column of writes spreads over the banks.
  static constexpr int kPitchM = BM + 4, kPitchN = BN + 4;
  static constexpr int kLoadsM = (BM * BK + kThreads - 1) / kThreads, kLoadsN = (BN * BK + kThreads - 1) / kThreads;

  static_assert(BM % TM == 0 && BN % TN == 0, "threads tile the block");
  static_assert(TM % kSegmentM == 0 && TN % kSegmentN == 0, "segments tile a thread's results");
  static_assert(kThreads % 32 == 0 && kThreads <= 1024, "whole warps");

  __device__ static __forceinline__ int first_m() { return int(threadIdx.x) / (BN / TN) * kSegmentM; }
  __device__ static __forceinline__ int first_n() { return int(threadIdx.x) % (BN / TN) * kSegmentN; }
  // Offsets of a thread's i-th row and j-th column from its first: compile-time constants in unrolled loops.
  __device__ static constexpr __forceinline__ int step_m(int i) { return i / kSegmentM * (BM / (TM / kSegmentM)) + i % kSegmentM; }
  __device__ static constexpr __forceinline__ int step_n(int j) { return j / kSegmentN * (BN / (TN / kSegmentN)) + j % kSegmentN; }
};

template <class Tile, class Acc>
struct TileStages {
  alignas(16) Acc m[2][Tile::BK][Tile::kPitchM];
  alignas(16) Acc n[2][Tile::BK][Tile::kPitchN];
};

template <class Tile, class Acc>
struct Results {
  Acc value[Tile::TM][Tile::TN];

  __device__ __forceinline__ void clear() {
    CNN_UNROLL
    for (int i = 0; i < Tile::TM; ++i) {
      CNN_UNROLL
      for (int j = 0; j < Tile::TN; ++j) value[i][j] = Acc(0);
    }
  }

  // value += a[:, m] outer b[:, n], summed over the BK rows of one stage.
  __device__ CNN_INNER_LOOP void multiply(const Acc (*a)[Tile::kPitchM], const Acc (*b)[Tile::kPitchN]) {
    constexpr int kM = Tile::kSegmentM, kN = Tile::kSegmentN;
    const int first_m = Tile::first_m(), first_n = Tile::first_n();
    for (int k = 0; k < Tile::BK; ++k) {
      Vector<Acc, kM> am[Tile::TM / kM];
      Vector<Acc, kN> bn[Tile::TN / kN];
      CNN_UNROLL
      for (int s = 0; s < Tile::TM / kM; ++s) am[s] = load_vector<kM>(&a[k][first_m + Tile::step_m(s * kM)]);
      CNN_UNROLL
      for (int s = 0; s < Tile::TN / kN; ++s) bn[s] = load_vector<kN>(&b[k][first_n + Tile::step_n(s * kN)]);
      CNN_UNROLL
      for (int i = 0; i < Tile::TM; ++i) {
        CNN_UNROLL
        for (int j = 0; j < Tile::TN; ++j) value[i][j] += am[i / kM].value[i % kM] * bn[j / kN].value[j % kN];
      }
    }
  }
};

// A block's share of one operand tile, held in registers between global and shared memory. Consecutive threads take consecutive
// k if the operand is dense along the reduction, else consecutive rows.
template <int kRows, int kDepth, int kThreads, class Visit>
__device__ __forceinline__ void for_each_load(bool k_dense, Visit visit) {
  constexpr int kCount = (kRows * kDepth + kThreads - 1) / kThreads;
  if (k_dense) {
    CNN_UNROLL
    for (int i = 0; i < kCount; ++i) {
      const int e = int(threadIdx.x) + i * kThreads;
      if (kRows * kDepth % kThreads == 0 || e < kRows * kDepth) visit(i, e / kDepth, e % kDepth);
    }
  } else {
    CNN_UNROLL
    for (int i = 0; i < kCount; ++i) {
      const int e = int(threadIdx.x) + i * kThreads;
      if (kRows * kDepth % kThreads == 0 || e < kRows * kDepth) visit(i, e % kRows, e / kRows);
    }
  }
}

// Writes a block's results through shared memory, so that consecutive threads write consecutive addresses whichever of m and
// n is dense in the output. `write(m, n, value)` is called once per result; m and n count within the tile. The stages are free
// again by now: `scratch` is their memory.
template <class Tile, class Acc, class Write>
__device__ __forceinline__ void write_results(const Results<Tile, Acc>& results, Acc* scratch, bool n_dense, Write write) {
  // A slice is one segment column of every thread: as many columns as the threads of a row own at once.
  constexpr int kSegments = Tile::TN / Tile::kSegmentN;
  constexpr int kSlice = Tile::BN / kSegments;
  constexpr int kRoom = int(sizeof(TileStages<Tile, Acc>) / sizeof(Acc)) / Tile::kPitchM;
  constexpr int kParts = (kSlice + kRoom - 1) / kRoom;  // a slice goes in so many parts
  constexpr int kColumns = kSlice / kParts;
  static_assert(kSlice % kParts == 0 && kColumns % Tile::kSegmentN == 0, "parts of a slice hold whole segments");
  const int first_m = Tile::first_m(), first_n = Tile::first_n();

  CNN_UNROLL
  for (int segment = 0; segment < kSegments; ++segment) {
    for (int part = 0; part < kParts; ++part) {
      const int column = first_n - part * kColumns;
      if (column >= 0 && column < kColumns) {
        CNN_UNROLL
        for (int i = 0; i < Tile::TM; ++i) {
          CNN_UNROLL
          for (int j = 0; j < Tile::kSegmentN; ++j)
            scratch[(column + j) * Tile::kPitchM + first_m + Tile::step_m(i)] = results.value[i][segment * Tile::kSegmentN + j];
        }
      }
      __syncthreads();
      for (int e = int(threadIdx.x); e < Tile::BM * kColumns; e += Tile::kThreads) {
        const int m = n_dense ? e / kColumns : e % Tile::BM;
        const int n = n_dense ? e % kColumns : e / Tile::BM;
        write(m, segment * kSlice + part * kColumns + n, scratch[n * Tile::kPitchM + m]);
      }
      __syncthreads();
    }
  }
}

}  // namespace cnn::conv2d
