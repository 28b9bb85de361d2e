// The geometry of 2-D pooling: the one place where it is stated and checked.
//
//   window(p, q) = { (p * stride_h - pad_h + r * dilation_h, (w alike)) : 0 <= r < R, 0 <= s < S }  that lie in the image
//   max:           y[n, c, p, q] = max of x[n, c, .] over window(p, q),   index[n, c, p, q] = where in it that maximum is
//                  `levels` > 1: a chain of it, y_1 the pooling of x, y_2 that of y_1 (a spatial pyramid; stride 1, y as large as x)
//   max_backward:  x[n, c, h, w] = sum over the windows whose index is of (h, w) of y[n, c, p, q]
//   max_gather:    y[n, c, p, q] = x[n, c, .] at index[n, c, p, q], the derivative of max_backward
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

#include "common/block_shared.h"
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

// What a maximum's index is: the tap r * S + s of the window that it is (one byte, windows of at most 256 taps; what backward needs), or
// the pixel h * W + w (int64; torch's). A window that holds no pixel has the index of a tap or pixel outside the image.
enum class IndexForm { kNone, kWindow, kFlat };
constexpr int64_t kMostWindowTaps = 256;
constexpr int bytes_of(IndexForm form) { return form == IndexForm::kNone ? 0 : form == IndexForm::kWindow ? 1 : 8; }
constexpr const char* name_of(IndexForm form) { return form == IndexForm::kNone ? "none" : form == IndexForm::kWindow ? "window" : "flat"; }

constexpr int kMostLevels = 3;

struct Problem {
  Op op = Op::kMax;
  DType dtype = DType::kFloat32;
  int64_t N = 0, C = 0, H = 0, W = 0, R = 1, S = 1, P = 0, Q = 0;  // the adaptive ops have no window
  int64_t stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0, dilation_h = 1, dilation_w = 1;
  bool count_include_pad = true;            // avg, avg_backward: whether padding counts in the divisor
  int64_t divisor_override = 0;             // avg, avg_backward: the divisor; 0: none given
  IndexForm index_form = IndexForm::kNone;  // the max ops alone
  int levels = 1;                           // max without indices
  int64_t block_shared = kBlockShared;      // bytes of shared memory that a block may have on the GPU
  Strides x, y, index;

  int64_t planes() const { return N * C; }
  // What the op touches at least once, if every pixel lies in a window: x, y and the indices of the max ops.
  double tensor_bytes() const {
    return double(planes()) *
           (double(H) * double(W) * size_of(dtype) + double(P) * double(Q) * (levels * size_of(dtype) + bytes_of(index_form)));
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
