// Stride-1 max pooling of odd windows without indices, rows first and then columns: R + S taps a result instead of R * S. And chains of
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
// results are those of the other kernels to the bit. Neighbouring lanes have neighbouring columns (vectors): no bank conflicts.
// Bytes per pixel and channel: one element read, one written for each level. Operations per tap: a conversion, two comparisons, a
// selection.
#pragma once

#include "pool2d/windows/planar.cuh"

namespace cnn::pool2d {

constexpr int kSeparableThreads = 256;

struct SeparableParams {
  const void* source;
  void* target[kMostLevels];
  int32_t levels;
  bool channels_inner;
  PixelStrides pixels, result_pixels;  // channels dense
  PlaneStrides planes_at;              // columns dense; the results are dense
  FastDiv<int32_t> columns, rows, group, tiles, channels;
  int32_t radius_h, radius_w;
  int32_t planes, tile_planes;
  int32_t rows_at;  // bytes, in shared memory
};

// All levels of what lies in `plane`, `group` items to a pixel. `write(level, item, result)` gets every result once.
template <class T, int N, class Write>
__device__ __forceinline__ void pool_levels(const SeparableParams& p, Packed<T, N>* plane, Packed<T, N>* rows, int32_t items,
                                            const Write& write) {
  // By value: one access of 16 bytes, and not one for each word that is used.
  const auto read = [](const Packed<T, N>* at) { return Packed<T, N>::load(reinterpret_cast<const T*>(at)); };
  const int32_t pixel = p.group.divisor, row = p.columns.divisor * pixel;
  for (int32_t level = 0; level < p.levels; ++level) {
    for (int32_t i = int32_t(threadIdx.x); i < items; i += kSeparableThreads) {
      int32_t column;
      p.columns.divmod(p.group.quotient(i), column);
      const int32_t first = max(-p.radius_w, -column), last = min(p.radius_w, p.columns.divisor - 1 - column);
      Maximum<T, N> best(0);
      for (int32_t s = first; s <= last; ++s) best.take(read(plane + i + s * pixel), 0);
      best.values(1).store(reinterpret_cast<T*>(rows + i));
    }
    __syncthreads();
    for (int32_t i = int32_t(threadIdx.x); i < items; i += kSeparableThreads) {
      int32_t h;
      p.rows.divmod(p.columns.quotient(p.group.quotient(i)), h);
      const int32_t first = max(-p.radius_h, -h), last = min(p.radius_h, p.rows.divisor - 1 - h);
      Maximum<T, N> best(0);
      for (int32_t r = first; r <= last; ++r) best.take(read(rows + i + r * row), 0);
      const Packed<T, N> result = best.values(1);
      result.store(reinterpret_cast<T*>(plane + i));
      write(level, i, result);
    }
    __syncthreads();
  }
}

template <class T>
__global__ void __launch_bounds__(kSeparableThreads, 4) separable_max_kernel(const SeparableParams p) {
  CNN_DYNAMIC_SHARED(memory, unsigned char);
  if (p.channels_inner) {
    constexpr int kVector = 16 / int(sizeof(T));
    using Vector = Packed<T, kVector>;
    int32_t tile;
    Strip strip{};
    strip.n = p.tiles.divmod(int32_t(blockIdx.x), tile);
    const int32_t items = p.rows.divisor * p.columns.divisor * p.group.divisor;
    auto* const plane = reinterpret_cast<Vector*>(memory);
    const auto at = [&](int32_t i, int32_t& h, int32_t& w) {
      int32_t vector;
      h = p.columns.divmod(p.group.divmod(i, vector), w);
      strip.channel = (tile * p.group.divisor + vector) * kVector;
    };
    for (int32_t i = int32_t(threadIdx.x); i < items; i += kSeparableThreads) {
      int32_t h, w;
      at(i, h, w);
      const Pixels<const T, kVector> x(static_cast<const T*>(p.source), p.pixels, strip);
      if (p.pixels.vector) copy_async<16>(plane + i, x.base + h * p.pixels.h + w * p.pixels.w);
      else plane[i] = x.load(h, w);
    }
    await_bands();
    pool_levels<T, kVector>(p, plane, reinterpret_cast<Vector*>(memory + p.rows_at), items,
                            [&](int32_t level, int32_t i, const Vector& result) {
                              int32_t h, w;
                              at(i, h, w);
                              Pixels<T, kVector>(static_cast<T*>(p.target[level]), p.result_pixels, strip).store(h, w, result);
                            });
    return;
  }
  using Value = Packed<T, 1>;
  const int32_t first = int32_t(blockIdx.x) * p.tile_planes, count = min(p.tile_planes, p.planes - first);
  const int32_t pixels = p.rows.divisor * p.columns.divisor, items = count * pixels;
  int32_t c;
  const int32_t n = p.channels.divmod(first, c);
  const T* const x = static_cast<const T*>(p.source) + n * p.planes_at.n + c * p.planes_at.c;
  const Span<T> span = Span<T>::at(memory, p.planes_at.span ? x : nullptr);
  if (p.planes_at.span) {
    span.fetch(x, items);
  } else {
    for (int32_t i = int32_t(threadIdx.x); i < items; i += kSeparableThreads) {
      int32_t h, w;
      const int32_t image = p.channels.divmod(first + p.rows.divmod(p.columns.divmod(i, w), h), c);
      span.elements[i] =
          __ldg(static_cast<const T*>(p.source) + image * p.planes_at.n + c * p.planes_at.c + h * p.planes_at.h + w * p.planes_at.w);
    }
  }
  await_bands();
  const auto target = [&](int32_t level) { return static_cast<T*>(p.target[level]) + first * pixels; };
  // Sixteen bytes at a time where the result lies as x does, which it all but always does.
  const auto alike = [&](int32_t level) { return Span<T>::head(target(level)) == (p.planes_at.span ? Span<T>::head(x) : 0); };
  SeparableParams one = p;
  one.levels = 1;
  for (int32_t level = 0; level < p.levels; ++level) {
    const bool whole = alike(level);
    T* const y = target(level);
    pool_levels<T, 1>(one, reinterpret_cast<Value*>(span.elements), reinterpret_cast<Value*>(memory + p.rows_at), items,
                      [&](int32_t, int32_t i, const Value& result) {
                        if (!whole) y[i] = result[0];
                      });
    if (whole) span.write(y, items);
  }
}

}  // namespace cnn::pool2d
