// The depthwise planar kernels in fp16.
#include "conv2d/depthwise/planar.cuh"

namespace cnn::conv2d {
template void add_depthwise_planar_kernels<__half>(std::vector<Kernel>& catalogue);
}
