// Depthwise convolution with filters of any size, stride 1, NCHW and NHWC: fprop, dgrad and wgrad are one correlation.
//
//   result[c, o, l] = sum over f, g of  image[c, o + f - pad_h, l + g - pad_w] * filter[c, f, g]
//
//            image  filter                result
//   fprop    x      w                     y       (o, l) = (p, q), (f, g) = (r, s)
//   dgrad    dy     w, taps in reverse    dx      pad = taps - 1 - pad
//   wgrad    x      dy, image by image    dw      (o, l) = (r, s), (f, g) = (p, q)
//
//              strip 0   1   2   3
//             +-------+---+---+---+     A block has some planes (channels, and of fprop and dgrad images too), a thread 7 x 7 results of
//             one.
//   group 0   | 7 x 7 |   |   |   |     Neighbouring lanes have neighbouring planes, so that a warp is at one place of the plane and
//             +-------+---+---+---+     skips together: rows of the image that lie in the padding, and columns of the filter that see
//   group 1   |       |   |   |   |     nothing but padding for all seven results. (RepLKNet's 27 x 27 on 14 x 14: 3 of 4 products.)
//             +-------+---+---+---+
//
//   stage: some rows of the image (wgrad: and the rows of dy that meet them), fp32 in shared memory, 9 columns of zeros between rows;
//          the next stage is on its way (cp.async) while a thread goes through the rows:
//   for each row h, for each 4 columns g of the filter:
//     10 values of the image  x  4 taps of each of 7 filter rows h + pad - o  ->  196 FMAs       10 LDS.32 + 7 LDS.128
//
// Of the instructions of the innermost loop 196 of about 220 are FMAs. Per result R * S FMAs, less what is skipped; with 13 x 13 taps
// and more that, and not memory, is the time, so that halos of rows are read again from L2 by each block of a plane.
#pragma once

#include "common/launch.h"
#include "conv2d/depthwise/planar_planes.cuh"

namespace cnn::conv2d {

constexpr int kLargeTile = 7, kLargeChunk = 4;              // results of a thread along each axis; taps of a step
constexpr int kLargeWindow = kLargeTile + kLargeChunk - 1;  // columns of the image that a step reads
constexpr int kLargeMargin = kLargeWindow - 1;              // columns beside the image that a step may read
constexpr int kLargeThreads = 256;
constexpr int kLargeRunGap = 4;  // words between runs of results, which take a multiple of 8: lanes have one plane each

// A tensor, of which a stage has some rows of some planes.
struct LargeTensor {
  int n, c, h, w;  // element strides
  int height, width;
  bool vectors;  // NHWC: 16 bytes of channels are whole and aligned. NCHW: columns, rows and channels follow each other without gaps
};

// Its place in shared memory: floats [plane][row][column], and where copies of it land.
struct LargeTile {
  FastDiv<int> row_pitch, plane_pitch;
  int first_column;
  int landing_plane;  // NCHW: elements that a plane's run may take where it lands
};

struct LargeParams {
  const void *image, *filter;
  Epilogue epilogue;
  void* out;       // y, dx or dw
  float* partial;  // wgrad, several slabs: [slab][c][o][l]
  LargeTensor image_tensor, filter_tensor, out_tensor;
  LargeTile image_tile, filter_tile, out_tile;
  int images, channels;              // N, C
  int block_images, block_channels;  // their product: planes, a power of two
  int group_blocks, groups;          // blocks and groups of 7 rows in one
  int strips, pad_h, pad_w, flip;    // flip: taps in reverse
  int stage_rows;                    // of the image; wgrad: of dy
  int units, slab_units, bands;      // wgrad: bands of all images, of a slab, of an image
  int image_values, filter_values;   // floats of shared memory
  int image_landing;                 // elements of it
  Skew out_skew;                     // NCHW: of several planes in a run of results
  int landing_filters;               // fprop, dgrad: filters that fit where the image will be, if they are a run; else 0
};

// The planes of a block: channels of one or several images.
struct LargePlanes {
  int first_n, images, first_c, channels;  // that exist
};

// NCHW: a plane's rows are a run (planar_planes.cuh), and if they are all of its rows, those of all channels are one.
template <bool kNhwc>
struct LargeLayout {
  template <class T>
  struct Runs {
    T* origin;  // the first row of the first plane
    const LargeTensor& tensor;
    int rows, images, channels;
    bool merged;
    int pitch;  // in shared memory, from one run to the next

    __device__ __forceinline__ Runs(T* base, const LargeTensor& t, const LargeTile& tile, const LargePlanes& at, int first_row, int rows_)
        : origin(base + at.first_n * t.n + at.first_c * t.c + first_row * t.h),
          tensor(t),
          rows(rows_),
          images(at.images),
          channels(at.channels),
          merged(rows_ == t.height),
          pitch(merged ? tile.landing_plane * at.channels : tile.landing_plane) {}
    __device__ __forceinline__ int count() const { return merged ? images : images * channels; }
    __device__ __forceinline__ int index(int n, int c) const { return merged ? n : n * channels + c; }
    __device__ __forceinline__ Run<T> run(int r) const {
      const int n = merged ? r : r / channels, c = merged ? 0 : r % channels;
      return {origin + n * tensor.n + c * tensor.c, merged ? channels : 1, 0, rows, tensor.width};
    }
    __device__ __forceinline__ int lead(const Run<T>& run) const { return tensor.vectors ? run.lead() : 0; }
  };

  // Starts copying rows [first, first + rows) of the planes.
  template <class T>
  __device__ static __forceinline__ void copy(T* landing, const T* from, const LargeTensor& t, const LargeTile& tile, const LargePlanes& at,
                                              int block_channels, int first, int rows) {
    if constexpr (kNhwc) {
      constexpr int kVector = 16 / int(sizeof(T));
      const T* const origin = from + at.first_n * t.n + at.first_c * t.c + first * t.h;
      const int vectors = (at.channels + kVector - 1) / kVector, pixels = rows * t.width;
      for (int e = int(threadIdx.x); e < at.images * pixels * vectors; e += int(blockDim.x)) {
        const int vector = e % vectors, pixel = e / vectors % pixels, n = e / vectors / pixels;
        const T* const source = origin + n * t.n + pixel / t.width * t.h + pixel % t.width * t.w + vector * kVector;
        T* const to = landing + (n * pixels + pixel) * block_channels + vector * kVector;
        if (t.vectors) {
          copy_async<16>(to, source);
        } else {
          for (int i = 0; i < min(kVector, at.channels - vector * kVector); ++i) to[i] = source[i];
        }
      }
    } else {
      const Runs<const T> runs(from, t, tile, at, first, rows);
      for (int r = 0; r < runs.count(); ++r) {
        const Run<const T> run = runs.run(r);
        T* const to = landing + r * runs.pitch;
        if (t.vectors) {
          copy_run(to, run);
        } else {
          for_each_element(run, [&](int e, int plane, int h, int w) { to[e] = __ldg(run.first + plane * t.c + h * t.h + w * t.w); });
        }
      }
    }
  }

  // Brings what has landed to [plane][row][column], in fp32. NCHW: word by word of where it goes, so that a warp writes to 32 banks, zeros
  // between rows included; NHWC: element by element, whose channels are in as many banks.
  template <class T>
  __device__ static __forceinline__ void spread(float* values, const T* landing, const T* from, const LargeTensor& t, const LargeTile& tile,
                                                const LargePlanes& at, int block_channels, int first, int rows) {
    const int pixels = rows * t.width;
    if constexpr (kNhwc) {
      const auto put = [&](int plane, int pixel, T value) {
        values[plane * tile.plane_pitch.divisor + pixel / t.width * tile.row_pitch.divisor + tile.first_column + pixel % t.width] =
            widen(value);
      };
      for (int e = int(threadIdx.x); e < at.images * pixels * block_channels; e += int(blockDim.x)) {
        const int c = e % block_channels, n = e / block_channels / pixels;
        if (c < at.channels) put(n * block_channels + c, e / block_channels % pixels, landing[e]);
      }
    } else {
      const Runs<const T> runs(from, t, tile, at, first, rows);
      const int planes = at.images * block_channels;  // those of channels that do not exist are never read
      for (int e = int(threadIdx.x); e < planes * tile.plane_pitch.divisor; e += int(blockDim.x)) {
        int in_plane, column;
        const int plane = tile.plane_pitch.divmod(e, in_plane), row = tile.row_pitch.divmod(in_plane, column);
        const int n = block_channels == 1 ? plane : plane / block_channels, c = plane - n * block_channels;
        column -= tile.first_column;
        float value = 0;
        if (row < rows && unsigned(column) < unsigned(t.width) && c < at.channels) {
          const int r = runs.index(n, c);
          const int in_run = (runs.merged ? c * pixels : 0) + row * t.width + column;
          value = widen(landing[r * runs.pitch + runs.lead(runs.run(r)) + in_run]);
        }
        values[e] = value;
      }
    }
  }

  // Words from one run of results to the next.
  template <class T>
  __device__ static __forceinline__ int staged_pitch(const Runs<T>& runs, const LargePlanes& at, const Skew& skew) {
    return runs.pitch + (runs.merged ? (at.channels * skew.plane + 7) / 8 * 8 : kLargeRunGap);
  }

  // Where a plane's result lies in shared memory before it is stored: as in global memory, so that 16 bytes of it are 16 bytes there, but
  // for what is left out between planes.
  template <class T>
  __device__ static __forceinline__ int staged(T* out, const LargeTensor& t, const LargeTile& tile, const LargePlanes& at,
                                               int block_channels, int first, int rows, int n, int c, const Skew& skew) {
    if constexpr (kNhwc) {
      return n * rows * t.width * block_channels + c;
    } else {
      const Runs<T> runs(out, t, tile, at, first, rows);
      const int r = runs.index(n, c);
      return r * staged_pitch(runs, at, skew) + runs.lead(runs.run(r)) + (runs.merged ? c * (rows * t.width + skew.plane) : 0);
    }
  }

  // Writes rows [first, first + rows) of the planes.
  template <class T>
  __device__ static __forceinline__ void store(const Epilogue& epilogue, T* out, const float* values, const LargeTensor& t,
                                               const LargeTile& tile, const LargePlanes& at, int block_channels, int first, int rows,
                                               const Skew& skew) {
    if constexpr (kNhwc) {
      constexpr int kVector = 16 / int(sizeof(T));
      T* const origin = out + at.first_n * t.n + at.first_c * t.c + first * t.h;
      const int vectors = (at.channels + kVector - 1) / kVector, pixels = rows * t.width;
      for (int e = int(threadIdx.x); e < at.images * pixels * vectors; e += int(blockDim.x)) {
        const int vector = e % vectors, pixel = e / vectors % pixels, n = e / vectors / pixels;
        T* const to = origin + n * t.n + pixel / t.width * t.h + pixel % t.width * t.w + vector * kVector;
        const float* const results = values + (n * pixels + pixel) * block_channels + vector * kVector;
        if (t.vectors) {
          store_vector(epilogue, to, results);
        } else {
          for (int i = 0; i < min(kVector, at.channels - vector * kVector); ++i) to[i] = finish(epilogue, to + i, narrow<T>(results[i]));
        }
      }
    } else {
      const Runs<T> runs(out, t, tile, at, first, rows);
      for (int r = 0; r < runs.count(); ++r) {
        const Run<T> run = runs.run(r);
        const float* const results = values + r * staged_pitch(runs, at, skew);
        const SkewedRun<1> place{skew, runs.lead(run), 0};
        if (t.vectors && runs.merged) {
          store_run_skewed(epilogue, run, results, place);
        } else if (t.vectors) {
          store_run(epilogue, run, results);
        } else {
          for_each_element(run, [&](int e, int plane, int h, int w) {
            T* const to = run.first + plane * t.c + h * t.h + w * t.w;
            *to = finish(epilogue, to, narrow<T>(results[runs.merged ? place.at(e) : e]));
          });
        }
      }
    }
  }
};

// sums += image * filter for one row of the image. `image` is where column 0 of the thread's first result would see tap 0; `filter` is the
// row that its first result meets, its i-th meets the i-th row before; `first`, `last` say which of them there are.
template <bool kAll>
__device__ CNN_INNER_LOOP void add_large_row(float (&sums)[kLargeTile][kLargeTile], const float* image, const float* filter,
                                             int filter_pitch, int first_tap, int last_tap, int first, int last) {
  for (int tap = first_tap; tap < last_tap; tap += kLargeChunk) {
    float x[kLargeWindow];
    CNN_UNROLL
    for (int j = 0; j < kLargeWindow; ++j) x[j] = image[tap + j];
    CNN_UNROLL
    for (int i = 0; i < kLargeTile; ++i) {
      if (!kAll && (i < first || i >= last)) continue;
      const Vector<float, kLargeChunk> w = load_vector<kLargeChunk>(filter - i * filter_pitch + tap);
      CNN_UNROLL
      for (int t = 0; t < kLargeChunk; ++t) {
        CNN_UNROLL
        for (int c = 0; c < kLargeTile; ++c) sums[i][c] += x[c + t] * w.value[t];
      }
    }
  }
}

template <class T, bool kNhwc, bool kWgrad>
__global__ void __launch_bounds__(kLargeThreads, 2) large_kernel(const LargeParams p) {
  using Layout = LargeLayout<kNhwc>;
  CNN_DYNAMIC_SHARED(image, float);              // [plane][row][column] of the stage; in the end the results
  float* const filter = image + p.image_values;  // [channel][row][column]
  T* const image_landing = reinterpret_cast<T*>(filter + p.filter_values);
  T* const filter_landing = image_landing + p.image_landing;  // wgrad
  const int thread = int(threadIdx.x), planes = p.block_images * p.block_channels;

  int block = int(blockIdx.x);
  const int first_row = block % p.group_blocks * p.groups * kLargeTile;  // of the block's results
  block /= p.group_blocks;
  const int channel_blocks = (p.channels + p.block_channels - 1) / p.block_channels;
  LargePlanes at;
  at.first_c = block % channel_blocks * p.block_channels;
  at.channels = min(p.block_channels, p.channels - at.first_c);
  block /= channel_blocks;
  const int slab = kWgrad ? block : 0;
  at.first_n = kWgrad ? 0 : block * p.block_images;
  at.images = kWgrad ? 1 : min(p.block_images, p.images - at.first_n);
  const int rows = min(p.groups * kLargeTile, p.out_tensor.height - first_row);

  const int plane = thread % planes, strip = thread / planes % p.strips, group = thread / planes / p.strips;
  const int n = plane / p.block_channels, c = plane % p.block_channels;
  const int row = first_row + group * kLargeTile, column = strip * kLargeTile;
  const bool there = n < at.images && c < at.channels && row < first_row + rows;

  // Columns of the filter that see a column of the image from at least one of the thread's results, in whole steps.
  const int filter_width = p.filter_tensor.width, left = p.pad_w - column;
  const int first_tap = max(0, (left - kLargeMargin + kLargeChunk - 1) / kLargeChunk * kLargeChunk);
  const int last_tap = min(filter_width, left + p.image_tensor.width);

  struct Stage {
    int n, first, rows;             // of the image
    int first_filter, last_filter;  // rows of the filter that are there
  };
  const auto rows_for = [&](Stage s) {  // rows of the image that meet them
    s.first = max(0, s.first_filter + first_row - p.pad_h);
    s.rows = max(0, min(p.image_tensor.height, s.last_filter + first_row + rows - 1 - p.pad_h) - s.first);
    return s;
  };
  const Stage all = rows_for({at.first_n, 0, 0, 0, p.filter_tensor.height});
  const int first_stage = kWgrad ? slab * p.slab_units : 0;
  const int last_stage = kWgrad ? min(first_stage + p.slab_units, p.units) : (all.rows + p.stage_rows - 1) / p.stage_rows;
  const auto stage_of = [&](int index) {
    Stage s = all;
    if (kWgrad) {
      s.n = index / p.bands, s.first_filter = index % p.bands * p.stage_rows;
      s.last_filter = min(p.filter_tensor.height, s.first_filter + p.stage_rows);
      return rows_for(s);
    }
    s.first += index * p.stage_rows;
    s.rows = min(p.stage_rows, all.first + all.rows - s.first);
    return s;
  };
  const T* const image_from = static_cast<const T*>(p.image);
  const T* const filter_from = static_cast<const T*>(p.filter);
  const auto load = [&](int index) {
    if (index < last_stage) {
      const Stage s = stage_of(index);
      const LargePlanes here{s.n, at.images, at.first_c, at.channels};
      Layout::copy(image_landing, image_from, p.image_tensor, p.image_tile, here, p.block_channels, s.first, s.rows);
      if (kWgrad)
        Layout::copy(filter_landing, filter_from, p.filter_tensor, p.filter_tile, here, p.block_channels, s.first_filter,
                     s.last_filter - s.first_filter);
    }
    commit_async();
  };

  // fprop, dgrad: the block's filters land where the image will be, some at a time.
  const int taps = p.filter_tensor.height * filter_width;
  T* const landed = reinterpret_cast<T*>(image);
  const auto filters_from = [&](int first, int count) {
    return Run<const T>{filter_from + (at.first_c + first) * p.filter_tensor.c, count, 0, 1, taps};
  };
  const bool land = !kWgrad && p.landing_filters > 0;
  const int step = land ? min(p.landing_filters, at.channels) : at.channels;
  if (land) {
    copy_run(landed, filters_from(0, step));
    commit_async();
  }
  load(first_stage);
  for (int first_filter = 0; !kWgrad && first_filter < at.channels; first_filter += step) {
    const int count = min(step, at.channels - first_filter);
    const Run<const T> run = filters_from(first_filter, count);
    if (land && first_filter == 0) {
      wait_async<1>();  // for the filters, not for the stage
    } else if (land) {
      copy_run(landed, run);
      commit_async();
      wait_async<0>();
    }
    if (land) __syncthreads();
    // Word by word of where they go, as an image's rows.
    for (int e = thread; e < count * p.filter_tile.plane_pitch.divisor; e += int(blockDim.x)) {
      int in_plane, s;
      const int channel = p.filter_tile.plane_pitch.divmod(e, in_plane), r = p.filter_tile.row_pitch.divmod(in_plane, s);
      float value = 0;
      if (r < p.filter_tensor.height && s < filter_width) {
        const int tap = r * filter_width + s, source = p.flip ? taps - 1 - tap : tap;
        if (land) {
          value = widen(landed[run.lead() + channel * taps + source]);
        } else {
          value = widen(__ldg(run.first + channel * p.filter_tensor.c + source / filter_width * p.filter_tensor.h +
                              source % filter_width * p.filter_tensor.w));
        }
      }
      filter[first_filter * p.filter_tile.plane_pitch.divisor + e] = value;
    }
    if (land) __syncthreads();  // before the next ones, or the image, overwrite them
  }
  if (kNhwc) {  // the margins of rows
    const Vector<float, 4> zeros{{0, 0, 0, 0}};
    float* const from = image;
    const int words = p.image_values + (kWgrad ? p.filter_values : 0);
    for (int i = thread * 4; i < words; i += int(blockDim.x) * 4) *reinterpret_cast<Vector<float, 4>*>(from + i) = zeros;
  }

  float sums[kLargeTile][kLargeTile];
  CNN_UNROLL
  for (int i = 0; i < kLargeTile; ++i) {
    CNN_UNROLL
    for (int j = 0; j < kLargeTile; ++j) sums[i][j] = 0;
  }

  for (int index = first_stage; index < last_stage; ++index) {
    const Stage s = stage_of(index);
    const LargePlanes here{s.n, at.images, at.first_c, at.channels};
    wait_async<0>();
    __syncthreads();  // the stage has landed, and nobody reads the one before any more
    Layout::spread(image, image_landing, image_from, p.image_tensor, p.image_tile, here, p.block_channels, s.first, s.rows);
    if (kWgrad)
      Layout::spread(filter, filter_landing, filter_from, p.filter_tensor, p.filter_tile, here, p.block_channels, s.first_filter,
                     s.last_filter - s.first_filter);
    __syncthreads();
    load(index + 1);

    if (!there) continue;
    const float* const x = image + plane * p.image_tile.plane_pitch.divisor + p.image_tile.first_column - left;
    const float* const w = filter + c * p.filter_tile.plane_pitch.divisor;
    for (int h = 0; h < s.rows; ++h) {
      const int f = s.first + h + p.pad_h - row - s.first_filter;  // what the thread's first row of results meets; its i-th meets f - i
      const int filters = s.last_filter - s.first_filter;
      if (f < 0 || f - (kLargeTile - 1) >= filters) continue;
      const float* const x_row = x + h * p.image_tile.row_pitch.divisor;
      const float* const w_row = w + f * p.filter_tile.row_pitch.divisor;
      if (f >= kLargeTile - 1 && f < filters)
        add_large_row<true>(sums, x_row, w_row, p.filter_tile.row_pitch.divisor, first_tap, last_tap, 0, kLargeTile);
      else add_large_row<false>(sums, x_row, w_row, p.filter_tile.row_pitch.divisor, first_tap, last_tap, f - filters + 1, f + 1);
    }
  }
  __syncthreads();  // the image is no longer read

  const int width = p.out_tensor.width;
  T* const out = static_cast<T*>(p.out);
  if (there) {
    const PerChannel<T> z = per_channel<T>(p.epilogue, at.first_c + c);
    // wgrad: [channel][row][column]
    const int pixel = !kWgrad && kNhwc ? p.block_channels : 1;
    float* const to = image +
                      (kWgrad ? c * rows * width
                              : Layout::staged(out, p.out_tensor, p.out_tile, at, p.block_channels, first_row, rows, n, c, p.out_skew)) +
                      ((row - first_row) * width + column) * pixel;
    CNN_UNROLL
    for (int i = 0; i < kLargeTile; ++i) {
      CNN_UNROLL
      for (int j = 0; j < kLargeTile; ++j) {
        if (row + i < first_row + rows && column + j < width) to[(i * width + j) * pixel] = z(sums[i][j]);
      }
    }
  }
  __syncthreads();
  if (!kWgrad) {
    Layout::store(p.epilogue, out, image, p.out_tensor, p.out_tile, at, p.block_channels, first_row, rows, p.out_skew);
    return;
  }
  for (int e = thread; e < at.channels * rows * width; e += int(blockDim.x)) {
    const int channel = at.first_c + e / (rows * width), tap = e % (rows * width);
    if (p.partial) {
      p.partial[((slab * p.channels + channel) * p.out_tensor.height + first_row) * width + tap] = image[e];
    } else {
      out[channel * p.out_tensor.c + (first_row + tap / width) * p.out_tensor.h + tap % width * p.out_tensor.w] = narrow<T>(image[e]);
    }
  }
}

}  // namespace cnn::conv2d
