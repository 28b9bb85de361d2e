// The adaptive kernels in fp32.
#include "pool2d/adaptive/adaptive.cuh"

namespace cnn::pool2d {
template void add_adaptive_kernels<float>(std::vector<Kernel>& catalogue);
}
