// The rows of the depthwise channels last kernels.
#pragma once

#include <vector>

#include "conv2d/depthwise/depthwise.h"
#include "conv2d/plan.h"

namespace cnn::conv2d {

template <class T>
void add_depthwise_channels_last_kernels(std::vector<Kernel>&) {}

}  // namespace cnn::conv2d
