// The first layer family.
#pragma once

#include <vector>

namespace cnn::conv2d {

struct Kernel;

template <class T>
void add_first_layer_kernels(std::vector<Kernel>& catalogue);

}  // namespace cnn::conv2d
