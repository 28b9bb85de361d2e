// Max pooling and its gradient, as policies of window.cuh.
//
//   max:           y = max of x over the window, and where that is, if it is asked for. The window is walked in row-major order and x is
//   taken
//                  where it is greater than the maximum so far or NaN: the first of equal values, the last of several NaNs.
//                  Before the first value the maximum is -inf at the window's first position in the image, so that a window
//                  of -inf has an index of its own. (A window can have no pixel at all, between the taps of a dilation: its flat
//                  index, torch's, is then outside the image or of a pixel that is not its own, its tap is 0, which lies outside,
//                  and its gradient goes nowhere.)
//   max_backward:  gradient of x(h, w) = sum, in row-major order of (p, q), of the gradients of y whose index is of (h, w).
//
// Bytes per result: R * S / overlap elements of x, one of y and 0, 1 or 8 of the index; backward: one element and 1 or 8 bytes of index
// per window, one element of x. In shared memory and registers an index is h * W + w in 4 bytes (8 for 64-bit problems).
// Operations per tap and plane: two comparisons and two moves; backward one comparison and one addition.
#pragma once

#include <type_traits>

#include "pool2d/direct/window.cuh"

namespace cnn::pool2d {

template <class T_, class Index_, int N>
struct MaxForward {
  using T = T_;
  using Index = Index_;
  using Source = PlainSource<T, Index, N>;
  static constexpr int kPlanes = N;
  static constexpr bool kBackward = false;

  struct Result {
    using Acc = Accumulator<T>;
    const WindowParams<Index>& p;
    const Target<Index>& target;
    Acc best[N];
    Index index[N];

    __device__ __forceinline__ Result(const WindowParams<Index>& p, const Target<Index>& target) : p(p), target(target) {
      CNN_UNROLL
      for (int i = 0; i < N; ++i) {
        best[i] = -Acc(INFINITY);
        index[i] = target.h.first * p.w.image + target.w.first;
      }
    }
    __device__ __forceinline__ void take(const Vector<T, N>& tap, Index row, Index column) {
      const Index here = row * p.w.image + column;
      CNN_UNROLL
      for (int i = 0; i < N; ++i) {
        const Acc value = widen(tap.value[i]);
        const bool better = value > best[i] || isnan(value);
        best[i] = better ? value : best[i];
        index[i] = better ? here : index[i];
      }
    }
    __device__ __forceinline__ void write() const {
      Vector<T, N> values;
      CNN_UNROLL
      for (int i = 0; i < N; ++i) values.value[i] = narrow<T>(best[i]);
      store(static_cast<T*>(p.target), p.target_at, p.planes, target.plane, target.row, target.column, values);
      if (p.index_form == IndexForm::kFlat) {
        Vector<int64_t, N> pixels;
        CNN_UNROLL
        for (int i = 0; i < N; ++i) pixels.value[i] = index[i];
        write_index(pixels);
      } else if (p.index_form == IndexForm::kWindow) {
        Vector<uint8_t, N> taps;
        CNN_UNROLL
        for (int i = 0; i < N; ++i) taps.value[i] = tap(index[i]);
        write_index(taps);
      }
    }
    template <class Values>
    __device__ __forceinline__ void write_index(const Values& values) const {
      using Item = std::remove_const_t<std::remove_reference_t<decltype(values.value[0])>>;
      store(static_cast<Item*>(p.target_index), p.target_index_at, p.planes, target.plane, target.row, target.column, values);
    }
    // The tap that pixel h * W + w is of the window; 0 if the window holds no pixel.
    __device__ __forceinline__ uint8_t tap(Index pixel) const {
      if (target.h.last < target.h.first || target.w.last < target.w.first) return 0;
      Index column;
      const Index row = p.image_columns.divmod(pixel, column);
      return uint8_t(p.h.tap(target.row, row) * p.w.taps + p.w.tap(target.column, column));
    }
  };
};

// A gradient and where it goes.
template <class T, class Index, int N>
struct Routed {
  Vector<T, N> gradient;
  Vector<Index, N> index;
};

// Two arrays, so that neighbouring threads read neighbouring vectors of each; the one of the stricter alignment first.
template <class T, class Index, int N>
struct Slots<Routed<T, Index, N>> {
  using Gradients = Vector<T, N>;
  using Indices = Vector<Index, N>;
  static constexpr int kBytes = int(sizeof(Gradients) + sizeof(Indices));
  static constexpr bool kIndicesFirst = alignof(Indices) >= alignof(Gradients);
  Gradients* gradients;
  Indices* indices;

  __device__ __forceinline__ Slots(unsigned char* memory, int32_t slots)
      : gradients(reinterpret_cast<Gradients*>(memory + (kIndicesFirst ? slots * int32_t(sizeof(Indices)) : 0))),
        indices(reinterpret_cast<Indices*>(memory + (kIndicesFirst ? 0 : slots * int32_t(sizeof(Gradients))))) {}
  __device__ __forceinline__ void put(int32_t slot, const Routed<T, Index, N>& tap) const {
    gradients[slot] = tap.gradient;
    indices[slot] = tap.index;
  }
  __device__ __forceinline__ Routed<T, Index, N> get(int32_t slot) const { return {gradients[slot], indices[slot]}; }
};

template <class T_, class Index_, int N>
struct MaxBackward {
  using T = T_;
  using Index = Index_;
  static constexpr int kPlanes = N;
  static constexpr bool kBackward = true;

  struct Source {
    using Tap = Routed<T, Index, N>;
    const WindowParams<Index>& p;
    PlaneOffsets<Index, N> planes, index_planes;

    __device__ __forceinline__ Source(const WindowParams<Index>& p, Index plane)
        : p(p), planes(p.source_at, p.planes, plane), index_planes(p.source_index_at, p.planes, plane) {}
    __device__ __forceinline__ Tap read(Index row, Index column) const {
      Tap tap;
      tap.gradient = load(static_cast<const T*>(p.source), p.source_at, planes, row, column);
      if (p.index_form == IndexForm::kFlat) {
        const Vector<int64_t, N> wide = load(static_cast<const int64_t*>(p.source_index), p.source_index_at, index_planes, row, column);
        CNN_UNROLL
        for (int i = 0; i < N; ++i) tap.index.value[i] = Index(wide.value[i]) == wide.value[i] ? Index(wide.value[i]) : -1;  // of no pixel
      } else {
        const Vector<uint8_t, N> taps = load(static_cast<const uint8_t*>(p.source_index), p.source_index_at, index_planes, row, column);
        CNN_UNROLL
        for (int i = 0; i < N; ++i) tap.index.value[i] = pixel(row, column, taps.value[i]);
      }
      return tap;
    }
    // h * W + w of a tap of window (p, q); -1 if it lies outside the image.
    __device__ __forceinline__ Index pixel(Index row, Index column, Index tap) const {
      Index s;
      const Index r = p.window_columns.divmod(tap, s);
      const Index h = p.h.pixel(row, r), w = p.w.pixel(column, s);
      return h >= 0 && h < p.h.image && w >= 0 && w < p.w.image ? h * p.w.image + w : -1;
    }
  };

  struct Result {
    using Acc = Accumulator<T>;
    const WindowParams<Index>& p;
    const Target<Index>& target;
    Index here;
    Acc sum[N];

    __device__ __forceinline__ Result(const WindowParams<Index>& p, const Target<Index>& target)
        : p(p), target(target), here(target.row * p.w.image + target.column) {
      CNN_UNROLL
      for (int i = 0; i < N; ++i) sum[i] = Acc(0);
    }
    __device__ __forceinline__ void take(const Routed<T, Index, N>& tap, Index, Index) {
      CNN_UNROLL
      for (int i = 0; i < N; ++i)
        if (tap.index.value[i] == here) sum[i] += widen(tap.gradient.value[i]);
    }
    __device__ __forceinline__ void write() const {
      Vector<T, N> values;
      CNN_UNROLL
      for (int i = 0; i < N; ++i) values.value[i] = narrow<T>(sum[i]);
      store(static_cast<T*>(p.target), p.target_at, p.planes, target.plane, target.row, target.column, values);
    }
  };
};

}  // namespace cnn::pool2d
