// What the windows kernels do with a window's taps, forward, and with a pixel's windows, backward; the same in every layout.
//
//   Maximum, Mean            one window's result, from its taps in row-major order
//   MaximumGradient, MeanGradient   one pixel's gradient, from its windows in row-major order
//
// In that order ties, NaNs and the rounding of sums are those of the direct family, bit for bit.
#pragma once

#include <type_traits>

#include "common/fastdiv.h"
#include "common/types.h"
#include "common/vector.h"
#include "pool2d/windows/bits.h"

namespace cnn::pool2d {

// N values in as few registers as they fill: the compiler would give each half and each byte one of its own.
template <class T, int N>
struct Packed {
  static constexpr bool kInWords = sizeof(T) < 4 && sizeof(T) * N % 4 == 0;
  static constexpr int kEach = kInWords ? 4 / int(sizeof(T)) : 1, kWords = N / kEach;
  using Word = std::conditional_t<kInWords, uint32_t, T>;
  Vector<Word, kWords> words;

  __device__ __forceinline__ static Packed load(const T* from) { return {*reinterpret_cast<const Vector<Word, kWords>*>(from)}; }
  __device__ __forceinline__ void store(T* to) const { *reinterpret_cast<Vector<Word, kWords>*>(to) = words; }
  __device__ __forceinline__ static Packed filled(T value) {
    Packed all;
    CNN_UNROLL
    for (int i = 0; i < N; ++i) all.set(i, value);
    return all;
  }
  // Sets value i; those of a word in their order.
  __device__ __forceinline__ void set(int i, T value) {
    if constexpr (kInWords) {
      const uint32_t bits = bits_of(value) << 8 * int(sizeof(T)) * (i % kEach);
      words.value[i / kEach] = i % kEach == 0 ? bits : words.value[i / kEach] | bits;
    } else {
      words.value[i] = value;
    }
  }
  __device__ __forceinline__ T operator[](int i) const {
    if constexpr (kInWords) return from_bits<T>(words.value[i / kEach] >> 8 * int(sizeof(T)) * (i % kEach));
    else return words.value[i];
  }
  // Whether value i, a byte, is `number`.
  __device__ __forceinline__ bool is(int i, int32_t number) const {
    if constexpr (kInWords) return ((words.value[i / kEach] ^ uint32_t(number) * 0x01010101u) & 0xffu << 8 * (i % kEach)) == 0;
    else return words.value[i] == number;
  }
};

template <class T, int N>
__device__ __forceinline__ Packed<T, N> narrowed(const float (&values)[N]) {
  Packed<T, N> result;
  CNN_UNROLL
  for (int i = 0; i < N; ++i) result.set(i, narrow<T>(values[i]));
  return result;
}

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
  __device__ __forceinline__ void take(const Packed<T, N>& taps, int32_t number) {
    CNN_UNROLL
    for (int i = 0; i < N; ++i) {
      const float value = widen(taps[i]);
      const bool better = value > best[i] || isnan(value);
      best[i] = better ? value : best[i];
      tap[i] = better ? number : tap[i];
    }
  }
  // Maxima of rows of windows, whose taps are `number` + `row[i]`; and before the first of them.
  __device__ __forceinline__ void begin(int32_t number, const Packed<uint8_t, N>& row) {
    CNN_UNROLL
    for (int i = 0; i < N; ++i) tap[i] = number + row[i];
  }
  __device__ __forceinline__ void take(const Packed<T, N>& maxima, int32_t number, const Packed<uint8_t, N>& row) {
    CNN_UNROLL
    for (int i = 0; i < N; ++i) {
      const float value = widen(maxima[i]);
      const bool better = value > best[i] || isnan(value);
      best[i] = better ? value : best[i];
      tap[i] = better ? number + row[i] : tap[i];
    }
  }
  __device__ __forceinline__ void take(const Maximum& row, int32_t number) {
    CNN_UNROLL
    for (int i = 0; i < N; ++i) {
      const bool better = row.best[i] > best[i] || isnan(row.best[i]);
      best[i] = better ? row.best[i] : best[i];
      tap[i] = better ? number + row.tap[i] : tap[i];
    }
  }
  __device__ __forceinline__ Packed<T, N> values(float) const { return narrowed<T>(best); }
  __device__ __forceinline__ Packed<uint8_t, N> index() const {
    Packed<uint8_t, N> result;
    CNN_UNROLL
    for (int i = 0; i < N; ++i) result.set(i, uint8_t(tap[i]));
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
  __device__ __forceinline__ void take(const Packed<T, N>& taps, int32_t) {
    CNN_UNROLL
    for (int i = 0; i < N; ++i) sum[i] += widen(taps[i]);
  }
  __device__ __forceinline__ Packed<T, N> values(float divisor) const {
    float quotient[N];
    CNN_UNROLL
    for (int i = 0; i < N; ++i) quotient[i] = sum[i] / divisor;
    return narrowed<T>(quotient);
  }
  __device__ __forceinline__ Packed<uint8_t, N> index() const { return {}; }
};

// N gradients of windows and the taps that they go to. One that does not exist is 0, wherever it goes.
template <class T, int N>
struct MaximumGradient {
  static constexpr bool kIndexed = true;
  Packed<T, N> gradient;
  Packed<uint8_t, N> index;

  static __device__ __forceinline__ MaximumGradient of(const Packed<T, N>& gradient, const Packed<uint8_t, N>& index, float) {
    return {gradient, index};
  }
  static __device__ __forceinline__ MaximumGradient none() {
    return {Packed<T, N>::filled(narrow<T>(0.0f)), Packed<uint8_t, N>::filled(0)};
  }
  // Adds what of it goes to tap `number`.
  __device__ __forceinline__ void add_to(float (&sum)[N], int32_t number) const {
    CNN_UNROLL
    for (int i = 0; i < N; ++i)
      if (index.is(i, number)) sum[i] += widen(gradient[i]);
  }
};

// N gradients of windows, divided: once, however many pixels they go to.
template <class T, int N>
struct MeanGradient {
  static constexpr bool kIndexed = false;
  float share[N];

  static __device__ __forceinline__ MeanGradient of(const Packed<T, N>& gradient, const Packed<uint8_t, N>&, float divisor) {
    MeanGradient result;
    CNN_UNROLL
    for (int i = 0; i < N; ++i) result.share[i] = widen(gradient[i]) / divisor;
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

}  // namespace cnn::pool2d
