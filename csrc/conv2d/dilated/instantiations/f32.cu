// The dilated kernels in fp32.
#include "conv2d/dilated/dilated.cuh"

namespace cnn::conv2d {
template void add_dilated_kernels<float>(std::vector<Kernel>& catalogue);
}
