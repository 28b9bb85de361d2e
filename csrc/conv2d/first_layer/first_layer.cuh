// The rows of the first layer kernels.
#pragma once

#include <vector>

#include "conv2d/first_layer/first_layer.h"
#include "conv2d/plan.h"

namespace cnn::conv2d {

template <class T>
void add_first_layer_kernels(std::vector<Kernel>&) {}

}  // namespace cnn::conv2d
