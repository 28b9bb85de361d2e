// What becomes of a convolution's sums before they are written, in this order:
//
//   z = factor[k] * sum + offset[k]             bias, and BatchNorm with running statistics:
//                                               factor = scale / sqrt(variance + eps), offset = shift + factor * (bias - mean)
//   y = activation(round(z) + residual)         round(): to the tensors' type
//
// whichever kernel runs: results may lie in shared memory in that type before the residual is added. All is read where it lies: nothing is
// folded into the filter beforehand, so that nothing is ever stale, and half types lose no digits of the filter.
//
// A kernel calls per_channel() once for a channel's sums, and finish() for values that it is about to write, already rounded; they may have
// been through shared memory in between.
//
// Per result: one FMA, and what the activation takes. Bytes: the residual once, by the addresses and widths of the results' stores.
#pragma once

#include "common/types.h"
#include "common/vector.h"
#include "conv2d/epilogue.h"

namespace cnn::conv2d {

template <class T>
struct PerChannel {
  Accumulator<T> factor, offset;
  __device__ __forceinline__ Accumulator<T> operator()(Accumulator<T> sum) const { return sum * factor + offset; }
};

template <class T>
__device__ __forceinline__ Accumulator<T> norm_value(const Epilogue& e, const void* values, int64_t channel) {
  if constexpr (sizeof(T) == 2)
    if (e.norm_is_float) return __ldg(static_cast<const float*>(values) + channel);
  return widen(__ldg(static_cast<const T*>(values) + channel));
}

__device__ __forceinline__ float root(float value) { return sqrtf(value); }
__device__ __forceinline__ double root(double value) { return sqrt(value); }

template <class T>
__device__ __forceinline__ PerChannel<T> per_channel(const Epilogue& e, int64_t channel) {
  using Acc = Accumulator<T>;
  PerChannel<T> c{1, 0};
  if (e.bias) c.offset = widen(__ldg(static_cast<const T*>(e.bias) + channel * e.bias_stride));
  if (e.variance) {
    c.factor = (e.scale ? norm_value<T>(e, e.scale, channel) : Acc(1)) / root(norm_value<T>(e, e.variance, channel) + Acc(e.eps));
    c.offset = (e.shift ? norm_value<T>(e, e.shift, channel) : Acc(0)) + c.factor * (c.offset - norm_value<T>(e, e.mean, channel));
  }
  return c;
}

__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + expf(-x)); }
__device__ __forceinline__ double sigmoid(double x) { return 1 / (1 + exp(-x)); }
__device__ __forceinline__ float error_function(float x) { return erff(x); }
__device__ __forceinline__ double error_function(double x) { return erf(x); }

// The input times this is the activation: a gate that opens from 0 to 1.
template <class Acc>
__device__ __forceinline__ Acc gate(Activation activation, Acc x) {
  if (activation == Activation::kHardswish) return x > 3 ? Acc(1) : x < -3 ? Acc(0) : x * Acc(1.0 / 6) + Acc(0.5);
  if (activation == Activation::kGelu) return Acc(0.5) + Acc(0.5) * error_function(x * Acc(0.70710678118654752440));  // 1 / sqrt(2)
  // (1 + tanh(u)) / 2 is the sigmoid of 2 u, u = sqrt(2 / pi) (x + 0.044715 x^3).
  if (activation == Activation::kGeluTanh) x = Acc(1.5957691216057307118) * (x + Acc(0.044715) * x * x * x);
  return sigmoid(x);
}

// torch's functions. A NaN stays one.
template <int N, class Acc>
__device__ __forceinline__ void activate(const Epilogue& e, Acc (&v)[N]) {
  if (e.activation == Activation::kNone) return;
  if (e.activation == Activation::kLines) {
    const Acc slope = Acc(e.slope), most = Acc(e.most);
    CNN_UNROLL
    for (int i = 0; i < N; ++i) v[i] = v[i] > most ? most : v[i] < 0 ? (slope == 0 ? Acc(0) : v[i] * slope) : v[i];
    return;
  }
  // The values take turns in the first place: the gates' code is there once for all of them, which stay in registers.
  CNN_NO_UNROLL
  for (int turn = 0; turn < N; ++turn) {
    const Acc x = v[0];
    CNN_UNROLL
    for (int i = 0; i + 1 < N; ++i) v[i] = v[i + 1];
    v[N - 1] = x * gate(e.activation, x);
  }
}

// N neighbouring values round(z), of which `count` exist, as they are written to `to`; `aligned`: by a vector.
template <class T, int N>
__device__ __forceinline__ Vector<T, N> finish(const Epilogue& e, const T* to, Vector<T, N> value, int count = N, bool aligned = true) {
  if (!e.adds && e.activation == Activation::kNone) return value;
  Accumulator<T> sum[N];
  CNN_UNROLL
  for (int i = 0; i < N; ++i) sum[i] = widen(value.value[i]);
  if (e.adds) {
    const T* const from = reinterpret_cast<const T*>(reinterpret_cast<const char*>(to) + e.residual);
    Vector<T, N> residual{};
    if (aligned && e.by_vectors && count >= N) {
      residual = load_vector<N>(from);
    } else {
      CNN_UNROLL
      for (int i = 0; i < N; ++i)
        if (i < count) residual.value[i] = from[i];
    }
    CNN_UNROLL
    for (int i = 0; i < N; ++i) sum[i] += widen(residual.value[i]);
  }
  activate(e, sum);
  CNN_UNROLL
  for (int i = 0; i < N; ++i) value.value[i] = narrow<T>(sum[i]);
  return value;
}

template <class T>
__device__ __forceinline__ T finish(const Epilogue& e, const T* to, T value) {
  return finish(e, to, Vector<T, 1>{{value}}).value[0];
}

}  // namespace cnn::conv2d
