// The direct family in fp16.
#include "conv2d/direct/direct.cuh"

namespace cnn::conv2d {
template void add_direct_kernels<__half>(std::vector<Kernel>& catalogue);
}
