// The kernels of the implicit GEMM on tensor cores, compiled. Included by instantiations/tensor_*.cu alone, one file per element type.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>

#include "common/launch.h"
#include "conv2d/gemm/tensor.cuh"

namespace cnn::conv2d {

template <class T, GemmTileName kName>
void launch_tensor_tile(const char* name, const GemmParams& params, const LaunchShape& shape) {
  using Tile = TensorTile<kName>;
  const int chunk = kGemmChunkBytes / int(sizeof(T));
  const bool whole = std::min(params.image_unit, params.filter_unit) == kGemmChunkBytes && params.in_channels % chunk == 0 &&
                     (params.filter_inner || params.columns % chunk == 0);
  if (params.filter_inner && whole) launch(name, shape, tensor_gemm_kernel<T, Tile, true, true>, params);
  else if (params.filter_inner) launch(name, shape, tensor_gemm_kernel<T, Tile, true, false>, params);
  else if (whole) launch(name, shape, tensor_gemm_kernel<T, Tile, false, true>, params);
  else launch(name, shape, tensor_gemm_kernel<T, Tile, false, false>, params);
}

template <class T>
void launch_tensor_gemm(const char* name, GemmTileName tile, const GemmParams& params, int blocks, int shared_bytes, cudaStream_t stream) {
  const LaunchShape shape{dim3(unsigned(blocks)), dim3(unsigned(shape_of(tile).threads)), std::size_t(shared_bytes), stream};
  switch (tile) {
    case GemmTileName::kTensor128x256: return launch_tensor_tile<T, GemmTileName::kTensor128x256>(name, params, shape);
    case GemmTileName::kTensor128x128: return launch_tensor_tile<T, GemmTileName::kTensor128x128>(name, params, shape);
    case GemmTileName::kTensor128x64: return launch_tensor_tile<T, GemmTileName::kTensor128x64>(name, params, shape);
    case GemmTileName::kTensor64x64: return launch_tensor_tile<T, GemmTileName::kTensor64x64>(name, params, shape);
    default: throw std::runtime_error(std::string(name) + ": no tile of the tensor cores");
  }
}

}  // namespace cnn::conv2d
