// The second stage of every reduction that is cut into slabs: partial sums, added in an order that is the same on every machine.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/platform.h"
#include "common/types.h"
#include "conv2d/epilogue.h"
#include "conv2d/plan.h"

namespace cnn::conv2d {

// Partial results [slabs][extent[0]][extent[1]][extent[2]][extent[3]], dense, in the accumulator's type, and where each result goes:
// stride[i] elements of `out` from one to the next along dimension i. Of convolutions' results one dimension is the channel.
struct Slabs {
  const void* partial;
  int64_t slabs;
  int64_t extent[4];
  void* out;
  int64_t stride[4];
  Epilogue epilogue{};
  int channel = 3;  // dimension: 1 or 3
};

// out = the epilogue of the sum over the slabs.
template <class T>
void sum_slabs(const Slabs& slabs, cudaStream_t stream);

// The same for a gradient that is a sum over images, which may be run in batches. The sum of the batches before lies in front of the slabs,
// as a slab of its own, and there the sum is left until the last batch, not rounded: a result is written when all of its slabs are read.
template <class T>
void add_slabs(Slabs s, const Arguments& a) {
  using Acc = Accumulator<T>;
  const int64_t* const e = s.extent;
  const Acc* const front = static_cast<const Acc*>(s.partial) - e[0] * e[1] * e[2] * e[3];
  if (a.batches_before) s.partial = front, ++s.slabs;
  if (!a.batches_after) return sum_slabs<T>(s, a.stream);
  s.out = const_cast<Acc*>(front);
  const int64_t dense[4] = {e[1] * e[2] * e[3], e[2] * e[3], e[3], 1};
  std::copy(dense, dense + 4, s.stride);
  sum_slabs<Acc>(s, a.stream);
}

}  // namespace cnn::conv2d
