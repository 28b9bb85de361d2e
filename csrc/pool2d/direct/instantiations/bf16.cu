// The direct family in bf16.
#include "pool2d/direct/direct.cuh"

namespace cnn::pool2d {
template void add_direct_kernels<__nv_bfloat16>(std::vector<Kernel>& catalogue);
}
