// The depthwise large kernels in fp16.
#include "conv2d/depthwise/large.cuh"

namespace cnn::conv2d {
template void add_depthwise_large_kernels<__half>(std::vector<Kernel>& catalogue);
}
