// What the host sides of the depthwise kernels share: the room for a run of memory (planar_planes.cuh), and how a sum over units (images,
// or bands of their rows) is cut into slabs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "common/cost.h"
#include "common/integers.h"
#include "conv2d/problem.h"

namespace cnn::conv2d {

// Elements of shared memory for a run of so many, which begins up to 15 elements behind a multiple of 16 bytes.
inline int64_t run_elements(int64_t count) { return round_up(count + 16, 16); }

// Units of a slab, of which each has `blocks` blocks of `threads` threads. The time relative to that of the reading or summing alone, as
// common/cost.h has it: the multiprocessor with the most blocks is waited for, and few warps stall; a block's first unit is loaded while
// nothing is summed, taken for half a unit; partial sums are written and read.
inline int64_t best_slab_units(const Problem& p, int64_t units, int64_t blocks, int64_t threads) {
  const double partial = 8.0 * double(p.filter_numel()) / p.tensor_bytes();
  int64_t best = units;
  double least = 0;
  for (int64_t slabs = 1; slabs == 1 || (slabs <= units && slabs * blocks <= 8 * kTargetBlocks); ++slabs) {
    const int64_t here = ceil_div(units, slabs), count = blocks * ceil_div(units, here);
    const double rounds = std::ceil(double(count) / kMultiprocessors), warps = rounds * double(ceil_div(threads, 32));
    const double stalls = std::max(1.0, kHidingWarps / warps);
    const double time = rounds * kMultiprocessors / double(count) * stalls * (1 + 0.5 / double(here)) + partial * double(slabs);
    if (slabs == 1 || time < least) least = time, best = here;
  }
  return best;
}

}  // namespace cnn::conv2d
