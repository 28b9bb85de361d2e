// Sums over slabs in fp16.
#include "conv2d/sum_slabs/sum_slabs.cuh"

namespace cnn::conv2d {
template void sum_slabs<__half>(const Slabs& slabs, cudaStream_t stream);
}
