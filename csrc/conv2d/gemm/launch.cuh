// The kernels of the implicit GEMM, compiled. Included by instantiations/*.cu alone, one file per element type.
#pragma once

#include "common/integers.h"
#include "common/launch.h"
#include "conv2d/gemm/kernel.cuh"
#include "conv2d/gemm/pack_filter.cuh"

namespace cnn::conv2d {

template <class T, GemmTileName kName>
void launch_gemm_tile(const char* name, bool planar, const GemmParams& params, const LaunchShape& shape) {
  using Tile = GemmTile<kName>;
  if (planar) launch(name, shape, gemm_kernel<T, Tile, true>, params);
  else launch(name, shape, gemm_kernel<T, Tile, false>, params);
}

template <class T>
void launch_gemm(const char* name, GemmTileName tile, bool planar, const GemmParams& params, int blocks, int shared_bytes,
                 cudaStream_t stream) {
  const LaunchShape shape{dim3(unsigned(blocks)), dim3(unsigned(shape_of(tile).threads)), std::size_t(shared_bytes), stream};
  switch (tile) {
    case GemmTileName::k256x64: return launch_gemm_tile<T, GemmTileName::k256x64>(name, planar, params, shape);
    case GemmTileName::k128x64: return launch_gemm_tile<T, GemmTileName::k128x64>(name, planar, params, shape);
    case GemmTileName::k256x16: return launch_gemm_tile<T, GemmTileName::k256x16>(name, planar, params, shape);
    default: throw std::runtime_error(std::string(name) + ": no tile of the CUDA cores");
  }
}

template <class T>
void launch_pack_filter(const char* name, const PackFilterParams& p, cudaStream_t stream) {
  const int64_t blocks = ceil_div(p.taps, kPackTaps) * ceil_div(p.n, kPackN) * ceil_div(p.k, kPackK) * p.groups;
  launch(name, {dim3(unsigned(blocks)), dim3(kPackThreads), 0, stream}, pack_filter_kernel<T>, p);
}

}  // namespace cnn::conv2d
