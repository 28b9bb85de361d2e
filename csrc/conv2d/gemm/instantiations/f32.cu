// The implicit GEMM in f32.
#include "conv2d/gemm/launch.cuh"

namespace cnn::conv2d {
template void launch_gemm<float>(const char*, GemmTileName, bool, const GemmParams&, int, int, cudaStream_t);
template void launch_pack_filter<float>(const char*, const PackFilterParams&, cudaStream_t);
}  // namespace cnn::conv2d
