// The first layer kernels in fp32.
#include "conv2d/first_layer/first_layer.cuh"

namespace cnn::conv2d {
template void add_first_layer_kernels<float>(std::vector<Kernel>& catalogue);
}
