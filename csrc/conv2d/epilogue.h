// What becomes of a convolution's sums before they are written: epilogue.cuh has the formulas.
#pragma once

#include <cstdint>

#include "common/platform.h"

namespace cnn::conv2d {

enum class Activation { kNone, kLines, kSilu, kGelu, kGeluTanh, kHardswish };

struct Epilogue {
  const void* bias;  // [K], or null
  int64_t bias_stride;
  // BatchNorm: running mean and variance, and what it learns, all [K] and dense, or null. Without a variance there is none.
  const void *mean, *variance, *scale, *shift;
  bool norm_is_float;  // else in the tensors' type
  double eps;
  int64_t residual;       // bytes from a result to what is added to it; with `adds`
  bool adds, by_vectors;  // by_vectors: what is added is aligned as the results are
  Activation activation;
  double slope, most;  // of an activation of straight lines: y = slope * x where x is negative, and at most `most`

  CNN_HOST_DEVICE bool has_channels() const { return bias || variance; }
  // The residual lies as the result does.
  void add(const void* from, const void* out) {
    constexpr int kVectorBytes = 16;
    residual = static_cast<const char*>(from) - static_cast<const char*>(out);
    adds = true, by_vectors = residual % kVectorBytes == 0;
  }
};

}  // namespace cnn::conv2d
