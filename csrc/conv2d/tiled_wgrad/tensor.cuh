// The tiled weight gradient on tensor cores: another layout of kernel.cuh, where channels are dense.
//
//              BN columns           Each of 8 warps has 64 filters x 32 columns, as 4 x 4 fragments of mma (common/matrix.h), of one of the
//            +-----------+          slices of the block, which take turns with 16 pixels each (8 of floats): a tile of 128 x 128 has one
//            slice, 64 x 64
//   BK px    |  x (tap)  |          has four. Both operands lie in shared memory as pixels' rows of channels, across the sum. Halves are
//            +-----------+          turned by ldmatrix as they are loaded, floats are loaded one by one and rounded to tf32.
// +--------+ +-----------+
// | y | BM | |  results  | BM
// +--------+ +-----------+
//   BK px
//
// Per 16 multiplications of a warp: 6 loads of four matrices, or 24 of floats.
#pragma once

#include "common/matrix.h"
#include "conv2d/tiled_wgrad/kernel.cuh"

namespace cnn::conv2d {

constexpr int kLogWarpFilters = 6, kLogWarpColumns = 5;

// A warp's place in its block: slice, and row and column of warps within its tile.
struct WarpPlace {
  int slice, slices, m, n;  // m, n: its first filter and column

  __device__ __forceinline__ explicit WarpPlace(const TiledWgradParams& p) {
    const int log_m = p.log_bm - kLogWarpFilters, log_n = p.log_bn - kLogWarpColumns, warp = int(threadIdx.x) / 32;
    slices = kTiledWgradThreads / 32 >> (log_m + log_n);
    slice = warp >> (log_m + log_n);
    m = (warp & ((1 << log_m) - 1)) << kLogWarpFilters;
    n = (warp >> log_m & ((1 << log_n) - 1)) << kLogWarpColumns;
  }
};

struct WarpTile {
  using Place = WarpPlace;
  static constexpr int kRows = (1 << kLogWarpFilters) / 16, kColumns = (1 << kLogWarpColumns) / 8;
  float sum[kRows][kColumns][4];

  __device__ __forceinline__ void clear() {
    CNN_UNROLL
    for (int i = 0; i < kRows; ++i) {
      CNN_UNROLL
      for (int j = 0; j < kColumns; ++j) {
        CNN_UNROLL
        for (int e = 0; e < 4; ++e) sum[i][j][e] = 0;
      }
    }
  }
};

template <class T>
struct ChannelsLastTensor : ChannelsLast<T, true> {
  using Results = WarpTile;
  using ChannelsLast<T, true>::ChannelsLast;
  static constexpr bool kTensor = true;
  static constexpr int kDepth = MatrixShape<T>::kDepth;  // pixels of a multiplication

  // results += y^T x over this warp's slice of the stage.
  __device__ static __forceinline__ void multiply(WarpTile& results, const WarpPlace& at, const T* stage, int bm, int bn, int bk) {
    if constexpr (sizeof(T) == 4) return multiply_floats(results, at, stage, bm, bn, bk);
    const int lane = int(threadIdx.x) % 32, swizzle = lane % 8 * 8;
    // Of four 8x8 matrices in rows of pixels: filters come in pairs first and then pixels, columns the other way round.
    const T* y = stage + (at.slice * kDepth + lane / 16 * 8 + lane % 8) * bm;
    const T* x = stage + bk * bm + (at.slice * kDepth + lane % 16) * bn;
    const int filter = at.m + lane / 8 % 2 * 8, column = at.n + lane / 16 * 8;
    CNN_NO_UNROLL
    for (int pixel = at.slice * kDepth; pixel < bk; pixel += at.slices * kDepth) {
      std::uint32_t a[WarpTile::kRows][4], b[WarpTile::kColumns][2];
      CNN_UNROLL
      for (int i = 0; i < WarpTile::kRows; ++i) ldmatrix<4, true>(a[i], y + ((filter + i * 16) ^ swizzle));
      CNN_UNROLL
      for (int j = 0; j < WarpTile::kColumns; j += 2) {
        std::uint32_t two[4];
        ldmatrix<4, true>(two, x + ((column + j * 8) ^ swizzle));
        b[j][0] = two[0], b[j][1] = two[1], b[j + 1][0] = two[2], b[j + 1][1] = two[3];
      }
      CNN_UNROLL
      for (int i = 0; i < WarpTile::kRows; ++i) {
        CNN_UNROLL
        for (int j = 0; j < WarpTile::kColumns; ++j) mma<T>(results.sum[i][j], a[i], b[j]);
      }
      y += at.slices * kDepth * bm, x += at.slices * kDepth * bn;
    }
  }

  // The same of floats, each of which goes to one lane. Eight neighbouring filters or columns lie side by side, as one of the four runs
  // that the pixel's swizzle exchanges.
  __device__ static __forceinline__ void multiply_floats(WarpTile& results, const WarpPlace& at, const T* stage, int bm, int bn, int bk) {
    constexpr int kRun = 8, kRuns = 4;
    const int lane = int(threadIdx.x) % 32;
    const T* y = stage + (at.slice * kDepth + lane % 4) * bm + at.m + lane / 4;
    const T* x = stage + bk * bm + (at.slice * kDepth + lane % 4) * bn + at.n + lane / 4;
    int run[kRuns];
    CNN_UNROLL
    for (int i = 0; i < kRuns; ++i) run[i] = (i ^ (lane % 4)) * kRun;
    CNN_NO_UNROLL
    for (int pixel = at.slice * kDepth; pixel < bk; pixel += at.slices * kDepth) {
      std::uint32_t b[WarpTile::kColumns][2];
      CNN_UNROLL
      for (int j = 0; j < WarpTile::kColumns; ++j) b[j][0] = rounded(x + run[j]), b[j][1] = rounded(x + 4 * bn + run[j]);
      CNN_UNROLL
      for (int i = 0; i < WarpTile::kRows; ++i) {
        const T* const of = y + i / 2 * (kRun * kRuns);
        const int low = run[i % 2 * 2], high = run[i % 2 * 2 + 1];
        const std::uint32_t a[4] = {rounded(of + low), rounded(of + high), rounded(of + 4 * bm + low), rounded(of + 4 * bm + high)};
        CNN_UNROLL
        for (int j = 0; j < WarpTile::kColumns; ++j) mma<T>(results.sum[i][j], a, b[j]);
      }
      y += at.slices * kDepth * bm, x += at.slices * kDepth * bn;
    }
  }
  __device__ static __forceinline__ std::uint32_t rounded(const T* from) {
    return to_tfloat32(*reinterpret_cast<const std::uint32_t*>(from));
  }

  // The fragments' rows into the slice's: pairs of columns of eight rows, which begin in different banks.
  __device__ static __forceinline__ void keep(const WarpTile& results, const WarpPlace& at, float* slice, int, int bn) {
    const int lane = int(threadIdx.x) % 32;
    CNN_UNROLL
    for (int i = 0; i < WarpTile::kRows; ++i) {
      CNN_UNROLL
      for (int half = 0; half < 2; ++half) {
        float* const row = slice + sums_row(at.m + i * 16 + half * 8 + lane / 4, bn, ChannelsLast<T>::kRun) + at.n + lane % 4 * 2;
        CNN_UNROLL
        for (int j = 0; j < WarpTile::kColumns; ++j)
          *reinterpret_cast<float2*>(row + j * 8) = make_float2(results.sum[i][j][2 * half], results.sum[i][j][2 * half + 1]);
      }
    }
  }
};

}  // namespace cnn::conv2d
