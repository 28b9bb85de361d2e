// The direct family: poolings that are right for every legal problem, window by window.
#pragma once

#include <vector>

namespace cnn::pool2d {

struct Kernel;

constexpr int kWindowThreads = 256;
constexpr int kGatherThreads = 256;
constexpr int kGatherResults = 4;  // per thread

template <class T>
void add_direct_kernels(std::vector<Kernel>& catalogue);

}  // namespace cnn::pool2d
