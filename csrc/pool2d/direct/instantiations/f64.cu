// The direct family in fp64.
#include "pool2d/direct/direct.cuh"

namespace cnn::pool2d {
template void add_direct_kernels<double>(std::vector<Kernel>& catalogue);
}
