// The adaptive kernels in bf16.
#include "pool2d/adaptive/adaptive.cuh"

namespace cnn::pool2d {
template void add_adaptive_kernels<__nv_bfloat16>(std::vector<Kernel>& catalogue);
}
