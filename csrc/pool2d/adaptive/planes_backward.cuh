// Adaptive pooling's gradient in dense planes (NCHW): 16-byte stores along the result.
//
//   mean     gradient of x(h, w) = sum over the windows that hold (h, w) of (gradient of y / rows / columns of the window)
//   maximum  gradient of x(h, w) = sum of the gradients of those of them whose index is h * W + w
//
// The result is one run of N * C * H * W elements. A thread takes 16 bytes of it at a time, wherever rows and planes end in them, and a
// block `stores` x 256 of these:
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

struct PlanesBackwardParams {
  GradientParams<int32_t> gradient;
  void* x;
  FastDiv<int32_t> plane, width, channels;  // H * W, W, C
  int32_t elements;
  int32_t stores;  // of a thread
};

template <class Gradient>
__global__ void __launch_bounds__(kAdaptiveThreads, 3) adaptive_planes_backward_kernel(const PlanesBackwardParams p) {
  using T = typename Gradient::T;
  constexpr int N = kAdaptiveVector<T>;
  const int32_t block = int32_t(blockIdx.x) * (p.stores * int32_t(blockDim.x) * N);
  Gradient gradient(p.gradient, 0, 0, 1);
  Cell<int32_t> cell{};  // holds nothing
  int32_t plane_entered = -1;
  for (int32_t store = 0; store < p.stores; ++store) {
    const int32_t first = block + (store * int32_t(blockDim.x) + int32_t(threadIdx.x)) * N;
    if (first >= p.elements) return;
    const int32_t count = min(N, p.elements - first);
    int32_t pixel, row = 0;
    int32_t plane = p.plane.divmod(first, pixel);
    int32_t column = pixel;
    if (p.width.divisor < p.plane.divisor) row = p.width.divmod(pixel, column);

    // What lies in one cell and row at a time: elements [done, until) of the N.
    Vector<T, N> values{};
    for (int32_t done = 0; done < count;) {
      const bool same_cell = cell.holds(row, column), same_plane = plane == plane_entered;
      if (!same_cell) cell = Cell<int32_t>(p.gradient, row, column);
      if (!same_plane) {
        int32_t c;
        const int32_t n = p.channels.divmod(plane, c);
        gradient.move_to(p.gradient, n, c);
        plane_entered = plane;
      }
      if (!same_cell || !same_plane) gradient.enter(cell);
      const int32_t until = min(count, done + cell.columns.end - column);
      gradient.fill(values, done, until, cell, pixel - done);
      // On to what follows: this row, the next one, or the next plane's first.
      pixel += until - done, column += until - done;
      done = until;
      if (column == p.width.divisor) column = 0, ++row;
      if (pixel == p.plane.divisor) pixel = row = 0, ++plane;
    }

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
