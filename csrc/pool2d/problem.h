// The geometry of 2-D pooling: the one place where it is stated and checked.
//
//   window(p, q) = { (p * stride_h - pad_h + r * dilation_h, (w alike)) : 0 <= r < R, 0 <= s < S }  that lie in the image
//   max:           y[n, c, p, q] = max of x[n, c, .] over window(p, q),   index[n, c, p, q] = h * W + w of that maximum
//   max_backward:  x[n, c, h, w] = sum over the windows whose index is h * W + w of y[n, c, p, q]
//   max_gather:    y[n, c, p, q] = x[n, c, index[n, c, p, q]], the derivative of max_backward
//   avg:           y[n, c, p, q] = sum of x[n, c, .] over window(p, q) / divisor(p, q)
//   avg_backward:  x[n, c, h, w] = sum over the windows that hold (h, w) of y[n, c, p, q] / divisor(p, q)
//
//   adaptive_avg, adaptive_max and their backwards are the same with windows that divide the image into P x Q, which overlap where P
//   and Q do not divide H and W, or exceed them:
//   window(p, q) = { (h, w) : floor(p * H / P) <= h < ceil((p + 1) * H / P), (w alike) },   divisor(p, q): its size
//
// x is [N, C, H, W], y and index are [N, C, P, Q]. `pad` is the padding before the first row and column: what lies behind the
// last one follows from the sizes, so that ceil_mode needs no special case.
#pragma once

#include <cstdint>
#include <string>

#include "common/integers.h"
#include "common/types.h"

namespace cnn::pool2d {

enum class Op {
  kMax,
  kMaxBackward,
  kMaxGather,
  kAvg,
  kAvgBackward,
  kAdaptiveMax,
  kAdaptiveMaxBackward,
  kAdaptiveAvg,
  kAdaptiveAvgBackward
};
constexpr const char* name_of(Op op) {
  return op == Op::kMax                   ? "max"
         : op == Op::kMaxBackward         ? "max_backward"
         : op == Op::kMaxGather           ? "max_gather"
         : op == Op::kAvg                 ? "avg"
         : op == Op::kAvgBackward         ? "avg_backward"
         : op == Op::kAdaptiveMax         ? "adaptive_max"
         : op == Op::kAdaptiveMaxBackward ? "adaptive_max_backward"
         : op == Op::kAdaptiveAvg         ? "adaptive_avg"
                                          : "adaptive_avg_backward";
}
constexpr bool is_adaptive(Op op) {
  return op == Op::kAdaptiveMax || op == Op::kAdaptiveMaxBackward || op == Op::kAdaptiveAvg || op == Op::kAdaptiveAvgBackward;
}
constexpr bool is_backward(Op op) {
  return op == Op::kMaxBackward || op == Op::kAvgBackward || op == Op::kAdaptiveMaxBackward || op == Op::kAdaptiveAvgBackward;
}

struct Problem {
  Op op = Op::kMax;
  DType dtype = DType::kFloat32;
  int64_t N = 0, C = 0, H = 0, W = 0, R = 1, S = 1, P = 0, Q = 0;  // max_gather, adaptive: no window
  int64_t stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0, dilation_h = 1, dilation_w = 1;
  bool count_include_pad = true;  // avg, avg_backward: whether padding counts in the divisor
  int64_t divisor_override = 0;   // avg, avg_backward: the divisor; 0: none given
  Strides x, y, index;            // index: the max ops alone

  int64_t planes() const { return N * C; }
  // What the op touches at least once, if every pixel lies in a window: x, y and the indices of the max ops.
  double tensor_bytes() const {
    const bool indices =
        op == Op::kMax || op == Op::kMaxBackward || op == Op::kMaxGather || op == Op::kAdaptiveMax || op == Op::kAdaptiveMaxBackward;
    return double(planes()) * (double(H) * double(W) * size_of(dtype) + double(P) * double(Q) * (size_of(dtype) + (indices ? 8 : 0)));
  }
  // The tensor that is written, and the one whose windows are walked.
  int64_t target_rows() const { return is_backward(op) ? H : P; }
  int64_t target_columns() const { return is_backward(op) ? W : Q; }
  int64_t source_rows() const { return is_backward(op) ? P : H; }
  int64_t source_columns() const { return is_backward(op) ? Q : W; }
  const Strides& target() const { return is_backward(op) ? x : y; }
  const Strides& source() const { return is_backward(op) ? y : x; }
  bool channels_dense(const Strides& strides) const { return strides.d1 == 1 && C > 1; }
};

// What is wrong with the problem's sizes, or an empty string.
std::string why_illegal(const Problem& problem);

// One line: op, dtype and every size.
std::string to_string(const Problem& problem);

// Whether every index and element offset that a kernel forms fits in 31 bits.
bool fits_32_bits(const Problem& problem);

}  // namespace cnn::pool2d
