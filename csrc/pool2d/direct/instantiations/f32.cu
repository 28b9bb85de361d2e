// The direct family in fp32.
#include "pool2d/direct/direct.cuh"

namespace cnn::pool2d {
template void add_direct_kernels<float>(std::vector<Kernel>& catalogue);
}
