// The depthwise channels last kernels in bf16.
#include "conv2d/depthwise/channels_last.cuh"

namespace cnn::conv2d {
template void add_depthwise_channels_last_kernels<__nv_bfloat16>(std::vector<Kernel>& catalogue);
}
