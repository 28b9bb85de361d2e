// The rows of the pointwise kernels.
#pragma once

#include <vector>

#include "conv2d/plan.h"
#include "conv2d/pointwise/pointwise.h"

namespace cnn::conv2d {

template <class T>
void add_pointwise_kernels(std::vector<Kernel>&) {}

}  // namespace cnn::conv2d
