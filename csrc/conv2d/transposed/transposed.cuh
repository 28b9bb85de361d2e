// The rows of the transposed kernels.
#pragma once

#include <vector>

#include "conv2d/plan.h"
#include "conv2d/transposed/transposed.h"

namespace cnn::conv2d {

template <class T>
void add_transposed_kernels(std::vector<Kernel>&) {}

}  // namespace cnn::conv2d
