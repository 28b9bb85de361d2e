// Grouped convolution with narrow groups, fprop and dgrad: one kernel, because both gather.
//
//   fprop:  y[n, k, p, q] = bias[k] + sum over c, r, s of x[n, c, p * stride - pad + r * dilation, ..] * w[k, c, r, s]
//   dgrad:  x[n, c, h, w] = bias[c] + sum over k, r, s of y[n, k, (h + pad - r * dilation) / stride, ..] * w[k, c, r, s]
//
// c and k of one group. dgrad's rows fall into residue classes modulo the stride; within a class the taps that contribute are the same,
// so each class is a convolution with fewer taps (conv2d/direct/gather.cuh), and a block computes all classes from one halo.
//
// Tile: a block takes some whole groups (a slab of `filters` results per pixel, 32 where the groups allow it) and some hundred pixels:
//
//        columns + halo                        thread = (slot, chunk): kResults results of one group, at kPixels pixels
//      +----------------+                        pixels  slot, slot + slots, slot + 2 * slots, ...  of the tile
//      | o o o o o o o  |  rows                  results chunk * kResults + 0, 1, ...
//      | o o o o o o o  |  + halo              lanes: the chunks of a pixel, 32 results of them, then the next slot
//      +----------------+
//      x `quads` of channels (halo.cuh)        filter[channel][tap][result], rows of `filters` + 4 floats
//
// 8 results x 7 pixels, or 4 x 14 where a group has 4 results only. For each quad of channels and each tap a thread reads 8 + 7 (4 + 14)
// vectors of 16 bytes and does 224 FMAs in 56 accumulators: an SM's FMAs take as long as its shared memory where no vector is
// shared by lanes, and each is by 4 or more. No bank conflicts: a quarter of a warp has 4 chunks of 2 pixels, or 8 chunks of one. FMAs per
// result: channels per group * taps. Bytes: the halo once per slab, results once in 16-byte stores, the slab's filters once per block,
// which works through several tiles where there are enough. Channels of wide groups come in slices, so that they fit.
#pragma once

#include <cstring>
#include <type_traits>

#include "common/launch.h"
#include "conv2d/epilogue.cuh"
#include "conv2d/grouped/halo.cuh"

namespace cnn::conv2d::grouped {

constexpr int kMostThreads = 192;  // two blocks of them leave each thread 160 registers; 128 spill
constexpr int kMostStride = 4;

// Along one axis, for class k: row(i) = first_out + i * out_step, tap(j) = first_tap + j * tap_step, and the row it reads is
// first_in + i * in_per_out + j * in_per_tap.
struct Axis {
  int classes, out_step, tap_step, in_per_out, in_per_tap;
  int low;  // the least first_in + j * in_per_tap of any class: where the window of i = 0 begins
  struct Class {
    int first_out, outs, first_tap, taps, first_in;
  } of[kMostStride];
};

// How filters are read: the rows of a slab, a row being a filter's elements in the order of memory, taps innermost or channels.
struct FilterWalk {
  int k, c, r, s;  // element strides
  bool taps_inner;
  int rows, row_elements;
  int pair;                  // elements that are read at once: 1 or 2
  int lane_rows, row_lanes;  // of a warp: so many rows, and so many neighbours in a row
  int elements;              // (pairs of) them, the warps that are not full included
  FastDiv<int32_t> by_steps, by_inner, by_columns, by_slice;
  // Few channels: the rows are one run, up to `end` in all slabs; chunk_rows of them at a time.
  bool run;
  int chunk_rows, end;
  FastDiv<int32_t> by_taps;
};

struct GatherParams {
  Image in;
  Few few;
  const void* filter;
  void* out;
  Epilogue epilogue;
  int out_n, out_c, out_h, out_w, out_rows, out_columns, out_skew;
  bool out_planar;
  bool out_vector;  // channels_last: 16-byte stores are aligned; planar: the tile's rows have no gaps
  bool dgrad;
  FilterWalk walk;
  Window window;
  Axis h, w;
  int columns_of_filter, taps;  // S, R * S
  int images, rows, columns;    // of the tile, counted in pixels of a class
  FastDiv<int32_t> by_rows, by_columns;
  int pixels, slots, low_lanes;
  FastDiv<int32_t> by_filters;      // planar: runs of the output
  int slabs, filters, in_channels;  // of a slab
  int all_results;                  // the last slab may reach beyond them
  int filter_channels;              // of the filter, where a slice reaches beyond them
  int row_taps;                     // of the filter, where they are taken for channels
  int group_out, group_in;
  int group_quads;    // of a slice of a group's channels
  int slice, slices;  // channels of a group that are in shared memory at a time
  FastDiv<int32_t> by_tiles_h, by_tiles_w;
  int tiles, tiles_per_block;
  int tile_at, table_at, raw_at, staged_at;  // bytes into shared memory, where the filters are first
  // Planar: elements from row to row, filter to filter, image to image, and more from a chunk's result to the next chunk's.
  int staged_row, staged_pitch, staged_image, staged_skew;
  bool staged_planes;  // the results of a slab are one run
  int out_unit;        // elements of a store that all runs are whole multiples of, or long ones but for their ends
  FastDiv<int32_t> by_staged_units, by_staged_row;
};

// The pixels of the tile: where the window of each begins in the halo (in floats), and which it is. Lanes that are neighbours ask for
// neighbours: each of the four lies in an array of its own.
struct Pixels {
  int* at;
  int count;
  __device__ __forceinline__ int& halo(int m) const { return at[m]; }
  __device__ __forceinline__ int& image(int m) const { return at[count + m]; }
  __device__ __forceinline__ int& row(int m) const { return at[2 * count + m]; }
  __device__ __forceinline__ int& column(int m) const { return at[3 * count + m]; }
};

template <class T>
__device__ __forceinline__ void load_filters(const GatherParams& p, int slab, int slice, float* filters) {
  const FilterWalk& walk = p.walk;
  const T* const from = static_cast<const T*>(p.filter);
  const int pitch = p.filters + 4;
  CNN_NO_UNROLL
  for (int e = int(threadIdx.x); e < walk.elements; e += int(blockDim.x)) {
    int step;
    const int lane = e % 32, rows = walk.by_steps.divmod(e / 32, step);
    const int row = rows * walk.lane_rows + lane % walk.lane_rows;
    const int first = (step * walk.row_lanes + lane / walk.lane_rows) * walk.pair;
    if (row >= walk.rows || first >= walk.row_elements) continue;
    int in = 0, row_result = 0, k = slab * p.filters + row;
    if (p.dgrad) {  // rows: filters of the slice, which are dgrad's input channels; in a row lie the channels of a group
      const int group = walk.by_slice.divmod(row, in);
      row_result = group * p.group_out;
      k = slab * p.in_channels + group * p.group_in + slice * p.slice + in;
    }
    float* to[2] = {filters, filters};
    const T* at = from;
    bool exists = true;
    CNN_UNROLL
    for (int i = 0; i < 2; ++i) {
      if (i == walk.pair) break;
      int inner, s;
      const int middle = walk.by_inner.divmod(first + i, inner);
      const int tap = walk.taps_inner ? inner : middle, second = walk.taps_inner ? middle : inner;
      to[i] = filters + ((p.dgrad ? in : second) * p.taps + tap) * pitch + (p.dgrad ? row_result + second : row);
      if (i > 0) continue;
      const int r = walk.by_columns.divmod(tap, s), c = p.dgrad ? second : slice * p.slice + second;
      exists = p.dgrad || (k < p.all_results && c < p.filter_channels && s * p.slice + c < p.row_taps);
      at = from + k * walk.k + c * walk.c + r * walk.r + s * walk.s;
    }
    if (walk.pair == 1) {
      *to[0] = exists ? widen(__ldg(at)) : 0.0f;
    } else if constexpr (sizeof(T) == 2) {
      const unsigned both = __ldg(reinterpret_cast<const unsigned*>(at));  // both exist: pairs are of whole groups
      Vector<T, 2> pair;
      memcpy(&pair, &both, sizeof pair);
      // Two neighbours in a row, and the next two, lie in four different groups of banks: half of a warp begins with the second.
      const bool turned = lane >= 16;
      *(turned ? to[1] : to[0]) = widen(turned ? pair.value[1] : pair.value[0]);
      *(turned ? to[0] : to[1]) = widen(turned ? pair.value[0] : pair.value[1]);
    }
  }
}

// Filters of few channels: 16 bytes at a time as they lie in memory to `run`, and from there to their rows. Each of 4 results by 8 taps,
// which are a warp's, has its own bank.
template <class T>
__device__ __forceinline__ void load_few_filters(const GatherParams& p, int slab, float* filters, T* run) {
  constexpr int kV = kVector<T>;
  const FilterWalk& walk = p.walk;
  const T* const from = static_cast<const T*>(p.filter);
  const int thread = int(threadIdx.x), threads = int(blockDim.x), pitch = p.filters + 4;
  const int elements = p.slice * p.taps, steps = (elements + 7) / 8;
  CNN_NO_UNROLL
  for (int chunk = 0; chunk < p.filters; chunk += walk.chunk_rows) {
    const int begin = (slab * p.filters + chunk) * walk.k, phase = begin & (kV - 1);
    const int end = min(begin + min(walk.chunk_rows, p.filters - chunk) * walk.k, walk.end);
    if (chunk > 0) __syncthreads();
    CNN_NO_UNROLL
    for (int at = begin - phase + thread * kV; at < end; at += threads * kV)
      copy_async<16>(run + at - (begin - phase), from + at, min(kV, walk.end - at) * int(sizeof(T)));
    commit_async();
    wait_async<0>();
    __syncthreads();
    CNN_NO_UNROLL
    for (int e = thread; e < walk.chunk_rows / 4 * steps * 32; e += threads) {
      const int row = chunk + e / 32 / steps * 4 + e % 4, element = e / 32 % steps * 8 + e / 4 % 8;
      if (row >= p.filters || element >= elements) continue;
      int tap, s;
      const int c = walk.by_taps.divmod(element, tap), r = walk.by_columns.divmod(tap, s);
      const bool exists = slab * p.filters + row < p.all_results && c < p.filter_channels && s * p.slice + c < p.row_taps;
      filters[element * pitch + row] = exists ? widen(run[phase + (row - chunk) * walk.k + c * walk.c + r * walk.r + s * walk.s]) : 0.0f;
    }
  }
  __syncthreads();
}

template <int kResults, int kPixels, int kChannels, bool kFew>
struct GatherSums {
  float value[kPixels][kResults];

  __device__ __forceinline__ void clear() {
    CNN_UNROLL
    for (int i = 0; i < kPixels; ++i) {
      CNN_UNROLL
      for (int j = 0; j < kResults; ++j) value[i][j] = 0;
    }
  }
  // Adds a slice of channels at the taps of one class. `halo` is the group's first quad.
  __device__ CNN_INNER_LOOP void add(const float* halo, const Pixels& table, int slot, const float* filters, const GatherParams& p,
                                     const Axis::Class& h, const Axis::Class& w) {
    int halo_of[kPixels];
    CNN_UNROLL
    for (int i = 0; i < kPixels; ++i) halo_of[i] = table.halo(min(slot + i * p.slots, p.pixels - 1));
    const int pitch = p.filters + 4, channel_step = p.taps * pitch;
    const int row_step = p.h.in_per_tap * p.window.columns * 4;
    const int tap_row_step = p.h.tap_step * p.columns_of_filter * pitch, tap_column_step = p.w.tap_step * pitch;
    filters += (h.first_tap * p.columns_of_filter + w.first_tap) * pitch;
    halo += (h.first_in - p.h.low) * p.window.columns * 4;
    CNN_NO_UNROLL
    for (int quad = 0; quad < p.group_quads; ++quad) {
      CNN_NO_UNROLL
      for (int r = 0; r < h.taps; ++r) {
        const float* filter = filters + r * tap_row_step;
        const float* const row = halo + r * row_step;
        const auto tap = [&](int s, auto last) {
          const float* const at = row + column_step(p.window, w.first_in - p.w.low + s * p.w.in_per_tap) * 4;
          Vector<float, 4> f[kChannels][kResults / 4];
          CNN_UNROLL
          for (int c = 0; c < kChannels; ++c) {
            CNN_UNROLL
            for (int j = 0; j < kResults / 4; ++j) f[c][j] = load_vector<4>(filter + c * channel_step + j * 4);
          }
          CNN_UNROLL
          for (int i = 0; i < kPixels; ++i) {
            Vector<float, 4> x = load_vector<4>(at + halo_of[i]);
            if constexpr (decltype(last)::value) {
              CNN_UNROLL
              for (int c = 1; c < kChannels; ++c)
                if (s * kChannels + c >= p.row_taps) x.value[c] = 0;  // a zero of the filter would not cancel an infinity
            }
            CNN_UNROLL
            for (int c = 0; c < kChannels; ++c) {
              CNN_UNROLL
              for (int j = 0; j < kResults; ++j) value[i][j] += x.value[c] * f[c][j / 4].value[j % 4];
            }
          }
          filter += tap_column_step;
        };
        // Where taps are taken for channels, the last ones of a row may not fill a quad.
        const int whole = kFew ? min(w.taps, p.row_taps / kChannels) : w.taps;
        CNN_NO_UNROLL
        for (int s = 0; s < whole; ++s) tap(s, std::false_type{});
        if constexpr (kFew) {
          if (whole < w.taps) tap(whole, std::true_type{});
        }
      }
      filters += 4 * channel_step;
      halo += p.window.pitch * 4;
    }
  }
};

// What a block is at: a tile, and a class of pixels in it.
struct GatherAt {
  int n, row, column;  // first of the tile, in pixels of a class
  int first_filter;    // of the slab
};

// What a thread computes.
struct alignas(8) Lane {
  int slot, chunk;
};

struct OutPixel {
  bool exists;
  int n, h, w;
};
__device__ __forceinline__ OutPixel out_pixel(const GatherParams& p, const GatherAt& at, const Axis::Class& h, const Axis::Class& w,
                                              const Pixels& table, int m) {
  const int n = at.n + table.image(m), row = at.row + table.row(m), column = at.column + table.column(m);
  return {n < p.in.batch && row < h.outs && column < w.outs, n, h.first_out + row * p.h.out_step, w.first_out + column * p.w.out_step};
}

// `kResults` results as registers of one pixel.
template <class T, int kResults>
__device__ __forceinline__ void pack(const float (&sums)[kResults], unsigned (&registers)[4]) {
  Vector<T, kResults> value;
  CNN_UNROLL
  for (int j = 0; j < kResults; ++j) value.value[j] = narrow<T>(sums[j]);
  memcpy(registers, &value, sizeof(value) < sizeof(registers) ? sizeof(value) : sizeof(registers));
}

// Results of a thread to channels_last memory.
template <class T, int kResults, int kPixels, int kChannels, bool kFew>
__device__ __forceinline__ void store_channels_last(const GatherParams& p, const GatherAt& at, const Axis::Class& h, const Axis::Class& w,
                                                    const Pixels& table, const Lane& lane,
                                                    const GatherSums<kResults, kPixels, kChannels, kFew>& sums) {
  T* const out = static_cast<T*>(p.out) + at.first_filter;
  const auto offset = [&](const OutPixel& o) { return o.n * p.out_n + o.h * p.out_h + o.w * p.out_w; };
  const auto pixel_at = [&](int i) {
    const int m = lane.slot + i * p.slots;
    if (lane.slot >= p.slots || m >= p.pixels) return OutPixel{false, 0, 0, 0};
    return out_pixel(p, at, h, w, table, m);
  };
  // 32 bytes of a pixel at a time are written by two lanes. With 4 results of 2 bytes a lane has 8 bytes of a pixel: lanes of neighbouring
  // chunks swap, and each has 16 bytes of every second pixel. With 8 results of 4 bytes it has 32, and swaps one half of them.
  const bool odd = lane.chunk % 2 != 0;
  const auto swapped = [&](const unsigned (&even_gives)[4], const unsigned (&odd_gives)[4], int i) {
    return __shfl_xor_sync(0xffffffffu, odd ? odd_gives[i] : even_gives[i], 1);
  };
  const auto store = [&](T* to, uint4 value) {
    using Several = Vector<T, kVector<T>>;
    *reinterpret_cast<Several*>(to) = finish(p.epilogue, to, __builtin_bit_cast(Several, value));
  };
  if (sizeof(T) * kResults == 8 && p.out_vector) {
    CNN_UNROLL
    for (int i = 0; i < kPixels; i += 2) {  // kPixels is even with 4 results
      unsigned own[2][4] = {};
      CNN_UNROLL
      for (int side = 0; side < 2; ++side) pack<T, kResults>(sums.value[i + side], own[side]);
      const unsigned other[2] = {swapped(own[1], own[0], 0), swapped(own[1], own[0], 1)};
      const OutPixel o = pixel_at(odd ? i + 1 : i);
      if (!o.exists) continue;
      uint4 value{own[0][0], own[0][1], other[0], other[1]};
      if (odd) value = uint4{other[0], other[1], own[1][0], own[1][1]};
      store(out + offset(o) + lane.chunk / 2 * 8, value);
    }
  } else if (sizeof(T) * kResults == 32 && p.out_vector) {
    CNN_UNROLL
    for (int i = 0; i < kPixels; ++i) {
      unsigned own[2][4];
      CNN_UNROLL
      for (int half = 0; half < 2; ++half) {
        CNN_UNROLL
        for (int j = 0; j < 4; ++j) own[half][j] = __float_as_uint(float(sums.value[i][half * (kResults / 2) + j]));
      }
      uint4 other;
      other.x = swapped(own[1], own[0], 0), other.y = swapped(own[1], own[0], 1);
      other.z = swapped(own[1], own[0], 2), other.w = swapped(own[1], own[0], 3);
      const OutPixel o = pixel_at(i);
      if (!o.exists) continue;
      // Even lanes keep the first half of their chunk and get the first of their neighbour's, odd lanes the second halves.
      uint4 first{own[0][0], own[0][1], own[0][2], own[0][3]}, second = other;
      if (odd) first = other, second = uint4{own[1][0], own[1][1], own[1][2], own[1][3]};
      T* const to = out + offset(o) + lane.chunk / 2 * 16 + (odd ? 4 : 0);
      store(to, first);
      store(to + 8, second);
    }
  } else {
    CNN_UNROLL
    for (int i = 0; i < kPixels; ++i) {
      const OutPixel o = pixel_at(i);
      if (!o.exists) continue;
      T* const to = out + offset(o) + lane.chunk * kResults;
      Vector<T, kResults> value;
      CNN_UNROLL
      for (int j = 0; j < kResults; ++j) value.value[j] = narrow<T>(sums.value[i][j]);
      const bool vector = sizeof(T) * kResults == 16 && p.out_vector;
      const int count = vector ? kResults : min(kResults, p.all_results - at.first_filter - lane.chunk * kResults);
      value = finish(p.epilogue, to, value, count, vector);
      if (vector) {
        *reinterpret_cast<Vector<T, kResults>*>(to) = value;
      } else {
        CNN_UNROLL
        for (int j = 0; j < kResults; ++j)
          if (j < count) to[j] = value.value[j];
      }
    }
  }
}

// Planar results wait in shared memory until all classes are there: staged[image][filter][row][column], each filter's run as far from the
// begin of a sector as in memory, and each chunk moved by 4 bytes per result more, so that the chunks of a pixel hit different banks. Whole
// planes of an odd number of pixels follow each other as in memory.
struct Staged {
  int row;  // of the output, the first
  template <class T>
  __device__ __forceinline__ int phase(const GatherParams& p, int n, int first_filter, int k) const {
    k = p.staged_planes ? first_filter : first_filter + k;
    return p.out_vector ? (n * p.out_n + k * p.out_c + row * p.out_h + p.out_skew) & (2 * kVector<T> - 1) : 0;
  }
};

template <class T, int kResults, int kPixels, int kChannels, bool kFew>
__device__ __forceinline__ void stage_planar(const GatherParams& p, const GatherAt& at, const Axis::Class& h, const Axis::Class& w,
                                             const Pixels& table, const Lane& lane,
                                             const GatherSums<kResults, kPixels, kChannels, kFew>& sums, T* staged) {
  const Staged stage{at.row * p.h.out_step};
  CNN_UNROLL
  for (int i = 0; i < kPixels; ++i) {
    const int m = lane.slot + i * p.slots;
    if (lane.slot >= p.slots || m >= p.pixels) break;
    const OutPixel o = out_pixel(p, at, h, w, table, m);
    if (!o.exists) continue;
    T* const to = staged + table.image(m) * p.staged_image + lane.chunk * kResults * (p.staged_pitch + p.staged_skew) +
                  (o.h - stage.row) * p.staged_row + o.w - at.column * p.w.out_step;
    CNN_UNROLL
    for (int j = 0; j < kResults; ++j)
      to[j * p.staged_pitch + stage.phase<T>(p, o.n, at.first_filter, lane.chunk * kResults + j)] = narrow<T>(sums.value[i][j]);
  }
}

// Writes the runs by units of kUnit elements, neighbouring threads neighbouring units of a run, from its first sector on.
template <class T, int kResults, int kUnit>
__device__ __forceinline__ void store_runs(const GatherParams& p, const GatherAt& at, const T* staged) {
  const Staged stage{at.row * p.h.out_step};
  const int first_column = at.column * p.w.out_step;
  const int rows = min(p.rows * p.h.out_step, p.out_rows - stage.row),
            columns = min(p.columns * p.w.out_step, p.out_columns - first_column);
  T* const out = static_cast<T*>(p.out);
  CNN_NO_UNROLL
  for (int e = int(threadIdx.x); e < p.images * p.by_filters.divisor * p.by_staged_units.divisor; e += int(blockDim.x)) {
    int unit, k;
    const int image = p.by_filters.divmod(p.by_staged_units.divmod(e, unit), k);
    const int n = at.n + image;
    if (n >= p.in.batch || at.first_filter + k >= p.all_results) continue;
    const T* const from = staged + image * p.staged_image + k * p.staged_pitch + k / kResults * kResults * p.staged_skew + unit * kUnit;
    T* const to = out + n * p.out_n + (at.first_filter + k) * p.out_c + stage.row * p.out_h;
    if (kUnit > 1 || p.out_vector) {
      const int first = unit * kUnit - stage.phase<T>(p, n, at.first_filter, k);
      const int length = p.staged_planes ? min(p.filters, p.all_results - at.first_filter) * p.staged_pitch : rows * p.out_columns;
      if (first >= 0 && first + kUnit <= length) {
        *reinterpret_cast<Vector<T, kUnit>*>(to + first) = finish(p.epilogue, to + first, load_vector<kUnit>(from));
      } else if (kUnit == kVector<T>) {  // of whole planes and long runs: smaller units end where runs do
        for (int i = max(-first, 0); i < min(kUnit, length - first); ++i) to[first + i] = finish(p.epilogue, to + first + i, from[i]);
      }
    } else {
      int column;
      const int row = p.by_staged_row.divmod(unit, column);
      if (row >= rows || column >= columns) continue;
      T* const pixel = to + row * p.out_h + (first_column + column) * p.out_w;
      *pixel = finish(p.epilogue, pixel, *from);
    }
  }
}

template <class T, int kResults>
__device__ __forceinline__ void store_planar(const GatherParams& p, const GatherAt& at, const T* staged) {
  constexpr int kV = kVector<T>;
  if (p.out_unit == kV) store_runs<T, kResults, kV>(p, at, staged);
  else if (p.out_unit == kV / 2) store_runs<T, kResults, kV / 2>(p, at, staged);
  else if (kV == 8 && p.out_unit == 2) store_runs<T, kResults, 2>(p, at, staged);
  else store_runs<T, kResults, 1>(p, at, staged);
}

// kFew: of an image of few channels (halo.cuh) a block computes all slabs of results, one after the other, from one halo.
template <class T, int kResults, int kPixels, int kChannels, bool kFew>
__global__ void __launch_bounds__(kMostThreads, 2) gather_kernel(const __grid_constant__ GatherParams p) {
  CNN_DYNAMIC_SHARED(memory, unsigned char);
  float* const filters = reinterpret_cast<float*>(memory);
  float* const halo = reinterpret_cast<float*>(memory + p.tile_at);
  const Pixels table{reinterpret_cast<int*>(memory + p.table_at), p.pixels};
  T* const raw = reinterpret_cast<T*>(memory + p.raw_at);
  T* const staged = reinterpret_cast<T*>(memory + p.staged_at);
  CNN_SHARED(lanes, Lane[kMostThreads]);  // read where they are needed: the sums leave no registers to keep them in
  const int thread = int(threadIdx.x);

  const int block_slabs = kFew ? 1 : p.slabs, passes = kFew ? p.slabs : p.h.classes * p.w.classes;
  const int first_tile = int(blockIdx.x) / block_slabs * p.tiles_per_block;
  const int last_tile = min(first_tile + p.tiles_per_block, p.tiles);

  {
    // From the lowest digit: `low` chunks of one pixel, 8 / low slots, the other chunks, the other slots.
    const int low = p.low_lanes, high_chunks = p.filters / kResults / low;
    const int rest = thread / low, near = rest % (8 / low), far = rest / (8 / low);
    const Lane lane{far / high_chunks * (8 / low) + near, thread % low + far % high_chunks * low};
    lanes[thread] = lane;
  }
  for (int m = thread; m < p.pixels; m += int(blockDim.x)) {
    int column, row;
    const int image = p.by_rows.divmod(p.by_columns.divmod(m, column), row);
    table.image(m) = image, table.row(m) = row, table.column(m) = column;
    table.halo(m) = ((image * p.window.rows + row * p.h.in_per_out) * p.window.columns + column * p.w.in_per_out / p.window.phases) * 4;
  }
  __syncthreads();
  CNN_NO_UNROLL
  for (int tile = first_tile; tile < last_tile; ++tile) {
    GatherAt at;
    at.n = p.by_tiles_h.divmod(p.by_tiles_w.divmod(tile, at.column), at.row) * p.images;
    at.row *= p.rows, at.column *= p.columns;
    CNN_NO_UNROLL
    for (int pass = 0; pass < passes; ++pass) {
      const int slab = kFew ? pass : int(blockIdx.x) % block_slabs;
      const Axis::Class& h = p.h.of[kFew ? 0 : pass / p.w.classes];
      const Axis::Class& w = p.w.of[kFew ? 0 : pass % p.w.classes];
      at.first_filter = slab * p.filters;
      GatherSums<kResults, kPixels, kChannels, kFew> sums;
      sums.clear();
      CNN_NO_UNROLL
      for (int slice = 0; slice < p.slices; ++slice) {
        const bool new_halo = p.slices > 1 || pass == 0;
        const bool new_filters = p.slices > 1 || (kFew && p.slabs > 1) || (pass == 0 && tile == first_tile);
        if (new_halo || new_filters) {
          __syncthreads();  // the last ones have been used
          if (new_filters) {
            bool loaded = false;
            if constexpr (kFew) {
              if (p.walk.run) load_few_filters<T>(p, slab, filters, raw), loaded = true;
            }
            if (!loaded) load_filters<T>(p, slab, slice, filters);
          }
          const WindowAt window{at.n, slab * p.in_channels + slice * p.slice, at.row * p.h.in_per_out + p.h.low,
                                at.column * p.w.in_per_out + p.w.low};
          if (new_halo) {
            if constexpr (kFew) load_few<T>(p.few, p.window, window, halo, raw);
            else load_window<T>(p.in, p.window, window, halo, raw);
          }
          __syncthreads();
        }
        const Lane lane = lanes[thread];
        const int group = kFew ? 0 : lane.chunk * kResults / p.group_out;
        sums.add(halo + group * p.group_quads * p.window.pitch * 4, table, lane.slot, filters + lane.chunk * kResults, p, h, w);
      }
      const Lane lane = lanes[thread];
      CNN_UNROLL
      for (int j = 0; j < kResults; ++j) {
        const auto z = per_channel<T>(p.epilogue, min(at.first_filter + lane.chunk * kResults + j, p.all_results - 1));
        CNN_UNROLL
        for (int i = 0; i < kPixels; ++i) sums.value[i][j] = z(sums.value[i][j]);
      }
      if (p.out_planar) {
        stage_planar<T>(p, at, h, w, table, lane, sums, staged);
        if (!kFew && pass < passes - 1) continue;
        __syncthreads();
        store_planar<T, kResults>(p, at, staged);
        if (kFew && pass < passes - 1) __syncthreads();  // `staged` is used again; else the next halo's barrier is there
      } else {
        store_channels_last<T>(p, at, h, w, table, lane, sums);
      }
    }
  }
}

}  // namespace cnn::conv2d::grouped
