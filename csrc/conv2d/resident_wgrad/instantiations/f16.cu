// The weight gradient of few channels on tensor cores in fp16.
#include "conv2d/resident_wgrad/launch.cuh"

namespace cnn::conv2d {
template void launch_stack_wgrad<__half>(const char*, int, const ResidentWgradParams&, int, int, cudaStream_t);
template void launch_strip_wgrad<__half>(const char*, const ResidentWgradParams&, int, int, cudaStream_t);
}  // namespace cnn::conv2d
