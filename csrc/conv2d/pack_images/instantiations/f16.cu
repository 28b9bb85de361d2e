// Packed images in fp16.
#include "conv2d/pack_images/pack_images.cuh"

namespace cnn::conv2d {
template void launch_pack_images<__half>(PackImagesParams params, cudaStream_t stream);
}
