// The transposed kernels in fp16.
#include "conv2d/transposed/transposed.cuh"

namespace cnn::conv2d {
template void add_transposed_kernels<__half>(std::vector<Kernel>& catalogue);
}
