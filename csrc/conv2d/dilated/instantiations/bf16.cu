// The dilated kernels in bf16.
#include "conv2d/dilated/dilated.cuh"

namespace cnn::conv2d {
template void add_dilated_kernels<__nv_bfloat16>(std::vector<Kernel>& catalogue);
}
