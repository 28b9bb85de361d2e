// Direct convolution, fprop and dgrad: one kernel, because both gather.
//
//   fprop:  y[n, k, p, q] = bias[k] + sum over c, r, s of x[n, c, p * stride - pad + r * dilation, ..] * w[k, c, r, s]
//   dgrad:  x[n, c, h, w] = bias[c] + sum over k, r, s of y[n, k, (h + pad - r * dilation) / stride, ..] * w[k, c, r, s]
//                                     over the taps r, s for which the division has no remainder
//
// In dgrad the taps that leave no remainder are the same for all rows h of one residue class modulo the stride, and within a
// class the source row moves by one when h moves by one stride. So each class is an ordinary convolution with fewer taps:
//
//   row(i) = first_out + i * out_step,   tap(j) = first_tap + j * tap_step,   source(i, j) = first_in + i * in_per_out + j * in_per_tap
//
// fprop is the case of a single class. No multiplication by an inserted zero is ever made, and one launch serves all classes.
//
// A padding mode other than zeros maps the positions outside the image into it (padding.cuh). In fprop that is one step more for each
// element. dgrad then takes all rows as one class, and once more for each position that stands for one of the block's pixels: blocks
// without a pixel near the border do no more than with zeros, but for a stride's taps, which are tested one by one.
//
// Tile (tile.cuh): m runs over the pixels (n, i_h, i_w) of one class, n over the output channels of one group, the reduction over
// (input channel, tap_h, tap_w), with the channel outermost or innermost, whichever is dense in memory. The rows' coordinates
// lie in a shared table; each loaded element costs one table read and two divisions by launch constants.
// Traffic per block: BM * L + BN * L elements for BM * BN * L FMAs, L = channels * taps; overlapping windows are served by L1/L2.
#pragma once

#include "common/fastdiv.h"
#include "common/launch.h"
#include "conv2d/direct/direct.h"
#include "conv2d/direct/padding.cuh"
#include "conv2d/direct/tile.cuh"
#include "conv2d/epilogue.cuh"

namespace cnn::conv2d {

template <class Index>
struct GatherAxis {
  Index out_extent, in_extent, taps, stride, pad, dilation;
  Index classes;   // residue classes: 1 in fprop, min(stride, out_extent) in dgrad
  Index tap_step;  // from one tap of a class to the next: 1 in fprop, stride / gcd(stride, dilation) in dgrad
  Index after;     // positions beyond the last pixel that some output reads
  Index folds;     // positions that may stand for one pixel
  FastDiv<Index> by_stride;
};

template <class Index>
struct GatherParams {
  const void *in, *filter;
  void* out;
  Index in_n, in_c, in_h, in_w;  // element strides
  Index filter_group, filter_out, filter_in, filter_r, filter_s;
  Index out_n, out_c, out_h, out_w;
  Index batch, in_channels, out_channels;  // channels per group
  Index groups;
  GatherAxis<Index> h, w;
  Index n_tiles;
  Epilogue epilogue;
  bool dgrad;  // else fprop
  PaddingMode padding_mode;
  bool channel_innermost;  // order of the reduction
  bool in_k_dense;         // load the image tile along the reduction (else along pixels)
  bool filter_k_dense;     // load the filter tile along the reduction (else along output channels)
  bool out_n_dense;        // write results along output channels (else along pixels)

  // Whether a pixel of the result collects what belongs to several positions.
  __device__ __forceinline__ bool folded() const { return dgrad && padding_mode != PaddingMode::kZeros; }
};

template <class Index>
struct AxisClass {
  Index first_out, out_step, outs;
  Index first_tap, tap_step, taps;
  Index first_in, in_per_out, in_per_tap;
};

template <class Index>
__device__ AxisClass<Index> axis_class(const GatherAxis<Index>& axis, Index index, bool dgrad, bool folded) {
  if (folded) return {0, 1, axis.out_extent, 0, 1, axis.taps, 0, 1, -axis.dilation};  // still to be divided by the stride
  if (!dgrad) return {0, 1, axis.out_extent, 0, 1, axis.taps, -axis.pad, axis.stride, axis.dilation};
  AxisClass<Index> c;
  c.first_out = index;
  c.out_step = axis.stride;
  c.outs = index < axis.out_extent ? (axis.out_extent - index - 1) / axis.stride + 1 : 0;
  const Index candidates = min(axis.tap_step, axis.taps);
  c.first_tap = 0;
  while (c.first_tap < candidates && (index + axis.pad - c.first_tap * axis.dilation) % axis.stride != 0) ++c.first_tap;
  const bool any = c.first_tap < candidates;
  c.tap_step = axis.tap_step;
  c.taps = any ? (axis.taps - 1 - c.first_tap) / axis.tap_step + 1 : 0;
  c.first_in = (index + axis.pad - c.first_tap * axis.dilation) / axis.stride;
  c.in_per_out = 1;
  c.in_per_tap = -(axis.tap_step * axis.dilation / axis.stride);
  return c;
}

// What a block works on; worked out by one thread.
template <class Index>
struct GatherBlock {
  AxisClass<Index> h, w;
  Index group, first_m, first_n, rows, reduction;
  FastDiv<Index> taps_w, inner;  // inner: channels if they are innermost, else taps
};

template <class Index>
__device__ GatherBlock<Index> locate_block(const GatherParams<Index>& p, int BM, int BN) {
  Index tile = Index(blockIdx.x);
  GatherBlock<Index> b;
  const bool folded = p.folded();
  b.first_n = tile % p.n_tiles * BN;
  tile /= p.n_tiles;
  b.group = tile % p.groups;
  tile /= p.groups;
  b.w = axis_class(p.w, tile % p.w.classes, p.dgrad, folded);
  tile /= p.w.classes;
  b.h = axis_class(p.h, tile % p.h.classes, p.dgrad, folded);
  b.first_m = tile / p.h.classes * BM;
  b.rows = p.batch * b.h.outs * b.w.outs;
  const Index taps = b.h.taps * b.w.taps;
  b.reduction = p.in_channels * taps;
  b.taps_w = FastDiv<Index>(b.w.taps);
  b.inner = FastDiv<Index>(p.channel_innermost ? p.in_channels : taps);
  return b;
}

template <class T, class Tile, class Index>
__global__ void __launch_bounds__(Tile::kThreads, 1) gather_kernel(const GatherParams<Index> p) {
  using Acc = Accumulator<T>;
  using Stages = TileStages<Tile, Acc>;
  CNN_SHARED(stages, Stages);
  CNN_SHARED(block, GatherBlock<Index>);
  CNN_SHARED(row_h, Index[Tile::BM]);  // source row and column of the first tap; far outside for rows that do not exist
  CNN_SHARED(row_w, Index[Tile::BM]);
  CNN_SHARED(row_in, Index[Tile::BM]);   // offset of (n, group's first channel) in the image
  CNN_SHARED(row_out, Index[Tile::BM]);  // offset of (n, row, column) in the output; -1 for rows that do not exist
  const int thread = int(threadIdx.x);
  constexpr Index kNowhere = -(Index(1) << (sizeof(Index) * 8 - 2));

  if (thread == 0) block = locate_block(p, Tile::BM, Tile::BN);
  __syncthreads();
  if (block.first_m >= block.rows) return;  // the smaller residue classes have fewer tiles

  for (int m = thread; m < Tile::BM; m += Tile::kThreads) {
    const Index row = block.first_m + m;
    const bool exists = row < block.rows;
    const Index i_w = exists ? row % block.w.outs : 0, rest = exists ? row / block.w.outs : 0;
    const Index i_h = rest % block.h.outs, n = rest / block.h.outs;
    row_h[m] = exists ? block.h.first_in + i_h * block.h.in_per_out : kNowhere;
    row_w[m] = block.w.first_in + i_w * block.w.in_per_out;
    row_in[m] = n * p.in_n + block.group * p.in_channels * p.in_c;
    row_out[m] = exists ? n * p.out_n + (block.h.first_out + i_h * block.h.out_step) * p.out_h +
                              (block.w.first_out + i_w * block.w.out_step) * p.out_w
                        : -1;
  }
  __syncthreads();

  const T* const in = static_cast<const T*>(p.in);
  const T* const filter = static_cast<const T*>(p.filter) + block.group * p.filter_group + block.first_n * p.filter_out;
  const Index reduction = block.reduction;
  const Index first_tap_h = block.h.first_tap, first_tap_w = block.w.first_tap, tap_step_h = block.h.tap_step,
              tap_step_w = block.w.tap_step;
  const Index in_per_tap_h = block.h.in_per_tap, in_per_tap_w = block.w.in_per_tap;
  const FastDiv<Index> inner = block.inner, taps_w = block.taps_w;
  const int filters_left = int(min(Index(Tile::BN), p.out_channels - block.first_n));

  struct Term {
    Index channel, tap_h, tap_w;  // taps count within the class
  };
  const auto term = [&](Index k) {
    Index low, tap_w;
    const Index high = inner.divmod(k, low);
    const Index tap = p.channel_innermost ? high : low;
    const Index tap_h = taps_w.divmod(tap, tap_w);
    return Term{p.channel_innermost ? low : high, tap_h, tap_w};
  };
  const auto read_image = [&](Index k, int m) {
    if (k >= reduction) return Acc(0);
    const Term t = term(k);
    Index h = row_h[m] + t.tap_h * in_per_tap_h, w = row_w[m] + t.tap_w * in_per_tap_w;
    if (p.padding_mode != PaddingMode::kZeros) {
      if (p.dgrad) {
        Index rest_h, rest_w;
        if (h < 0 || w < 0) return Acc(0);
        h = p.h.by_stride.divmod(h, rest_h), w = p.w.by_stride.divmod(w, rest_w);
        if (rest_h != 0 || rest_w != 0) return Acc(0);
      } else {
        h = source_pixel(p.padding_mode, h, p.h.in_extent), w = source_pixel(p.padding_mode, w, p.w.in_extent);
      }
    }
    if (h < 0 || h >= p.h.in_extent || w < 0 || w >= p.w.in_extent) return Acc(0);
    return Acc(widen(__ldg(in + row_in[m] + t.channel * p.in_c + h * p.in_h + w * p.in_w)));
  };
  const auto read_filter = [&](Index k, int n) {
    if (k >= reduction || n >= filters_left) return Acc(0);
    const Term t = term(k);
    return Acc(widen(__ldg(filter + n * p.filter_out + t.channel * p.filter_in + (first_tap_h + t.tap_h * tap_step_h) * p.filter_r +
                           (first_tap_w + t.tap_w * tap_step_w) * p.filter_s)));
  };

  Acc image_next[Tile::kLoadsM], filter_next[Tile::kLoadsN];
  const auto load = [&](Index k0) {
    for_each_load<Tile::BM, Tile::BK, Tile::kThreads>(p.in_k_dense, [&](int i, int m, int k) { image_next[i] = read_image(k0 + k, m); });
    for_each_load<Tile::BN, Tile::BK, Tile::kThreads>(p.filter_k_dense,
                                                      [&](int i, int n, int k) { filter_next[i] = read_filter(k0 + k, n); });
  };
  const auto store = [&](int stage) {
    for_each_load<Tile::BM, Tile::BK, Tile::kThreads>(p.in_k_dense, [&](int i, int m, int k) { stages.m[stage][k][m] = image_next[i]; });
    for_each_load<Tile::BN, Tile::BK, Tile::kThreads>(p.filter_k_dense,
                                                      [&](int i, int n, int k) { stages.n[stage][k][n] = filter_next[i]; });
  };

  Results<Tile, Acc> results;
  results.clear();
  const auto reduce = [&] {
    load(0);
    store(0);
    __syncthreads();
    int stage = 0;
    for (Index k0 = 0; k0 < reduction; k0 += Tile::BK) {
      const bool more = k0 + Tile::BK < reduction;
      if (more) load(k0 + Tile::BK);
      results.multiply(stages.m[stage], stages.n[stage]);
      stage ^= 1;
      if (more) store(stage);
      __syncthreads();
    }
  };
  const Index folds = p.folded() ? p.h.folds * p.w.folds : 1;
  for (Index fold = 0; fold < folds; ++fold) {
    if (p.folded()) {
      const Index fold_w = fold % p.w.folds, fold_h = fold / p.w.folds;
      bool any = false;
      for (int m = thread; m < Tile::BM; m += Tile::kThreads) {
        const Index row = block.first_m + m;
        if (row >= block.rows) continue;
        const Index i_w = row % block.w.outs, i_h = row / block.w.outs % block.h.outs;
        const Index h = position_of(p.padding_mode, i_h, block.h.outs, p.h.pad, p.h.after, fold_h, kNowhere);
        const Index w = position_of(p.padding_mode, i_w, block.w.outs, p.w.pad, p.w.after, fold_w, kNowhere);
        row_h[m] = h == kNowhere ? kNowhere : h + p.h.pad;
        row_w[m] = w == kNowhere ? kNowhere : w + p.w.pad;
        any |= h != kNowhere && w != kNowhere;
      }
      if (!__syncthreads_or(any)) continue;
    }
    reduce();
  }

  const Index first_channel = block.group * p.out_channels + block.first_n;
  T* const out = static_cast<T*>(p.out);
  write_results(results, &stages.m[0][0][0], p.out_n_dense, [&](int m, int n, Acc value) {
    if (row_out[m] < 0 || n >= filters_left) return;
    T* const to = out + row_out[m] + (first_channel + n) * p.out_c;
    *to = finish(p.epilogue, to, narrow<T>(per_channel<T>(p.epilogue, first_channel + n)(value)));
  });
}

}  // namespace cnn::conv2d
