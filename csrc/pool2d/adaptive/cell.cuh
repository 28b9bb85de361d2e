// The cells that windows cut a plane into: pixels that lie in the same windows, and what these have for them.
#pragma once

#include "common/types.h"
#include "common/vector.h"
#include "pool2d/adaptive/windows.cuh"

namespace cnn::pool2d {

// One axis: the windows of pixels and the pixels of windows.
template <class Index>
struct TwoWays {
  Windows<Index> forward, backward;
};

template <class Index>
struct GradientParams {
  const void* y;
  const int64_t* index;  // maximum
  TwoWays<Index> h, w;
  struct Offsets {
    Index n, c, h, w;
    bool vector;  // N channels of a window are contiguous and aligned, and C is a multiple of N
  } y_at, index_at;
};

// The windows [first, last] that hold a position, and the positions [begin, end) that lie in just these.
template <class Index>
struct Span {
  Index first, last, begin, end;  // no window: last < first

  Span() = default;
  __device__ __forceinline__ Span(const TwoWays<Index>& axis, Index position) {
    first = axis.backward.begin(position);
    last = axis.backward.end(position) - 1;
    // From where the last window has begun and the one before the first has ended, to where the first ends or one more begins.
    begin = first > 0 ? axis.forward.end(first - 1) : 0;
    end = axis.backward.targets;
    if (last < first) return;
    begin = max(begin, axis.forward.begin(last));
    end = axis.forward.end(first);
    if (last + 1 < axis.backward.sources) end = min(end, axis.forward.begin(last + 1));
  }
};

template <class Index>
struct Cell {
  Span<Index> rows, columns;

  Cell() = default;
  __device__ __forceinline__ Cell(const GradientParams<Index>& p, Index row, Index column) : rows(p.h, row), columns(p.w, column) {}
  __device__ __forceinline__ bool holds(Index row, Index column) const {
    return row >= rows.begin && row < rows.end && column >= columns.begin && column < columns.end;
  }
  __device__ __forceinline__ bool one_window() const { return rows.first == rows.last && columns.first == columns.last; }
};

// N channels of a tensor of gradients or indices.
template <class V, class Index, int N>
struct ChannelsOf {
  const V* base;
  Index c, h, w;
  int32_t count;
  bool vector;

  __device__ __forceinline__ ChannelsOf(const V* tensor, const typename GradientParams<Index>::Offsets& at, Index n, Index channel,
                                        int32_t count)
      : base(tensor + n * at.n + channel * at.c), c(at.c), h(at.h), w(at.w), count(count), vector(at.vector) {}
  __device__ __forceinline__ Vector<V, N> read(Index row, Index column) const {
    const V* const from = base + row * h + column * w;
    if (N > 1 && vector) return load_vector<N>(from);
    Vector<V, N> values;
    CNN_UNROLL
    for (int i = 0; i < N; ++i) values.value[i] = __ldg(from + (i < count ? i : 0) * c);  // those behind the last are never written
    return values;
  }
};

// The mean's gradient: the same for all pixels of a cell.
template <class T_, class Index, int N>
struct MeanGradient {
  using T = T_;
  using Acc = Accumulator<T>;
  static constexpr int kChannels = N;
  const GradientParams<Index>& p;
  ChannelsOf<T, Index, N> gradients;
  Vector<T, N> value{};

  __device__ __forceinline__ MeanGradient(const GradientParams<Index>& p, Index n, Index channel, int32_t channels)
      : p(p), gradients(static_cast<const T*>(p.y), p.y_at, n, channel, channels) {}
  __device__ __forceinline__ void move_to(const GradientParams<Index>& p, Index n, Index channel) {
    gradients.base = static_cast<const T*>(p.y) + n * p.y_at.n + channel * p.y_at.c;
  }
  __device__ __forceinline__ void enter(const Cell<Index>& cell) {
    Acc sum[N];
    CNN_UNROLL
    for (int i = 0; i < N; ++i) sum[i] = Acc(0);
    for (Index row = cell.rows.first; row <= cell.rows.last; ++row) {
      const Index rows = p.h.forward.extent(row);
      for (Index column = cell.columns.first; column <= cell.columns.last; ++column) {
        const Acc pixels = Acc(rows * p.w.forward.extent(column));
        const Vector<T, N> gradient = gradients.read(row, column);
        CNN_UNROLL
        for (int i = 0; i < N; ++i) sum[i] += widen(gradient.value[i]) / pixels;
      }
    }
    CNN_UNROLL
    for (int i = 0; i < N; ++i) value.value[i] = narrow<T>(sum[i]);
  }
  __device__ __forceinline__ Vector<T, N> at(const Cell<Index>&, Index) const { return value; }
  // Of one channel: values [done, until), which are pixels of the cell, one after the other.
  template <int kPixels>
  __device__ __forceinline__ void fill(Vector<T, kPixels>& values, int32_t done, int32_t until, const Cell<Index>&, Index) const {
    CNN_UNROLL
    for (int i = 0; i < kPixels; ++i)
      if (i >= done && i < until) values.value[i] = value.value[0];
  }
};

// The maximum's: of a cell in one window, which is most of them, gradient and index stay in registers.
template <class T_, class Index, int N>
struct MaximumGradient {
  using T = T_;
  using Acc = Accumulator<T>;
  static constexpr int kChannels = N;
  ChannelsOf<T, Index, N> gradients;
  ChannelsOf<int64_t, Index, N> indices;
  Vector<T, N> gradient{};
  Vector<int64_t, N> index{};

  __device__ __forceinline__ MaximumGradient(const GradientParams<Index>& p, Index n, Index channel, int32_t channels)
      : gradients(static_cast<const T*>(p.y), p.y_at, n, channel, channels), indices(p.index, p.index_at, n, channel, channels) {}
  __device__ __forceinline__ void move_to(const GradientParams<Index>& p, Index n, Index channel) {
    gradients.base = static_cast<const T*>(p.y) + n * p.y_at.n + channel * p.y_at.c;
    indices.base = p.index + n * p.index_at.n + channel * p.index_at.c;
  }
  __device__ __forceinline__ void enter(const Cell<Index>& cell) {
    if (!cell.one_window()) return;
    gradient = gradients.read(cell.rows.first, cell.columns.first);
    index = indices.read(cell.rows.first, cell.columns.first);
  }
  // Of the pixel of `cell` whose number h * W + w is `here`.
  __device__ __forceinline__ Vector<T, N> at(const Cell<Index>& cell, Index here) const {
    Acc sum[N];
    CNN_UNROLL
    for (int i = 0; i < N; ++i) sum[i] = Acc(0);
    if (cell.one_window()) {
      add(sum, gradient, index, here);
    } else {
      for (Index row = cell.rows.first; row <= cell.rows.last; ++row)
        for (Index column = cell.columns.first; column <= cell.columns.last; ++column)
          add(sum, gradients.read(row, column), indices.read(row, column), here);
    }
    Vector<T, N> value;
    CNN_UNROLL
    for (int i = 0; i < N; ++i) value.value[i] = narrow<T>(sum[i]);
    return value;
  }

  // Of one channel: values [done, until), which are pixels of the cell, one after the other; value i is pixel shift + i.
  template <int kPixels>
  __device__ __forceinline__ void fill(Vector<T, kPixels>& values, int32_t done, int32_t until, const Cell<Index>& cell,
                                       Index shift) const {
    if (cell.one_window()) {
      CNN_UNROLL
      for (int i = 0; i < kPixels; ++i)
        if (i >= done && i < until) values.value[i] = index.value[0] == shift + i ? gradient.value[0] : narrow<T>(Acc(0));
      return;
    }
    Acc sums[kPixels];
    CNN_UNROLL
    for (int i = 0; i < kPixels; ++i) sums[i] = Acc(0);
    for (Index row = cell.rows.first; row <= cell.rows.last; ++row) {
      for (Index column = cell.columns.first; column <= cell.columns.last; ++column) {
        const Acc value = widen(gradients.read(row, column).value[0]);
        const int64_t number = indices.read(row, column).value[0] - shift;
        CNN_UNROLL
        for (int i = 0; i < kPixels; ++i)
          if (number == i) sums[i] += value;
      }
    }
    CNN_UNROLL
    for (int i = 0; i < kPixels; ++i)
      if (i >= done && i < until) values.value[i] = narrow<T>(sums[i]);
  }

 private:
  __device__ __forceinline__ static void add(Acc (&sum)[N], const Vector<T, N>& gradient, const Vector<int64_t, N>& index, Index here) {
    CNN_UNROLL
    for (int i = 0; i < N; ++i)
      if (index.value[i] == here) sum[i] += widen(gradient.value[i]);
  }
};

}  // namespace cnn::pool2d
