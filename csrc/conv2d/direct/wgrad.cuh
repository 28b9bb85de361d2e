// Direct convolution, wgrad.
//
//   w[k, c, r, s] = sum over n, p, q of  y[n, k, p, q] * x[n, c, p * stride - pad + r * dilation, (alike)]
//
// Tile (tile.cuh): m runs over the filters k of one group, n over the filter's elements (c, r, s), the reduction over the output
// pixels (n, p, q). The reduction is long and the result small, so it is cut into slabs: each block sums one slab, writes its
// partial sums [slab][k][element] in the accumulator's type, and sum_slabs (conv2d/sum_slabs) adds the slabs in order. The number of slabs
// depends on the problem alone, so the result has the same bits on every run, stream and GPU. A single slab is written directly. Traffic
// per block: BM * L + BN * L elements for BM * BN * L FMAs, L = pixels of the slab.
#pragma once

#include "common/fastdiv.h"
#include "common/launch.h"
#include "conv2d/direct/direct.h"
#include "conv2d/direct/padding.cuh"
#include "conv2d/direct/tile.cuh"

namespace cnn::conv2d {

// How a filter's elements are numbered and where they lie.
template <class Index>
struct FilterOrder {
  bool channel_innermost;       // (r, s, c), else (c, r, s)
  FastDiv<Index> inner, width;  // inner: channels if innermost, else R * S; width: S
  Index k, c, r, s;             // element strides in memory

  struct Element {
    Index c, r, s;
  };
  __device__ __forceinline__ Element element(Index index) const {
    Index low, s_;
    const Index high = inner.divmod(index, low);
    const Index r_ = width.divmod(channel_innermost ? high : low, s_);
    return {channel_innermost ? low : high, r_, s_};
  }
  __device__ __forceinline__ Index offset(const Element& e) const { return e.c * c + e.r * r + e.s * s; }
};

template <class Index>
struct WgradParams {
  const void *x, *y;
  void* w;
  void* partial;             // [slabs][K][elements]; null: one slab, written to w
  Index x_n, x_c, x_h, x_w;  // element strides
  Index y_n, y_c, y_h, y_w;
  FilterOrder<Index> filter;
  Index channels, filters, elements;  // per group: C, K; elements = channels * R * S
  Index groups;
  Index height, width;
  PaddingMode padding_mode;
  Index stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  FastDiv<Index> q, pq;  // output columns, output pixels of an image
  Index pixels, slab_pixels;
  Index m_tiles, n_tiles;
  bool y_k_dense;  // load y along the pixels (else along its channels)
  bool x_k_dense;  // load x along the pixels (else along the filter's elements)
};

template <class T, class Tile, class Index>
__global__ void __launch_bounds__(Tile::kThreads, 1) wgrad_kernel(const WgradParams<Index> p) {
  using Acc = Accumulator<T>;
  using Stages = TileStages<Tile, Acc>;
  CNN_SHARED(stages, Stages);
  CNN_SHARED(element_x, Index[Tile::BN]);  // offset of the element's channel in x
  CNN_SHARED(element_h, Index[Tile::BN]);  // where its tap looks, relative to p * stride
  CNN_SHARED(element_w, Index[Tile::BN]);
  const int thread = int(threadIdx.x);

  Index tile = Index(blockIdx.x);
  const Index first_element = tile % p.n_tiles * Tile::BN;
  tile /= p.n_tiles;
  const Index first_filter = tile % p.m_tiles * Tile::BM;
  tile /= p.m_tiles;
  const Index group = tile % p.groups, slab = tile / p.groups;
  const Index first_pixel = slab * p.slab_pixels;
  const Index last_pixel = min(first_pixel + p.slab_pixels, p.pixels);
  const int filters_left = int(min(Index(Tile::BM), p.filters - first_filter));
  const int elements_left = int(min(Index(Tile::BN), p.elements - first_element));

  for (int n = thread; n < Tile::BN; n += Tile::kThreads) {
    const auto e = p.filter.element(n < elements_left ? first_element + n : first_element);
    element_x[n] = (group * p.channels + e.c) * p.x_c;
    element_h[n] = e.r * p.dilation_h - p.pad_h;
    element_w[n] = e.s * p.dilation_w - p.pad_w;
  }
  __syncthreads();

  const T* const x = static_cast<const T*>(p.x);
  const T* const y = static_cast<const T*>(p.y) + (group * p.filters + first_filter) * p.y_c;

  struct Pixel {
    Index n, p, q;
  };
  const auto pixel = [&](Index index) {
    Index in_image, column;
    const Index n = p.pq.divmod(index, in_image);
    const Index row = p.q.divmod(in_image, column);
    return Pixel{n, row, column};
  };
  const auto read_y = [&](Index index, int m) {
    if (index >= last_pixel || m >= filters_left) return Acc(0);
    const Pixel at = pixel(index);
    return Acc(widen(__ldg(y + at.n * p.y_n + m * p.y_c + at.p * p.y_h + at.q * p.y_w)));
  };
  const auto read_x = [&](Index index, int n) {
    if (index >= last_pixel || n >= elements_left) return Acc(0);
    const Pixel at = pixel(index);
    Index h = at.p * p.stride_h + element_h[n], w = at.q * p.stride_w + element_w[n];
    if (p.padding_mode != PaddingMode::kZeros) h = source_pixel(p.padding_mode, h, p.height), w = source_pixel(p.padding_mode, w, p.width);
    if (h < 0 || h >= p.height || w < 0 || w >= p.width) return Acc(0);
    return Acc(widen(__ldg(x + at.n * p.x_n + element_x[n] + h * p.x_h + w * p.x_w)));
  };

  Acc y_next[Tile::kLoadsM], x_next[Tile::kLoadsN];
  const auto load = [&](Index k0) {
    for_each_load<Tile::BM, Tile::BK, Tile::kThreads>(p.y_k_dense, [&](int i, int m, int k) { y_next[i] = read_y(k0 + k, m); });
    for_each_load<Tile::BN, Tile::BK, Tile::kThreads>(p.x_k_dense, [&](int i, int n, int k) { x_next[i] = read_x(k0 + k, n); });
  };
  const auto store = [&](int stage) {
    for_each_load<Tile::BM, Tile::BK, Tile::kThreads>(p.y_k_dense, [&](int i, int m, int k) { stages.m[stage][k][m] = y_next[i]; });
    for_each_load<Tile::BN, Tile::BK, Tile::kThreads>(p.x_k_dense, [&](int i, int n, int k) { stages.n[stage][k][n] = x_next[i]; });
  };

  Results<Tile, Acc> results;
  results.clear();
  load(first_pixel);
  store(0);
  __syncthreads();
  int stage = 0;
  for (Index k0 = first_pixel; k0 < last_pixel; k0 += Tile::BK) {
    const bool more = k0 + Tile::BK < last_pixel;
    if (more) load(k0 + Tile::BK);
    results.multiply(stages.m[stage], stages.n[stage]);
    stage ^= 1;
    if (more) store(stage);
    __syncthreads();
  }

  const Index first_k = group * p.filters + first_filter;
  T* const w = static_cast<T*>(p.w);
  Acc* const partial = static_cast<Acc*>(p.partial);
  write_results(results, &stages.m[0][0][0], true, [&](int m, int n, Acc value) {
    if (m >= filters_left || n >= elements_left) return;
    if (partial) {
      partial[(slab * p.groups * p.filters + first_k + m) * p.elements + first_element + n] = value;
    } else {
      w[(first_k + m) * p.filter.k + p.filter.offset(p.filter.element(first_element + n))] = narrow<T>(value);
    }
  });
}

}  // namespace cnn::conv2d
