// The implicit GEMM where everything that a tile needs is in shared memory at once: all taps of the filter, for as long as the block runs,
// and the halo of the image under the tile. For few channels: stack.cuh (dense layers and groups), strip.cuh (first layers).
//
//   filter   +---------+     A block has one tile of columns and goes through tiles of 128 results of one image, a rectangle each. Its
//   all taps | columns |     halo is copied once, and every tap's operand is the same halo, read from another pixel on: ldmatrix takes
//            +---------+     the address of each row of a matrix from a lane.
//   +----+   +---------+
//   |    |   | warp    |     A warp has 32 rows x 64 columns.
//   |halo|   | warp    |
//   |    |   | ..      |     128 rows x 64 columns
//   +----+   +---------+
//
// Operands says what lies in shared memory, and multiplies: Params, Results, load_filter, copy_ahead (of the next item), load_halo.
//
// Bytes per item: the halo from L2, 128 x columns written. In flight: a halo in each of the blocks beside each other, or
// what the next one is made of.
#pragma once

#include "conv2d/gemm/resident.h"
#include "conv2d/gemm/tensor.cuh"

namespace cnn::conv2d {

using ResidentTile = TensorTile<GemmTileName::kResident128x64>;

// Where chunk `chunk` of row (or pixel) `row` lies, which has 2^log of them: rows shorter than 128 bytes share these, and chunks are
// exchanged by the row, so that the same chunk of eight neighbours meets in no bank.
__device__ __forceinline__ int resident_chunk(int row, int chunk, int log) {
  return (row << log) + (chunk ^ (row >> (3 - log) & ((1 << log) - 1)));
}

// Where a tile's image, and the pixel under its first result, are.
struct TileOrigin {
  int n, h, w;

  __device__ __forceinline__ TileOrigin(const GemmParams& p, const Halo& halo, const GemmItem& item) {
    const int across = item.row_tile % p.tiles_w, rest = item.row_tile / p.tiles_w;
    n = rest / p.tiles_h;
    h = rest % p.tiles_h * p.tile_h * p.h.in_per_out + halo.origin_h;
    w = across * p.tile_w * p.w.in_per_out + halo.origin_w;
  }
};

// A warp's results, and where its operands begin. A warp has the tile's columns.
template <class T, bool kFilterInner>
struct ResidentResults : TensorResults<T, ResidentTile, kFilterInner> {
  using Base = TensorResults<T, ResidentTile, kFilterInner>;
  using Base::kRows, Base::lane, Base::sum;

  int first[kRows];  // places of the halo under tap (0, 0), of this lane's rows in ldmatrix

  __device__ __forceinline__ void find(const GemmParams& p, const Halo& halo) {
    const int lane_row = recompute(int(threadIdx.x)) / 32 * ResidentTile::kSegmentRows + lane() % 16;
    CNN_UNROLL
    for (int m = 0; m < kRows; ++m) {
      int column;
      const int row = p.tile_w_div.divmod(lane_row + m * 16, column);
      first[m] = row * p.h.in_per_out * halo.pitch + column;
    }
  }

  // Fragments n and n + 1: a times what one ldmatrix gave of the filter.
  __device__ __forceinline__ void add(int n, const std::uint32_t (&a)[kRows][4], const std::uint32_t (&four)[4]) {
    CNN_UNROLL
    for (int m = 0; m < kRows; ++m) {
      CNN_UNROLL
      for (int of = 0; of < 2; ++of) {
        const std::uint32_t columns[2] = {four[2 * of], four[2 * of + 1]};
        mma<T>(sum[m][n + of], a[m], columns);
      }
    }
  }
};

template <class Operands>
__global__ void __launch_bounds__(ResidentTile::kThreads, ResidentTile::kBlocks)
    resident_gemm_kernel(const __grid_constant__ typename Operands::Params r) {
  using T = typename Operands::Element;
  CNN_DYNAMIC_SHARED(shared, unsigned char);
  CNN_SHARED(table, GemmStoreTable<ResidentTile>);
  const GemmParams& p = r.gemm;
  unsigned char *const filter = shared, *const halo = shared + r.filter_bytes;

  // The same columns in all of the block's items.
  {
    const GemmItem item = gemm_item(p, int(blockIdx.x));
    Operands::load_filter(r, item, filter);
    table.template set_columns<T>(p, item, item.column_tile);
    Operands::copy_ahead(r, item, shared);
    commit_async();
  }
  typename Operands::Results results;

  CNN_NO_UNROLL
  for (int index = int(blockIdx.x); index < p.items; index += int(gridDim.x)) {
    Operands::load_halo(r, gemm_item(p, index), shared);
    commit_async();
    wait_async<0>();
    __syncthreads();
    if (index + int(gridDim.x) < p.items) Operands::copy_ahead(r, gemm_item(p, index + int(gridDim.x)), shared);
    commit_async();

    // Of a strided dgrad all classes have the same halo. What an item is is worked out again where it is asked for: registers are for
    // results.
    CNN_NO_UNROLL
    for (int of_class = 0; of_class < p.class_count_h * p.class_count_w * p.parts; ++of_class) {
      if (of_class % p.parts == 0) {
        GemmItem item = gemm_item(p, recompute(index));
        item.class_h = of_class / p.parts / p.class_count_w, item.class_w = of_class / p.parts % p.class_count_w;
        table.set_rows(p, item);
      }
      results.clear();
      results.multiply(r, of_class, halo, filter);
      if (p.staging == r.filter_bytes) __syncthreads();  // of a single class the results are staged where the halo was
      results.template store<T>(p, 0, gemm_item(p, recompute(int(blockIdx.x))).column_tile, recompute(of_class) % p.parts, table,
                                shared + p.staging);
    }
  }
}

}  // namespace cnn::conv2d
