// The gradient of stride-1 max pooling of odd windows (separable.cuh), of any size: every pixel asks its R x S windows whether their index
// is of it.
//
//   dx(h, w) = sum over p, q of dy(p, q) where index(p, q) = r * S + s,   r = h - p + R/2, s = w - q + S/2
//
//   A block has whole planes in shared memory: of `group` vectors of channels where those are dense, else several planes next to each
//   other. A window's index is one byte, so one comparison of a word asks four windows. A pixel has R x S windows to ask and one of its
//   own, on average: matches are kept as bits, and followed (bounds, the gradient, the addition) once for up to eight taps.
//
//     columns dense: 4 pixels to a thread, which slides along the windows' rows       channels dense: 16 bytes of channels of one
//                                                                                     pixel to a thread, and their index bytes
//        index  | . . a b c d e f . . |    tap s:     abcd == tap x 4 ?
//                                          tap s - 1:  bcde == (tap - 1) x 4 ?     a word and its neighbour, shifted
//
// In row-major order of the windows, as everywhere: the bits are those of the direct kernels. The indices may be any.
// Bytes per pixel and channel: a gradient and an index read, a gradient written. Operations per four pixels and tap: a shift, a
// comparison of bytes in four operations, a shift and an OR into the bits, and a quarter of a read of shared memory.
#pragma once

#include "pool2d/windows/separable.cuh"

namespace cnn::pool2d {

// Indices are read up to R and S around a pixel, and a word further: within the zeros on either side of a span.
constexpr int kMostGatheredColumns = 17;

// The highest bit of each of four bytes that is zero.
__device__ __forceinline__ uint32_t zero_bytes(uint32_t bytes) { return ~(((bytes & 0x7f7f7f7fu) + 0x7f7f7f7fu) | bytes) & 0x80808080u; }

template <class T>
__device__ __forceinline__ void gather_planes(const SeparableParams& p, const uint8_t* index, const T* gradient, T* out, int32_t length) {
  const int32_t width = p.columns.divisor, height = p.rows.divisor, S = 2 * p.radius_w + 1, R = 2 * p.radius_h + 1;
  const int32_t before = int32_t(reinterpret_cast<std::uintptr_t>(index) % 4), rotation = int32_t(threadIdx.x) / 8;
  for (int32_t first = int32_t(threadIdx.x) * 4 - before; first < length; first += kSeparableThreads * 4) {
    // The rows of windows over any of the four.
    int32_t row3, column3, most = -1, least = R;
    p.rows.divmod(p.columns.divmod(first + 3, column3), row3);
    const auto place = [&](int32_t e, int32_t& h, int32_t& w) {  // of pixel first + e
      w = column3 - (3 - e), h = row3;
      while (w < 0) w += width, h = h == 0 ? height - 1 : h - 1;
    };
    CNN_UNROLL
    for (int e = 0; e < 4; ++e) {
      if (first + e < 0 || first + e >= length) continue;
      int32_t h, w;
      place(e, h, w);
      most = max(most, min(R - 1, h + p.radius_h));
      least = min(least, max(0, h + p.radius_h - (height - 1)));
    }
    float sum[4] = {};
    for (int32_t r = most; r >= least; --r) {
      const int32_t row = first + (p.radius_h - r) * width - p.radius_w;  // the first window's element, of the first pixel
      const uint8_t* const bytes = index + row;
      const uint32_t shift = uint32_t(reinterpret_cast<std::uintptr_t>(bytes) % 4) * 8;
      const uint32_t* word = reinterpret_cast<const uint32_t*>(bytes - shift / 8);
      uint32_t next = word[1], four = __funnelshift_r(word[0], next, shift);
      for (int32_t t0 = 0; t0 < S; t0 += 8) {
        uint32_t matches = 0;  // bit t - t0 of byte e: the window under tap t is of pixel e
        CNN_UNROLL
        for (int half = 0; half < 8; half += 4) {
          uint32_t four_next = 0;
          if (t0 + half + 1 < S) {
            word += 1;
            const uint32_t further = word[1];
            four_next = __funnelshift_r(next, further, shift);
            next = further;
          }
          CNN_UNROLL
          for (int u = 0; u < 4; ++u) {
            const int32_t t = t0 + half + u, number = r * S + S - 1 - t;
            const uint32_t different = __funnelshift_r(four, four_next, 8 * u) ^ uint32_t(number) * 0x01010101u;
            if (t < S) matches |= zero_bytes(different) >> (7 - half - u);
          }
          four = four_next;
        }
        for (; matches != 0; matches &= matches - 1) {
          const int32_t bit = __ffs(int(matches)) - 1, e = bit / 8, t = t0 + bit % 8;
          if (first + e < 0 || first + e >= length) continue;
          int32_t h, w;
          place(e, h, w);
          h += p.radius_h - r, w += t - p.radius_w;  // the window
          if (h < 0 || h >= height || w < 0 || w >= width) continue;
          const float value = widen(gradient[row + t + e]);
          CNN_UNROLL
          for (int i = 0; i < 4; ++i) sum[i] += i == e ? value : 0.0f;
        }
      }
    }
    // Lanes are 4 elements apart: each writes its four in another order than its neighbours' eighths, or they would meet in the banks.
    CNN_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int32_t e = (i + rotation) % 4, at = first + e;
      const float value = e == 0 ? sum[0] : e == 1 ? sum[1] : e == 2 ? sum[2] : sum[3];
      if (at >= 0 && at < length) out[at] = narrow<T>(value);
    }
  }
}

template <class T>
__device__ __forceinline__ void gather_channels(const SeparableParams& p, unsigned char* memory) {
  constexpr int kVector = 16 / int(sizeof(T));
  using Gradient = Packed<T, kVector>;
  using Index = Packed<uint8_t, kVector>;
  const PixelTile tile(p, kVector);
  auto* const gradients = reinterpret_cast<T*>(memory);
  auto* const indices = memory + p.taps_at;
  for (int32_t i = int32_t(threadIdx.x); i < tile.items; i += kSeparableThreads) {
    int32_t h, w;
    const Strip strip = tile.at(p, i, h, w);
    const Pixels<const T, kVector> y(static_cast<const T*>(p.source), p.pixels, strip);
    const Pixels<const uint8_t, kVector> index(p.source_index, p.index_pixels, strip);
    if (p.pixels.vector) copy_async<16>(gradients + i * kVector, y.base + h * p.pixels.h + w * p.pixels.w);
    else y.load(h, w).store(gradients + i * kVector);
    if (p.index_pixels.vector) copy_async<kVector>(indices + i * kVector, index.base + h * p.index_pixels.h + w * p.index_pixels.w);
    else index.load(h, w).store(indices + i * kVector);
  }
  await_bands();
  const int32_t S = 2 * p.radius_w + 1, pixel = p.group.divisor, row = pixel * p.columns.divisor;
  for (int32_t i = int32_t(threadIdx.x); i < tile.items; i += kSeparableThreads) {
    int32_t h, w;
    const Strip strip = tile.at(p, i, h, w);
    float sum[kVector] = {};
    // Rows and columns of windows, from this pixel's.
    const int32_t top = max(-p.radius_h, -h), bottom = min(p.radius_h, p.rows.divisor - 1 - h);
    const int32_t left = max(-p.radius_w, -w), right = min(p.radius_w, p.columns.divisor - 1 - w);
    for (int32_t r = top; r <= bottom; ++r) {
      for (int32_t s = left; s <= right; ++s) {
        const int32_t at = (i + r * row + s * pixel) * kVector, number = (p.radius_h - r) * S + p.radius_w - s;
        const Index index = Index::load(indices + at);
        bool any = false;
        CNN_UNROLL
        for (int word = 0; word < Index::kWords; ++word)
          any = any || zero_bytes(index.words.value[word] ^ uint32_t(number) * 0x01010101u) != 0;
        if (any) MaximumGradient<T, kVector>{Gradient::load(gradients + at), index}.add_to(sum, number);
      }
    }
    Pixels<T, kVector>(static_cast<T*>(p.target[0]), p.result_pixels, strip).store(h, w, narrowed<T>(sum));
  }
}

template <class T>
__global__ void __launch_bounds__(kSeparableThreads, 4) gathered_max_backward_kernel(const SeparableParams p) {
  CNN_DYNAMIC_SHARED(memory, unsigned char);
  if (p.channels_inner) return gather_channels<T>(p, memory);
  const int32_t first = int32_t(blockIdx.x) * p.tile_planes, count = min(p.tile_planes, p.planes - first);
  const int32_t pixels = p.rows.divisor * p.columns.divisor, length = count * pixels;
  const Span<T> gradients = fetch_planes(p, memory, static_cast<const T*>(p.source), p.planes_at, first, length);
  const Span<uint8_t> indices = fetch_planes(p, memory + p.taps_at, p.source_index, p.index_planes_at, first, length);
  T* const x = static_cast<T*>(p.target[0]) + first * pixels;
  const Span<T> out = Span<T>::at(memory + p.rows_at, x);
  await_bands();
  gather_planes<T>(p, indices.elements, gradients.elements, out.elements, length);
  __syncthreads();
  out.write(x, length);
}

}  // namespace cnn::pool2d
