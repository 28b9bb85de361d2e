// The direct family: convolutions on CUDA cores that are right for every legal problem. What runs when nothing better fits.
#pragma once

#include <vector>

namespace cnn::conv2d {

struct Kernel;

constexpr int kBiasGradThreads = 256, kActivationGradThreads = 256;

template <class T>
void add_direct_kernels(std::vector<Kernel>& catalogue);

}  // namespace cnn::conv2d
