// The tiled weight gradients in f32.
#include "conv2d/tiled_wgrad/tiled_wgrad.cuh"

namespace cnn::conv2d {
template void add_tiled_wgrad_kernels<float>(std::vector<Kernel>& catalogue);
}
