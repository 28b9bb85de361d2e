// The first layer kernels in bf16.
#include "conv2d/first_layer/first_layer.cuh"

namespace cnn::conv2d {
template void add_first_layer_kernels<__nv_bfloat16>(std::vector<Kernel>& catalogue);
}
