// Packed images in fp32.
#include "conv2d/pack_images/pack_images.cuh"

namespace cnn::conv2d {
template void launch_pack_images<float>(PackImagesParams params, cudaStream_t stream);
}
