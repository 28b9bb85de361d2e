// The rows of the dilated kernels.
#pragma once

#include <vector>

#include "conv2d/dilated/dilated.h"
#include "conv2d/plan.h"

namespace cnn::conv2d {

template <class T>
void add_dilated_kernels(std::vector<Kernel>&) {}

}  // namespace cnn::conv2d
