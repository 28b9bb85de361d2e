// The rows of the depthwise planar kernels.
#pragma once

#include <vector>

#include "conv2d/depthwise/depthwise.h"
#include "conv2d/plan.h"

namespace cnn::conv2d {

template <class T>
void add_depthwise_planar_kernels(std::vector<Kernel>&) {}

}  // namespace cnn::conv2d
