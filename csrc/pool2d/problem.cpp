// Checks and text of a pooling's geometry. See problem.h.
#include "pool2d/problem.h"

#include <algorithm>
#include <cstdlib>
#include <sstream>

namespace cnn::pool2d {
namespace {

// The largest coordinate of one axis: the far end of the last window, or of the image with its padding and one window more.
int64_t reach(int64_t image, int64_t outputs, int64_t taps, int64_t stride, int64_t pad, int64_t dilation) {
  return std::max(outputs * stride, image + pad) + pad + taps * dilation + stride;
}

}  // namespace

std::string why_illegal(const Problem& p) {
  std::ostringstream why;
  if (p.N < 0 || p.C < 0 || p.H < 0 || p.W < 0 || p.P < 0 || p.Q < 0) why << "a size is negative";
  else if (p.R < 1 || p.S < 1) why << "the window is empty: " << p.R << "x" << p.S;
  else if (p.stride_h < 1 || p.stride_w < 1) why << "stride must be positive";
  else if (p.dilation_h < 1 || p.dilation_w < 1) why << "dilation must be positive";
  else if (p.pad_h < 0 || p.pad_w < 0) why << "padding must not be negative";
  else if ((p.op == Op::kAvg || p.op == Op::kAvgBackward) && (p.dilation_h != 1 || p.dilation_w != 1))
    why << "average pooling has no dilation";
  else if (p.index_form == IndexForm::kWindow && p.R * p.S > kMostWindowTaps)
    why << "an index in the window has one byte, enough for " << kMostWindowTaps << " taps and not for " << p.R << 'x' << p.S;
  else if ((p.op == Op::kMaxBackward || p.op == Op::kMaxGather) && p.index_form == IndexForm::kNone) why << "no indices are given";
  else if (is_adaptive(p.op) && (p.H < 1 || p.W < 1) && p.P > 0 && p.Q > 0) why << "an image without pixels has no windows";
  else if (p.levels < 1 || p.levels > kMostLevels) why << "a chain has 1 to " << kMostLevels << " levels";
  else if (p.levels > 1 && (p.op != Op::kMax || p.index_form != IndexForm::kNone || p.P != p.H || p.Q != p.W))
    why << "a chain is of max poolings without indices that keep the image's size";
  return why.str();
}

std::string to_string(const Problem& p) {
  std::ostringstream text;
  text << name_of(p.op) << ' ' << short_name(p.dtype) << " N" << p.N << " C" << p.C << ' ' << p.H << 'x' << p.W << " -> " << p.P << 'x'
       << p.Q;
  if (is_adaptive(p.op)) return text.str();
  text << ", " << p.R << 'x' << p.S << " stride " << p.stride_h << ',' << p.stride_w << " pad " << p.pad_h << ',' << p.pad_w << " dilation "
       << p.dilation_h << ',' << p.dilation_w;
  if (p.divisor_override) text << " divisor " << p.divisor_override;
  else if (!p.count_include_pad) text << " without padding in the divisor";
  if (p.levels > 1) text << ' ' << p.levels << " levels";
  if (p.index_form != IndexForm::kNone) text << ' ' << name_of(p.index_form) << " indices";
  return text.str();
}

bool fits_32_bits(const Problem& p) {
  const int64_t coordinates =
      std::max(reach(p.H, p.P, p.R, p.stride_h, p.pad_h, p.dilation_h), reach(p.W, p.Q, p.S, p.stride_w, p.pad_w, p.dilation_w));
  const int64_t numbers = std::max({p.planes(), p.H * p.W, p.planes() * p.P * p.Q, p.R * p.S, std::abs(p.divisor_override)});
  const int64_t offsets = std::max({span(p.x, p.N, p.C, p.H, p.W), span(p.y, p.N, p.C, p.P, p.Q), span(p.index, p.N, p.C, p.P, p.Q)});
  return std::max({coordinates, numbers, offsets}) < kIndexLimit;
}

}  // namespace cnn::pool2d
