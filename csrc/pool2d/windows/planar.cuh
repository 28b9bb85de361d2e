// Pooling with the columns dense (NCHW): planes, or bands of their rows, through shared memory.
//
//   A block has a band of one plane, or several whole planes where they are small. Either is one span of consecutive memory, and so is
//   its result: whatever the width (55, 27, 13, 7 columns), it moves in 16-byte accesses but for its first and last few elements.
//
//       x  ...|#### plane g, rows h0 .. h1 ####|...        cp.async, 16 bytes a thread, all in flight together
//               |  the same bytes at the same offset from a multiple of 32
//       tile  [..####################################..]   ".." margins, so that a tap beside the image may be read and thrown away
//               |  lanes along the columns of the result, a thread slides down a strip of its rows
//       out   [..################..]  index [..####..]
//               |
//       y  ...|################|...                        16 bytes a thread
//
//   forward:   a thread has one column of y. With a stride of 2 its taps come out of aligned pairs (two elements a read): single
//              elements two apart would meet in a bank. Maxima with a stride of 1 keep the maximum of each row of a window: 3 + 3
//              comparisons instead of 9.
//   backward:  a thread has one column of x; the windows over it are those of the cells of channels.cuh. Gradients of averages are divided
//              once, in shared memory, before they are gathered.
//   2x2 stride 2, where rows of x begin at whole sectors: no shared memory. A thread reads 16 bytes of two rows and writes 8 of y (4 bytes
//              of index for halves); backward the other way round.
//
// Bytes per result: each element of x once and R - stride rows of halo per band; one of y; one of index.
// Operations per tap: a conversion, two comparisons, two selections (max), an addition (avg); (R - stride) / R of the reads of shared
// memory are saved by sliding.
#pragma once

#include "common/async_copy.h"
#include "common/launch.h"
#include "pool2d/windows/channels.cuh"

namespace cnn::pool2d {

constexpr int kPlanarThreads = 256;

struct PlaneStrides {
  int32_t n, c, h, w;
  bool span;  // a tile of it lies in consecutive memory
};

struct PlanarParams {
  const void* source;           // x; backward: the gradient of y
  const uint8_t* source_index;  // max backward
  void* target;                 // y, dense; backward: the gradient of x, dense
  uint8_t* target_index;        // max, dense; null: no index is asked for
  PlaneStrides source_at, source_index_at;
  WindowAxis h, w;
  Divisor divisor;
  WindowShape shape;
  bool streamed;                 // without shared memory
  FastDiv<int32_t> interleaved;  // 2x2 stride 2: channels of each pixel side by side in a row; else 1
  FastDiv<int32_t> channels, bands;
  FastDiv<int32_t> columns, strips;  // lanes of a strip, strips of a tile; streamed: of 16 bytes of x in a row, and of rows of windows
  FastDiv<int32_t> source_columns, source_rows;  // of a plane of the source
  int32_t planes, tile_planes;
  int32_t first_row, rows, tile_rows, strip_rows;        // of results; backward: of cells
  int32_t out_at, index_in_at, index_out_at, shares_at;  // bytes, in shared memory
  int32_t threads;                                       // streamed: in all
};

// A tile's part of one tensor: rows first .. end of planes `plane` .. plane + count.
struct Band {
  int32_t plane, count, first, end;
};

// A tile's elements in shared memory, in the order of memory: element 0 lies as far from a multiple of 32 bytes, a sector, as in global
// memory.
template <class T>
struct Span {
  static constexpr int kVector = 16 / int(sizeof(T));
  T* elements;  // element 0

  // The span for `length` elements, which are or are going to be at `global`, in memory that holds 4 * 16 bytes more.
  __device__ __forceinline__ static Span at(unsigned char* memory, const T* global) {
    return {reinterpret_cast<T*>(memory) + kVector + head(global)};
  }
  // Elements from a multiple of 32 bytes to `global`.
  __device__ __forceinline__ static int32_t head(const T* global) {
    return int32_t(reinterpret_cast<std::uintptr_t>(global) % 32 / sizeof(T));
  }
  // Does `vector(first)` for each 16 bytes of the span, and `single(element)` for what is left before and behind them. A warp's vectors
  // begin with a sector; what is left has a lane for each element, of one warp before and of another behind.
  template <class OfVector, class OfSingle>
  __device__ __forceinline__ static void cover(const T* global, int32_t length, const OfVector& vector, const OfSingle& single) {
    const int32_t thread = int32_t(threadIdx.x), before = head(global);
    const int32_t lead = min((2 * kVector - before) % kVector, length), end = lead + (length - lead) / kVector * kVector;
    for (int32_t first = thread * kVector - before; first < end; first += kPlanarThreads * kVector)
      if (first >= 0) vector(first);
    if (thread < lead) single(thread);
    if (thread >= 32 && thread - 32 < length - end) single(end + thread - 32);
  }
  // Begins to copy. Beside the span, kVector elements on either side, there will be zeros.
  __device__ __forceinline__ void fetch(const T* global, int32_t length) const {
    T* const to = elements;
    cover(
        global, length, [=](int32_t first) { copy_async<16>(to + first, global + first); },
        [=](int32_t element) { to[element] = __ldg(global + element); });
    margins(length);
  }
  __device__ __forceinline__ void margins(int32_t length) const {
    const int32_t i = int32_t(threadIdx.x) - 64;
    if (i >= 0 && i < kVector) elements[i - kVector] = elements[length + i] = T(0.0f);
  }
  // Writes to global memory what the block has put here.
  __device__ __forceinline__ void write(T* global, int32_t length) const {
    const T* const from = elements;
    cover(
        global, length, [=](int32_t first) { *reinterpret_cast<Vector<T, kVector>*>(global + first) = load_vector<kVector>(from + first); },
        [=](int32_t element) { global[element] = from[element]; });
  }
};

// Begins to bring a band of the source to shared memory.
template <class T>
__device__ __forceinline__ Span<T> fetch_band(const PlanarParams& p, unsigned char* memory, const T* tensor, const PlaneStrides& at,
                                              const Band& band) {
  const int32_t columns = p.source_columns.divisor, length = ((band.count - 1) * p.source_rows.divisor + band.end - band.first) * columns;
  int32_t c;
  const int32_t n = p.channels.divmod(band.plane, c);
  if (at.span) {
    const T* const global = tensor + n * at.n + c * at.c + band.first * at.h;
    const Span<T> span = Span<T>::at(memory, global);
    span.fetch(global, length);
    return span;
  }
  const Span<T> span = Span<T>::at(memory, nullptr);
  for (int32_t e = int32_t(threadIdx.x); e < length; e += kPlanarThreads) {
    int32_t w, h;
    const int32_t image = p.channels.divmod(band.plane + p.source_rows.divmod(p.source_columns.divmod(e, w), h), c);
    span.elements[e] = __ldg(tensor + image * at.n + c * at.c + (band.first + h) * at.h + w * at.w);
  }
  span.margins(length);
  return span;
}

// Waits for what the block has begun to copy.
__device__ __forceinline__ void await_bands() {
  commit_async();
  wait_async<0>();
  __syncthreads();
}

// The block's rows of results (backward: of cells), and what else it is to do.
struct PlanarTile {
  int32_t plane, count;  // planes
  int32_t first, end;    // rows

  __device__ __forceinline__ static PlanarTile of(const PlanarParams& p) {
    int32_t band;
    PlanarTile tile;
    tile.plane = p.bands.divmod(int32_t(blockIdx.x), band) * p.tile_planes;
    tile.count = min(p.tile_planes, p.planes - tile.plane);
    tile.first = p.first_row + band * p.tile_rows;
    tile.end = min(tile.first + p.tile_rows, p.first_row + p.rows);
    return tile;
  }
  // Does `body(plane of the tile, column, first row, end)` for each strip that the thread has.
  template <class Body>
  __device__ __forceinline__ void strips(const PlanarParams& p, int32_t columns, const Body& body) const {
    const int32_t items = count * p.strips.divisor * p.columns.divisor;
    for (int32_t item = int32_t(threadIdx.x); item < items; item += kPlanarThreads) {
      int32_t column, strip;
      const int32_t g = p.strips.divmod(p.columns.divmod(item, column), strip);
      const int32_t row = first + strip * p.strip_rows;
      if (row < end && column < columns) body(g, column, row, min(row + p.strip_rows, end));
    }
  }
};

// --- Forward.

// kTaps elements from `at` on. With a stride of 2 neighbouring lanes are 2 elements apart: pairs, which begin at even elements, of which
// each lane has its own.
template <int kTaps, int kStride, class T>
__device__ __forceinline__ void read_taps(const T* at, Packed<T, 1> (&taps)[kTaps]) {
  if constexpr (kStride == 2) {
    constexpr int kPairs = kTaps / 2 + 1;
    const bool odd = reinterpret_cast<std::uintptr_t>(at) / sizeof(T) % 2 != 0;
    T pairs[2 * kPairs];
    CNN_UNROLL
    for (int i = 0; i < kPairs; ++i) {
      Vector<T, 2> pair{};
      if (2 * i < kTaps || odd) pair = load_vector<2>(at - odd + 2 * i);
      pairs[2 * i] = pair.value[0], pairs[2 * i + 1] = pair.value[1];
    }
    CNN_UNROLL
    for (int s = 0; s < kTaps; ++s) taps[s].set(0, odd ? pairs[s + 1] : pairs[s]);
  } else {
    CNN_UNROLL
    for (int s = 0; s < kTaps; ++s) taps[s].set(0, at[s]);
  }
}

template <class Result, class T, int kTaps, int kStride>
__device__ __forceinline__ void slide_down(const PlanarParams& p, const PlanarTile& tile, const Band& band, const T* x, T* out,
                                           uint8_t* index_out) {
  constexpr int kKept = kTaps - kStride;  // rows that a window shares with the next
  const int32_t width = p.w.image;
  tile.strips(p, p.w.outputs, [&](int32_t g, int32_t column, int32_t first, int32_t end) {
    const int32_t left = p.w.start(column), first_tap = max(0, -left);
    Packed<T, 1> rows[kTaps][kTaps];
    const auto read_row = [&](Packed<T, 1>(&row)[kTaps], int32_t h) {
      const bool exists = h >= 0 && h < p.h.image;
      if (exists) read_taps<kTaps, kStride>(x + (g * p.h.image + h - band.first) * width + left, row);
      CNN_UNROLL
      for (int s = 0; s < kTaps; ++s)
        if (!exists || left + s < 0 || left + s >= width) row[s].set(0, Result::outside());
    };
    const int32_t divisor_columns = p.w.divisor(column, p.divisor.count_include_pad);
    CNN_UNROLL
    for (int r = 0; r < kKept; ++r) read_row(rows[r], p.h.start(first) + r);
    int32_t at = (g * p.h.outputs + first - tile.first) * p.w.outputs + column;
    for (int32_t row = first; row < end; ++row, at += p.w.outputs) {
      const int32_t top = p.h.start(row);
      CNN_UNROLL
      for (int r = kKept; r < kTaps; ++r) read_row(rows[r], top + r);
      Result result(max(0, -top) * kTaps + first_tap);
      CNN_UNROLL
      for (int r = 0; r < kTaps; ++r) {
        CNN_UNROLL
        for (int s = 0; s < kTaps; ++s) result.take(rows[r][s], r * kTaps + s);
      }
      const float divisor = Result::kIndexed ? 1 : p.divisor.of(p.h.divisor(row, p.divisor.count_include_pad), divisor_columns);
      out[at] = result.values(divisor)[0];
      if (Result::kIndexed && p.target_index) index_out[at] = result.index()[0];
      CNN_UNROLL
      for (int r = 0; r < kKept; ++r) {
        CNN_UNROLL
        for (int s = 0; s < kTaps; ++s) rows[r][s] = rows[r + kStride][s];
      }
    }
  });
}

// 2x2 stride 2 of rows of pixels of several channels.
template <class Result, class T>
__device__ __forceinline__ void slide_pixels(const PlanarParams& p, const PlanarTile& tile, const Band& band, const T* x, T* out,
                                             uint8_t* index_out) {
  const int32_t channels = p.interleaved.divisor;
  tile.strips(p, p.w.outputs, [&](int32_t, int32_t column, int32_t first, int32_t end) {
    const T* pixels = x + (2 * first - band.first) * p.w.image + column + p.interleaved.quotient(column) * channels;
    int32_t at = (first - tile.first) * p.w.outputs + column;
    for (int32_t row = first; row < end; ++row, at += p.w.outputs, pixels += 2 * p.w.image) {
      Result result(0);
      CNN_UNROLL
      for (int tap = 0; tap < 4; ++tap) result.take(Packed<T, 1>::load(pixels + tap / 2 * p.w.image + tap % 2 * channels), tap);
      out[at] = result.values(p.divisor.of(2, 2))[0];
      if (Result::kIndexed && p.target_index) index_out[at] = result.index()[0];
    }
  });
}

// Maxima with a stride of 1: of each row of a window the maximum is kept, for the kTaps windows that have it.
template <class Result, class T, int kTaps>
__device__ __forceinline__ void slide_row_maxima(const PlanarParams& p, const PlanarTile& tile, const Band& band, const T* x, T* out,
                                                 uint8_t* index_out) {
  const int32_t width = p.w.image;
  tile.strips(p, p.w.outputs, [&](int32_t g, int32_t column, int32_t first, int32_t end) {
    const int32_t left = p.w.start(column), first_tap = max(0, -left);
    const auto row_maximum = [&](int32_t h) {
      Result row(first_tap);
      if (h < 0 || h >= p.h.image) return row;
      const T* const pixels = x + (g * p.h.image + h - band.first) * width + left;
      CNN_UNROLL
      for (int s = 0; s < kTaps; ++s) {
        Packed<T, 1> value = Packed<T, 1>::load(pixels + s);
        if (left + s < 0 || left + s >= width) value.set(0, Result::outside());
        row.take(value, s);
      }
      return row;
    };
    Result rows[kTaps] = {Result(0), Result(0), Result(0)};
    CNN_UNROLL
    for (int r = 0; r < kTaps - 1; ++r) rows[r] = row_maximum(p.h.start(first) + r);
    int32_t at = (g * p.h.outputs + first - tile.first) * p.w.outputs + column;
    for (int32_t row = first; row < end; ++row, at += p.w.outputs) {
      const int32_t top = p.h.start(row);
      rows[kTaps - 1] = row_maximum(top + kTaps - 1);
      Result result(max(0, -top) * kTaps + first_tap);
      CNN_UNROLL
      for (int r = 0; r < kTaps; ++r) result.take(rows[r], r * kTaps);
      out[at] = result.values(1)[0];
      if (p.target_index) index_out[at] = result.index()[0];
      CNN_UNROLL
      for (int r = 0; r < kTaps - 1; ++r) rows[r] = rows[r + 1];
    }
  });
}

// Any window.
template <class Result, class T>
__device__ __forceinline__ void walk_down(const PlanarParams& p, const PlanarTile& tile, const Band& band, const T* x, T* out,
                                          uint8_t* index_out) {
  const int32_t width = p.w.image;
  tile.strips(p, p.w.outputs, [&](int32_t g, int32_t column, int32_t first, int32_t end) {
    const int32_t left = p.w.start(column), s0 = p.w.first_tap(left);
    int32_t at = (g * p.h.outputs + first - tile.first) * p.w.outputs + column;
    for (int32_t row = first; row < end; ++row, at += p.w.outputs) {
      const int32_t top = p.h.start(row), r0 = p.h.first_tap(top);
      Result result(r0 * p.w.taps + s0);
      for (int32_t r = r0; r < p.h.taps && top + r * p.h.dilation < p.h.image; ++r) {
        if (top + r * p.h.dilation < 0) continue;  // of a window that holds no pixel
        const T* const pixels = x + (g * p.h.image + top + r * p.h.dilation - band.first) * width + left;
        for (int32_t s = s0; s < p.w.taps && left + s * p.w.dilation < width; ++s)
          if (left + s * p.w.dilation >= 0) result.take(Packed<T, 1>::load(pixels + s * p.w.dilation), r * p.w.taps + s);
      }
      const float divisor = p.divisor.of(p.h.divisor(row, p.divisor.count_include_pad), p.w.divisor(column, p.divisor.count_include_pad));
      out[at] = result.values(divisor)[0];
      if (Result::kIndexed && p.target_index) index_out[at] = result.index()[0];
    }
  });
}

// 2x2 stride 2 without shared memory: 16 bytes of two rows of x to half of them of y.
template <template <class, int> class Op, class T>
__device__ __forceinline__ void stream_forward(const PlanarParams& p) {
  constexpr int kVector = 16 / int(sizeof(T)), kResults = kVector / 2;
  using Result = Op<T, kResults>;
  const int32_t index = int32_t(blockIdx.x) * kPlanarThreads + int32_t(threadIdx.x);
  if (index >= p.threads) return;
  int32_t column, row, c;
  const int32_t plane = p.strips.divmod(p.columns.divmod(index, column), row), n = p.channels.divmod(plane, c);
  const T* const x = static_cast<const T*>(p.source) + n * p.source_at.n + c * p.source_at.c + 2 * row * p.source_at.h + column * kVector;
  const Packed<T, kVector> rows[2] = {Packed<T, kVector>::load(x), Packed<T, kVector>::load(x + p.source_at.h)};
  Result result(0);
  CNN_UNROLL
  for (int tap = 0; tap < 4; ++tap) {
    Packed<T, kResults> taps;
    CNN_UNROLL
    for (int i = 0; i < kResults; ++i) taps.set(i, rows[tap / 2][2 * i + tap % 2]);
    result.take(taps, tap);
  }
  const int32_t at = index * kResults;
  result.values(p.divisor.of(2, 2)).store(static_cast<T*>(p.target) + at);
  if (Result::kIndexed && p.target_index) result.index().store(p.target_index + at);
}

template <template <class, int> class Op, class T>
__global__ void __launch_bounds__(kPlanarThreads, 4) planar_forward_kernel(const PlanarParams p) {
  if (p.streamed) return stream_forward<Op, T>(p);
  CNN_DYNAMIC_SHARED(memory, unsigned char);
  using Result = Op<T, 1>;
  const PlanarTile tile = PlanarTile::of(p);
  // Several planes are whole ones. Of rows that no window reads the copy still has those between the first and the last that one does.
  const bool whole = p.tile_planes > 1;
  const int32_t reach = (p.h.taps - 1) * p.h.dilation + 1;
  Band band{tile.plane, tile.count, 0, p.h.image};
  if (!whole) {
    band.first = min(max(0, p.h.start(tile.first)), p.h.image);
    band.end = max(band.first, min(p.h.image, p.h.start(tile.end - 1) + reach));
  }
  const T* const x = fetch_band(p, memory, static_cast<const T*>(p.source), p.source_at, band).elements;

  const int32_t first_result = (tile.plane * p.h.outputs + tile.first) * p.w.outputs;
  const int32_t results = (tile.count * (whole ? p.h.outputs : tile.end - tile.first)) * p.w.outputs;
  T* const y = static_cast<T*>(p.target) + first_result;
  uint8_t* const index = p.target_index ? p.target_index + first_result : nullptr;
  const Span<T> out = Span<T>::at(memory + p.out_at, y);
  const Span<uint8_t> index_out = Span<uint8_t>::at(memory + p.index_out_at, index);
  await_bands();

  switch (p.shape) {
    case WindowShape::k2x2Stride2:
      if (p.interleaved.divisor > 1) slide_pixels<Result, T>(p, tile, band, x, out.elements, index_out.elements);
      else slide_down<Result, T, 2, 2>(p, tile, band, x, out.elements, index_out.elements);
      break;
    case WindowShape::k3x3Stride2: slide_down<Result, T, 3, 2>(p, tile, band, x, out.elements, index_out.elements); break;
    case WindowShape::k3x3Stride1:
      if constexpr (Result::kIndexed) slide_row_maxima<Result, T, 3>(p, tile, band, x, out.elements, index_out.elements);
      else slide_down<Result, T, 3, 1>(p, tile, band, x, out.elements, index_out.elements);
      break;
    case WindowShape::kAny: walk_down<Result, T>(p, tile, band, x, out.elements, index_out.elements); break;
  }
  __syncthreads();
  out.write(y, results);
  if (Result::kIndexed && index) index_out.write(index, results);
}

// --- Backward.

// One window's gradient as it lies in shared memory.
template <class Window, class T>
struct Gradients;
template <class T>
struct Gradients<MaximumGradient<T, 1>, T> {
  const T* gradient;
  const uint8_t* index;
  __device__ __forceinline__ MaximumGradient<T, 1> operator[](int32_t at) const { return {{{{gradient[at]}}}, {{{index[at]}}}}; }
};
template <class T>
struct Gradients<MeanGradient<T, 1>, T> {
  const float* share;
  __device__ __forceinline__ MeanGradient<T, 1> operator[](int32_t at) const { return {{share[at]}}; }
};

template <class Window, class T, int kTaps, int kStride>
__device__ __forceinline__ void gather_down(const PlanarParams& p, const PlanarTile& tile, const Band& band, int32_t first_pixel_row,
                                            const Gradients<Window, T>& y, T* out) {
  constexpr int kOver = (kTaps + kStride - 1) / kStride;  // windows over a pixel, on one axis
  tile.strips(p, p.w.image, [&](int32_t g, int32_t w, int32_t first, int32_t end) {
    const int32_t cell = (w + p.w.pad) / kStride, b = (w + p.w.pad) % kStride;
    Window windows[kOver][kOver];  // window rows i - (kOver - 1) .. i, columns alike
    const auto read_row = [&](Window(&row)[kOver], int32_t window_row) {
      const bool row_exists = window_row >= 0 && window_row < p.h.outputs;
      const int32_t at = (g * p.h.outputs + window_row - band.first) * p.w.outputs;
      CNN_UNROLL
      for (int u = 0; u < kOver; ++u) {
        const int32_t column = cell - (kOver - 1) + u;
        const bool exists = row_exists && column >= 0 && column < p.w.outputs && b + (kOver - 1 - u) * kStride < kTaps;
        row[u] = exists ? y[at + column] : Window::none();
      }
    };
    CNN_UNROLL
    for (int t = 0; t < kOver - 1; ++t) read_row(windows[t], first - (kOver - 1) + t);
    for (int32_t row = first; row < end; ++row) {
      read_row(windows[kOver - 1], row);
      CNN_UNROLL
      for (int a = 0; a < kStride; ++a) {
        const int32_t h = p.h.start(row) + a;
        if (h < 0 || h >= p.h.image) continue;
        float sum[1] = {};
        CNN_UNROLL
        for (int t = 0; t < kOver; ++t) {
          const int r = a + (kOver - 1 - t) * kStride;
          if (r >= kTaps) continue;
          CNN_UNROLL
          for (int u = 0; u < kOver; ++u) windows[t][u].add_to(sum, r * kTaps + b + (kOver - 1 - u) * kStride);
        }
        out[(g * p.h.image + h - first_pixel_row) * p.w.image + w] = narrow<T>(sum[0]);
      }
      CNN_UNROLL
      for (int t = 0; t < kOver - 1; ++t) {
        CNN_UNROLL
        for (int u = 0; u < kOver; ++u) windows[t][u] = windows[t + 1][u];
      }
    }
  });
}

// 2x2 stride 2 of rows of pixels of several channels.
template <class Window, class T>
__device__ __forceinline__ void gather_pixels(const PlanarParams& p, const PlanarTile& tile, const Band& band, int32_t first_pixel_row,
                                              const Gradients<Window, T>& y, T* out) {
  const int32_t channels = p.interleaved.divisor;
  tile.strips(p, p.w.image, [&](int32_t, int32_t w, int32_t first, int32_t end) {
    int32_t channel;
    const int32_t pixel = p.interleaved.divmod(w, channel), column = pixel / 2 * channels + channel;
    for (int32_t row = first; row < end; ++row) {
      const Window window = y[(row - band.first) * p.w.outputs + column];
      CNN_UNROLL
      for (int a = 0; a < 2; ++a) {
        float sum[1] = {};
        window.add_to(sum, 2 * a + pixel % 2);
        out[(2 * row + a - first_pixel_row) * p.w.image + w] = narrow<T>(sum[0]);
      }
    }
  });
}

// 2x2 stride 2 without shared memory: each window's gradient, and zeros, to the four pixels of it.
template <template <class, int> class Op, class T>
__device__ __forceinline__ void stream_backward(const PlanarParams& p) {
  constexpr int kVector = 16 / int(sizeof(T)), kResults = kVector / 2;
  using Window = Op<T, kResults>;
  const int32_t index = int32_t(blockIdx.x) * kPlanarThreads + int32_t(threadIdx.x);
  if (index >= p.threads) return;
  int32_t column, row, c;
  const int32_t plane = p.strips.divmod(p.columns.divmod(index, column), row), n = p.channels.divmod(plane, c);
  const auto at = [&](const PlaneStrides& s) { return n * s.n + c * s.c + row * s.h + column * kResults; };
  const auto gradient = Packed<T, kResults>::load(static_cast<const T*>(p.source) + at(p.source_at));
  Packed<uint8_t, kResults> taps{};
  if constexpr (Window::kIndexed) taps = Packed<uint8_t, kResults>::load(p.source_index + at(p.source_index_at));
  const Window window = Window::of(gradient, taps, p.divisor.of(2, 2));
  T* const x = static_cast<T*>(p.target) + (plane * p.h.image + 2 * row) * p.w.image + column * kVector;
  CNN_UNROLL
  for (int a = 0; a < 2; ++a) {
    float values[2][kResults] = {};
    window.add_to(values[0], 2 * a);
    window.add_to(values[1], 2 * a + 1);
    Packed<T, kVector> row;
    CNN_UNROLL
    for (int i = 0; i < kVector; ++i) row.set(i, narrow<T>(values[i % 2][i / 2]));
    row.store(x + a * p.w.image);
  }
}

template <template <class, int> class Op, class T>
__global__ void __launch_bounds__(kPlanarThreads, 4) planar_backward_kernel(const PlanarParams p) {
  if (p.streamed) return stream_backward<Op, T>(p);
  CNN_DYNAMIC_SHARED(memory, unsigned char);
  using Window = Op<T, 1>;
  const PlanarTile tile = PlanarTile::of(p);
  const bool whole = p.tile_planes > 1;
  Band band{tile.plane, tile.count, 0, p.h.outputs};  // of windows
  if (!whole) {
    const int32_t over = (p.h.taps + p.h.stride - 1) / p.h.stride;
    band.first = min(max(0, tile.first - (over - 1)), p.h.outputs);
    band.end = max(band.first, min(p.h.outputs, tile.end));
  }
  const Span<T> gradients = fetch_band(p, memory, static_cast<const T*>(p.source), p.source_at, band);
  Gradients<Window, T> y;
  if constexpr (Window::kIndexed) {
    const uint8_t* const index = fetch_band(p, memory + p.index_in_at, p.source_index, p.source_index_at, band).elements;
    await_bands();
    y = {gradients.elements, index};
  } else {
    float* const shares = reinterpret_cast<float*>(memory + p.shares_at);
    await_bands();
    const int32_t windows = ((tile.count - 1) * p.h.outputs + band.end - band.first) * p.w.outputs;
    for (int32_t i = int32_t(threadIdx.x); i < windows; i += kPlanarThreads) {
      int32_t column, row;
      p.source_rows.divmod(p.source_columns.divmod(i, column), row);
      const float divisor =
          p.divisor.of(p.h.divisor(band.first + row, p.divisor.count_include_pad), p.w.divisor(column, p.divisor.count_include_pad));
      shares[i] = widen(gradients.elements[i]) / divisor;
    }
    __syncthreads();
    y = {shares};
  }

  const int32_t first_row = whole ? 0 : max(0, p.h.start(tile.first)), end_row = whole ? p.h.image : min(p.h.image, p.h.start(tile.end));
  const int32_t pixels = ((tile.count - 1) * p.h.image + end_row - first_row) * p.w.image;
  T* const x = static_cast<T*>(p.target) + (tile.plane * p.h.image + first_row) * p.w.image;
  const Span<T> out = Span<T>::at(memory + p.out_at, x);
  switch (p.shape) {
    case WindowShape::k2x2Stride2:
      if (p.interleaved.divisor > 1) gather_pixels<Window, T>(p, tile, band, first_row, y, out.elements);
      else gather_down<Window, T, 2, 2>(p, tile, band, first_row, y, out.elements);
      break;
    case WindowShape::k3x3Stride2: gather_down<Window, T, 3, 2>(p, tile, band, first_row, y, out.elements); break;
    case WindowShape::k3x3Stride1: gather_down<Window, T, 3, 1>(p, tile, band, first_row, y, out.elements); break;
    case WindowShape::kAny: return;  // refused by the plan
  }
  __syncthreads();
  out.write(x, pixels);
}

}  // namespace cnn::pool2d
