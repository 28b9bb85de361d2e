// Few channels on tensor cores (resident.cuh): dense layers of up to 64, and groups of 8 to 32 side by side.
//
//         64 columns
//         +-----------+     Of a stack of groups the filter is block-diagonal: 16 channels (one turn) are multiplied with the columns of
//         | 8 . . . . |     their own groups alone, so that nothing is multiplied by zeros and no group sees another one's NaN. Groups of
//  stack  | . 8 . . . |     8 take mma with a depth of 8. Wider or uneven groups, and dense layers, are stacks of one.
//  of     | . . 8 . . |
//  groups +-----------+
//
// Shared memory, in 16-byte chunks of 8 channels:
//   filter   [tap][64 rows][kGroup / 8]: rows are columns of the product and chunks lie along its channels, or the other way round
//   halo     [place][channels / 8]
//
// Per item: 128 * taps * channels * (columns of a group) FMAs for halo_h * halo_w * channels elements.
#pragma once

#include "conv2d/gemm/resident.cuh"

namespace cnn::conv2d {

template <class T, int kGroup, bool kFilterInner>
struct StackOperands {
  using Element = T;
  using Params = StackParams;
  static constexpr int kThreads = ResidentTile::kThreads, kChunk = kGemmChunkBytes / int(sizeof(T));
  static constexpr int kRowChunks = kGroup / kChunk, kLogRowChunks = kGroup == 64 ? 3 : kGroup == 32 ? 2 : kGroup == 16 ? 1 : 0;
  static constexpr int kFilterRows = 64, kTapBytes = kFilterRows * kRowChunks * kGemmChunkBytes;

  // All taps of the filters of one stack.
  __device__ static __forceinline__ void load_filter(const Params& r, const GemmItem& item, unsigned char* filter) {
    const GemmParams& p = r.gemm;
    const T* const of_stack = static_cast<const T*>(p.filter) + item.group * p.filter_group;
    CNN_NO_UNROLL
    for (int e = int(threadIdx.x); e < r.taps * kFilterRows * kRowChunks; e += kThreads) {
      const int chunk = e % kRowChunks, row = e / kRowChunks % kFilterRows, tap = e / (kRowChunks * kFilterRows);
      const int group = row / kGroup, in_group = row % kGroup;
      int s;
      const int tap_r = r.taps_across.divmod(tap, s), left = r.filter_chunks - chunk * kChunk;
      const bool exists = group < r.stacked && in_group < r.filter_rows;
      const T* const from =
          of_stack + group * r.filter_of_group + in_group * r.filter_row + chunk * kChunk + tap_r * p.filter_r + s * p.filter_s;
      copy_chunk<false>(filter + tap * kTapBytes + resident_chunk(row, chunk, kLogRowChunks) * kGemmChunkBytes, from,
                        exists ? max(0, min(kGemmChunkBytes, left * int(sizeof(T)))) : 0, p.filter_unit);
    }
  }

  __device__ static __forceinline__ void copy_ahead(const Params&, const GemmItem&, unsigned char*) {}  // no room for a second halo

  // The pixels of the image under a tile, zeros outside.
  __device__ static __forceinline__ void load_halo(const Params& r, const GemmItem& item, unsigned char* shared) {
    const GemmParams& p = r.gemm;
    unsigned char* const halo = shared + r.filter_bytes;
    const TileOrigin origin(p, r.halo, item);
    const T* const image = static_cast<const T*>(p.in) + origin.n * p.in_n + item.group * p.in_channels;
    CNN_NO_UNROLL
    for (int e = int(threadIdx.x); e < r.halo.height * r.halo.width << r.log_chunks; e += kThreads) {
      int column;
      const int chunk = e & ((1 << r.log_chunks) - 1), row = r.halo.width_div.divmod(e >> r.log_chunks, column);
      const int h = origin.h + row, w = origin.w + column, left = p.in_channels - chunk * kChunk;
      const bool inside = unsigned(h) < unsigned(p.h.in_extent) && unsigned(w) < unsigned(p.w.in_extent);
      copy_chunk<false>(halo + resident_chunk(r.halo.place(row, column), chunk, r.log_chunks) * kGemmChunkBytes,
                        image + h * p.in_h + w * p.in_w + chunk * kChunk, inside ? max(0, min(kGemmChunkBytes, left * int(sizeof(T)))) : 0,
                        p.image_unit);
    }
  }

  struct Results : ResidentResults<T, kFilterInner> {
    using Base = ResidentResults<T, kFilterInner>;
    using Base::kRows, Base::first, Base::lane, Base::sum;
    static constexpr int kFragments = kGroup / 8;                         // of columns, of one group
    static constexpr int kTurnsOfGroup = kGroup >= 16 ? kGroup / 16 : 1;  // of 16 channels
    static constexpr int kMostTurns = 4;

    // sum += halo * filter of all taps of a class.
    __device__ __forceinline__ void multiply(const Params& r, int of_class, const unsigned char* halo, const unsigned char* filter) {
      Base::find(r.gemm, r.halo);
      CNN_NO_UNROLL
      for (int i = r.first_tap[of_class]; i < r.first_tap[of_class + 1]; ++i)
        multiply_tap(r, r.tap[i].place, halo, filter + r.tap[i].filter * kTapBytes);
    }

   private:
    __device__ __forceinline__ void multiply_tap(const Params& r, int shift, const unsigned char* halo, const unsigned char* filter) {
      CNN_UNROLL
      for (int turn = 0; turn < kMostTurns; ++turn) {
        if (turn >= r.turns) break;
        std::uint32_t a[kRows][4];
        CNN_UNROLL
        for (int m = 0; m < kRows; ++m)
          ldmatrix<4>(a[m], halo + resident_chunk(first[m] + shift, 2 * turn + lane() / 16, r.log_chunks) * kGemmChunkBytes);
        if constexpr (kGroup == 8) {
          std::uint32_t of_groups[2];
          ldmatrix<2, !kFilterInner>(of_groups, filter + (turn * 16 + lane() % 16) * kGemmChunkBytes);
          CNN_UNROLL
          for (int m = 0; m < kRows; ++m) {
            CNN_UNROLL
            for (int group = 0; group < 2; ++group) {
              const std::uint32_t channels[2] = {a[m][2 * group], a[m][2 * group + 1]}, columns[1] = {of_groups[group]};
              mma_short<T>(sum[m][2 * turn + group], channels, columns);
            }
          }
        } else {
          CNN_UNROLL
          for (int i = 0; i < kFragments; i += 2) {
            const int n = turn / kTurnsOfGroup * kFragments + i;
            const int row = kFilterInner ? n * 8 + lane() / 16 * 8 + lane() % 8 : turn * 16 + lane() % 16;
            const int chunk = kFilterInner ? turn % kTurnsOfGroup * 2 + lane() / 8 % 2 : i + lane() / 16;
            std::uint32_t four[4];
            ldmatrix<4, !kFilterInner>(four, filter + resident_chunk(row, chunk, kLogRowChunks) * kGemmChunkBytes);
            Base::add(n, a, four);
          }
        }
      }
    }
  };
};

}  // namespace cnn::conv2d
