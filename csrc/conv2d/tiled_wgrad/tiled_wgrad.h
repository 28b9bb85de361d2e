// The weight gradient of pointwise, dense, dilated and strided (transposed) convolutions, on CUDA cores and tensor cores.
#pragma once

#include <vector>

namespace cnn::conv2d {

struct Kernel;

template <class T>
void add_tiled_wgrad_kernels(std::vector<Kernel>& catalogue);

}  // namespace cnn::conv2d
