// The implicit GEMM with everything resident: launch parameters of resident.cuh, stack.cuh and strip.cuh.
#pragma once

#include "conv2d/gemm/gemm.h"

namespace cnn::conv2d {

// The pixels of the image under a tile of results, as they lie in shared memory: of each row of them first every `phases`-th column from
// the first one on, then those from the second one on, and so on. So neighbouring results read neighbouring places, whatever the stride.
struct Halo {
  int height, width;  // in the units that have a place: pixels, or of a strip (strip.cuh) pairs of them
  int phase_width, pitch;
  FastDiv<int32_t> width_div, phases;
  int origin_h, origin_w;  // in pixels, from the image's pixel in_per_out * (the tile's first result)

  // Where row `row`, column `column` lies.
  __device__ __forceinline__ int place(int row, int column) const {
    int phase;
    const int in_phase = phases.divmod(column, phase);
    return row * pitch + phase * phase_width + in_phase;
  }
};

constexpr int kMostStackTaps = 128;
struct StackTap {
  int place;   // of the halo, under the tile's first result
  int filter;  // which tap of the filter it is
};

// Of groups side by side (stack.cuh).
struct StackParams {
  GemmParams gemm;   // one of its groups is a stack of the problem's; rows are rectangles, and there are no slabs
  int filter_bytes;  // the halo lies behind the filter
  Halo halo;
  // The filter: rows of 16-byte chunks, of 8 channels that are dense in it. Rows are columns of the product (filter_inner) or its channels.
  int filter_rows, filter_chunks;   // of one group, those that exist; chunks in channels
  int filter_row, filter_of_group;  // elements from one row, and from one group of the stack, to the next
  int stacked;                      // groups
  int taps;
  FastDiv<int32_t> taps_across;
  int log_chunks;  // of a pixel
  int turns;       // 16 channels each
  // The taps of one class after the other's, classes of rows outermost, and where those of each begin.
  StackTap tap[kMostStackTaps];
  int first_tap[kMostClasses * kMostClasses + 1];
};

// The rows of an image that a strip (strip.cuh) is made of, as they lie in memory: runs of values, one of each row where channels lie
// inside, else one of each row of each plane.
struct StripRows {
  int channels, height, width;  // of the image
  int n, c, h, w;               // element strides
  bool channels_inside;
  FastDiv<int32_t> runs;      // of a row
  FastDiv<int32_t> of_pixel;  // values of a run
  FastDiv<int32_t> values;    // of a run, at most
  FastDiv<int32_t> chunks;    // 16 bytes of shared memory, that a run takes
  int row_chunks;             // and from one row's first run to the next row's; behind the last row are zeros
  int chunk_mask;             // 7 where runs are copied by the 16-byte chunks of memory they lie in, 0 where they are read by values
};

// A turn's taps of 64 columns, 32 bytes each, and as much again: where turns lay a multiple of 128 bytes apart, the chunks of a column
// would be written to the same banks.
constexpr int kStripTurnBytes = (64 + 1) * 2 * kGemmChunkBytes;

// Of a first layer's strip of quads of channels (strip.cuh).
struct StripParams {
  GemmParams gemm;
  int rows_at, filter_bytes;  // the rows lie behind the filter, and the halo behind both
  StripRows rows;
  Halo halo;         // its units are chunks of two pixels
  int pixels;        // of a row of the halo
  int chunk_pixels;  // from the first pixel of a chunk to that of the next: 2, or 1 where results may begin at any pixel
  int taps_h, taps_w;
  int turns;  // of a row of the filter: four taps each
  // Filters as they lie in memory pass through the room behind those that are turned, so many columns at once.
  int filter_columns;
  FastDiv<int32_t> filter_chunks;      // threads that turn a column: one for each of its chunks, or more
  FastDiv<int32_t> filter_row_chunks;  // chunks of a row of taps
  FastDiv<int32_t> channels;
  int filter_r, filter_s, filter_k;  // elements there from a row of taps, a tap and a channel to the next
  FastDiv<int32_t> filter_taps, filter_taps_w;
  bool filter_by_chunks;  // copied by the 16-byte chunks of memory, else by values
};

// `group`: channels of a group as the kernel has them, 8, 16, 32 or 64.
template <class T>
void launch_stack(const char* name, int group, const StackParams& params, int blocks, int shared_bytes, cudaStream_t stream);
template <class T>
void launch_strip(const char* name, const StripParams& params, int blocks, int shared_bytes, cudaStream_t stream);

}  // namespace cnn::conv2d
