// What the windows kernels do with a window's taps, forward, and with a pixel's windows, backward; the same in every layout.
//
//   Maximum, Mean            one window's result, from its taps in row-major order
//   MaximumGradient, MeanGradient   one pixel's gradient, from its windows in row-major order
//
// In that order ties, NaNs and the rounding of sums are those of the direct family, bit for bit.
#pragma once

#include "common/fastdiv.h"
#include "common/types.h"
#include "common/vector.h"

namespace cnn::pool2d {

// One axis of the pooling.
struct WindowAxis {
  int32_t image, outputs, taps, stride, pad, dilation;

  // The pixel of tap 0 of window t, and its first tap inside the image (0 if there is none).
  __device__ __forceinline__ int32_t start(int32_t t) const { return t * stride - pad; }
  __device__ __forceinline__ int32_t first_tap(int32_t start) const {
    int32_t tap = 0;
    while (tap < taps && start + tap * dilation < 0) ++tap;
    return tap < taps && start + tap * dilation < image ? tap : 0;
  }
  // This axis's factor of the divisor of window t.
  __device__ __forceinline__ int32_t divisor(int32_t t, bool count_include_pad) const {
    const int32_t first = start(t), end = min(first + taps, image + pad);
    return count_include_pad ? end - first : min(end, image) - max(first, 0);
  }
};

// What the average of a window is divided by.
struct Divisor {
  int32_t override;  // 0: none is given
  bool count_include_pad;

  __device__ __forceinline__ float of(int32_t rows, int32_t columns) const { return float(override != 0 ? override : rows * columns); }
};

// N results of one window each: the maxima so far, and their taps r * S + s. It begins with -inf at the window's first tap in the image;
// a value is taken where it is greater or NaN: the first of equal values, the last of several NaNs.
template <class T, int N>
struct Maximum {
  static constexpr bool kIndexed = true;
  float best[N];
  int32_t tap[N];

  // What stands for a tap outside the image: it is never taken.
  static __device__ __forceinline__ T outside() { return narrow<T>(-INFINITY); }

  __device__ __forceinline__ explicit Maximum(int32_t first_tap) {
    CNN_UNROLL
    for (int i = 0; i < N; ++i) best[i] = -INFINITY, tap[i] = first_tap;
  }
  __device__ __forceinline__ void take(const Vector<T, N>& taps, int32_t number) {
    CNN_UNROLL
    for (int i = 0; i < N; ++i) {
      const float value = widen(taps.value[i]);
      const bool better = value > best[i] || isnan(value);
      best[i] = better ? value : best[i];
      tap[i] = better ? number : tap[i];
    }
  }
  __device__ __forceinline__ Vector<T, N> values(float) const {
    Vector<T, N> result;
    CNN_UNROLL
    for (int i = 0; i < N; ++i) result.value[i] = narrow<T>(best[i]);
    return result;
  }
  __device__ __forceinline__ Vector<uint8_t, N> index() const {
    Vector<uint8_t, N> result;
    CNN_UNROLL
    for (int i = 0; i < N; ++i) result.value[i] = uint8_t(tap[i]);
    return result;
  }
};

// N results of one window each: sums so far. A tap outside the image is 0.
template <class T, int N>
struct Mean {
  static constexpr bool kIndexed = false;
  float sum[N];

  static __device__ __forceinline__ T outside() { return narrow<T>(0.0f); }

  __device__ __forceinline__ explicit Mean(int32_t) {
    CNN_UNROLL
    for (int i = 0; i < N; ++i) sum[i] = 0;
  }
  __device__ __forceinline__ void take(const Vector<T, N>& taps, int32_t) {
    CNN_UNROLL
    for (int i = 0; i < N; ++i) sum[i] += widen(taps.value[i]);
  }
  __device__ __forceinline__ Vector<T, N> values(float divisor) const {
    Vector<T, N> result;
    CNN_UNROLL
    for (int i = 0; i < N; ++i) result.value[i] = narrow<T>(sum[i] / divisor);
    return result;
  }
  __device__ __forceinline__ Vector<uint8_t, N> index() const { return {}; }
};

// N gradients of windows and the taps that they go to. One that does not exist is 0, wherever it goes.
template <class T, int N>
struct MaximumGradient {
  static constexpr bool kIndexed = true;
  Vector<T, N> gradient;
  Vector<uint8_t, N> index;

  static __device__ __forceinline__ MaximumGradient of(const Vector<T, N>& gradient, const Vector<uint8_t, N>& index, float) {
    return {gradient, index};
  }
  static __device__ __forceinline__ MaximumGradient none() {
    MaximumGradient zero;
    CNN_UNROLL
    for (int i = 0; i < N; ++i) zero.gradient.value[i] = narrow<T>(0.0f), zero.index.value[i] = 0;
    return zero;
  }
  // Adds what of it goes to tap `number`.
  __device__ __forceinline__ void add_to(float (&sum)[N], int32_t number) const {
    CNN_UNROLL
    for (int i = 0; i < N; ++i)
      if (index.value[i] == number) sum[i] += widen(gradient.value[i]);
  }
};

// N gradients of windows, divided: once, however many pixels they go to.
template <class T, int N>
struct MeanGradient {
  static constexpr bool kIndexed = false;
  float share[N];

  static __device__ __forceinline__ MeanGradient of(const Vector<T, N>& gradient, const Vector<uint8_t, N>&, float divisor) {
    MeanGradient result;
    CNN_UNROLL
    for (int i = 0; i < N; ++i) result.share[i] = widen(gradient.value[i]) / divisor;
    return result;
  }
  static __device__ __forceinline__ MeanGradient none() {
    MeanGradient zero;
    CNN_UNROLL
    for (int i = 0; i < N; ++i) zero.share[i] = 0;
    return zero;
  }
  __device__ __forceinline__ void add_to(float (&sum)[N], int32_t) const {
    CNN_UNROLL
    for (int i = 0; i < N; ++i) sum[i] += share[i];
  }
};

template <class T, int N>
__device__ __forceinline__ Vector<T, N> narrowed(const float (&values)[N]) {
  Vector<T, N> result;
  CNN_UNROLL
  for (int i = 0; i < N; ++i) result.value[i] = narrow<T>(values[i]);
  return result;
}

}  // namespace cnn::pool2d
