// Bias gradient: the sum of y over everything but its channels.
//
//   bias[k] = sum over n, p, q of y[n, k, p, q]
//
// A block sums one slab of pixels for a few channels. Consecutive threads read consecutive addresses: with the channels dense
// (NHWC) a block is 32 channels x 8 pixels, otherwise 8 channels x 32 pixels. Each thread sums every 8th or 32nd pixel, a tree in
// shared memory adds the threads of a channel, and sum_slabs (conv2d/sum_slabs) adds the slabs in order.
// Bytes: y once. FMAs: none; one addition per element.
#pragma once

#include "common/fastdiv.h"
#include "common/launch.h"
#include "conv2d/direct/direct.h"
#include "conv2d/direct/tile.cuh"

namespace cnn::conv2d {

template <class Index>
struct BiasGradParams {
  const void* y;
  void* partial;  // [slabs][channels], in the accumulator's type
  Index y_n, y_c, y_h, y_w;
  Index channels;
  FastDiv<Index> q, pq;
  Index pixels, slab_pixels, channel_tiles;
  bool channels_dense;
};

template <class T, class Index>
__global__ void __launch_bounds__(kBiasGradThreads, 1) bias_grad_kernel(const BiasGradParams<Index> p) {
  using Acc = Accumulator<T>;
  CNN_SHARED(sums, Acc[kBiasGradThreads]);  // [reader][channel]
  const int thread = int(threadIdx.x);
  const int channels_here = p.channels_dense ? 32 : kBiasGradThreads / 32;
  const int readers = kBiasGradThreads / channels_here;
  const int channel_here = p.channels_dense ? thread % 32 : thread / 32;
  const int reader = p.channels_dense ? thread / 32 : thread % 32;

  const Index slab = Index(blockIdx.x) / p.channel_tiles;
  const Index channel = Index(blockIdx.x) % p.channel_tiles * channels_here + channel_here;
  const Index first_pixel = slab * p.slab_pixels, last_pixel = min(first_pixel + p.slab_pixels, p.pixels);

  Acc sum = 0;
  if (channel < p.channels) {
    const T* const y = static_cast<const T*>(p.y) + channel * p.y_c;
    for (Index pixel = first_pixel + reader; pixel < last_pixel; pixel += readers) {
      Index in_image, column;
      const Index n = p.pq.divmod(pixel, in_image);
      const Index row = p.q.divmod(in_image, column);
      sum += widen(__ldg(y + n * p.y_n + row * p.y_h + column * p.y_w));
    }
  }
  sums[reader * channels_here + channel_here] = sum;
  __syncthreads();
  for (int half = readers / 2; half > 0; half /= 2) {
    if (reader < half) sums[reader * channels_here + channel_here] += sums[(reader + half) * channels_here + channel_here];
    __syncthreads();
  }
  if (reader == 0 && channel < p.channels) static_cast<Acc*>(p.partial)[slab * p.channels + channel] = sums[channel_here];
}

}  // namespace cnn::conv2d
