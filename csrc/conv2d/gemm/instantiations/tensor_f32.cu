// The implicit GEMM on tensor cores in fp32, multiplied as tf32.
#include "conv2d/gemm/tensor_launch.cuh"

namespace cnn::conv2d {
template void launch_tensor_gemm<float>(const char*, GemmTileName, const GemmParams&, int, int, cudaStream_t);
}
