// The adaptive kernels in fp16.
#include "pool2d/adaptive/adaptive.cuh"

namespace cnn::pool2d {
template void add_adaptive_kernels<__half>(std::vector<Kernel>& catalogue);
}
