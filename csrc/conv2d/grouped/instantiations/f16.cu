// The grouped kernels in fp16.
#include "conv2d/grouped/grouped.cuh"

namespace cnn::conv2d {
template void add_grouped_kernels<__half>(std::vector<Kernel>& catalogue);
}
