// The geometry of a 2-D convolution: the one place where it is stated and checked.
//
//   y[n, k, p, q] = sum over c, r, s of  x[n, g(k) * C/groups + c, p * stride_h - pad_h + r * dilation_h, (w alike)] * w[k, c, r, s]
//
// x is [N, C, H, W], w is [K, C/groups, R, S], y is [N, K, P, Q]. fprop computes y, dgrad x and wgrad w from the other two; a
// transposed convolution is a dgrad. `pad` is the padding before the first row and column: what lies behind the last one
// follows from the sizes, so that one-sided padding and output_padding need no special case.
//
// bias_grad has y alone. activation_grad computes x from y, the gradient of an activation's result, and from w, that result; all are
// [N, K, P, Q].
#pragma once

#include <cstdint>
#include <string>

#include "common/block_shared.h"
#include "common/integers.h"
#include "common/types.h"

namespace cnn::conv2d {

enum class Pass { kFprop, kDgrad, kWgrad, kBiasGrad, kActivationGrad };
constexpr const char* name_of(Pass pass) {
  return pass == Pass::kFprop      ? "fprop"
         : pass == Pass::kDgrad    ? "dgrad"
         : pass == Pass::kWgrad    ? "wgrad"
         : pass == Pass::kBiasGrad ? "bias_grad"
                                   : "activation_grad";
}

// What a pixel of x outside the image is: 0, or the one inside that it is taken for (torch.nn.functional.pad's modes).
enum class PaddingMode { kZeros, kReflect, kReplicate, kCircular };
constexpr const char* name_of(PaddingMode mode) {
  return mode == PaddingMode::kZeros       ? "zeros"
         : mode == PaddingMode::kReflect   ? "reflect"
         : mode == PaddingMode::kReplicate ? "replicate"
                                           : "circular";
}

struct Problem {
  Pass pass = Pass::kFprop;
  DType dtype = DType::kFloat32;
  int64_t N = 0, C = 0, H = 0, W = 0, K = 0, R = 0, S = 0, P = 0, Q = 0;
  int64_t stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0, dilation_h = 1, dilation_w = 1, groups = 1;
  PaddingMode padding_mode = PaddingMode::kZeros;
  bool allow_tf32 = false;              // fp32 may be multiplied with ten bits after the point, on tensor cores
  bool in_batches = false;              // wgrad, bias_grad: of one of several batches, whose sums are added in the workspace (sum_slabs.h)
  int64_t block_shared = kBlockShared;  // bytes of shared memory that a block may have on the GPU
  Strides x, w, y;

  int64_t channels_per_group() const { return C / groups; }
  int64_t filters_per_group() const { return K / groups; }
  int64_t filter_numel() const { return K * channels_per_group() * R * S; }
  int64_t output_pixels() const { return N * P * Q; }
  bool x_is_channels_last() const { return x.d1 == 1 && C > 1; }
  bool y_is_channels_last() const { return y.d1 == 1 && K > 1; }
  bool x_is_planar() const { return x.d3 == 1 || W == 1; }
  bool y_is_planar() const { return y.d3 == 1 || Q == 1; }
  bool is_depthwise() const { return groups > 1 && groups == C; }
  // Whether a gradient's sums, in so many slabs, pass through the workspace.
  bool sums_in_workspace(int64_t slabs) const { return slabs > 1 || in_batches; }
  // What every pass touches at least once: x, w and y. 1x1 strides leave out pixels, which is not counted here.
  double tensor_bytes() const {
    return double(size_of(dtype)) *
           (double(N) * double(C) * double(H) * double(W) + double(filter_numel()) + double(output_pixels()) * double(K));
  }
};

// Where the last tap of the last output row (or column) looks, counted from the first row of the image.
int64_t last_position(int64_t outputs, int64_t stride, int64_t pad, int64_t taps, int64_t dilation);

// What is wrong with the problem's sizes, or an empty string.
std::string why_illegal(const Problem& problem);

// One line: pass, dtype and every size.
std::string to_string(const Problem& problem);

// Whether every index and element offset that a kernel forms fits in 31 bits.
bool fits_32_bits(const Problem& problem);

}  // namespace cnn::conv2d
