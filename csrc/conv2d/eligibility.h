// What the tuned kernels have in common in what they refuse: the direct family runs it.
#pragma once

#include <string>

#include "conv2d/problem.h"

namespace cnn::conv2d {

inline std::string why_not_tuned(const Problem& p) {
  if (p.padding_mode != PaddingMode::kZeros) return std::string("padding mode ") + name_of(p.padding_mode) + ": the direct kernels have it";
  if (!fits_32_bits(p)) return "an index or offset does not fit in 31 bits";
  if (p.output_pixels() * p.K == 0 || p.N * p.C * p.H * p.W == 0) return "a tensor has no elements";
  return {};
}

// The tensor cores multiply fp32 as tf32.
inline std::string why_not_tensor_cores(const Problem& p) {
  return p.dtype != DType::kFloat32 || p.allow_tf32 ? "" : "fp32 is to be multiplied as fp32, and tensor cores do it as tf32";
}

// Whether vectors of `width` elements along the channels of a channels_last tensor are whole and aligned, as far as strides say.
inline bool channels_in_vectors(const Strides& s, int64_t channels, int width) {
  return s.d1 == 1 && channels % width == 0 && s.d0 % width == 0 && s.d2 % width == 0 && s.d3 % width == 0;
}

}  // namespace cnn::conv2d
