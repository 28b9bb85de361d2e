// The depthwise large kernels in bf16.
#include "conv2d/depthwise/large.cuh"

namespace cnn::conv2d {
template void add_depthwise_large_kernels<__nv_bfloat16>(std::vector<Kernel>& catalogue);
}
