// The depthwise planar kernels in fp32.
#include "conv2d/depthwise/planar.cuh"

namespace cnn::conv2d {
template void add_depthwise_planar_kernels<float>(std::vector<Kernel>& catalogue);
}
