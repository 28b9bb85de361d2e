// The pointwise kernels in bf16.
#include "conv2d/pointwise/pointwise.cuh"

namespace cnn::conv2d {
template void add_pointwise_kernels<__nv_bfloat16>(std::vector<Kernel>& catalogue);
}
