// Padding modes as index mappings: which pixel a position outside the image stands for, and which positions stand for a pixel.
//
// Positions of an axis of `extent` pixels run from -before to extent - 1 + after.
//
//   reflect    ... 2 1 | 0 1 2 3 | 2 1 ...     before, after < extent
//   replicate  ... 0 0 | 0 1 2 3 | 3 3 ...
//   circular   ... 2 3 | 0 1 2 3 | 0 1 ...     before, after <= extent
//
// fprop and wgrad read x through source_pixel. dgrad is the adjoint: pixel h collects the gradients of all positions that stand for
// it, its own and at most two others (replicate: the whole border, at an edge), counted by `fold`.
#pragma once

#include "common/platform.h"
#include "conv2d/problem.h"

namespace cnn::conv2d {

// The pixel that position `at` stands for. Not in the image where the mode is zeros, or `at` is beyond all padding.
template <class Index>
__device__ __forceinline__ Index source_pixel(PaddingMode mode, Index at, Index extent) {
  if (at >= 0 && at < extent) return at;
  switch (mode) {
    case PaddingMode::kReflect: return at < 0 ? -at : 2 * (extent - 1) - at;
    case PaddingMode::kReplicate: return at < 0 ? 0 : extent - 1;
    case PaddingMode::kCircular: return at < 0 ? at + extent : at - extent;
    default: return at;
  }
}

// How many positions may stand for one pixel.
inline int64_t fold_count(PaddingMode mode, int64_t before, int64_t after) {
  return mode == PaddingMode::kZeros ? 1 : mode == PaddingMode::kReplicate ? 1 + before + after : 3;
}

// The fold-th position that stands for `pixel`, which is itself for fold 0; `none` if there are not so many.
template <class Index>
__device__ __forceinline__ Index position_of(PaddingMode mode, Index pixel, Index extent, Index before, Index after, Index fold,
                                             Index none) {
  if (fold == 0) return pixel;
  if (mode == PaddingMode::kReplicate) {
    if (fold <= before) return pixel == 0 ? -fold : none;
    return pixel == extent - 1 ? pixel + (fold - before) : none;
  }
  const bool low = fold == 1;
  Index at;
  if (mode == PaddingMode::kCircular) {
    at = low ? pixel - extent : pixel + extent;
  } else {
    if (pixel == (low ? 0 : extent - 1)) return none;  // the mirror itself
    at = low ? -pixel : 2 * (extent - 1) - pixel;
  }
  return at >= -before && at < extent + after ? at : none;
}

}  // namespace cnn::conv2d
