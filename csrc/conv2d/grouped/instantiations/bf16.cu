// The grouped kernels in bf16.
#include "conv2d/grouped/grouped.cuh"

namespace cnn::conv2d {
template void add_grouped_kernels<__nv_bfloat16>(std::vector<Kernel>& catalogue);
}
