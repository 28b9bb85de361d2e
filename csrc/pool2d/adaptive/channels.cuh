// Adaptive pooling forward, a thread to the pixels of N neighbouring channels: right for every layout and size, and made for channels_last,
// where the N channels are one 16-byte access.
//
//   y[n, c, p, q] = mean or maximum of x[n, c, h, w] over h_begin(p) <= h < h_end(p), w_begin(q) <= w < w_end(q)
//
// Tile: `outputs` windows x `lanes` vectors of channels, each window read by `readers` threads.
//
//     pixels of one window, row by row      a pixel: lanes x 16 bytes, side by side for the lanes of a warp
//       0 1 2 3 0 1 2 3 0 1 2 3 ...         |lane 0|lane 1|lane 2| ...
//       ^ reader: takes every `readers`-th
//
// A reader keeps N sums or maxima in registers; a tree in shared memory merges the readers of a window, in an order that the plan fixes.
// Where there are few windows and channels, a window is cut into `parts` for as many blocks, and merge_parts.cuh has the second stage. Is
// the image one window of an unbroken run of pixels, the host states it as one row, so that no row ends in between.
//
// Loads in flight: kInFlight of 16 bytes per thread, 16 KB per block of 256.
// Bytes per result: the window once, and y. Operations per 16 bytes read, N values: N conversions and additions (maximum: N conversions, 2
// N comparisons, 2 N selections) and some 10 for the walk. Offsets have 64 bits: two instructions more per 16 bytes, and no tensor is too
// large. Where channels are not dense or a vector is not aligned, the N values are N accesses, and threads are laid along the pixels.
#pragma once

#include "common/launch.h"
#include "pool2d/adaptive/adaptive.h"
#include "pool2d/adaptive/merge_parts.cuh"
#include "pool2d/adaptive/reduction.cuh"
#include "pool2d/adaptive/windows.cuh"

namespace cnn::pool2d {

// Where a tensor's elements lie, in elements.
struct Place {
  int64_t n, c, h, w;
  bool vector;  // N channels of a pixel are contiguous and aligned, and C is a multiple of N
};

// How a block's threads are laid over its work.
struct ThreadMap {
  FastDiv<int32_t> lanes, items;  // vectors of channels; outputs or pixels
  int32_t readers_log2;           // threads that share an item
  bool channels_inner;            // (item, reader, lane), else (lane, item, reader)

  struct At {
    int32_t lane, reader, item;
    bool exists;
  };
  __device__ __forceinline__ At at(int32_t thread) const {
    At at;
    const int32_t readers = 1 << readers_log2;
    if (channels_inner) {
      const int32_t rest = lanes.divmod(thread, at.lane);
      at.reader = rest & (readers - 1), at.item = rest >> readers_log2;
      at.exists = at.item < items.divisor;
    } else {
      at.reader = thread & (readers - 1);
      at.lane = items.divmod(thread >> readers_log2, at.item);
      at.exists = at.lane < lanes.divisor;
    }
    return at;
  }
  // From a thread to the same lane's and item's next reader.
  __device__ __forceinline__ int32_t reader_step() const { return channels_inner ? lanes.divisor : 1; }
};

template <class State>
struct ChannelsParams {
  const void* x;
  void* y;
  int64_t* index;
  Partials<State> partials;  // where parts > 1
  Place x_at, y_at, index_at;
  Windows<int64_t> h, w;  // P windows over H, Q over W
  int64_t channels;
  FastDiv<int32_t> groups, tiles, parts;  // of channels, of outputs, of windows: what a block's number is made of
  ThreadMap threads;
};

// N channels of one pixel. Channels behind the last, where the values are N accesses, read as 0 and are never written.
template <int N, bool kVector, class T>
__device__ __forceinline__ Vector<T, N> read_channels(const T* from, int64_t step, int32_t count) {
  Vector<T, N> values;
  if constexpr (kVector) {
    values = load_vector<N>(from);
  } else {
    CNN_UNROLL
    for (int i = 0; i < N; ++i) values.value[i] = i < count ? __ldg(from + i * step) : narrow<T>(Accumulator<T>(0));
  }
  return values;
}

template <int N, class T>
__device__ __forceinline__ void write_channels(T* to, const Place& place, int32_t count, const Vector<T, N>& values) {
  if (place.vector) {
    *reinterpret_cast<Vector<T, N>*>(to) = values;
  } else {
    CNN_UNROLL
    for (int i = 0; i < N; ++i)
      if (i < count) to[i * place.c] = values.value[i];
  }
}

// Takes `count` pixels of the walk. `x` is the window's first one.
template <int N, bool kVector, class State>
__device__ CNN_INNER_LOOP void take_pixels(State (&states)[N], const typename State::T* x, int64_t channel_step, int32_t channels,
                                           Walk<int64_t> walk, int64_t count) {
  using T = typename State::T;
  constexpr int kInFlight = kVector ? 4 : 1;
  const auto take = [&](int batch) {  // as many of kInFlight pixels
    Vector<T, N> values[kInFlight]{};
    int32_t numbers[kInFlight];
    CNN_UNROLL
    for (int i = 0; i < kInFlight; ++i) {
      numbers[i] = walk.number;
      if (i < batch) values[i] = read_channels<N, kVector>(x + walk.at, channel_step, channels);
      walk.advance();
    }
    CNN_UNROLL
    for (int i = 0; i < kInFlight; ++i) {
      if (i < batch) {
        CNN_UNROLL
        for (int c = 0; c < N; ++c) states[c].take(values[i].value[c], numbers[i]);
      }
    }
  };
  for (; count >= kInFlight; count -= kInFlight) take(kInFlight);
  if (count > 0) take(int(count));
}

template <class State>
__global__ void __launch_bounds__(kAdaptiveThreads, State::kIndices ? 2 : 3) adaptive_channels_kernel(const ChannelsParams<State> p) {
  using T = typename State::T;
  constexpr int N = kAdaptiveVector<T>;
  using Shelves = StateShelf<State, N, kAdaptiveThreads>;
  CNN_SHARED(shelf, Shelves);
  const int32_t thread = int32_t(threadIdx.x);

  int32_t group, tile, part;
  const int64_t n = p.parts.divmod(p.tiles.divmod(p.groups.divmod(int32_t(blockIdx.x), group), tile), part);
  const ThreadMap::At mine = p.threads.at(thread);
  const int64_t channel = (int64_t(group) * p.threads.lanes.divisor + mine.lane) * N;
  const int32_t channels = int32_t(min(int64_t(N), p.channels - channel));
  const int64_t output = int64_t(tile) * p.threads.items.divisor + mine.item;
  const bool exists = mine.exists && channels > 0 && output < p.h.targets * p.w.targets;

  // Load and reduce.
  const int64_t row = exists ? quotient_of(output, p.w.targets) : 0, column = exists ? output - row * p.w.targets : 0;
  const int64_t h = p.h.begin(row), rows = p.h.end(row) - h, w = p.w.begin(column), columns = p.w.end(column) - w;
  State states[N];
  CNN_UNROLL
  for (int c = 0; c < N; ++c) states[c].clear();
  if (exists) {
    int64_t first = 0, end = rows * columns;
    if (p.parts.divisor > 1) {
      const int64_t each = quotient_of(end + p.parts.divisor - 1, int64_t(p.parts.divisor));
      first = min(part * each, end), end = min(first + each, end);
    }
    const int32_t readers = 1 << p.threads.readers_log2;
    const int64_t count = (end - first - mine.reader + readers - 1) >> p.threads.readers_log2;
    const Walk<int64_t> walk(columns, first + mine.reader, readers, p.x_at.h, p.x_at.w, p.w.sources);
    const T* const x = static_cast<const T*>(p.x) + n * p.x_at.n + channel * p.x_at.c + h * p.x_at.h + w * p.x_at.w;
    if (p.x_at.vector) take_pixels<N, true>(states, x, p.x_at.c, channels, walk, count);
    else take_pixels<N, false>(states, x, p.x_at.c, channels, walk, count);
  }

  // Merge the readers.
  if (p.threads.readers_log2 > 0) {
    const int32_t step = p.threads.reader_step();
    shelf.put(thread, states);
    for (int32_t half = 1 << (p.threads.readers_log2 - 1); half > 0; half /= 2) {
      __syncthreads();
      if (mine.exists && mine.reader < half) {
        State other[N];
        shelf.get(thread + half * step, other);
        CNN_UNROLL
        for (int c = 0; c < N; ++c) states[c].merge(other[c]);
        if (half > 1) shelf.put(thread, states);
      }
    }
  }
  if (!exists || mine.reader > 0) return;

  // Store.
  if (p.parts.divisor > 1) {
    const int64_t result = (n * p.h.targets * p.w.targets + output) * p.channels + channel;
    CNN_UNROLL
    for (int c = 0; c < N; ++c)
      if (c < channels) p.partials.put(part, result + c, states[c]);
    return;
  }
  Vector<T, N> values;
  CNN_UNROLL
  for (int c = 0; c < N; ++c) values.value[c] = states[c].result(rows, columns);
  T* const y = static_cast<T*>(p.y) + n * p.y_at.n + channel * p.y_at.c + row * p.y_at.h + column * p.y_at.w;
  write_channels<N>(y, p.y_at, channels, values);
  if constexpr (State::kIndices) {
    Vector<int64_t, N> indices;
    CNN_UNROLL
    for (int c = 0; c < N; ++c) indices.value[c] = h * p.w.sources + w + states[c].number;
    write_channels<N>(p.index + n * p.index_at.n + channel * p.index_at.c + row * p.index_at.h + column * p.index_at.w, p.index_at,
                      channels, indices);
  }
}

}  // namespace cnn::pool2d
