// Average pooling and its gradient, as policies of window.cuh.
//
//   avg:           y(p, q) = sum of x over the window's part in the image / divisor(p, q), 0 if that part is empty
//   avg_backward:  gradient of x(h, w) = sum over the windows that hold (h, w) of (gradient of y / divisor)
//
//   divisor(p, q): what the caller gives; else, counting padding, rows p * stride - pad to that + R or to the end of the padding, times
//   columns alike; else the pixels of the window that lie in the image.
//
// Sums run in row-major order. Backward, a gradient is divided once, when it is staged, and not once per pixel of its window.
// Bytes per result: R * S / overlap elements of x and one of y; backward one element per window, in fp32 in shared memory for
// the halves, and one of x. Operations: one addition per tap and plane, one division per result (backward: per window).
#pragma once

#include "pool2d/direct/window.cuh"

namespace cnn::pool2d {

// One axis's factor of the divisor of output position `t`.
template <class Index>
__device__ __forceinline__ Index divisor_extent(const Axis<Index>& axis, Index t, bool count_include_pad) {
  const Index start = t * axis.stride.divisor - axis.pad, end = min(start + axis.taps, axis.image + axis.pad);
  return count_include_pad ? end - start : min(end, axis.image) - max(start, Index(0));
}

template <class Acc, class Index>
__device__ __forceinline__ Acc divisor(const WindowParams<Index>& p, Index row, Index column) {
  if (p.divisor_override != 0) return Acc(p.divisor_override);
  return Acc(divisor_extent(p.h, row, p.count_include_pad) * divisor_extent(p.w, column, p.count_include_pad));
}

template <class T, class Index, int N, class Tap>
struct Sum {
  using Acc = Accumulator<T>;
  const WindowParams<Index>& p;
  const Target<Index>& target;
  Acc sum[N];

  __device__ __forceinline__ Sum(const WindowParams<Index>& p, const Target<Index>& target) : p(p), target(target) {
    CNN_UNROLL
    for (int i = 0; i < N; ++i) sum[i] = Acc(0);
  }
  __device__ __forceinline__ void take(const Tap& tap, Index, Index) {
    CNN_UNROLL
    for (int i = 0; i < N; ++i) sum[i] += widen(tap.value[i]);
  }
  __device__ __forceinline__ void write_over(Acc divisor) const {
    Vector<T, N> values;
    CNN_UNROLL
    for (int i = 0; i < N; ++i) values.value[i] = narrow<T>(sum[i] / divisor);
    store(static_cast<T*>(p.target), p.target_at, p.planes, target.plane, target.row, target.column, values);
  }
};

template <class T_, class Index_, int N>
struct AvgForward {
  using T = T_;
  using Index = Index_;
  using Source = PlainSource<T, Index, N>;
  static constexpr int kPlanes = N;
  static constexpr bool kBackward = false;

  struct Result : Sum<T, Index, N, Vector<T, N>> {
    using Base = Sum<T, Index, N, Vector<T, N>>;
    using Base::Base;
    __device__ __forceinline__ void write() const {
      using Acc = Accumulator<T>;
      const auto& target = this->target;
      const bool empty = target.h.last < target.h.first || target.w.last < target.w.first;  // 0 over a divisor that may be 0
      this->write_over(empty ? Acc(1) : divisor<Acc>(this->p, target.row, target.column));
    }
  };
};

template <class T_, class Index_, int N>
struct AvgBackward {
  using T = T_;
  using Index = Index_;
  using Acc = Accumulator<T>;
  static constexpr int kPlanes = N;
  static constexpr bool kBackward = true;

  struct Source {
    using Tap = Vector<Acc, N>;
    PlainSource<T, Index, N> gradient;

    __device__ __forceinline__ Source(const WindowParams<Index>& p, Index plane) : gradient(p, plane) {}
    __device__ __forceinline__ Tap read(Index row, Index column) const {
      const Vector<T, N> values = gradient.read(row, column);
      const Acc over = divisor<Acc>(gradient.p, row, column);
      Tap tap;
      CNN_UNROLL
      for (int i = 0; i < N; ++i) tap.value[i] = widen(values.value[i]) / over;
      return tap;
    }
  };

  struct Result : Sum<T, Index, N, Vector<Acc, N>> {
    using Base = Sum<T, Index, N, Vector<Acc, N>>;
    using Base::Base;
    __device__ __forceinline__ void write() const { this->write_over(Acc(1)); }
  };
};

}  // namespace cnn::pool2d
