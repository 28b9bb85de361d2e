// The rows of the grouped kernels.
#pragma once

#include <vector>

#include "conv2d/grouped/grouped.h"
#include "conv2d/plan.h"

namespace cnn::conv2d {

template <class T>
void add_grouped_kernels(std::vector<Kernel>&) {}

}  // namespace cnn::conv2d
