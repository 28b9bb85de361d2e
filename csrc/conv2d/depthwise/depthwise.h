// The depthwise family.
#pragma once

#include <vector>

namespace cnn::conv2d {

struct Kernel;

template <class T>
void add_depthwise_channels_last_kernels(std::vector<Kernel>& catalogue);

template <class T>
void add_depthwise_planar_kernels(std::vector<Kernel>& catalogue);

template <class T>
void add_depthwise_large_kernels(std::vector<Kernel>& catalogue);

}  // namespace cnn::conv2d
