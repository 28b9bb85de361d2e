// The depthwise planar kernels in bf16.
#include "conv2d/depthwise/planar.cuh"

namespace cnn::conv2d {
template void add_depthwise_planar_kernels<__nv_bfloat16>(std::vector<Kernel>& catalogue);
}
