// The dilated kernels in fp16.
#include "conv2d/dilated/dilated.cuh"

namespace cnn::conv2d {
template void add_dilated_kernels<__half>(std::vector<Kernel>& catalogue);
}
