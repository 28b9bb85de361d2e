// The weight gradient as a matrix product over output pixels, for any filter, stride, dilation and groups.
//
//   w[k, c, r, s] = sum over n, p, q of  y[n, k, p, q] * x[n, c, p * stride - pad + r * dilation, (alike)]
//
// A block has BM filters and BN *columns* of one group; a column is one (tap, channel) pair, numbered (r, s, c) where channels are dense.
// It walks one slab of the pixels, BK at a time, through stages of shared memory:
//
//              BN columns           Each of 256 threads owns 8 x 8 results of one of the 256 * 64 / (BM * BN) *slices* of the block. The
//            +-----------+          slices take turns with the pixels of a stage, so that in a narrow tile too a thread has 8 x 8: two
//   BK px    |  x (tap)  |          16-byte reads of halves, or four of floats, for 64 multiply-adds. At the end the slices are added,
//            +-----------+          in order.
// +--------+ +-----------+
// | y | BM | |  results  | BM       BM and BN are arguments of the launch, powers of two from 8 and 16 to 128: one compiled kernel serves
// +--------+ +-----------+          all tiles. That costs two additions of pointers per pixel, beside 64 multiply-adds.
//   BK px
//
// Bytes that a block asks for, per pixel: BM elements of y and BN of x, less where filters, columns or the image end there. So y is asked
// for ceil(C R S / BN) times and x ceil(K / BM) times per tap: both once where K <= 128 and C <= 128 in a pointwise layer. The columns of a
// tile share y whatever they are: channels of one tap, or taps of few channels.
//
// Why x comes once per tap and not once through a halo that T taps of a filter's row share: registers hold BM * T * BC = 128 * 128 results
// of a block, two blocks to a multiprocessor. Without a halo the best tile asks for 2 / 128 elements per multiply-add, with one for 1 / (T
// * BC) of y and h / (BM * T) of x, at best sqrt(h / T) times as much, where h is the columns of x per column of y in the halo. That is
// 0.82 for 3 taps at stride 2 (h = 2), 1 for 2 taps of a 2x2 filter (h = 2), and 0.76, 0.91 and more at dilations 12, 24 and more (h = 1 +
// 2 d / 32). In return runs of channels would be a third as long and no column of pixels could be left out (below). As it is, 128 x 128
// asks L2 for 1 TB/s in halves and 2 TB/s in floats at the full rate of the fp32 pipe, of the 5 to 10 that L2 has.
//
// Padding: with skip_padding each block sums over the rectangle of pixels that some tap of its columns reaches, so that a tap which is
// outside for most pixels costs as little (dilation 36 at 65 x 65: 0.40 of all). Within it, what is outside is filled with zeros by
// cp.async.
//
// In flight: two stages of 16 KB, or one of 32 KB, in each of two blocks: 64 KB a multiprocessor (DRAM needs some 25 KB).
#pragma once

#include <type_traits>

#include "common/async_copy.h"
#include "common/launch.h"
#include "common/types.h"
#include "common/vector.h"
#include "common/widen.h"
#include "conv2d/tiled_wgrad/params.h"

namespace cnn::conv2d {

// Where a column's tap looks from the pixel under a tap at (0, 0): offset in x, row and column of the image.
struct alignas(16) Column {
  int x, h, w, none;
};
// Of an output pixel: offset in y (negative: no pixel), and of the image's pixel under a tap at (0, 0): offset, row, column.
struct alignas(16) PixelEntry {
  int y, x, h, w;
};
constexpr int kOutside = -(1 << 30);  // a row that no addition brings inside

struct PixelOfOutput {
  int n, p, q;
};

__device__ __forceinline__ PixelOfOutput pixel_of(const PixelRectangle& r, int index) {
  int in_image, column;
  const int n = r.area.divmod(index, in_image);
  const int row = r.width.divmod(in_image, column);
  return {n, r.first_p + row, r.first_q + column};
}

// First and one past the last output for which tap `tap` is inside.
__device__ __forceinline__ void inside_range(int tap, int stride, int pad, int dilation, int extent, int outputs, int& first, int& end) {
  const int shift = pad - tap * dilation;
  first = min(outputs, max(0, shift > 0 ? (shift + stride - 1) / stride : 0));
  end = extent + shift > 0 ? min(outputs, (extent + shift + stride - 1) / stride) : 0;
}

// The smallest rectangle with all pixels that some tap of columns [first, last] has inside.
__device__ inline PixelRectangle reached_by(const TiledWgradParams& p, int first_column, int last_column) {
  int first_p = p.P, end_p = 0, first_q = p.Q, end_q = 0;
  for (int tap = p.inner_columns.quotient(first_column); tap <= p.inner_columns.quotient(last_column); ++tap) {
    int s, p0, p1, q0, q1;
    const int r = p.S.divmod(tap, s);
    inside_range(r, p.stride_h, p.pad_h, p.dilation_h, p.H, p.P, p0, p1);
    inside_range(s, p.stride_w, p.pad_w, p.dilation_w, p.W, p.Q, q0, q1);
    if (p0 >= p1 || q0 >= q1) continue;
    first_p = min(first_p, p0), end_p = max(end_p, p1), first_q = min(first_q, q0), end_q = max(end_q, q1);
  }
  if (first_p >= end_p) return {0, 0, 0, FastDiv<int32_t>(1), FastDiv<int32_t>(1)};
  const int height = end_p - first_p, width = end_q - first_q;
  return {first_p, first_q, p.N * height * width, FastDiv<int32_t>(width), FastDiv<int32_t>(height * width)};
}

// What a block computes: of one group, filters x columns, summed over pixels [first_pixel, last_pixel) of its rectangle. In shared memory:
// registers are for results.
struct BlockOfWgrad {
  PixelRectangle rectangle;
  int first_pixel, last_pixel;
  int slab, first_filter, filters_left, first_column, columns_left;  // first_filter: of all groups' filters
  int y_offset, x_offset;                                            // of the first filter, and of the group's first channel
};

__device__ inline BlockOfWgrad block_of_wgrad(const TiledWgradParams& p) {
  BlockOfWgrad b;
  // Tiles of one slab are neighbours: blocks that run together read the same pixels.
  int tile = int(blockIdx.x);
  b.first_column = tile % p.column_tiles << p.log_bn;
  tile /= p.column_tiles;
  const int filter = tile % p.filter_tiles << p.log_bm;
  tile /= p.filter_tiles;
  const int group = tile % p.groups;
  b.slab = tile / p.groups;
  b.first_filter = group * p.filters + filter;
  b.filters_left = min(1 << p.log_bm, p.filters - filter);
  b.columns_left = min(1 << p.log_bn, p.columns - b.first_column);
  b.y_offset = b.first_filter * p.y_c;
  b.x_offset = group * p.channels * p.x_c;
  b.rectangle = p.skip_padding ? reached_by(p, b.first_column, b.first_column + b.columns_left - 1) : p.whole;
  // Slabs of whole stages, all of one length but for the last ones, which may even be empty.
  const int stages = (b.rectangle.pixels + (1 << p.log_bk) - 1) >> p.log_bk, slab_stages = (stages + p.slabs - 1) / p.slabs;
  b.first_pixel = min(b.slab * slab_stages << p.log_bk, b.rectangle.pixels);
  b.last_pixel = min(b.first_pixel + (slab_stages << p.log_bk), b.rectangle.pixels);
  return b;
}

struct ChannelAndTap {
  int c, r, s;
};

__device__ __forceinline__ ChannelAndTap channel_and_tap(const TiledWgradParams& p, int column) {
  int low, s;
  const int high = p.inner_columns.divmod(column, low);
  const int r = p.S.divmod(p.taps_outermost ? high : low, s);
  return {p.taps_outermost ? low : high, r, s};
}

__device__ __forceinline__ Column column_of(const TiledWgradParams& p, const BlockOfWgrad& b, int n) {
  if (n >= b.columns_left) return {0, kOutside, 0, 0};
  const ChannelAndTap at = channel_and_tap(p, b.first_column + n);
  const int h = at.r * p.dilation_h, w = at.s * p.dilation_w;
  return {b.x_offset + at.c * p.x_c + h * p.x_h + w * p.x_w, h, w, 0};
}

template <int Bytes>
struct UnitBytes {
  static constexpr int value = Bytes;
};

// Calls copy(bytes) with `bytes` = 2^log_unit elements as a compile-time constant.
template <class T, class Copy>
__device__ __forceinline__ void with_unit(int log_unit, Copy copy) {
  switch (int(sizeof(T)) << log_unit) {
    case 16: copy(UnitBytes<16>()); break;
    case 8: copy(UnitBytes<8>()); break;
    case 4: copy(UnitBytes<4>()); break;
    default:
      if constexpr (sizeof(T) == 2) copy(UnitBytes<2>());
  }
}

// Copies Bytes, of which the first `valid` are read and the rest are zeros. Two bytes are less than cp.async copies: they go through a
// register.
template <int Bytes, class T>
__device__ __forceinline__ void copy_unit(T* shared, const T* global, int valid) {
  if constexpr (Bytes >= 4) copy_async<Bytes>(shared, global, valid);
  else *shared = valid ? __ldg(global) : narrow<T>(0.0f);
}

// --- The layouts: how operands come into shared memory, and from there into registers.

// Where row m of a slice's results begins. A warp's rows of threads, four at 64 columns and more and eight at 32, begin in different banks.
// At 16 columns a warp has sixteen, of two threads each: where a thread's `run` rows are neighbours they lie together, and the next
// thread's a quarter of the banks further on; else each row begins two columns after the last one's end.
CNN_HOST_DEVICE constexpr int sums_row(int m, int bn, int run) {
  if (bn > 16) return m * (bn + (bn >= 64 ? 8 : 4));
  return m * bn + m / run * (2 * run);
}
// The row that the readers of a slice's results take as their i-th: at 16 columns rows 8 apart together use all banks.
CNN_HOST_DEVICE constexpr int sums_order(int i, int bn, int run) {
  return bn > 16 || run > 1 ? i : (i & ~15) | (i & 14) >> 1 | (i & 1) << 3;
}
// Elements from one slice to the next: so do the slices of a warp.
CNN_HOST_DEVICE constexpr int sums_slice(int bm, int bn, int run) {
  const int threads = bm * bn / (kThreadTile * kThreadTile);
  return sums_row(bm, bn, run) + (threads < 32 ? threads : 0);
}

// A thread's place in its block: slice, and row and column of threads within its tile. Neighbouring lanes are up to 8 columns of up to 4
// rows: a quarter of a warp reads 128 bytes in a row of x, and one to a few vectors of y.
struct ThreadPlace {
  int slice, slices, tm, tn;

  __device__ __forceinline__ explicit ThreadPlace(const TiledWgradParams& p) {
    const int log_tm = p.log_bm - 3, log_tn = p.log_bn - 3, thread = int(threadIdx.x);
    const int lane_n = min(log_tn, 3);
    slices = kTiledWgradThreads >> (log_tm + log_tn);
    slice = thread >> (log_tm + log_tn);
    tm = thread >> lane_n & ((1 << log_tm) - 1);
    tn = (thread & ((1 << lane_n) - 1)) | (thread >> (lane_n + log_tm) & ((1 << (log_tn - lane_n)) - 1)) << lane_n;
  }
};

struct ThreadTile {
  using Place = ThreadPlace;
  float value[kThreadTile][kThreadTile];

  __device__ __forceinline__ void clear() {
    CNN_UNROLL
    for (int i = 0; i < kThreadTile; ++i) {
      CNN_UNROLL
      for (int j = 0; j < kThreadTile; ++j) value[i][j] = 0;
    }
  }
};

// Channels dense. A stage is y[BK][BM] and x[BK][BN]: rows of a pixel's channels, as they lie in memory. A thread copies the same channels
// of every so-many-th pixel; where the pixels of a stage are is worked out once for the block, in a table.
//
// kSwizzled: chunk c of a pixel's 16-byte chunks lies at c ^ (pixel % 8), so that the same chunk of eight pixels meets in no bank; of
// floats at c ^ (pixel % 4 * 2), for the same eight of four pixels (tensor.cuh).
template <class T, bool kSwizzled = false>
struct ChannelsLast {
  using Element = T;
  using Results = ThreadTile;
  static constexpr bool kChannelsLast = true, kTensor = false;
  static constexpr int kStages = 3, kStageBytes = 16 * 1024;
  static constexpr int kVector = 16 / int(sizeof(T)), kSegments = kThreadTile / kVector;
  static constexpr int kRun = kVector;  // neighbouring rows of results in a thread
  using Pixels = PixelEntry[2][kMostStagePixels];

  const TiledWgradParams& p;
  const BlockOfWgrad& block;
  Pixels& pixels;
  const T *y, *x;
  int y_valid, x_valid;  // bytes that this thread's unit has
  int y_to, x_to;        // its elements in a row of the stage
  int x_h, x_w;          // its tap

  __device__ static constexpr int row_offset(int i, int rows) { return i / kVector * (rows / kSegments) + i % kVector; }
  __device__ static __forceinline__ int m(const ThreadPlace& at, int i, int bm) { return at.tm * kVector + row_offset(i, bm); }
  __device__ static __forceinline__ int n(const ThreadPlace& at, int j, int bn) { return at.tn * kVector + row_offset(j, bn); }

  __device__ __forceinline__ ChannelsLast(const TiledWgradParams& params, const BlockOfWgrad& tile, Pixels& table, const Column*)
      : p(params), block(tile), pixels(table) {
    const int thread = int(threadIdx.x);
    y_to = (thread & ((1 << (p.log_bm - p.log_y_unit)) - 1)) << p.log_y_unit;
    x_to = (thread & ((1 << (p.log_bn - p.log_x_unit)) - 1)) << p.log_x_unit;
    y_valid = max(0, min(block.filters_left - y_to, 1 << p.log_y_unit)) * int(sizeof(T));
    x_valid = max(0, min(block.columns_left - x_to, 1 << p.log_x_unit)) * int(sizeof(T));
    const Column column = column_of(p, block, x_to);  // once; in the table eight lanes' columns lie in the same banks
    y = static_cast<const T*>(p.y) + block.y_offset + y_to;
    x = static_cast<const T*>(p.x) + column.x;
    x_h = column.h, x_w = column.w;
  }

  static CNN_HOST_DEVICE int stage_length(int bm, int bn, int bk) { return (bm + bn) * bk; }
  // Where a pixel's element lies in its row of the stage.
  __device__ static __forceinline__ int in_row(int pixel, int element) { return kSwizzled ? element ^ (pixel % kVector * 8) : element; }

  // Says where the pixels of the stage from `first` on are; to be seen by the others after a barrier.
  __device__ static __forceinline__ void prepare(const TiledWgradParams& p, const BlockOfWgrad& block, Pixels& pixels, int first,
                                                 int slot) {
    const int thread = int(threadIdx.x), index = first + thread;
    if (thread >= 1 << p.log_bk) return;
    PixelEntry entry{-1, 0, kOutside, 0};
    if (index < block.last_pixel) {
      const PixelOfOutput at = pixel_of(block.rectangle, index);
      entry.h = at.p * p.stride_h - p.pad_h, entry.w = at.q * p.stride_w - p.pad_w;
      entry.y = at.n * p.y_n + at.p * p.y_h + at.q * p.y_w;
      entry.x = at.n * p.x_n + entry.h * p.x_h + entry.w * p.x_w;
    }
    pixels[slot][thread] = entry;
  }

  __device__ __forceinline__ void copy(T* stage, int, int slot) {
    const int thread = int(threadIdx.x), bk = 1 << p.log_bk;
    with_unit<T>(p.log_y_unit, [&](auto bytes) {
      const int log_units = p.log_bm - p.log_y_unit;
      for (int pixel = thread >> log_units; pixel < bk; pixel += kTiledWgradThreads >> log_units) {
        const int from = pixels[slot][pixel].y;
        copy_unit<bytes.value>(stage + (pixel << p.log_bm) + in_row(pixel, y_to), y + from, from >= 0 ? y_valid : 0);
      }
    });
    with_unit<T>(p.log_x_unit, [&](auto bytes) {
      const int log_units = p.log_bn - p.log_x_unit;
      T* const to = stage + (bk << p.log_bm);
      for (int pixel = thread >> log_units; pixel < bk; pixel += kTiledWgradThreads >> log_units) {
        const PixelEntry entry = pixels[slot][pixel];
        const bool inside = unsigned(entry.h + x_h) < unsigned(p.H) && unsigned(entry.w + x_w) < unsigned(p.W);
        copy_unit<bytes.value>(to + (pixel << p.log_bn) + in_row(pixel, x_to), x + entry.x, inside ? x_valid : 0);
      }
    });
  }

  // A thread's results into its slice's rows of columns, four at a time. Where its eight columns are neighbours, every other four lanes
  // begin with the second four, so that eight lanes use all banks.
  __device__ static __forceinline__ void keep(const ThreadTile& results, const ThreadPlace& at, float* slice, int bm, int bn) {
    const bool swap = kSegments == 1 && (threadIdx.x & 4);
    CNN_UNROLL
    for (int i = 0; i < kThreadTile; ++i) {
      const float* const value = results.value[i];
      float* const row = slice + sums_row(m(at, i, bm), bn, kRun);
      const float4 low = make_float4(value[0], value[1], value[2], value[3]), high = make_float4(value[4], value[5], value[6], value[7]);
      *reinterpret_cast<float4*>(row + n(at, swap ? 4 : 0, bn)) = swap ? high : low;
      *reinterpret_cast<float4*>(row + n(at, swap ? 0 : 4, bn)) = swap ? low : high;
    }
  }

  // results += y^T x over this thread's slice of the stage.
  __device__ static CNN_INNER_LOOP void multiply(ThreadTile& results, const ThreadPlace& at, const T* stage, int bm, int bn, int bk) {
    const T* y_row = stage + at.slice * bm + at.tm * kVector;
    const T* x_row = stage + bk * bm + at.slice * bn + at.tn * kVector;
    for (int pixel = at.slice; pixel < bk; pixel += at.slices, y_row += at.slices * bm, x_row += at.slices * bn) {
      float a[kThreadTile], b[kThreadTile];
      CNN_UNROLL
      for (int i = 0; i < kSegments; ++i) {
        widen_vector(load_vector<kVector>(y_row + i * (bm / kSegments)), a + i * kVector);
        widen_vector(load_vector<kVector>(x_row + i * (bn / kSegments)), b + i * kVector);
      }
      CNN_UNROLL
      for (int i = 0; i < kThreadTile; ++i) {
        CNN_UNROLL
        for (int j = 0; j < kThreadTile; ++j) results.value[i][j] += a[i] * b[j];
      }
    }
  }
};

// Rows of pixels dense. A stage is y[BM][BK] and x[BN][BK]: a row for each channel, of neighbouring pixels, padded by 16 bytes to an odd
// number of 16-byte pieces, so that eight lanes that read a piece each of eight rows use all banks. A thread copies the same pixels of
// every so-many-th row and works out once a stage where they are; where a column's tap looks is in a table. From shared memory a thread
// takes four pixels of each of its rows at once: 16 reads for 256 multiply-adds.
template <class T>
struct Planar {
  using Element = T;
  using Results = ThreadTile;
  static constexpr bool kChannelsLast = false, kTensor = false;
  static constexpr int kStages = 2, kStageBytes = 32 * 1024;  // rows of 128 bytes and more: planes rarely begin at a sector's first byte
  static constexpr int kGroup = 4;                            // pixels
  static constexpr int kPad = 16 / int(sizeof(T));
  static constexpr int kRun = 1;  // neighbouring rows of results in a thread
  struct Pixels {};

  const TiledWgradParams& p;
  const BlockOfWgrad& block;
  const Column* columns;

  __device__ static __forceinline__ int m(const ThreadPlace& at, int i, int bm) { return at.tm + i * (bm / kThreadTile); }
  __device__ static __forceinline__ int n(const ThreadPlace& at, int j, int bn) { return at.tn + j * (bn / kThreadTile); }

  __device__ __forceinline__ Planar(const TiledWgradParams& params, const BlockOfWgrad& tile, Pixels&, const Column* table)
      : p(params), block(tile), columns(table) {}

  static CNN_HOST_DEVICE int stage_length(int bm, int bn, int bk) { return (bm + bn) * (bk + kPad); }

  __device__ static __forceinline__ void prepare(const TiledWgradParams&, const BlockOfWgrad&, Pixels&, int, int) {}

  __device__ __forceinline__ void copy(T* stage, int first, int) {
    const int thread = int(threadIdx.x), bm = 1 << p.log_bm, bn = 1 << p.log_bn, pitch = (1 << p.log_bk) + kPad;
    with_unit<T>(p.log_y_unit, [&](auto bytes) {
      const int log_units = p.log_bk - p.log_y_unit, pixel = (thread & ((1 << log_units) - 1)) << p.log_y_unit;
      const bool some = first + pixel < block.last_pixel;
      const PixelOfOutput at = pixel_of(block.rectangle, some ? first + pixel : 0);
      const T* const from = static_cast<const T*>(p.y) + block.y_offset + at.n * p.y_n + at.p * p.y_h + at.q * p.y_w;
      for (int row = thread >> log_units; row < bm; row += kTiledWgradThreads >> log_units)
        copy_unit<bytes.value>(stage + row * pitch + pixel, from + row * p.y_c, some && row < block.filters_left ? bytes.value : 0);
    });
    with_unit<T>(p.log_x_unit, [&](auto bytes) {
      // Under a stride neighbouring lanes are neighbouring taps of one pixel first: together they read what lies side by side.
      const int log_units = p.log_bk - p.log_x_unit, pixel = (thread >> p.log_tap_lanes & ((1 << log_units) - 1)) << p.log_x_unit;
      const int tap = thread & ((1 << p.log_tap_lanes) - 1);
      const bool some = first + pixel < block.last_pixel;
      const PixelOfOutput at = pixel_of(block.rectangle, some ? first + pixel : 0);
      const int h = some ? at.p * p.stride_h - p.pad_h : kOutside, w = at.q * p.stride_w - p.pad_w;
      const T* const from = static_cast<const T*>(p.x) + at.n * p.x_n + (some ? h * p.x_h + w * p.x_w : 0);
      T* const to = stage + bm * pitch + pixel;
      const int first_row = (thread >> (log_units + p.log_tap_lanes) << p.log_tap_lanes) + tap;
      for (int row = first_row; row < bn; row += kTiledWgradThreads >> log_units) {
        const Column column = columns[row];
        const bool inside = unsigned(h + column.h) < unsigned(p.H) && unsigned(w + column.w) < unsigned(p.W);
        copy_unit<bytes.value>(to + row * pitch, from + column.x, inside ? bytes.value : 0);
      }
    });
  }

  __device__ static __forceinline__ void keep(const ThreadTile& results, const ThreadPlace& at, float* slice, int bm, int bn) {
    CNN_UNROLL
    for (int i = 0; i < kThreadTile; ++i) {
      CNN_UNROLL
      for (int j = 0; j < kThreadTile; ++j) slice[sums_row(m(at, i, bm), bn, kRun) + n(at, j, bn)] = results.value[i][j];
    }
  }

  __device__ static CNN_INNER_LOOP void multiply(ThreadTile& results, const ThreadPlace& at, const T* stage, int bm, int bn, int bk) {
    const int pitch = bk + kPad, y_step = (bm / kThreadTile) * pitch, x_step = (bn / kThreadTile) * pitch;
    for (int pixel = at.slice * kGroup; pixel < bk; pixel += at.slices * kGroup) {
      const T* const y_row = stage + at.tm * pitch + pixel;
      const T* const x_row = stage + (bm + at.tn) * pitch + pixel;
      float a[kThreadTile][kGroup];
      CNN_UNROLL
      for (int i = 0; i < kThreadTile; ++i) {
        widen_vector(load_vector<kGroup>(y_row + i * y_step), a[i]);
      }
      CNN_UNROLL
      for (int j = 0; j < kThreadTile; ++j) {
        float b[kGroup];
        widen_vector(load_vector<kGroup>(x_row + j * x_step), b);
        CNN_UNROLL
        for (int g = 0; g < kGroup; ++g) {
          CNN_UNROLL
          for (int i = 0; i < kThreadTile; ++i) results.value[i][j] += a[i][g] * b[g];
        }
      }
    }
  }
};

template <class Layout>
__global__ void __launch_bounds__(kTiledWgradThreads, 2) tiled_wgrad_kernel(const __grid_constant__ TiledWgradParams p) {
  using T = typename Layout::Element;
  CNN_DYNAMIC_SHARED(storage, unsigned char);  // the stages; at the end the slices' results
  CNN_SHARED(columns, Column[kMostColumns]);
  CNN_SHARED(pixels, typename Layout::Pixels);
  CNN_SHARED(block, BlockOfWgrad);
  const int thread = int(threadIdx.x);
  const int bm = 1 << p.log_bm, bn = 1 << p.log_bn, bk = 1 << p.log_bk;

  // Where everything is.
  if (thread == 0) block = block_of_wgrad(p);
  __syncthreads();
  if (thread < bn) columns[thread] = column_of(p, block, thread);
  int first = block.first_pixel;
  Layout::prepare(p, block, pixels, first, 0);
  Layout::prepare(p, block, pixels, first + bk, 1);
  __syncthreads();

  // The first stages are asked for, then in each step another one, while the oldest is multiplied.
  constexpr int kStages = Layout::kStages, kAhead = kStages - 1;
  Layout layout(p, block, pixels, columns);
  T* const stages = reinterpret_cast<T*>(storage);
  const int stage_length = Layout::stage_length(bm, bn, bk);
  int steps = (block.last_pixel - first + bk - 1) >> p.log_bk;  // that are left
  using Place = typename Layout::Results::Place;
  typename Layout::Results results;
  results.clear();
  CNN_UNROLL
  for (int ahead = 0; ahead < kAhead; ++ahead) {
    if (steps > ahead) layout.copy(stages + ahead * stage_length, first, ahead & 1);
    commit_async();
    first += bk;
  }
  __syncthreads();  // the table of the first stage has been read
  Layout::prepare(p, block, pixels, first, 0);
  int here = 0, slot = 0;
  for (; steps > 0; --steps) {
    wait_async<kAhead - 1>();
    __syncthreads();  // this stage is whole for all, the last one has been multiplied, the next one's table is written
    const int free = here == 0 ? kAhead : here - 1;
    if (steps > kAhead) layout.copy(stages + free * stage_length, first, slot);
    commit_async();
    first += bk;
    slot ^= 1;
    Layout::prepare(p, block, pixels, first, slot);
    Layout::multiply(results, Place(p), stages + here * stage_length, bm, bn, bk);
    here = here == kAhead ? 0 : here + 1;
  }
  wait_async<0>();
  __syncthreads();

  // The slices' results side by side, [slice][filter][column], then their sums, in rows of columns.
  float* const sums = reinterpret_cast<float*>(storage);
  const Place place(p);
  const int slice_length = sums_slice(bm, bn, Layout::kRun);
  Layout::keep(results, place, sums + place.slice * slice_length, bm, bn);
  __syncthreads();
  const int filters_left = block.filters_left, columns_left = block.columns_left;
  const int vector = bn == 16 && Layout::kRun == 1 ? 2 : 4;  // columns: what rows of the sums are aligned to
  if (p.partial && p.columns % vector == 0) {
    float* const to = p.partial + (block.slab * p.groups * p.filters + block.first_filter) * p.columns + block.first_column;
    const auto add = [&](auto each) {
      constexpr int kSummed = decltype(each)::value, kLog = kSummed == 4 ? 2 : 1;
      const int log_vectors = p.log_bn - kLog;
      for (int e = thread; e < bm << log_vectors; e += kTiledWgradThreads) {
        const int m = sums_order(e >> log_vectors, bn, Layout::kRun), n = (e & ((1 << log_vectors) - 1)) * kSummed;
        if (m >= filters_left || n >= columns_left) continue;
        const float* from = sums + sums_row(m, bn, Layout::kRun) + n;
        Vector<float, kSummed> sum{};
        for (int slice = 0; slice < place.slices; ++slice, from += slice_length) {
          const auto part = load_vector<kSummed>(from);
          CNN_UNROLL
          for (int i = 0; i < kSummed; ++i) sum.value[i] += part.value[i];
        }
        *reinterpret_cast<Vector<float, kSummed>*>(to + m * p.columns + n) = sum;
      }
    };
    if (vector == 4) add(std::integral_constant<int, 4>());
    else if constexpr (Layout::kRun == 1) add(std::integral_constant<int, 2>());
    return;
  }
  for (int e = thread; e < bm << p.log_bn; e += kTiledWgradThreads) {
    const int m = e >> p.log_bn, n = e & (bn - 1), k = block.first_filter + m;
    if (m >= filters_left || n >= columns_left) continue;
    const float* from = sums + sums_row(m, bn, Layout::kRun) + n;
    float sum = 0;
    for (int slice = 0; slice < place.slices; ++slice, from += slice_length) sum += *from;
    if (p.partial) {
      p.partial[(block.slab * p.groups * p.filters + k) * p.columns + block.first_column + n] = sum;
    } else {
      const ChannelAndTap at = channel_and_tap(p, block.first_column + n);
      static_cast<T*>(p.w)[k * p.w_k + at.c * p.w_c + at.r * p.w_r + at.s * p.w_s] = narrow<T>(sum);
    }
  }
}

}  // namespace cnn::conv2d
