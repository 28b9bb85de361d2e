// The depthwise channels last kernels in fp32.
#include "conv2d/depthwise/channels_last.cuh"

namespace cnn::conv2d {
template void add_depthwise_channels_last_kernels<float>(std::vector<Kernel>& catalogue);
}
