// Sums over slabs in bf16.
#include "conv2d/sum_slabs/sum_slabs.cuh"

namespace cnn::conv2d {
template void sum_slabs<__nv_bfloat16>(const Slabs& slabs, cudaStream_t stream);
}
