// Adaptive pooling forward of dense planes (NCHW): 16-byte reads along the plane.
//
//   y[n, c, p, q] = mean or maximum of x[n, c, h, w] over h_begin(p) <= h < h_end(p), w_begin(q) <= w < w_end(q)
//
// Two ways, which the plan chooses by the size of what a block has to read:
//
// staged    A block takes several whole planes, or a band of one plane's rows: one unbroken run of elements, wherever planes begin.
//           cp.async brings it to shared memory, 16 bytes at a time, with its first elements at their place within 16 bytes; a run's ragged
//           head is read by elements. `readers` lanes share a window, each takes every `readers`-th of its pixels, row by row, and shuffles
//           merge them.
//
//               memory   . . .|x x x x x x x x|x x x x x x x x|x x x . .       | 16-byte borders
//               stage    . . .|plane 0: 49 elements .... plane 1 .....         the same, from the border before the first element
//
//           One window per plane: a warp's groups of readers do not take neighbouring planes but planes `spread` apart, so that the banks
//           they read are apart as well; the block's results go through shared memory, to be written side by side.
//
// streamed  One window per plane, and a plane is long: `readers` threads, a warp to a block, read it straight into registers, 16 bytes
// each,
//           with its ragged ends by elements. Few planes: each is cut into `parts` for as many blocks (merge_parts.cuh).
//
// In flight: the whole stage of each resident block, some 100 KB a multiprocessor; streamed, kInFlight accesses of 16 bytes per thread.
// Bytes per result: its window once (a band of rows: windows that overlap share a row with the next band), y. Operations per value: staged
// a 2- or 4-byte read of shared memory, conversion, addition and some two for the walk; streamed, conversion and addition. 32-bit offsets.
#pragma once

#include "common/async_copy.h"
#include "common/launch.h"
#include "pool2d/adaptive/adaptive.h"
#include "pool2d/adaptive/merge_parts.cuh"
#include "pool2d/adaptive/reduction.cuh"
#include "pool2d/adaptive/windows.cuh"

namespace cnn::pool2d {

template <class State>
struct PlanesParams {
  const void* x;
  void* y;
  int64_t* index;
  Partials<State> partials;  // where parts > 1
  Windows<int32_t> h, w;     // P windows over H, Q over W
  int32_t plane;             // H * W, from one plane to the next
  FastDiv<int32_t> run;      // planes that follow each other, from one such run to the next:
  int32_t run_step;
  FastDiv<int32_t> channels;
  int32_t y_step[4], index_step[4];  // n, c, p, q
  int32_t planes;                    // N * C
  int32_t readers_log2;
  bool streamed;
  FastDiv<int32_t> parts;  // streamed: of a plane; staged: bands of a plane
  int32_t part_elements;   // streamed
  // Staged:
  FastDiv<int32_t> tiles;  // of a run
  int32_t tile_planes;
  int32_t band_rows;                  // of windows
  FastDiv<int32_t> windows, columns;  // of a plane's band; of a row
  int32_t spread_log2;
};

constexpr int kMostTilePlanes = kAdaptiveThreads;  // of one window each
// Where a plane's result waits: results of planes 16 apart are in different banks.
__device__ __forceinline__ int32_t result_slot(int32_t plane) { return plane + plane / 32; }
constexpr int kResultSlots = kMostTilePlanes + kMostTilePlanes / 32;

// One window: its place among the results, its pixels.
struct Window {
  int32_t plane, row, column;
  int32_t h, w, rows, columns;
};

template <class State>
__device__ __forceinline__ void write_window(const PlanesParams<State>& p, const Window& window, const State& state) {
  int32_t c;
  const int32_t n = p.channels.divmod(window.plane, c);
  const auto at = [&](const int32_t (&step)[4]) { return n * step[0] + c * step[1] + window.row * step[2] + window.column * step[3]; };
  static_cast<typename State::T*>(p.y)[at(p.y_step)] = state.result(window.rows, window.columns);
  if constexpr (State::kIndices) p.index[at(p.index_step)] = window.h * p.w.sources + window.w + state.number;
}

// Elements from `from` to the next 16-byte border.
template <class T>
__device__ __forceinline__ int32_t to_border(const T* from) {
  return int32_t((-reinterpret_cast<std::intptr_t>(from) & 15) / int32_t(sizeof(T)));
}

// Copies `count` elements so that from[i] comes to stage[i + lead], where lead < N puts 16-byte borders on 16-byte borders; returns it.
template <class T>
__device__ __forceinline__ int32_t stage_run(T* stage, const T* from, int32_t count) {
  constexpr int N = kAdaptiveVector<T>;
  const int32_t thread = int32_t(threadIdx.x), head = to_border(from), lead = (N - head) % N;
  if (thread < min(head, count)) stage[lead + thread] = from[thread];
  for (int32_t i = head + thread * N; i < count; i += int32_t(blockDim.x) * N)
    copy_async<16>(stage + lead + i, from + i, min(N, count - i) * int32_t(sizeof(T)));
  commit_async();
  wait_async<0>();
  __syncthreads();
  return lead;
}

// A window of the stage. `x` is its first pixel, `reader` takes every `readers`-th from its own on.
template <class State>
__device__ CNN_INNER_LOOP void take_staged(State& state, const typename State::T* x, int32_t rows, int32_t columns, int32_t width,
                                           int32_t reader, int32_t readers_log2) {
  constexpr int kInFlight = 4;
  const int32_t readers = 1 << readers_log2, pixels = rows * columns;
  if (rows == 1 || columns == width) {  // its rows follow each other
    int32_t number = reader;
    for (; number + (kInFlight - 1) * readers < pixels; number += kInFlight * readers) {
      typename State::T values[kInFlight];
      CNN_UNROLL
      for (int i = 0; i < kInFlight; ++i) values[i] = x[number + i * readers];
      CNN_UNROLL
      for (int i = 0; i < kInFlight; ++i) state.take(values[i], number + i * readers);
    }
    for (; number < pixels; number += readers) state.take(x[number], number);
    return;
  }
  Walk<int32_t> walk(columns, reader, readers, width, 1, width);
  for (int32_t left = (pixels - reader + readers - 1) >> readers_log2; left > 0; --left) {
    state.take(x[walk.number], walk.number);
    walk.advance();
  }
}

// Elements [first, end) of a plane, by `readers` threads.
template <class State>
__device__ CNN_INNER_LOOP void take_streamed(State& state, const typename State::T* plane, int32_t first, int32_t end, int32_t reader,
                                             int32_t readers) {
  using T = typename State::T;
  constexpr int N = kAdaptiveVector<T>, kInFlight = 4;
  const int32_t body = min(end, first + to_border(plane + first));
  for (int32_t i = first + reader; i < body; i += readers) state.take(__ldg(plane + i), i);
  const int32_t tail = body + (end - body) / N * N;
  for (int32_t start = body + reader * N; start < tail; start += kInFlight * readers * N) {
    Vector<T, N> values[kInFlight]{};
    CNN_UNROLL
    for (int v = 0; v < kInFlight; ++v)
      if (start + v * readers * N < tail) values[v] = load_vector<N>(plane + start + v * readers * N);
    CNN_UNROLL
    for (int v = 0; v < kInFlight; ++v)
      if (start + v * readers * N < tail) state.take(values[v], start + v * readers * N);
  }
  for (int32_t i = tail + reader; i < end; i += readers) state.take(__ldg(plane + i), i);
}

template <class State>
__device__ __forceinline__ void merge_lanes(State& state, int32_t lanes) {
  for (int32_t distance = lanes / 2; distance > 0; distance /= 2) state.merge(state.shuffled(distance));
}

template <class State>
__global__ void __launch_bounds__(kAdaptiveThreads, 4) adaptive_planes_kernel(const PlanesParams<State> p) {
  using T = typename State::T;
  constexpr int kWarp = 32;
  const int32_t thread = int32_t(threadIdx.x), readers = 1 << p.readers_log2, reader = thread & (readers - 1);
  const T* const x = static_cast<const T*>(p.x);
  int32_t part;
  const int32_t tile = p.parts.divmod(int32_t(blockIdx.x), part);
  State state;
  state.clear();

  if (p.streamed) {
    CNN_SHARED(warps, State[kAdaptiveThreads / kWarp]);
    const int32_t plane = tile * (int32_t(blockDim.x) >> p.readers_log2) + (thread >> p.readers_log2);
    if (plane < p.planes) {
      int32_t in_run;
      const int32_t run = p.run.divmod(plane, in_run);
      const int32_t first = part * p.part_elements, end = min(first + p.part_elements, p.plane);
      take_streamed(state, x + run * p.run_step + in_run * p.plane, first, end, reader, readers);
    }
    merge_lanes(state, kWarp);
    if (readers > kWarp) {
      if (thread % kWarp == 0) warps[thread / kWarp] = state;
      __syncthreads();
      if (reader > 0) return;
      for (int32_t warp = 1; warp < readers / kWarp; ++warp) state.merge(warps[thread / kWarp + warp]);
    }
    if (reader > 0 || plane >= p.planes) return;
    if (p.parts.divisor > 1) p.partials.put(part, plane, state);
    else write_window(p, {plane, 0, 0, 0, 0, p.h.sources, p.w.sources}, state);
    return;
  }

  CNN_DYNAMIC_SHARED(stage, T);
  int32_t tile_in_run;
  const int32_t run = p.tiles.divmod(tile, tile_in_run);
  const int32_t first_plane = tile_in_run * p.tile_planes, planes = min(p.tile_planes, p.run.divisor - first_plane);
  const int32_t first_row = part * p.band_rows, end_row = min(first_row + p.band_rows, p.h.targets);
  const int32_t width = p.w.sources, h_begin = p.h.begin(first_row), h_end = p.h.end(end_row - 1);
  const int32_t count = planes > 1 ? planes * p.plane : (h_end - h_begin) * width;
  const int32_t lead = stage_run(stage, x + run * p.run_step + first_plane * p.plane + h_begin * width, count);

  const bool one_window = p.h.targets * p.w.targets == 1;
  using Results = StateShelf<State, 1, kResultSlots>;
  CNN_SHARED(results, Results);

  // A warp at a time takes one window for each of its groups of readers. A unit is a warp's worth.
  const int32_t groups_log2 = 5 - p.readers_log2, group = (thread % kWarp) >> p.readers_log2, set_log2 = groups_log2 + p.spread_log2;
  const int32_t windows = planes * p.windows.divisor;
  const int32_t units = ((windows + (1 << set_log2) - 1) >> set_log2) << p.spread_log2;
  for (int32_t unit = thread / kWarp; unit < units; unit += int32_t(blockDim.x) / kWarp) {
    const int32_t number = ((unit >> p.spread_log2) << set_log2) + (group << p.spread_log2) + (unit & ((1 << p.spread_log2) - 1));
    Window window{number, 0, 0, 0, 0, p.h.sources, width};  // the only one of its plane
    if (!one_window) {
      window.plane = p.windows.divmod(number, window.row);
      window.row = first_row + p.columns.divmod(window.row, window.column);
      window.h = p.h.begin(window.row), window.rows = p.h.end(window.row) - window.h;
      window.w = p.w.begin(window.column), window.columns = p.w.end(window.column) - window.w;
    }
    const bool exists = number < windows && window.row < end_row;
    state.clear();
    if (exists)
      take_staged(state, stage + lead + window.plane * p.plane + (window.h - h_begin) * width + window.w, window.rows, window.columns,
                  width, reader, p.readers_log2);
    merge_lanes(state, readers);
    if (!exists || reader > 0) continue;
    if (one_window) {
      const State only[1] = {state};
      results.put(result_slot(number), only);
    } else {
      window.plane += run * p.run.divisor + first_plane;
      write_window(p, window, state);
    }
  }
  if (!one_window) return;
  __syncthreads();
  for (int32_t plane = thread; plane < planes; plane += int32_t(blockDim.x)) {
    State only[1];
    results.get(result_slot(plane), only);
    write_window(p, {run * p.run.divisor + first_plane + plane, 0, 0, 0, 0, p.h.sources, width}, only[0]);
  }
}

}  // namespace cnn::pool2d
