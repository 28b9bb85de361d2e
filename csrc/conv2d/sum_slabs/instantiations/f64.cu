// Sums over slabs in fp64.
#include "conv2d/sum_slabs/sum_slabs.cuh"

namespace cnn::conv2d {
template void sum_slabs<double>(const Slabs& slabs, cudaStream_t stream);
}
