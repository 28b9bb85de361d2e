// The implicit GEMM in f16.
#include "conv2d/gemm/launch.cuh"

namespace cnn::conv2d {
template void launch_gemm<__half>(const char*, GemmTileName, bool, const GemmParams&, int, int, cudaStream_t);
template void launch_pack_filter<__half>(const char*, const PackFilterParams&, cudaStream_t);
}  // namespace cnn::conv2d
