// The direct family in bf16.
#include "conv2d/direct/direct.cuh"

namespace cnn::conv2d {
template void add_direct_kernels<__nv_bfloat16>(std::vector<Kernel>& catalogue);
}
