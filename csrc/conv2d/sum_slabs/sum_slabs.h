// The second stage of every reduction that is cut into slabs: partial sums, added in an order that is the same on every machine.
#pragma once

#include <cstdint>

#include "common/platform.h"
#include "conv2d/epilogue.h"

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

}  // namespace cnn::conv2d
