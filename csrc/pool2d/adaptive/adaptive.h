// The adaptive family: poolings whose windows divide the image.
#pragma once

#include <vector>

namespace cnn::pool2d {

struct Kernel;

constexpr int kAdaptiveThreads = 256;
template <class T>
constexpr int kAdaptiveVector = int(16 / sizeof(T));  // elements of a 16-byte access

template <class T>
void add_adaptive_kernels(std::vector<Kernel>& catalogue);

}  // namespace cnn::pool2d
