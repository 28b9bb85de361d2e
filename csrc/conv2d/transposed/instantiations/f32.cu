// The transposed kernels in fp32.
#include "conv2d/transposed/transposed.cuh"

namespace cnn::conv2d {
template void add_transposed_kernels<float>(std::vector<Kernel>& catalogue);
}
