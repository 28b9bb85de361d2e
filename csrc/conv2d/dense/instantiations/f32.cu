// The dense kernels in fp32.
#include "conv2d/dense/dense.cuh"

namespace cnn::conv2d {
template void add_dense_kernels<float>(std::vector<Kernel>& catalogue);
}
