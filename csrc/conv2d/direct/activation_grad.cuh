// The gradient of an activation of straight lines, from what it gave (so that its argument need not be kept):
//
//   dz = 0           where y is `most`                      relu6
//        dy          where y > 0
//        slope * dy  elsewhere, where y <= 0                relu and relu6: 0
//
// A NaN of y lets the gradient of relu and relu6 pass and bends leaky_relu's, as in torch. A thread has 16 bytes of elements that lie
// alike in all three tensors, or one element. Bytes: y and dy once, dz once. FMAs: a product per element.
#pragma once

#include "common/launch.h"
#include "common/vector.h"
#include "conv2d/direct/direct.h"
#include "conv2d/direct/tile.cuh"

namespace cnn::conv2d {

struct ActivationGradParams {
  const void *y, *dy;
  void* dz;
  int64_t elements;
  double slope, most;  // most: NaN of an activation that has no upper end
  bool alike;          // the tensors lie alike, are aligned to 16 bytes, and have as many elements as whole such vectors
  // Of the dimensions in dz's order, the last one innermost.
  int64_t extents[3];  // of the second to the fourth
  int64_t y_strides[4], dy_strides[4];
};

template <class T>
__device__ __forceinline__ T activation_gradient(T value, T gradient, Accumulator<T> slope, Accumulator<T> most) {
  const Accumulator<T> y = widen(value), dy = widen(gradient);
  if (slope == 0) return y <= 0 || y >= most ? narrow<T>(Accumulator<T>(0)) : gradient;
  return y > 0 ? gradient : narrow<T>(dy * slope);
}

template <class T>
__global__ void __launch_bounds__(kActivationGradThreads, 1) activation_grad_kernel(const __grid_constant__ ActivationGradParams p) {
  constexpr int kVector = 16 / int(sizeof(T));
  using Several = Vector<T, kVector>;
  const int64_t thread = int64_t(blockIdx.x) * kActivationGradThreads + int64_t(threadIdx.x);
  const auto slope = Accumulator<T>(p.slope), most = Accumulator<T>(p.most);
  if (p.alike) {
    const int64_t first = thread * kVector;
    if (first >= p.elements) return;
    Several y = load_vector<kVector>(static_cast<const T*>(p.y) + first);
    const Several dy = load_vector<kVector>(static_cast<const T*>(p.dy) + first);
    CNN_UNROLL
    for (int i = 0; i < kVector; ++i) y.value[i] = activation_gradient(y.value[i], dy.value[i], slope, most);
    *reinterpret_cast<Several*>(static_cast<T*>(p.dz) + first) = y;
    return;
  }
  if (thread >= p.elements) return;
  int64_t y = 0, dy = 0, rest = thread;
  CNN_UNROLL
  for (int i = 3; i >= 0; --i) {
    const int64_t at = i > 0 ? rest % p.extents[i - 1] : rest;
    if (i > 0) rest /= p.extents[i - 1];
    y += at * p.y_strides[i], dy += at * p.dy_strides[i];
  }
  static_cast<T*>(p.dz)[thread] = activation_gradient(static_cast<const T*>(p.y)[y], static_cast<const T*>(p.dy)[dy], slope, most);
}

}  // namespace cnn::conv2d
