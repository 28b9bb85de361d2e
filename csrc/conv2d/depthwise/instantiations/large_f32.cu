// The depthwise large kernels in fp32.
#include "conv2d/depthwise/large.cuh"

namespace cnn::conv2d {
template void add_depthwise_large_kernels<float>(std::vector<Kernel>& catalogue);
}
