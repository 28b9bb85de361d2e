// The adaptive family.
#pragma once

#include <vector>

namespace cnn::pool2d {

struct Kernel;

template <class T>
void add_adaptive_kernels(std::vector<Kernel>& catalogue);

}  // namespace cnn::pool2d
