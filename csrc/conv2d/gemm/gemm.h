// The implicit GEMM that the pointwise, dense, dilated and transposed families share: its launch parameters, and how to launch it. It has
// two main loops, on CUDA cores (kernel.cuh) and on tensor cores (tensor.cuh).
//
//   out[pixel, n] = bias[n] + sum over taps and channels k of in[source(pixel, tap), k] * filter[tap, k, n]
//
// fprop reads x and writes y, dgrad reads y and writes x. Rows are pixels of the result, columns its channels (of one group). As in
// conv2d/direct/gather.cuh the rows of a strided dgrad fall into residue classes modulo the stride, in which row i is an ordinary
// convolution with every stride-th tap:
//
//   out row = i * out_step + class,   tap(j) = first_tap + j * tap_step,   source row(i, j) = first_in + i * in_per_out + j * in_per_tap
//
// What a block does is one *item*: a tile of rows, one or more tiles of columns, one class (or all classes of the columns of the image,
// interleaved in the result), one slab of the reduction.
#pragma once

#include <cstdint>

#include "common/fastdiv.h"
#include "common/platform.h"
#include "conv2d/epilogue.h"

namespace cnn::conv2d {

constexpr int kMostClasses = 8;  // residue classes of an axis that the parameters have room for

// One residue class of one axis.
struct GemmClass {
  int first_out;  // the class: its residue
  int first_tap, taps;
  int first_in;
};

// Taps [begin, end) of a class.
struct GemmTaps {
  int begin, end;
};

struct GemmAxis {
  int in_extent, out_extent;
  int positions;  // rows i of the largest class
  int out_step, in_per_out, in_per_tap, tap_step;
  GemmClass classes[kMostClasses];

  // Those that read inside the image for at least one of the rows [first, last].
  CNN_HOST_DEVICE GemmTaps live_taps(const GemmClass& c, int first, int last) const {
    const int low = c.first_in + first * in_per_out, high = c.first_in + last * in_per_out;
    GemmTaps taps{0, c.taps};
    if (in_per_tap >= 0) {
      while (taps.begin < taps.end && high + taps.begin * in_per_tap < 0) ++taps.begin;
      while (taps.begin < taps.end && low + (taps.end - 1) * in_per_tap >= in_extent) --taps.end;
    } else {
      while (taps.begin < taps.end && low + taps.begin * in_per_tap >= in_extent) ++taps.begin;
      while (taps.begin < taps.end && high + (taps.end - 1) * in_per_tap < 0) --taps.end;
    }
    return taps;
  }
};

// Rows of results that are staged, dense along the columns, before they are written (store.cuh): the columns that exist of one tile.
struct StagedRows {
  FastDiv<int32_t> units;  // vectors of a row, as they are written
  int chunks;              // of 16 bytes
  int log;                 // of the largest power of two, up to 8 chunks, that divides a row (parts and all)
};

struct GemmParams {
  const void *in, *filter;
  Epilogue epilogue;
  void* out;
  float* partial;              // null, or where each slab writes its sums, laid out as the out_ strides say, slab_stride apart
  int in_n, in_c, in_h, in_w;  // element strides
  int filter_group, filter_k, filter_n, filter_r, filter_s;
  int out_n, out_c, out_h, out_w;
  int slab_stride;
  int batch, groups;
  int in_channels, out_channels;  // per group
  int in_group, out_group;        // elements from one group to the next
  int columns;                    // of the product, per group: out_channels, or times R * S if a column is a tap's channel
  GemmAxis h, w;

  // The epilogue's channels are the rows, which are then the columns of an image of one row; else the columns of the product.
  bool channels_are_rows;

  // Columns of the product that are taps of channels, where taps do not overlap (stride and filter are equal): column (r, s, c) or (c, r,
  // s).
  bool columns_are_taps, taps_outermost;
  FastDiv<int32_t> column_inner, column_s;  // taps_outermost: channels, S; else R * S, S

  // Rows: all pixels one after the other, or rectangles of an image.
  int row_tiles;
  bool flat;
  int tile_h, tile_w, tiles_h, tiles_w;  // unless flat
  FastDiv<int32_t> positions_w, positions_hw, tile_w_div;

  // Items, from the innermost: column tiles, groups, slabs, row tiles, classes.
  int items;
  int column_tiles, column_tiles_per_item, column_items;
  int slabs;
  int class_count_h, class_count_w;  // of the result's rows, and items for classes of its columns: 1 if one item does all of them
  int parts;                         // such classes that one item does
  int chunks;                        // steps of channels per tap

  // Shared memory.
  int image_slots, filter_slots;
  bool filter_resident;  // every step of an item has a slot of its own, and keeps it for all items of the block
  int staging;           // its first byte

  // How operands move, in bytes: 16, 8, 4, or 2 where nothing larger is aligned.
  int image_unit, filter_unit;
  bool filter_inner;  // the filter is dense along the reduction (else along the columns)
  // How the result is written.
  bool out_planar;  // along the pixels (else along the channels)
  int out_vector;   // elements
  int planes;       // of the staged result that interleave in a row of it: parts, or S if columns are taps
  FastDiv<int32_t> planes_div;
  StagedRows staged, staged_last;  // of full column tiles, and of the last one
};

// The tiles there are: rows x columns. Those of the tensor cores (tensor.cuh, resident.cuh) have their results in warps_m x warps_n warps,
// the others (tile.cuh) tm x tn results in a thread.
enum class GemmTileName { k256x64, k128x64, k256x16, kTensor128x256, kTensor128x128, kTensor128x64, kTensor64x64, kResident128x64 };
struct GemmTileShape {
  int bm, bn, tm, tn, threads;
  int stages;  // steps that are in shared memory at once
  int blocks;  // on a multiprocessor, that registers have to allow
  int warps_m = 0, warps_n = 0;

  CNN_HOST_DEVICE constexpr bool is_tensor() const { return warps_m > 0; }
};
constexpr GemmTileShape shape_of(GemmTileName name) {
  switch (name) {
    case GemmTileName::k256x64: return {256, 64, 8, 8, 256, 3, 2};
    case GemmTileName::k128x64: return {128, 64, 8, 8, 128, 3, 4};
    case GemmTileName::k256x16: return {256, 16, 8, 4, 128, 3, 4};
    case GemmTileName::kTensor128x256: return {128, 256, 16, 8, 256, 4, 1, 2, 4};
    case GemmTileName::kTensor128x128: return {128, 128, 16, 8, 128, 4, 2, 2, 2};
    case GemmTileName::kTensor128x64: return {128, 64, 8, 8, 128, 4, 3, 2, 2};
    case GemmTileName::kTensor64x64: return {64, 64, 4, 8, 128, 4, 4, 2, 2};
    case GemmTileName::kResident128x64: return {128, 64, 8, 8, 128, 1, 4, 4, 1};
  }
  return {};
}

constexpr int kGemmRowBytes = 64;    // channels of a step, in bytes of the tensors' type
constexpr int kGemmChunkBytes = 16;  // what is copied ends with a whole one, of zeros where there are no channels
constexpr int kGemmTurn = 4;         // channels that one turn of the inner loop multiplies: a part of a chunk

// Results of columns, `size` bytes each, that CUDA cores have are staged in rows of so many bytes. Behind a long row some are left out, so
// that the rows that a warp writes begin in different banks.
constexpr int kStagingLine = 128;
CNN_HOST_DEVICE constexpr int staged_pitch(GemmTileShape tile, int size) { return tile.bn * size + 16; }
// Where staged row `row` begins. Short ones share 128 bytes, every fourth in another place: the threads of a warp write every fourth row,
// and read one after the other.
CNN_HOST_DEVICE constexpr int staged_row(GemmTileShape tile, int row, int size) {
  const int bytes = tile.bn * size;
  if (bytes >= kStagingLine) return row * staged_pitch(tile, size);
  const int rows = kStagingLine / bytes;
  return row / rows * kStagingLine + (row + row / 4) % rows * bytes;
}

// Rows of results that are staged at once: all where classes interleave, and those of halves, whose rows would be short runs of pixels
// else; of floats those of one segment.
CNN_HOST_DEVICE constexpr int staged_rows(GemmTileShape tile, int parts, int size) {
  return parts > 1 || size == 2 ? tile.bm : tile.bm / (tile.is_tensor() ? tile.warps_m : tile.tm / 4);
}

// Bytes of staged results (store.cuh), in elements of `size` bytes.
constexpr int staging_bytes(GemmTileShape tile, bool planar, int parts, int size) {
  const int rows = staged_rows(tile, parts, size);
  return planar ? parts * tile.bn * rows * size
                : rows * parts * (tile.is_tensor() || tile.bn * size < kStagingLine ? tile.bn * size : staged_pitch(tile, size));
}

// `planar`: `in` is dense along the pixels (else along the channels).
template <class T>
void launch_gemm(const char* name, GemmTileName tile, bool planar, const GemmParams& params, int blocks, int shared_bytes,
                 cudaStream_t stream);

// On tensor cores: `in` is dense along the channels.
constexpr int kMostTensorTaps = 16;  // of an axis: bits of half a mask
template <class T>
void launch_tensor_gemm(const char* name, GemmTileName tile, const GemmParams& params, int blocks, int shared_bytes, cudaStream_t stream);

// packed[group][tap][k][n] of a filter that is dense along neither.
struct PackFilterParams {
  const void* filter;
  void* packed;
  int filter_group, filter_k, filter_n, filter_r, filter_s;
  int groups, k, n, taps;
  int pitch;               // from one k to the next in `packed`: n, rounded up
  bool n_before_k;         // the filter's k lie closer together than its n
  FastDiv<int32_t> width;  // S
};

template <class T>
void launch_pack_filter(const char* name, const PackFilterParams& params, cudaStream_t stream);

}  // namespace cnn::conv2d
