// The direct family in fp32.
#include "conv2d/direct/direct.cuh"

namespace cnn::conv2d {
template void add_direct_kernels<float>(std::vector<Kernel>& catalogue);
}
