// The dense family.
#pragma once

#include <vector>

namespace cnn::conv2d {

struct Kernel;

template <class T>
void add_dense_kernels(std::vector<Kernel>& catalogue);

}  // namespace cnn::conv2d
