// The derivative of max pooling's gradient, and max pooling's own forward derivative: x at the saved indices.
//
//   y[n, c, p, q] = x[n, c, .] at the pixel of the index; 0 where that lies in no image (a window that no pixel is in has one)
//
// No shared memory: nothing is read twice. A block takes kGatherThreads * kGatherResults consecutive results in the target's memory
// order, a thread every kGatherThreads-th, so that indices are read and results written coalesced, and a thread's reads of x, which
// follow the windows, are all in flight together.
// Bytes per result: 1 or 8 of index, one element of x (as many sectors as its window's neighbours leave), one of y.
#pragma once

#include "common/fastdiv.h"
#include "common/launch.h"
#include "common/types.h"
#include "pool2d/direct/window.cuh"

namespace cnn::pool2d {

template <class Index>
struct GatherParams {
  const void* x;
  const void* index;
  void* out;
  // The result's dimensions from the outermost, n, to the innermost: (p, q, c) or (c, p, q), whichever is dense.
  FastDiv<Index> extent1, extent2, extent3;
  Index x_step[4], index_step[4], out_step[4];  // x_step of p and q is 0
  bool channels_inner;                          // (p, q, c)
  IndexForm index_form;
  Axis<Index> h, w;
  Index x_h, x_w;
  FastDiv<Index> image_columns, window_columns;  // W, S
  Index results;
};

template <class T, class Index>
__global__ void __launch_bounds__(kGatherThreads, 1) gather_kernel(const GatherParams<Index> p) {
  const Index first = Index(blockIdx.x) * (kGatherThreads * kGatherResults) + Index(threadIdx.x);
  const bool flat = p.index_form == IndexForm::kFlat;
  const auto steps = [](const Index(&step)[4], Index n, Index i1, Index i2, Index i3) {
    return n * step[0] + i1 * step[1] + i2 * step[2] + i3 * step[3];
  };

  int64_t index[kGatherResults];
  Index x_at[kGatherResults], out_at[kGatherResults], top[kGatherResults], left[kGatherResults];  // of the window: its tap 0
  CNN_UNROLL
  for (int i = 0; i < kGatherResults; ++i) {
    const Index result = first + i * kGatherThreads;
    index[i] = -1, top[i] = left[i] = 0;
    if (result >= p.results) continue;
    Index i1, i2, i3;
    const Index n = p.extent1.divmod(p.extent2.divmod(p.extent3.divmod(result, i3), i2), i1);
    out_at[i] = steps(p.out_step, n, i1, i2, i3);
    x_at[i] = steps(p.x_step, n, i1, i2, i3);
    top[i] = p.h.pixel(p.channels_inner ? i1 : i2, 0);
    left[i] = p.w.pixel(p.channels_inner ? i2 : i3, 0);
    const Index index_at = steps(p.index_step, n, i1, i2, i3);
    index[i] = flat ? __ldg(static_cast<const int64_t*>(p.index) + index_at) : __ldg(static_cast<const uint8_t*>(p.index) + index_at);
  }
  T value[kGatherResults];
  CNN_UNROLL
  for (int i = 0; i < kGatherResults; ++i) {
    value[i] = narrow<T>(Accumulator<T>(0));
    if (index[i] < 0 || (flat && index[i] >= int64_t(p.h.image) * p.w.image)) continue;
    Index row, column;
    if (flat) {
      row = p.image_columns.divmod(Index(index[i]), column);
    } else {
      row = top[i] + p.window_columns.divmod(Index(index[i]), column) * p.h.dilation.divisor;
      column = left[i] + column * p.w.dilation.divisor;
      if (row < 0 || row >= p.h.image || column < 0 || column >= p.w.image) continue;
    }
    value[i] = __ldg(static_cast<const T*>(p.x) + x_at[i] + row * p.x_h + column * p.x_w);
  }
  CNN_UNROLL
  for (int i = 0; i < kGatherResults; ++i)
    if (first + i * kGatherThreads < p.results) static_cast<T*>(p.out)[out_at[i]] = value[i];
}

}  // namespace cnn::pool2d
