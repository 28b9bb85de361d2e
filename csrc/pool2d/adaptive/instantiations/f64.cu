// The adaptive kernels in fp64.
#include "pool2d/adaptive/adaptive.cuh"

namespace cnn::pool2d {
template void add_adaptive_kernels<double>(std::vector<Kernel>& catalogue);
}
