// The windows of one axis of an adaptive pooling, in closed form and both ways.
//
// `targets` windows divide `sources` positions (forward: P windows of H rows):
//
//   window t = [ floor(t * sources / targets), ceil((t + 1) * sources / targets) )
//
// Position s lies in window t iff  floor(t * sources / targets) <= s  and  s < ceil((t + 1) * sources / targets). Since s is whole, the
// first says t * sources / targets < s + 1, that is t < (s + 1) * targets / sources, or t <= ceil((s + 1) * targets / sources) - 1; the
// second says s < (t + 1) * sources / targets, that is t + 1 > s * targets / sources, or t >= floor(s * targets / sources). So
//
//   windows of s = [ floor(s * targets / sources), ceil((s + 1) * targets / sources) )
//
// which is the same function with the two sizes exchanged: backward asks Windows(H over P) where forward asks Windows(P over H), and
// nothing is left to filter.
//
// With sources = each * targets + rest, t * sources / targets = t * each + t * rest / targets, whose product stays below targets^2: in 31
// bits for up to 46340 targets, where a multiplication replaces the division.
#pragma once

#include "common/fastdiv.h"
#include "common/platform.h"

namespace cnn::pool2d {

template <class Index>
struct Windows {
  Index sources, targets, each, rest;
  FastDiv<int32_t> by_targets;
  bool small;

  Windows() = default;
  CNN_HOST_DEVICE Windows(int64_t sources, int64_t targets)
      : sources(Index(sources)),
        targets(Index(targets)),
        each(targets ? Index(sources / targets) : 0),
        rest(targets ? Index(sources % targets) : 0),
        by_targets(targets <= kMostSmall ? targets : 1),
        small(targets <= kMostSmall) {}

  __device__ __forceinline__ Index begin(Index t) const {
    const Index extra = small ? Index(by_targets.quotient(int32_t(t) * int32_t(rest))) : Index(int64_t(t) * rest / targets);
    return t * each + extra;
  }
  __device__ __forceinline__ Index end(Index t) const {
    const Index extra = small ? Index(by_targets.quotient(int32_t(t + 1) * int32_t(rest) + int32_t(targets) - 1))
                              : Index((int64_t(t + 1) * rest + targets - 1) / targets);
    return (t + 1) * each + extra;
  }
  __device__ __forceinline__ Index extent(Index t) const { return end(t) - begin(t); }

 private:
  static constexpr int64_t kMostSmall = 46340;
};

// A division whose operands mostly fit 31 bits, where it is a third of the instructions.
__device__ __forceinline__ int64_t quotient_of(int64_t a, int64_t b) {
  return (a | b) >> 31 == 0 ? int64_t(int32_t(a) / int32_t(b)) : a / b;
}
__device__ __forceinline__ int32_t quotient_of(int32_t a, int32_t b) { return a / b; }

// Every `step`-th pixel of a rectangle in row-major order: where it lies, by additions alone.
template <class Index>
struct Walk {
  Index column, columns;
  Index step_columns;                        // and whole rows, which the offsets' steps have
  int64_t at, step_at, wrap_at;              // offset in memory; what a step adds, and what running over a row's end adds
  int32_t number, step_number, wrap_number;  // the pixel's number in an image `width` wide, counted from the rectangle's first

  // From pixel `first` on. Pixels lie row_stride and column_stride apart.
  __device__ __forceinline__ Walk(Index columns, Index first, Index step, int64_t row_stride, int64_t column_stride, Index width)
      : columns(columns) {
    // A step of 0 rows and 1 column, or the other way round, is the common case and needs no division.
    const Index rows = first < columns ? 0 : quotient_of(first, columns);
    column = first - rows * columns;
    const Index step_rows = step < columns ? 0 : quotient_of(step, columns);
    step_columns = step - step_rows * columns;
    at = int64_t(rows) * row_stride + int64_t(column) * column_stride;
    step_at = int64_t(step_rows) * row_stride + int64_t(step_columns) * column_stride;
    wrap_at = row_stride - int64_t(columns) * column_stride;
    number = int32_t(rows * width + column);
    step_number = int32_t(step_rows * width + step_columns);
    wrap_number = int32_t(width - columns);
  }
  __device__ __forceinline__ void advance() {
    column += step_columns, at += step_at, number += step_number;
    if (column >= columns) column -= columns, at += wrap_at, number += wrap_number;
  }
};

}  // namespace cnn::pool2d
