// Pooling with the channels dense (NHWC): no shared memory, 16 bytes of channels to a thread.
//
//   forward:   y(p, q) from x(p * stride - pad + r, ...): a thread has 2 neighbouring columns of y and slides down a strip of
//              rows. The rows of x that the next window shares stay in registers.
//   backward:  gradient of x(h, w). Counted from the first row of the padding the pixels form cells of stride x stride, i = (h + pad) /
//              stride; window p = i - t has the rows a of cell i as its taps a + t * stride, t = 0 .. ceil(R / stride) - 1. So every
//              pixel of a cell has the same candidates, known without a division, and a thread has 2 neighbouring cells and slides
//              down: one new row of windows for each row of cells. A window that does not overlap others is one cell: it is
//              read once, and its whole R x S block written.
//
//     lanes along the channels, then along groups of columns:        a thread, 3x3 stride 2 (forward):
//
//        c: 0-7  8-15 ...            C = 64 in bf16: 8 lanes            x . . . . .      rows 2p-1      kept from the last window
//      +------+------+---            make one pixel's 128 bytes         x . . . . .           2p        10 loads of 16 bytes, all
//      | lane | lane |               of every load and store            x . . . . .           2p+1      in flight before a tap is used
//
// Bytes asked for per result, 3x3 stride 2, strips of 8: 4 * 5/4 * 17/16 = 5.3 elements of x, of 4 that are compulsory; 2x2: 4 of 4. Any
// other window is walked by a loop, a result to a thread, and leaves what windows share to L1.
// Operations per tap: a conversion, two comparisons, two selections (max), an addition (avg).
#pragma once

#include "common/launch.h"
#include "pool2d/windows/taps.cuh"

namespace cnn::pool2d {

constexpr int kChannelsThreads = 128;

// Windows that have code of their own, and how many results (backward: cells) a thread has side by side; 1 where there are few of them.
enum class WindowShape { k2x2Stride2, k3x3Stride2, k3x3Stride1, kAny };
constexpr int kSideBySide = 2;

struct PixelStrides {
  int32_t n, h, w;
  bool vector;  // 16 bytes of a pixel's channels are aligned (of the index: a byte for each of those channels)
};

struct ChannelsParams {
  const void* source;           // x; backward: the gradient of y
  const uint8_t* source_index;  // max backward
  void* target;                 // y; backward: the gradient of x
  uint8_t* target_index;        // max; null: no index is asked for
  PixelStrides source_at, source_index_at, target_at, target_index_at;
  WindowAxis h, w;
  Divisor divisor;
  WindowShape shape;
  int32_t side_by_side;
  FastDiv<int32_t> vectors, groups, strips;  // of channels in a pixel, of columns in a row, of rows in an image
  int32_t first_row, first_column;           // backward: the first cells; else 0
  int32_t rows;                              // of results (backward: cells) in the image, counted from there
  int32_t strip_rows;
  int32_t threads;  // in all
};

// What a thread is to do.
struct Strip {
  int32_t n, channel, column, row, end;

  template <int kVector>
  __device__ __forceinline__ static Strip of(const ChannelsParams& p, int32_t index, int32_t columns) {
    int32_t vector, group, strip;
    Strip s;
    s.n = p.strips.divmod(p.groups.divmod(p.vectors.divmod(index, vector), group), strip);
    s.channel = vector * kVector;
    s.column = p.first_column + group * columns;
    s.row = p.first_row + strip * p.strip_rows;
    s.end = min(s.row + p.strip_rows, p.first_row + p.rows);
    return s;
  }
};

// One tensor's channels of one image, for one thread.
template <class T, int N>
struct Pixels {
  T* base;
  const PixelStrides& at;

  __device__ __forceinline__ Pixels(T* tensor, const PixelStrides& at, const Strip& strip)
      : base(tensor + strip.n * at.n + strip.channel), at(at) {}
  using Values = Packed<std::remove_const_t<T>, N>;
  __device__ __forceinline__ Values load(int32_t row, int32_t column) const {
    const T* const pixel = base + row * at.h + column * at.w;
    if (at.vector) return Values::load(pixel);
    Values values;
    CNN_UNROLL
    for (int i = 0; i < N; ++i) values.set(i, pixel[i]);
    return values;
  }
  __device__ __forceinline__ void store(int32_t row, int32_t column, const Values& values) const {
    T* const pixel = base + row * at.h + column * at.w;
    if (at.vector) return values.store(pixel);
    CNN_UNROLL
    for (int i = 0; i < N; ++i) pixel[i] = values[i];
  }
};

// --- Forward.

template <class Result, class T, int N>
__device__ __forceinline__ void write_result(const ChannelsParams& p, const Strip& strip, const Result& result, int32_t row, int32_t column,
                                             float divisor) {
  Pixels<T, N>(static_cast<T*>(p.target), p.target_at, strip).store(row, column, result.values(divisor));
  if constexpr (Result::kIndexed) {
    if (p.target_index) Pixels<uint8_t, N>(p.target_index, p.target_index_at, strip).store(row, column, result.index());
  }
}

template <template <class, int> class Op, class T, int kTaps, int kStride, int kOutputs>
__device__ __forceinline__ void slide_forward(const ChannelsParams& p, int32_t index) {
  constexpr int kVector = 16 / int(sizeof(T)), kColumns = (kOutputs - 1) * kStride + kTaps;
  constexpr int kKept = kTaps - kStride;  // rows that a window shares with the next
  using Result = Op<T, kVector>;
  const Strip strip = Strip::of<kVector>(p, index, kOutputs);
  const Pixels<const T, kVector> x(static_cast<const T*>(p.source), p.source_at, strip);
  const int32_t left = p.w.start(strip.column);

  Packed<T, kVector> rows[kTaps][kColumns];
  const auto load_row = [&](Packed<T, kVector>(&row)[kColumns], int32_t h) {
    const bool row_exists = h >= 0 && h < p.h.image;
    CNN_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      const int32_t w = left + c;
      row[c] = Packed<T, kVector>::filled(Result::outside());
      if (row_exists && w >= 0 && w < p.w.image) row[c] = x.load(h, w);
    }
  };

  CNN_UNROLL
  for (int r = 0; r < kKept; ++r) load_row(rows[r], p.h.start(strip.row) + r);
  for (int32_t row = strip.row; row < strip.end; ++row) {
    const int32_t top = p.h.start(row);
    CNN_UNROLL
    for (int r = kKept; r < kTaps; ++r) load_row(rows[r], top + r);

    const int32_t first_row_tap = max(0, -top) * kTaps, divisor_rows = p.h.divisor(row, p.divisor.count_include_pad);
    CNN_UNROLL
    for (int o = 0; o < kOutputs; ++o) {
      const int32_t column = strip.column + o;
      if (column >= p.w.outputs) break;
      Result result(first_row_tap + max(0, -p.w.start(column)));
      CNN_UNROLL
      for (int r = 0; r < kTaps; ++r) {
        CNN_UNROLL
        for (int s = 0; s < kTaps; ++s) result.take(rows[r][o * kStride + s], r * kTaps + s);
      }
      const float divisor = Result::kIndexed ? 1 : p.divisor.of(divisor_rows, p.w.divisor(column, p.divisor.count_include_pad));
      write_result<Result, T, kVector>(p, strip, result, row, column, divisor);
    }
    CNN_UNROLL
    for (int r = 0; r < kKept; ++r) {
      CNN_UNROLL
      for (int c = 0; c < kColumns; ++c) rows[r][c] = rows[r + kStride][c];
    }
  }
}

// Any window, one result after the other.
template <template <class, int> class Op, class T>
__device__ __forceinline__ void walk_forward(const ChannelsParams& p, int32_t index) {
  constexpr int kVector = 16 / int(sizeof(T));
  using Result = Op<T, kVector>;
  const Strip strip = Strip::of<kVector>(p, index, 1);
  const Pixels<const T, kVector> x(static_cast<const T*>(p.source), p.source_at, strip);
  const int32_t left = p.w.start(strip.column), s0 = p.w.first_tap(left);
  for (int32_t row = strip.row; row < strip.end; ++row) {
    const int32_t top = p.h.start(row), r0 = p.h.first_tap(top);
    Result result(r0 * p.w.taps + s0);
    for (int32_t r = r0; r < p.h.taps && top + r * p.h.dilation < p.h.image; ++r) {
      if (top + r * p.h.dilation < 0) continue;  // of a window that holds no pixel
      for (int32_t s = s0; s < p.w.taps && left + s * p.w.dilation < p.w.image; ++s)
        if (left + s * p.w.dilation >= 0) result.take(x.load(top + r * p.h.dilation, left + s * p.w.dilation), r * p.w.taps + s);
    }
    const float divisor =
        p.divisor.of(p.h.divisor(row, p.divisor.count_include_pad), p.w.divisor(strip.column, p.divisor.count_include_pad));
    write_result<Result, T, kVector>(p, strip, result, row, strip.column, divisor);
  }
}

template <template <class, int> class Op, class T>
__global__ void __launch_bounds__(kChannelsThreads, 4) channels_forward_kernel(const ChannelsParams p) {
  const int32_t index = int32_t(blockIdx.x) * kChannelsThreads + int32_t(threadIdx.x);
  if (index >= p.threads) return;
  using Shape = WindowShape;
  switch (p.shape) {
    case Shape::k2x2Stride2:
      return p.side_by_side == 1 ? slide_forward<Op, T, 2, 2, 1>(p, index) : slide_forward<Op, T, 2, 2, kSideBySide>(p, index);
    case Shape::k3x3Stride2:
      return p.side_by_side == 1 ? slide_forward<Op, T, 3, 2, 1>(p, index) : slide_forward<Op, T, 3, 2, kSideBySide>(p, index);
    case Shape::k3x3Stride1:
      return p.side_by_side == 1 ? slide_forward<Op, T, 3, 1, 1>(p, index) : slide_forward<Op, T, 3, 1, kSideBySide>(p, index);
    case Shape::kAny: return walk_forward<Op, T>(p, index);
  }
}

// --- Backward.

template <template <class, int> class Op, class T, int kTaps, int kStride, int kCells>
__device__ __forceinline__ void slide_backward(const ChannelsParams& p, int32_t index) {
  constexpr int kVector = 16 / int(sizeof(T));
  constexpr int kOver = (kTaps + kStride - 1) / kStride;  // windows over a pixel, on one axis
  constexpr int kColumns = kCells + kOver - 1;
  using Window = Op<T, kVector>;
  const Strip strip = Strip::of<kVector>(p, index, kCells);
  const Pixels<const T, kVector> y(static_cast<const T*>(p.source), p.source_at, strip);
  const Pixels<const uint8_t, kVector> indices(p.source_index, p.source_index_at, strip);
  const Pixels<T, kVector> x(static_cast<T*>(p.target), p.target_at, strip);

  Window windows[kOver][kColumns];  // rows i - (kOver - 1) .. i of windows
  const auto load_row = [&](Window(&row)[kColumns], int32_t window_row) {
    const bool row_exists = window_row >= 0 && window_row < p.h.outputs;
    const int32_t divisor_rows = p.h.divisor(window_row, p.divisor.count_include_pad);
    CNN_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      const int32_t column = strip.column + c - (kOver - 1);
      row[c] = Window::none();
      if (!row_exists || column < 0 || column >= p.w.outputs) continue;
      if constexpr (Window::kIndexed) {
        row[c] = Window::of(y.load(window_row, column), indices.load(window_row, column), 1);
      } else {
        const float divisor = p.divisor.of(divisor_rows, p.w.divisor(column, p.divisor.count_include_pad));
        row[c] = Window::of(y.load(window_row, column), {}, divisor);
      }
    }
  };

  CNN_UNROLL
  for (int t = 0; t < kOver - 1; ++t) load_row(windows[t], strip.row - (kOver - 1) + t);
  for (int32_t row = strip.row; row < strip.end; ++row) {
    load_row(windows[kOver - 1], row);
    CNN_UNROLL
    for (int a = 0; a < kStride; ++a) {
      const int32_t h = p.h.start(row) + a;
      if (h < 0 || h >= p.h.image) continue;
      CNN_UNROLL
      for (int c = 0; c < kCells; ++c) {
        CNN_UNROLL
        for (int b = 0; b < kStride; ++b) {
          const int32_t w = p.w.start(strip.column + c) + b;
          if (w < 0 || w >= p.w.image) continue;
          float sum[kVector] = {};
          CNN_UNROLL
          for (int t = 0; t < kOver; ++t) {
            CNN_UNROLL
            for (int u = 0; u < kOver; ++u) {
              const int r = a + (kOver - 1 - t) * kStride, s = b + (kOver - 1 - u) * kStride;
              if (r < kTaps && s < kTaps) windows[t][c + u].add_to(sum, r * kTaps + s);
            }
          }
          x.store(h, w, narrowed<T>(sum));
        }
      }
    }
    CNN_UNROLL
    for (int t = 0; t < kOver - 1; ++t) {
      CNN_UNROLL
      for (int c = 0; c < kColumns; ++c) windows[t][c] = windows[t + 1][c];
    }
  }
}

template <template <class, int> class Op, class T>
__global__ void __launch_bounds__(kChannelsThreads, 4) channels_backward_kernel(const ChannelsParams p) {
  const int32_t index = int32_t(blockIdx.x) * kChannelsThreads + int32_t(threadIdx.x);
  if (index >= p.threads) return;
  using Shape = WindowShape;
  switch (p.shape) {
    case Shape::k2x2Stride2:
      return p.side_by_side == 1 ? slide_backward<Op, T, 2, 2, 1>(p, index) : slide_backward<Op, T, 2, 2, kSideBySide>(p, index);
    case Shape::k3x3Stride2:
      return p.side_by_side == 1 ? slide_backward<Op, T, 3, 2, 1>(p, index) : slide_backward<Op, T, 3, 2, kSideBySide>(p, index);
    case Shape::k3x3Stride1:
      return p.side_by_side == 1 ? slide_backward<Op, T, 3, 1, 1>(p, index) : slide_backward<Op, T, 3, 1, kSideBySide>(p, index);
    case Shape::kAny: return;  // refused by the plan
  }
}

}  // namespace cnn::pool2d
