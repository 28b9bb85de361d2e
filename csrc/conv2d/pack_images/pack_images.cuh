// Planes of an image, with the channels of a pixel brought side by side:
//
//   packed[n][pixel][c] = image[n, c, pixel],   zeros for c from C to the pitch
//
//            128 pixels (256 of halves)      A block turns a tile of 32 channels round in shared memory. It reads rows of pixels, each
//          +---------------------------+     from where a sector begins, and writes 16 bytes of channels a thread.
//      32  | tile[c][pixel]            |
// channels +---------------------------+     Pitches of 129 floats and 258 halves: threads that write read the vectors of one pixel and of
//                                            its neighbours from 32 different banks.
//
// Bytes: the image twice. In flight: 8 loads of a thread.
#pragma once

#include "common/integers.h"
#include "common/launch.h"
#include "common/sectors.h"
#include "common/types.h"
#include "common/vector.h"
#include "conv2d/pack_images/pack_images.h"

namespace cnn::conv2d {

constexpr int kPackImageThreads = 256, kPackChannels = 32;
template <class T>
constexpr int kPackPixels = 512 / int(sizeof(T));

template <class T>
__global__ void __launch_bounds__(kPackImageThreads, 4) pack_images_kernel(const __grid_constant__ PackImagesParams p) {
  constexpr int kSize = int(sizeof(T)), kPixels = kPackPixels<T>, kPitch = kPixels + 4 / kSize;
  constexpr int kVector = 16 / kSize, kVectors = kPackChannels / kVector, kBatch = 8;
  CNN_SHARED(tile, T[kPackChannels * kPitch]);
  const int thread = int(threadIdx.x);
  int index = int(blockIdx.x);
  const int c0 = index % p.channel_tiles * kPackChannels;
  index /= p.channel_tiles;
  const int pixel0 = index % p.pixel_tiles * kPixels, n = index / p.pixel_tiles;
  const int channels = min(kPackChannels, p.channels - c0), pixels = min(kPixels, p.pixels - pixel0);

  const T* const in = static_cast<const T*>(p.in) + n * p.in_n + c0 * p.in_c + pixel0;
  const auto pixel_of = [&](int e) {
    return (e - sector_phase(in + e / kPixels * p.in_c, kSize)) & (kPixels - 1);  // the first pixels of a row come last
  };
  CNN_NO_UNROLL
  for (int first = thread; first < kPackChannels * kPixels; first += kBatch * kPackImageThreads) {
    T value[kBatch];
    CNN_UNROLL
    for (int i = 0; i < kBatch; ++i) {
      const int e = first + i * kPackImageThreads, c = e / kPixels, pixel = pixel_of(e);
      value[i] = c < channels && pixel < pixels ? in[c * p.in_c + pixel] : narrow<T>(0.0f);
    }
    CNN_UNROLL
    for (int i = 0; i < kBatch; ++i) {
      const int e = first + i * kPackImageThreads;
      tile[e / kPixels * kPitch + pixel_of(e)] = value[i];
    }
  }
  __syncthreads();

  T* const out = static_cast<T*>(p.out) + (n * p.pixels + pixel0) * p.pitch + c0;
  CNN_NO_UNROLL
  for (int e = thread; e < pixels * kVectors; e += kPackImageThreads) {
    const int c = e % kVectors * kVector, pixel = e / kVectors;
    if (c0 + c >= p.pitch) continue;
    Vector<T, kVector> vector;
    CNN_UNROLL
    for (int i = 0; i < kVector; ++i) vector.value[i] = tile[(c + i) * kPitch + pixel];
    *reinterpret_cast<Vector<T, kVector>*>(out + pixel * p.pitch + c) = vector;
  }
}

template <class T>
void launch_pack_images(PackImagesParams p, cudaStream_t stream) {
  static const std::string name = std::string("conv2d_pack_images_") + short_name(TypeTraits<T>::kDType);
  p.pixel_tiles = int(ceil_div(p.pixels, kPackPixels<T>)), p.channel_tiles = int(ceil_div(p.pitch, kPackChannels));
  const int64_t blocks = int64_t(p.batch) * p.pixel_tiles * p.channel_tiles;
  launch(name.c_str(), {dim3(unsigned(blocks)), dim3(kPackImageThreads), 0, stream}, pack_images_kernel<T>, p);
}

}  // namespace cnn::conv2d
