// Adaptive pooling's gradient in dense planes (NCHW): 16-byte stores along the result.
//
//   mean     gradient of x(h, w) = sum over the windows that hold (h, w) of (gradient of y / rows / columns of the window)
//   maximum  gradient of x(h, w) = sum of the gradients of those of them whose index is h * W + w
//
// The result is one run of N * C * H * W elements. A thread takes 16 bytes of it at a time, wherever rows and planes end in them, and a
// block kStoresPerThread x 256 of these:
//
//     plane 0: h0 w0 w1 w2 w3 w4 w5 w6 h1 w0 ...      7 x 7 elements of bf16
//             |----- 8 elements ----|----- 8 elements ----| ...
//
// Pixels of one cell (cell.cuh) have the same windows: a thread reads and divides gradients when it enters a cell. Is the image one window,
// the host states it as one row, and a thread enters a cell per plane.
//
// Bytes per result: one store; gradients (maximum: and indices) once per cell and thread, which L1 has from its neighbours. Nothing is
// zeroed before, nothing added to memory. 32-bit offsets.
#pragma once

#include "common/launch.h"
#include "pool2d/adaptive/adaptive.h"
#include "pool2d/adaptive/cell.cuh"

namespace cnn::pool2d {

constexpr int kStoresPerThread = 4;

struct PlanesBackwardParams {
  GradientParams<int32_t> gradient;
  void* x;
  FastDiv<int32_t> plane, width, channels;  // H * W, W, C
  int32_t elements;
};

template <class T, bool kMaximum>
__global__ void __launch_bounds__(kAdaptiveThreads, 4) adaptive_planes_backward_kernel(const PlanesBackwardParams p) {
  using Acc = Accumulator<T>;
  using Index = int32_t;
  constexpr int N = kAdaptiveVector<T>;
  const auto& at = p.gradient;
  const Index block = Index(blockIdx.x) * (kStoresPerThread * Index(blockDim.x) * N);
  Span<Index> rows{}, columns{};  // of no pixel
  for (int store = 0; store < kStoresPerThread; ++store) {
    const Index first = block + (store * Index(blockDim.x) + Index(threadIdx.x)) * N;
    if (first >= p.elements) return;
    const int count = int(min(Index(N), p.elements - first));
    Index pixel, column, c;
    Index n = p.channels.divmod(p.plane.divmod(first, pixel), c), row = p.width.divmod(pixel, column);

    Acc sums[N];
    CNN_UNROLL
    for (int i = 0; i < N; ++i) sums[i] = Acc(0);
    // A part of a row that lies in one cell at a time: elements [done, until) of the N.
    for (int done = 0; done < count;) {
      if (row < rows.begin || row >= rows.end) rows = Span<Index>(at.h, row);
      if (column < columns.begin || column >= columns.end) columns = Span<Index>(at.w, column);
      const int until = int(min(Index(count), done + columns.end - column));
      const Index shift = pixel - done;  // from an element to its pixel
      for (Index p_row = rows.first; p_row <= rows.last; ++p_row) {
        for (Index q = columns.first; q <= columns.last; ++q) {
          Acc gradient = widen(__ldg(static_cast<const T*>(at.y) + n * at.y_at.n + c * at.y_at.c + p_row * at.y_at.h + q * at.y_at.w));
          if constexpr (kMaximum) {
            const int64_t index = __ldg(at.index + n * at.index_at.n + c * at.index_at.c + p_row * at.index_at.h + q * at.index_at.w);
            CNN_UNROLL
            for (int i = 0; i < N; ++i)
              if (i >= done && i < until && index == shift + i) sums[i] += gradient;
          } else {
            gradient /= Acc(at.h.forward.extent(p_row) * at.w.forward.extent(q));
            CNN_UNROLL
            for (int i = 0; i < N; ++i)
              if (i >= done && i < until) sums[i] += gradient;
          }
        }
      }
      // On to what follows: this row, the next one, or the next plane's first.
      pixel += until - done, column += until - done;
      done = until;
      if (column == p.width.divisor) column = 0, ++row;
      if (pixel == p.plane.divisor) {
        pixel = row = 0;
        if (++c == p.channels.divisor) c = 0, ++n;
      }
    }

    Vector<T, N> values;
    CNN_UNROLL
    for (int i = 0; i < N; ++i) values.value[i] = narrow<T>(sums[i]);
    T* const x = static_cast<T*>(p.x) + first;
    if (count == N) {
      *reinterpret_cast<Vector<T, N>*>(x) = values;
    } else {
      CNN_UNROLL
      for (int i = 0; i < N; ++i)
        if (i < count) x[i] = values.value[i];
    }
  }
}

}  // namespace cnn::pool2d
