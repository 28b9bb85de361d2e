// Host arithmetic of sizes and strides.
#pragma once

#include <algorithm>
#include <cstdint>

namespace cnn {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t multiple) { return ceil_div(a, multiple) * multiple; }

// Element strides of a 4-D tensor by position: (n, c, h, w) of an image, (k, c, r, s) of a filter.
struct Strides {
  int64_t d0 = 0, d1 = 0, d2 = 0, d3 = 0;
};

// One past the largest offset into a tensor of these sizes (torch has no negative strides).
inline int64_t span(const Strides& strides, int64_t d0, int64_t d1, int64_t d2, int64_t d3) {
  const auto last = [](int64_t size, int64_t stride) { return std::max<int64_t>(size - 1, 0) * stride; };
  return last(d0, strides.d0) + last(d1, strides.d1) + last(d2, strides.d2) + last(d3, strides.d3) + 1;
}

// A tile's overhang: 32-bit indices may run past the end by less than this before they are masked.
constexpr int64_t kIndexOverhang = 4096;
constexpr int64_t kIndexLimit = (int64_t(1) << 31) - kIndexOverhang;

}  // namespace cnn
