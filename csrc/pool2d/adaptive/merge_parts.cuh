// The second stage of windows that several blocks share: their partial sums or maxima, in the order of the parts.
//
//   y = merge over the parts of partial[part], divided by the window's size
//
// A thread has one result. Consecutive threads have consecutive results of a part, so that partials are read coalesced; there are at most
// kMostParts of them. Bytes: the partials once, y once.
#pragma once

#include "common/launch.h"
#include "pool2d/adaptive/adaptive.h"
#include "pool2d/adaptive/reduction.cuh"
#include "pool2d/adaptive/windows.cuh"

namespace cnn::pool2d {

template <class State>
struct MergeParams {
  Partials<State> partials;
  void* y;
  int64_t* index;
  int64_t y_step[4], index_step[4];  // n, c, p, q
  Windows<int64_t> h, w;
  int64_t channels;
  int32_t parts;
};

template <class State>
__global__ void __launch_bounds__(kAdaptiveThreads) adaptive_merge_parts_kernel(const MergeParams<State> p) {
  const int64_t result = int64_t(blockIdx.x) * kAdaptiveThreads + threadIdx.x;
  if (result >= p.partials.results) return;
  State state;
  state.clear();
  for (int32_t part = 0; part < p.parts; ++part) state.merge(p.partials.get(part, result));

  const int64_t pixel = quotient_of(result, p.channels), c = result - pixel * p.channels;
  const int64_t line = quotient_of(pixel, p.w.targets), column = pixel - line * p.w.targets;
  const int64_t n = quotient_of(line, p.h.targets), row = line - n * p.h.targets;
  const auto at = [&](const int64_t (&step)[4]) { return n * step[0] + c * step[1] + row * step[2] + column * step[3]; };
  static_cast<typename State::T*>(p.y)[at(p.y_step)] = state.result(p.h.extent(row), p.w.extent(column));
  if constexpr (State::kIndices) p.index[at(p.index_step)] = p.h.begin(row) * p.w.sources + p.w.begin(column) + state.number;
}

}  // namespace cnn::pool2d
