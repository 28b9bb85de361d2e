// The windows family.
#pragma once

#include <vector>

namespace cnn::pool2d {

struct Kernel;

template <class T>
void add_windows_kernels(std::vector<Kernel>& catalogue);

}  // namespace cnn::pool2d
