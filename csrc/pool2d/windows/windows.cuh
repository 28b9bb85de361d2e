// The rows of the windows kernels.
#pragma once

#include <vector>

#include "pool2d/plan.h"
#include "pool2d/windows/windows.h"

namespace cnn::pool2d {

template <class T>
void add_windows_kernels(std::vector<Kernel>&) {}

}  // namespace cnn::pool2d
