// The grouped kernels in fp32.
#include "conv2d/grouped/grouped.cuh"

namespace cnn::conv2d {
template void add_grouped_kernels<float>(std::vector<Kernel>& catalogue);
}
