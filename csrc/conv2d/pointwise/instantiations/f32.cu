// The pointwise kernels in fp32.
#include "conv2d/pointwise/pointwise.cuh"

namespace cnn::conv2d {
template void add_pointwise_kernels<float>(std::vector<Kernel>& catalogue);
}
