// The implicit GEMM on tensor cores in bf16.
#include "conv2d/gemm/tensor_launch.cuh"

namespace cnn::conv2d {
template void launch_tensor_gemm<__nv_bfloat16>(const char*, GemmTileName, const GemmParams&, int, int, cudaStream_t);
}
