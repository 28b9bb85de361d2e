// The weight gradient of few channels on tensor cores in bf16.
#include "conv2d/resident_wgrad/launch.cuh"

namespace cnn::conv2d {
template void launch_stack_wgrad<__nv_bfloat16>(const char*, int, const ResidentWgradParams&, int, int, cudaStream_t);
template void launch_strip_wgrad<__nv_bfloat16>(const char*, const ResidentWgradParams&, int, int, cudaStream_t);
}  // namespace cnn::conv2d
