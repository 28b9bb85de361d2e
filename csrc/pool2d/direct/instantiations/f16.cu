// The direct family in fp16.
#include "pool2d/direct/direct.cuh"

namespace cnn::pool2d {
template void add_direct_kernels<__half>(std::vector<Kernel>& catalogue);
}
