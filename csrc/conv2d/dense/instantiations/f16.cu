// The dense kernels in fp16.
#include "conv2d/dense/dense.cuh"

namespace cnn::conv2d {
template void add_dense_kernels<__half>(std::vector<Kernel>& catalogue);
}
