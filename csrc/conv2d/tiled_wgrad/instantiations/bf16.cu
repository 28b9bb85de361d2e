// The tiled weight gradients in bf16.
#include "conv2d/tiled_wgrad/tiled_wgrad.cuh"

namespace cnn::conv2d {
template void add_tiled_wgrad_kernels<__nv_bfloat16>(std::vector<Kernel>& catalogue);
}
