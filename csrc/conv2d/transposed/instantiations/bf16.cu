// The transposed kernels in bf16.
#include "conv2d/transposed/transposed.cuh"

namespace cnn::conv2d {
template void add_transposed_kernels<__nv_bfloat16>(std::vector<Kernel>& catalogue);
}
