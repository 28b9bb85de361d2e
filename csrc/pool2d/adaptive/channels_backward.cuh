// Adaptive pooling's gradient, a thread to the pixels of N neighbouring channels: right for every layout and size, and made for
// channels_last, where the N channels are one 16-byte store.
//
//   mean     gradient of x(h, w) = sum over the windows that hold (h, w) of (gradient of y / rows / columns of the window)
//   maximum  gradient of x(h, w) = sum of the gradients of those of them whose index is h * W + w
//
// in row-major order of the windows. Which they are is known in closed form (windows.cuh). Neighbouring pixels mostly lie in the same
// windows, a cell of the plane: a thread reads and divides gradients once per cell that it enters.
//
// Tile: `items` pixels x `lanes` vectors of channels; a thread has every `readers`-th of its tile's pixels, row by row, so that a warp
// writes what lies side by side. Is the image one window, the host states it as one row: then a thread enters one cell, and stores.
//
// Bytes per result: one store; gradients (maximum: and 8 bytes of index) once per cell and thread, which L1 has from its neighbours.
// Nothing is zeroed before, nothing added to memory. Offsets have 64 bits.
#pragma once

#include "pool2d/adaptive/cell.cuh"
#include "pool2d/adaptive/channels.cuh"

namespace cnn::pool2d {

struct ChannelsBackwardParams {
  GradientParams<int64_t> gradient;
  void* x;
  Place x_at;
  int64_t channels, tile_pixels;
  FastDiv<int32_t> groups, tiles;
  ThreadMap threads;  // one item
};

template <class Gradient>
__global__ void __launch_bounds__(kAdaptiveThreads, 2) adaptive_channels_backward_kernel(const ChannelsBackwardParams p) {
  using T = typename Gradient::T;
  constexpr int N = Gradient::kChannels;
  int32_t group, tile;
  const int64_t n = p.tiles.divmod(p.groups.divmod(int32_t(blockIdx.x), group), tile);
  const ThreadMap::At mine = p.threads.at(int32_t(threadIdx.x));
  const int64_t channel = (int64_t(group) * p.threads.lanes.divisor + mine.lane) * N;
  const int32_t channels = int32_t(min(int64_t(N), p.channels - channel));
  if (!mine.exists || channels <= 0) return;

  const int64_t width = p.gradient.w.backward.targets, pixels = p.gradient.h.backward.targets * width;
  const int64_t first = int64_t(tile) * p.tile_pixels + mine.reader, end = min((int64_t(tile) + 1) * p.tile_pixels, pixels);
  const int32_t readers = 1 << p.threads.readers_log2;
  Walk<int64_t> walk(width, first, readers, p.x_at.h, p.x_at.w, width);
  int64_t row = quotient_of(first, width);
  const int64_t step_rows = quotient_of(int64_t(readers), width);
  T* const x = static_cast<T*>(p.x) + n * p.x_at.n + channel * p.x_at.c;

  Gradient gradient(p.gradient, n, channel, channels);
  Cell<int64_t> cell{};
  for (int64_t pixel = first; pixel < end; pixel += readers) {
    if (!cell.holds(row, walk.column)) {
      cell = Cell<int64_t>(p.gradient, row, walk.column);
      gradient.enter(cell);
    }
    write_channels<N>(x + walk.at, p.x_at, channels, gradient.at(cell, pixel));
    const int64_t column = walk.column;
    walk.advance();
    row += step_rows + (walk.column - column != walk.step_columns);
  }
}

}  // namespace cnn::pool2d
