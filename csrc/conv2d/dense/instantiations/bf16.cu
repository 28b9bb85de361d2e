// The dense kernels in bf16.
#include "conv2d/dense/dense.cuh"

namespace cnn::conv2d {
template void add_dense_kernels<__nv_bfloat16>(std::vector<Kernel>& catalogue);
}
