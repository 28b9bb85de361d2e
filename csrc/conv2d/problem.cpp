// Checks and text of a convolution's geometry. See problem.h.
#include "conv2d/problem.h"

#include <algorithm>
#include <sstream>

namespace cnn::conv2d {
namespace {

// Whether the mode has a pixel for every position from -before to extent - 1 + after.
bool padding_reaches(PaddingMode mode, int64_t extent, int64_t before, int64_t after) {
  const int64_t far = std::max(before, after);
  return mode == PaddingMode::kReflect ? far < extent : mode == PaddingMode::kCircular ? far <= extent : true;
}

}  // namespace

int64_t last_position(int64_t outputs, int64_t stride, int64_t pad, int64_t taps, int64_t dilation) {
  return (outputs - 1) * stride - pad + (taps - 1) * dilation;
}

std::string why_illegal(const Problem& p) {
  std::ostringstream why;
  if (p.N < 0 || p.C < 0 || p.K < 0 || p.H < 0 || p.W < 0 || p.P < 0 || p.Q < 0) why << "a size is negative";
  else if (p.R < 1 || p.S < 1) why << "the filter is empty: " << p.R << "x" << p.S;
  else if (p.stride_h < 1 || p.stride_w < 1) why << "stride must be positive";
  else if (p.dilation_h < 1 || p.dilation_w < 1) why << "dilation must be positive";
  else if (p.pad_h < 0 || p.pad_w < 0) why << "padding must not be negative";
  else if (p.groups < 1 || p.C % p.groups != 0 || p.K % p.groups != 0)
    why << "groups=" << p.groups << " must be positive and divide C=" << p.C << " and K=" << p.K;
  else if (p.padding_mode != PaddingMode::kZeros && p.H > 0 && p.W > 0 &&
           (!padding_reaches(p.padding_mode, p.H, p.pad_h, last_position(p.P, p.stride_h, p.pad_h, p.R, p.dilation_h) - (p.H - 1)) ||
            !padding_reaches(p.padding_mode, p.W, p.pad_w, last_position(p.Q, p.stride_w, p.pad_w, p.S, p.dilation_w) - (p.W - 1))))
    why << "padding mode " << name_of(p.padding_mode) << " has not so many pixels to take";
  return why.str();
}

std::string to_string(const Problem& p) {
  std::ostringstream text;
  text << name_of(p.pass) << ' ' << short_name(p.dtype) << " N" << p.N << " C" << p.C << ' ' << p.H << 'x' << p.W << " -> K" << p.K << ' '
       << p.P << 'x' << p.Q << ", " << p.R << 'x' << p.S << " stride " << p.stride_h << ',' << p.stride_w << " pad " << p.pad_h << ','
       << p.pad_w << " dilation " << p.dilation_h << ',' << p.dilation_w << " groups " << p.groups;
  if (p.allow_tf32) text << " tf32";
  if (p.padding_mode != PaddingMode::kZeros) text << " padding " << name_of(p.padding_mode);
  return text.str();
}

bool fits_32_bits(const Problem& p) {
  const int64_t reduction = std::max({p.channels_per_group() * p.R * p.S, p.filters_per_group() * p.R * p.S, p.output_pixels()});
  const int64_t rows = std::max(p.N * p.H * p.W, p.output_pixels());
  const int64_t reach =
      std::max({last_position(p.P, p.stride_h, p.pad_h, p.R, p.dilation_h), last_position(p.Q, p.stride_w, p.pad_w, p.S, p.dilation_w),
                p.H + p.pad_h + p.R * p.dilation_h, p.W + p.pad_w + p.S * p.dilation_w});
  const int64_t of_w = p.pass == Pass::kActivationGrad ? span(p.w, p.N, p.K, p.P, p.Q) : span(p.w, p.K, p.channels_per_group(), p.R, p.S);
  const int64_t offsets = std::max({span(p.x, p.N, p.C, p.H, p.W), of_w, span(p.y, p.N, p.K, p.P, p.Q)});
  return std::max({reduction, rows, reach, offsets, p.stride_h, p.stride_w}) < kIndexLimit;
}

}  // namespace cnn::conv2d
