// The direct family in fp64.
#include "conv2d/direct/direct.cuh"

namespace cnn::conv2d {
template void add_direct_kernels<double>(std::vector<Kernel>& catalogue);
}
