// Stride-1 max pooling of odd windows, rows first and then columns: R + S taps a result instead of R * S. And, without indices, chains of
// it: the poolings of a spatial pyramid are each other's, 9x9 = 5x5 of 5x5, 13x13 = 5x5 of 9x9, so one read of x and 5 + 5 taps for each
// of three results do where the poolings one by one take three reads and 25 + 81 + 169.
//
//   level l:   y_l(p, q) = max of y_(l-1) over rows p - R/2 .. p + R/2, columns q - S/2 .. q + S/2,   y_0 = x
//
//   A block has whole planes in shared memory: of `group` vectors of 16 bytes of channels where those are dense, else of several planes
//   next to each other, a span (planar.cuh).
//
//        x --> [ plane ]  --along rows-->  [ rows ]  --along columns-->  [ plane ] --> y_1
//                  |                                                         |
//                  +<-------------------------- again ----------------------+ --> y_2, y_3
//
// The first of equal values, and of NaNs the last, survives the rows and then the columns as it does a walk in row-major order, so the
// results are those of the other kernels to the bit. So are indices: of each row the best tap is kept in a byte, r * S + it is the
// window's. Neighbouring lanes have neighbouring columns (vectors): no bank conflicts.
// Bytes per pixel and channel: one element read, one written for each level. Operations per tap: a conversion, two comparisons, a
// selection.
#pragma once

#include "pool2d/windows/planar.cuh"

namespace cnn::pool2d {

constexpr int kSeparableThreads = 256;

struct SeparableParams {
  const void* source;           // x; backward: the gradient of y
  const uint8_t* source_index;  // backward
  void* target[kMostLevels];
  uint8_t* target_index;  // of one level; null: no index is asked for
  int32_t levels;
  bool channels_inner;
  PixelStrides pixels, result_pixels, index_pixels;  // channels dense
  PlaneStrides planes_at, index_planes_at;           // columns dense; the results are dense
  FastDiv<int32_t> columns, rows, group, tiles, channels;
  int32_t radius_h, radius_w;
  int32_t planes, tile_planes;
  int32_t rows_at, taps_at, index_at;  // bytes, in shared memory; backward, of the result, the indices and nothing
};

// The best tap of a row's windows, and of the windows themselves, beside the values; or nothing of the kind.
template <int N, bool kIndexed>
struct Taps {
  Packed<uint8_t, N>* at;
  __device__ __forceinline__ Packed<uint8_t, N> load(int32_t i) const {
    return Packed<uint8_t, N>::load(reinterpret_cast<uint8_t*>(at + i));
  }
  __device__ __forceinline__ void store(int32_t i, const Packed<uint8_t, N>& taps) const { taps.store(reinterpret_cast<uint8_t*>(at + i)); }
};
template <int N>
struct Taps<N, false> {
  __device__ __forceinline__ Packed<uint8_t, N> load(int32_t) const { return {}; }
  __device__ __forceinline__ void store(int32_t, const Packed<uint8_t, N>&) const {}
};

// All levels of what lies in `plane`, `group` items to a pixel. `write(level, item, result, index)` gets every result once.
template <class T, int N, bool kIndexed, class Write>
__device__ __forceinline__ void pool_levels(const SeparableParams& p, Packed<T, N>* plane, Packed<T, N>* rows, Taps<N, kIndexed> taps,
                                            int32_t levels, int32_t items, const Write& write) {
  // By value: one access of 16 bytes, and not one for each word that is used.
  const auto read = [](const Packed<T, N>* at) { return Packed<T, N>::load(reinterpret_cast<const T*>(at)); };
  const int32_t pixel = p.group.divisor, row = p.columns.divisor * pixel, S = 2 * p.radius_w + 1;
  for (int32_t level = 0; level < levels; ++level) {
    for (int32_t i = int32_t(threadIdx.x); i < items; i += kSeparableThreads) {
      int32_t column;
      p.columns.divmod(p.group.quotient(i), column);
      const int32_t first = max(-p.radius_w, -column), last = min(p.radius_w, p.columns.divisor - 1 - column);
      Maximum<T, N> best(first + p.radius_w);
      for (int32_t s = first; s <= last; ++s) best.take(read(plane + i + s * pixel), s + p.radius_w);
      best.values(1).store(reinterpret_cast<T*>(rows + i));
      taps.store(i, best.index());
    }
    __syncthreads();
    for (int32_t i = int32_t(threadIdx.x); i < items; i += kSeparableThreads) {
      int32_t h;
      p.rows.divmod(p.columns.quotient(p.group.quotient(i)), h);
      const int32_t first = max(-p.radius_h, -h), last = min(p.radius_h, p.rows.divisor - 1 - h);
      Maximum<T, N> best(0);
      if constexpr (kIndexed) best.begin((first + p.radius_h) * S, taps.load(i + first * row));
      for (int32_t r = first; r <= last; ++r) {
        if constexpr (kIndexed) best.take(read(rows + i + r * row), (r + p.radius_h) * S, taps.load(i + r * row));
        else best.take(read(rows + i + r * row), 0);
      }
      const Packed<T, N> result = best.values(1);
      result.store(reinterpret_cast<T*>(plane + i));
      write(level, i, result, best.index());
    }
    __syncthreads();
  }
}

// Channels dense: a block's items, `group` vectors of each pixel of one image.
struct PixelTile {
  int32_t image, tile, items, vector;

  __device__ __forceinline__ PixelTile(const SeparableParams& p, int32_t vector)
      : items(p.rows.divisor * p.columns.divisor * p.group.divisor), vector(vector) {
    image = p.tiles.divmod(int32_t(blockIdx.x), tile);
  }
  // Item i's channels, row and column.
  __device__ __forceinline__ Strip at(const SeparableParams& p, int32_t i, int32_t& h, int32_t& w) const {
    int32_t of_group;
    h = p.columns.divmod(p.group.divmod(i, of_group), w);
    Strip strip{};
    strip.n = image, strip.channel = (tile * p.group.divisor + of_group) * vector;
    return strip;
  }
};

template <class T, bool kIndexed>
__device__ __forceinline__ void pool_channels(const SeparableParams& p, unsigned char* memory) {
  constexpr int kVector = 16 / int(sizeof(T));
  using Vector = Packed<T, kVector>;
  using Index = Packed<uint8_t, kVector>;
  const PixelTile tile(p, kVector);
  auto* const plane = reinterpret_cast<Vector*>(memory);
  Taps<kVector, kIndexed> taps;
  if constexpr (kIndexed) taps.at = reinterpret_cast<Index*>(memory + p.taps_at);
  for (int32_t i = int32_t(threadIdx.x); i < tile.items; i += kSeparableThreads) {
    int32_t h, w;
    const Pixels<const T, kVector> x(static_cast<const T*>(p.source), p.pixels, tile.at(p, i, h, w));
    if (p.pixels.vector) copy_async<16>(plane + i, x.base + h * p.pixels.h + w * p.pixels.w);
    else plane[i] = x.load(h, w);
  }
  await_bands();
  pool_levels<T, kVector, kIndexed>(p, plane, reinterpret_cast<Vector*>(memory + p.rows_at), taps, p.levels, tile.items,
                                    [&](int32_t level, int32_t i, const Vector& result, const Index& index) {
                                      int32_t h, w;
                                      const Strip strip = tile.at(p, i, h, w);
                                      Pixels<T, kVector>(static_cast<T*>(p.target[level]), p.result_pixels, strip).store(h, w, result);
                                      if constexpr (kIndexed)
                                        Pixels<uint8_t, kVector>(p.target_index, p.index_pixels, strip).store(h, w, index);
                                    });
}

// Begins to bring planes of a tensor to shared memory, from plane `first` on.
template <class T>
__device__ __forceinline__ Span<T> fetch_planes(const SeparableParams& p, unsigned char* memory, const T* tensor, const PlaneStrides& at,
                                                int32_t first, int32_t length) {
  int32_t c;
  const int32_t n = p.channels.divmod(first, c);
  const T* const global = tensor + n * at.n + c * at.c;
  const Span<T> span = Span<T>::at(memory, at.span ? global : nullptr);
  if (at.span) {
    span.fetch(global, length);
    return span;
  }
  for (int32_t i = int32_t(threadIdx.x); i < length; i += kSeparableThreads) {
    int32_t h, w;
    const int32_t image = p.channels.divmod(first + p.rows.divmod(p.columns.divmod(i, w), h), c);
    span.elements[i] = __ldg(tensor + image * at.n + c * at.c + h * at.h + w * at.w);
  }
  span.margins(length);
  return span;
}

template <class T, bool kIndexed>
__device__ __forceinline__ void pool_planes(const SeparableParams& p, unsigned char* memory) {
  using Value = Packed<T, 1>;
  using Index = Packed<uint8_t, 1>;
  const int32_t first = int32_t(blockIdx.x) * p.tile_planes, count = min(p.tile_planes, p.planes - first);
  const int32_t pixels = p.rows.divisor * p.columns.divisor, items = count * pixels;
  const Span<T> span = fetch_planes(p, memory, static_cast<const T*>(p.source), p.planes_at, first, items);
  await_bands();
  Taps<1, kIndexed> taps;
  Span<uint8_t> index_out{};
  if constexpr (kIndexed) {
    taps.at = reinterpret_cast<Index*>(memory + p.taps_at);
    index_out = Span<uint8_t>::at(memory + p.index_at, p.target_index + first * pixels);
  }
  for (int32_t level = 0; level < p.levels; ++level) {
    T* const y = static_cast<T*>(p.target[level]) + first * pixels;
    // Sixteen bytes at a time where the result lies as x does, which it all but always does.
    const bool alike = Span<T>::at(memory, y).elements == span.elements;
    pool_levels<T, 1, kIndexed>(p, reinterpret_cast<Value*>(span.elements), reinterpret_cast<Value*>(memory + p.rows_at), taps, 1, items,
                                [&](int32_t, int32_t i, const Value& result, const Index& index) {
                                  if (!alike) y[i] = result[0];
                                  if constexpr (kIndexed) index_out.elements[i] = index[0];
                                });
    if (alike) span.write(y, items);
  }
  if constexpr (kIndexed) index_out.write(p.target_index + first * pixels, items);
}

template <class T>
__global__ void __launch_bounds__(kSeparableThreads, 4) separable_max_kernel(const SeparableParams p) {
  CNN_DYNAMIC_SHARED(memory, unsigned char);
  if (p.channels_inner) return p.target_index ? pool_channels<T, true>(p, memory) : pool_channels<T, false>(p, memory);
  return p.target_index ? pool_planes<T, true>(p, memory) : pool_planes<T, false>(p, memory);
}

}  // namespace cnn::pool2d
