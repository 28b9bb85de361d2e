// Packed images in bf16.
#include "conv2d/pack_images/pack_images.cuh"

namespace cnn::conv2d {
template void launch_pack_images<__nv_bfloat16>(PackImagesParams params, cudaStream_t stream);
}
