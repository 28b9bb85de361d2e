// The implicit GEMM with everything resident in bf16.
#include "conv2d/gemm/resident_launch.cuh"

namespace cnn::conv2d {
template void launch_stack<__nv_bfloat16>(const char*, int, const StackParams&, int, int, cudaStream_t);
template void launch_strip<__nv_bfloat16>(const char*, const StripParams&, int, int, cudaStream_t);
}  // namespace cnn::conv2d
