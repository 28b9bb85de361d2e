// The gradient of an activation of straight lines, from what it gave (so that its argument need not be kept):
//
//   dz = 0           where y is `most`                      relu6
//        dy          where y > 0
//        slope * dy  elsewhere, where y <= 0                relu and relu6: 0
//
// A NaN of y lets the gradient of relu and relu6 pass and bends leaky_relu's, as in torch. A thread has 16 bytes of elements that lie
// alike in all three tensors, or one element. Bytes: y and dy once, dz once. FMAs: a product per element.
#pragma once

#include "common/fastdiv.h"
#include "common/launch.h"
#include "common/vector.h"
#include "conv2d/direct/direct.h"
#include "conv2d/direct/tile.cuh"

namespace cnn::conv2d {

template <class Index>
struct ActivationGradParams {
  const void *y, *dy;
  void* dz;
  Index elements;
  double slope, most;
  // Of the dimensions in dz's order, the last one innermost.
  FastDiv<Index> extents[3];  // of the second to the fourth
  Index y_strides[4], dy_strides[4];
};

template <class T>
__device__ __forceinline__ T activation_gradient(T value, T gradient, Accumulator<T> slope, Accumulator<T> most) {
  const Accumulator<T> y = widen(value), dy = widen(gradient);
  if (slope == 0) return y <= 0 || y >= most ? narrow<T>(Accumulator<T>(0)) : gradient;
  return y > 0 ? gradient : narrow<T>(dy * slope);
}

// kVector > 1: the tensors lie alike, and the elements are a multiple of it.
template <class T, class Index, int kVector>
__global__ void __launch_bounds__(kActivationGradThreads, 1) activation_grad_kernel(const ActivationGradParams<Index> p) {
  const Index first = (Index(blockIdx.x) * kActivationGradThreads + Index(threadIdx.x)) * kVector;
  if (first >= p.elements) return;
  const auto slope = Accumulator<T>(p.slope), most = Accumulator<T>(p.most);
  T* const to = static_cast<T*>(p.dz) + first;
  if constexpr (kVector > 1) {
    Vector<T, kVector> y = load_vector<kVector>(static_cast<const T*>(p.y) + first);
    const Vector<T, kVector> dy = load_vector<kVector>(static_cast<const T*>(p.dy) + first);
    CNN_UNROLL
    for (int i = 0; i < kVector; ++i) y.value[i] = activation_gradient(y.value[i], dy.value[i], slope, most);
    *reinterpret_cast<Vector<T, kVector>*>(to) = y;
  } else {
    Index at[4], rest = first;
    CNN_UNROLL
    for (int i = 3; i > 0; --i) rest = p.extents[i - 1].divmod(rest, at[i]);
    at[0] = rest;
    Index y = 0, dy = 0;
    CNN_UNROLL
    for (int i = 0; i < 4; ++i) y += at[i] * p.y_strides[i], dy += at[i] * p.dy_strides[i];
    *to = activation_gradient(static_cast<const T*>(p.y)[y], static_cast<const T*>(p.dy)[dy], slope, most);
  }
}

}  // namespace cnn::conv2d
