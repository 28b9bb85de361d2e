// The pointwise kernels in fp16.
#include "conv2d/pointwise/pointwise.cuh"

namespace cnn::conv2d {
template void add_pointwise_kernels<__half>(std::vector<Kernel>& catalogue);
}
