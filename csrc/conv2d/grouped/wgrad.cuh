// Grouped convolution with narrow groups, wgrad.
//
//   w[k, c, r, s] = sum over n, p, q of  y[n, k, p, q] * x[n, c, p * stride - pad + r * dilation, (alike)]
//
// A block takes some whole groups (a slab of `filters` filters and their channels) and a slab of tiles of output pixels. It keeps the sums
// of all the slab's filter elements in registers while the tiles pass through shared memory, x with its halo and y as fp32 (halo.cuh), so
// each of the two is read once.
//
//   thread = (chunk, quad, tap group, reader):  kFilters filters x 4 channels of one group x kTaps taps,  for every `readers`th pixel pair
//
// For a pixel a thread reads kFilters / 4 vectors of y and kTaps of x, 16 bytes each, for kFilters * 4 * kTaps FMAs: 5 vectors for 96, or
// 4 for 48. Lanes: 4 chunks (8 of 4 filters), then quads, tap groups, two readers; their vectors lie in different banks or are the same.
// At the end the readers of an element are added in order in shared memory, in rounds of as many copies as fit: rows of elements in the
// order of w, in such an order and at such a pitch that the chunks, quads and tap groups of a warp hit different banks. From there they
// are written 16 bytes at a time: partial[slab][k][element], which sum_slabs adds, or w itself if there is one slab.
// FMAs per element: pixels. Bytes: x once but for the halos, y once, partial sums once.
#pragma once

#include "common/launch.h"
#include "conv2d/grouped/halo.cuh"

namespace cnn::conv2d::grouped {

// 2 blocks of 6 warps on a multiprocessor leave a thread 168 registers, enough for 96 sums; 3 leave 96, for 48.
constexpr int kMostWgradThreads = 192;

struct WgradParams {
  Image x, y;
  Few few;
  void *w, *partial;       // partial: [slabs][K][elements], or null: one slab, written to w
  int w_k, w_c, w_r, w_s;  // element strides
  Window x_window, y_window;
  int stride_h, stride_w, pad_h, pad_w;
  int taps, columns_of_filter, dilation_h, dilation_w;
  int slabs;                       // of groups
  int parts;                       // of a wide group's channels: a block sums for one of them
  int filters, channels;           // of a slab; channels of its part
  int group_filters, group_quads;  // of a group; quads of its part
  int chunks, low_lanes, tap_groups, near_readers, readers;
  FastDiv<int32_t> by_tiles_h, by_tiles_w;
  int tiles, tiles_per_block, images, rows, columns;                          // of a tile, in output pixels
  int all_filters, part_channels, elements, element_pitch, copy_pad, copies;  // elements: of a part of a filter
  bool channel_innermost;                                                     // in w, else taps
  // An element of a part is (outer, inner), that of the filter outer * inner_step + inner + part * part_step if inner < inner_exists.
  FastDiv<int32_t> by_elements, by_inner;
  int inner_exists, inner_step, part_step, filter_elements;
  // And that is (high, low): (tap, channel) or (channel, tap).
  FastDiv<int32_t> by_low, by_columns;
  bool low_is_tap, w_vector;         // w_vector: w's filters are dense
  int x_at, y_at, table_at, raw_at;  // bytes into shared memory; the copies of the sums lie at its start, when the tiles are done
};

// Two pixels: where the window of each begins in x's tile and where it lies in y's, in floats.
struct alignas(16) PixelPair {
  int x0, y0, x1, y1;
};

// What a thread sums.
struct alignas(16) WgradLane {
  int chunk, quad, tap_group, reader;
};

template <int kFilters, int kTaps, int kChannels>
struct WgradSums {
  float value[kTaps][kChannels][kFilters];

  __device__ __forceinline__ void clear() {
    CNN_UNROLL
    for (int t = 0; t < kTaps; ++t) {
      CNN_UNROLL
      for (int c = 0; c < kChannels; ++c) {
        CNN_UNROLL
        for (int k = 0; k < kFilters; ++k) value[t][c][k] = 0;
      }
    }
  }
  __device__ __forceinline__ void add_pixel(const float* x, const float* y, int y_plane, const int (&tap)[kTaps]) {
    Vector<float, 4> f[kFilters / 4];
    CNN_UNROLL
    for (int k = 0; k < kFilters / 4; ++k) f[k] = load_vector<4>(y + k * y_plane);
    CNN_UNROLL
    for (int t = 0; t < kTaps; ++t) {
      const Vector<float, 4> v = load_vector<4>(x + tap[t]);
      CNN_UNROLL
      for (int c = 0; c < kChannels; ++c) {
        CNN_UNROLL
        for (int k = 0; k < kFilters; ++k) value[t][c][k] += v.value[c] * f[k / 4].value[k % 4];
      }
    }
  }
  // The pairs `first`, `first + step`, ... of a table of `pixels` pixels.
  __device__ CNN_INNER_LOOP void add(const float* x, const float* y, int y_plane, const int (&tap)[kTaps], const PixelPair* table,
                                     int pixels, int first, int step) {
    int pair = first;
    CNN_NO_UNROLL
    for (; pair < pixels / 2; pair += step) {
      const PixelPair at = table[pair];
      add_pixel(x + at.x0, y + at.y0, y_plane, tap);
      add_pixel(x + at.x1, y + at.y1, y_plane, tap);
    }
    if (pixels % 2 != 0 && pair == pixels / 2) add_pixel(x + table[pair].x0, y + table[pair].y0, y_plane, tap);
  }
};

// Adds the copies of a block's sums and writes them, kV elements at a time, which are neighbours in shared memory and in w.
template <class T, int kFilters, int kV>
__device__ __forceinline__ void write_sums(const WgradParams& p, const float* total, int copy_step, int slab, int part, int pixel_slab) {
  const int copies = min(p.copies, p.readers);
  CNN_NO_UNROLL
  for (int e = int(threadIdx.x) * kV; e < p.filters * p.elements; e += int(blockDim.x) * kV) {
    int element, inner;
    const int k = p.by_elements.divmod(e, element);
    if (slab * p.filters + k >= p.all_filters) break;
    const float* const from = total + (k % kFilters * p.chunks + k / kFilters) * p.element_pitch + element;
    Vector<float, kV> sum{};
    CNN_NO_UNROLL
    for (int copy = 0; copy < copies; ++copy) {
      const Vector<float, kV> one = load_vector<kV>(from + copy * copy_step);
      CNN_UNROLL
      for (int i = 0; i < kV; ++i) sum.value[i] += one.value[i];
    }
    const int outer = p.by_inner.divmod(element, inner);
    if (inner >= p.inner_exists) continue;
    const int at = outer * p.inner_step + inner + part * p.part_step;  // of the filter, in the order of memory
    if (p.partial) {
      float* const to = static_cast<float*>(p.partial) + (pixel_slab * p.all_filters + slab * p.filters + k) * p.filter_elements + at;
      *reinterpret_cast<Vector<float, kV>*>(to) = sum;
      continue;
    }
    T* const to = static_cast<T*>(p.w) + (slab * p.filters + k) * p.w_k;
    if (p.w_vector) {
      Vector<T, kV> value;
      CNN_UNROLL
      for (int i = 0; i < kV; ++i) value.value[i] = narrow<T>(sum.value[i]);
      *reinterpret_cast<Vector<T, kV>*>(to + at) = value;
    } else {
      CNN_UNROLL
      for (int i = 0; i < kV; ++i) {
        int low, s;
        const int high = p.by_low.divmod(at + i, low);  // taps and channels, or channels and taps
        const int r = p.by_columns.divmod(p.low_is_tap ? low : high, s);
        to[(p.low_is_tap ? high : low) * p.w_c + r * p.w_r + s * p.w_s] = narrow<T>(sum.value[i]);
      }
    }
  }
}

template <class T, int kFilters, int kTaps, int kChannels, bool kFew>
__global__ void __launch_bounds__(kMostWgradThreads, 2) wgrad_kernel(const __grid_constant__ WgradParams p) {
  CNN_DYNAMIC_SHARED(memory, unsigned char);
  float* const x_tile = reinterpret_cast<float*>(memory + p.x_at);
  float* const y_tile = reinterpret_cast<float*>(memory + p.y_at);
  PixelPair* const table = reinterpret_cast<PixelPair*>(memory + p.table_at);
  T* const raw = reinterpret_cast<T*>(memory + p.raw_at);
  CNN_SHARED(lanes, WgradLane[kMostWgradThreads]);  // read where they are needed: the sums leave no registers to keep them in
  const int thread = int(threadIdx.x), threads = int(blockDim.x);

  const int part = int(blockIdx.x) % p.parts, slab = int(blockIdx.x) / p.parts % p.slabs, pixel_slab = int(blockIdx.x) / p.parts / p.slabs;
  const int first_tile = pixel_slab * p.tiles_per_block, last_tile = min(first_tile + p.tiles_per_block, p.tiles);

  int tap_group, group_quad;
  {
    // From the lowest digit: `low_lanes` chunks, quads, tap groups, one or two readers, the other chunks, the other readers.
    int rest = thread / p.low_lanes;
    const int quad = rest % p.group_quads;
    rest /= p.group_quads;
    tap_group = rest % p.tap_groups;
    rest /= p.tap_groups;
    const int near_reader = rest % p.near_readers;
    rest /= p.near_readers;
    const int high_chunks = p.chunks / p.low_lanes, chunk = thread % p.low_lanes + rest % high_chunks * p.low_lanes;
    const WgradLane lane{chunk, quad, tap_group, rest / high_chunks * p.near_readers + near_reader};
    lanes[thread] = lane;
    group_quad = kFew ? 0 : chunk * kFilters / p.group_filters * p.group_quads + quad;
  }
  int tap[kTaps];  // where the taps look in x's tile; those behind the last one look at the first, and are not written
  CNN_UNROLL
  for (int t = 0; t < kTaps; ++t) {
    const int index = tap_group * kTaps + t < p.taps ? tap_group * kTaps + t : 0;
    tap[t] = ((index / p.columns_of_filter) * p.dilation_h * p.x_window.columns +
              column_step(p.x_window, index % p.columns_of_filter * p.dilation_w)) *
             4;
  }

  WgradSums<kFilters, kTaps, kChannels> sums;
  sums.clear();
  CNN_NO_UNROLL
  for (int tile = first_tile; tile < last_tile; ++tile) {
    int row, column;
    const int n = p.by_tiles_h.divmod(p.by_tiles_w.divmod(tile, column), row) * p.images;
    row *= p.rows, column *= p.columns;
    // Only pixels that exist are in the table: a zero in y's place would not cancel an infinity of x.
    const int rows = min(p.rows, p.y.rows - row), columns = min(p.columns, p.y.columns - column);
    const int pixels = min(p.images, p.y.batch - n) * rows * columns;
    __syncthreads();  // the last tile has been used
    CNN_NO_UNROLL
    for (int pair = thread; pair < (pixels + 1) / 2; pair += threads) {
      int x_of[2], y_of[2];
      CNN_UNROLL
      for (int i = 0; i < 2; ++i) {  // of each half of the pixels one: pairs that are neighbours look at neighbouring pixels
        const int m = min(pair + i * ((pixels + 1) / 2), pixels - 1), q = m % columns, image_row = m / columns, image = image_row / rows,
                  line = image_row % rows;
        x_of[i] = ((image * p.x_window.rows + line * p.stride_h) * p.x_window.columns + q * p.stride_w / p.x_window.phases) * 4;
        y_of[i] = ((image * p.rows + line) * p.columns + q) * 4;
      }
      const PixelPair both{x_of[0], y_of[0], x_of[1], y_of[1]};
      table[pair] = both;
    }
    const WindowAt x_at{n, (slab * p.parts + part) * p.channels, row * p.stride_h - p.pad_h, column * p.stride_w - p.pad_w};
    if constexpr (kFew) load_few<T>(p.few, p.x_window, x_at, x_tile, raw);
    else load_window<T>(p.x, p.x_window, x_at, x_tile, raw);
    if (kFew || p.x.planar) __syncthreads();  // `raw` is used again
    load_window<T>(p.y, p.y_window, {n, slab * p.filters, row, column}, y_tile, raw);
    __syncthreads();
    const WgradLane lane = lanes[thread];
    if (lane.reader < p.readers)
      sums.add(x_tile + group_quad * p.x_window.pitch * 4, y_tile + lane.chunk * kFilters * p.y_window.pitch, p.y_window.pitch * 4, tap,
               table, pixels, lane.reader, p.readers);
  }

  const WgradLane lane = lanes[thread];
  float* const total = reinterpret_cast<float*>(memory);  // [copy][k of a chunk][chunk][element], rows of element_pitch
  const int copy_step = p.filters * p.element_pitch + p.copy_pad;
  CNN_NO_UNROLL
  for (int first = 0; first < p.readers; first += p.copies) {
    __syncthreads();
    if (lane.reader >= first && lane.reader < min(first + p.copies, p.readers)) {
      float* const to = total + (lane.reader - first) * copy_step + lane.chunk * p.element_pitch;
      const int row_step = p.chunks * p.element_pitch;
      const int channel_step = p.channel_innermost ? 1 : p.taps, tap_step = p.channel_innermost ? p.part_channels : 1;
      CNN_UNROLL
      for (int t = 0; t < kTaps; ++t) {
        if (lane.tap_group * kTaps + t >= p.taps) break;
        float* const element = to + lane.quad * 4 * channel_step + (lane.tap_group * kTaps + t) * tap_step;
        if (!kFew && p.channel_innermost) {  // the channels of a quad are one vector
          CNN_UNROLL
          for (int k = 0; k < kFilters; ++k) {
            Vector<float, 4>& four = *reinterpret_cast<Vector<float, 4>*>(element + k * row_step);
            Vector<float, 4> sum{};
            if (first > 0) sum = four;
            CNN_UNROLL
            for (int c = 0; c < kChannels; ++c) sum.value[c] += sums.value[t][c][k];
            four = sum;
          }
        } else {
          CNN_UNROLL
          for (int c = 0; c < kChannels; ++c) {
            if (kFew && c >= p.part_channels) break;
            CNN_UNROLL
            for (int k = 0; k < kFilters; ++k) {
              float& sum = element[c * channel_step + k * row_step];
              sum = first == 0 ? sums.value[t][c][k] : sum + sums.value[t][c][k];
            }
          }
        }
      }
    }
  }
  __syncthreads();
  if constexpr (kFew) write_sums<T, kFilters, 1>(p, total, copy_step, slab, part, pixel_slab);
  else if (p.channel_innermost) write_sums<T, kFilters, 4>(p, total, copy_step, slab, part, pixel_slab);
  else write_sums<T, kFilters, 1>(p, total, copy_step, slab, part, pixel_slab);
}

}  // namespace cnn::conv2d::grouped
