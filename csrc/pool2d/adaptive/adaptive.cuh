// The rows of the adaptive kernels.
#pragma once

#include <vector>

#include "pool2d/adaptive/adaptive.h"
#include "pool2d/plan.h"

namespace cnn::pool2d {

template <class T>
void add_adaptive_kernels(std::vector<Kernel>&) {}

}  // namespace cnn::pool2d
