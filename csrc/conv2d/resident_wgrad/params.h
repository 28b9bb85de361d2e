// The weight gradient of few channels on tensor cores: launch parameters of kernel.cuh.
#pragma once

#include "common/fastdiv.h"
#include "common/platform.h"
#include "conv2d/gemm/resident.h"

namespace cnn::conv2d {

constexpr int kResidentWgradThreads = 128;
constexpr int kResidentWgradChannels = 64;  // of y, and of x but for first layers, that a block has side by side

struct ResidentWgradParams {
  const void *x, *y;
  void* out;                              // where sums go: w, or one slab's sums after the other's, of float
  bool partial;                           // the latter
  bool pairs;                             // partial sums of two neighbouring filters lie side by side
  int x_n, x_c, x_h, x_w, y_n, y_h, y_w;  // element strides; the channels of y are dense
  int out_slab, out_k, out_c, out_r, out_s;
  int H, W, P, Q;
  int stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  // Groups, and their channels and filters; two groups of 4 are one of 8 here, of whose sums half are no filter's.
  int groups, channels, filters;
  int channels_of_filter, filters_of_group;
  int taps;
  FastDiv<int32_t> S;

  // A block sums one slab of tiles for one stack of groups (of a first layer: tile of filters) and for kBands bands.
  int stacks, band_groups, bands;
  int tiles, tiles_per_slab;
  FastDiv<int32_t> tiles_h, tiles_w;
  int tile_h;
  FastDiv<int32_t> tile_w, last_tile_w;  // pixels across: of the last tile in a row, of the others

  // Shared memory: of groups x and y of each stage, of first layers x, and y and the rows that x is made of of each stage.
  Halo halo;                    // rows of one phase; origins are not used
  FastDiv<int32_t> row_phases;  // every so-many-th row lies beside the next
  int row_phase_pitch;
  int zero_place;         // the first of eight
  int y_at, stage_bytes;  // from where a stage begins
  int stages_at;
  int x_unit, y_unit;  // bytes that move together

  // Of a first layer's strip (strip.cuh).
  StripRows rows;
  int pixels;  // of a row of the halo
  int chunk_pixels;
  FastDiv<int32_t> turns;  // of a row of the filter

  // Where row `row`, column `column` of the halo lies.
  __device__ __forceinline__ int place(int row, int column) const {
    int phase;
    const int in_phase = row_phases.divmod(row, phase);
    return phase * row_phase_pitch + halo.place(in_phase, column);
  }
};

// `group`: channels of a group as the kernel has them, 8, 16 or 32.
template <class T>
void launch_stack_wgrad(const char* name, int group, const ResidentWgradParams& params, int blocks, int shared_bytes, cudaStream_t stream);
template <class T>
void launch_strip_wgrad(const char* name, const ResidentWgradParams& params, int blocks, int shared_bytes, cudaStream_t stream);

}  // namespace cnn::conv2d
