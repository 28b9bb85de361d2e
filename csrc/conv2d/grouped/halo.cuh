// A tile of an image in shared memory: a window of pixels, halo included, of some neighbouring channels, as fp32.
//
//   tile[quad][position] = 4 channels of one pixel, 16 bytes;  position = (image * rows + row) * columns + column
//
//   quad 0   |0 1 2 ...                  pitch - 1|      `pitch` is odd: 8 neighbouring quads of one position, 8 neighbouring positions
//   quad 1   |0 1 2 ...                  pitch - 1|      of one quad, and every second of 8 quads at 2 neighbouring positions, each lie in
//   ...                                                  8 different groups of 4 banks, and a quarter of a warp reads them at once.
//
// At stride 2 the even columns come first and then the odd ones, so that neighbouring results read neighbouring positions there too.
//
// Pixels outside the image are zeros. Conversion to fp32 happens here, once per pixel and block, and not R * S times in the arithmetic.
//
// channels_last: by cp.async of 16 bytes. fp32 goes to its place; halves pass through a ring of kInFlight vectors per thread in `raw`, of
// which all but one are on their way while it is converted: 12 KB per block of 192 threads. planar: runs of pixels of one channel go as
// they are to `raw`, by cp.async of the aligned 16-byte cover of each run, and are read from there across the channels. A run is all rows
// of the window where it spans the image's width, else one row; or all channels where these rows are the image's and their number is odd.
#pragma once

#include "common/async_copy.h"
#include "common/fastdiv.h"
#include "common/types.h"
#include "common/vector.h"

namespace cnn::conv2d::grouped {

template <class T>
constexpr int kVector = 16 / int(sizeof(T));
constexpr int kInFlight = 4;

// A tensor [batch, channels, rows, columns] as it lies in memory.
struct Image {
  const void* data;
  int n, c, h, w;  // element strides
  int batch, channels, rows, columns;
  int skew;     // elements between the 16-byte boundary before `data` and `data`
  bool planar;  // columns are neighbours in memory, else channels
  bool vector;  // channels_last: 16-byte accesses to the channels of a tile are aligned
  bool dense;   // planar: an image's channels, rows and columns have no gaps
};

// The window's shape, the same for every tile of a launch.
struct Window {
  int images, columns, rows, quads;
  int channels;  // 4 * quads, or of `Few` the channels that have runs of their own
  int positions, pitch;
  int phases;  // 2: even columns first, then odd ones; columns is even
  FastDiv<int32_t> by_columns, by_rows, by_images, by_channels;
  FastDiv<int32_t> by_pieces;  // channels_last: pieces of a pixel's channels that move as one
  int lane_pixels;             // of so many pixels that are neighbours the same piece is taken by neighbouring lanes: 1 or 8
  bool merged;                 // planar: rows of the window are rows of the image, one run per channel
  bool planes;                 // and channels of the window are whole channels of the image, one run in all
  int run_pitch;               // planar: elements of `raw` from one run to the next
  int log_run_lanes;           // planar: lanes that share a run of `raw`, and
  int log_line_lanes;          // a row of the tile
};

struct WindowAt {
  int n, c, h, w;
};

struct Position {
  int image, row, column;
};
__device__ __forceinline__ Position locate(const Window& window, int position) {
  Position at;
  at.image = window.by_rows.divmod(window.by_columns.divmod(position, at.column), at.row);
  if (window.phases == 2) {
    const int half = window.columns / 2;
    at.column = at.column < half ? 2 * at.column : 2 * (at.column - half) + 1;
  }
  return at;
}
// From the position of a column that is a multiple of `phases` to that `columns` further.
__device__ __forceinline__ int column_step(const Window& window, int columns) {
  return window.phases == 2 ? (columns & 1) * (window.columns / 2) + (columns >> 1) : columns;
}

__device__ __forceinline__ bool inside(const Image& image, const WindowAt& at, const Position& p) {
  return unsigned(at.h + p.row) < unsigned(image.rows) && unsigned(at.w + p.column) < unsigned(image.columns) &&
         at.n + p.image < image.batch;
}

__device__ __forceinline__ void store_quad(float* tile, int pitch, int quad, int position, const Vector<float, 4>& value) {
  *reinterpret_cast<Vector<float, 4>*>(tile + (quad * pitch + position) * 4) = value;
}

// Piece number e of a channels_last window.
struct Piece {
  int position, piece;
};
__device__ __forceinline__ Piece locate_piece(const Window& window, int e) {
  Piece at;
  if (window.lane_pixels == 8) at.position = window.by_pieces.divmod(e / 8, at.piece) * 8 + e % 8;
  else at.position = window.by_pieces.divmod(e, at.piece);
  return at;
}

template <class T>
__device__ __forceinline__ void load_channels_last(const Image& image, const Window& window, const WindowAt& at, float* tile, T* ring) {
  const T* const data = static_cast<const T*>(image.data);
  const int thread = int(threadIdx.x), threads = int(blockDim.x);
  const auto offset = [&](const Position& p) {
    return (at.n + p.image) * image.n + (at.h + p.row) * image.h + (at.w + p.column) * image.w + at.c;
  };
  const int pieces = (window.positions + window.lane_pixels - 1) / window.lane_pixels * window.lane_pixels * window.by_pieces.divisor;
  if (!image.vector) {
    CNN_NO_UNROLL
    for (int e = thread; e < window.positions * window.quads; e += threads) {
      int quad;
      const int position = window.by_pieces.divmod(e, quad);
      const Position p = locate(window, position);
      Vector<float, 4> value{};
      if (inside(image, at, p)) {
        const T* const from = data + offset(p) + quad * 4;
        CNN_UNROLL
        for (int i = 0; i < 4; ++i)
          if (at.c + quad * 4 + i < image.channels) value.value[i] = widen(__ldg(from + i));
      }
      store_quad(tile, window.pitch, quad, position, value);
    }
  } else if constexpr (sizeof(T) == 4) {
    CNN_NO_UNROLL
    for (int e = thread; e < pieces; e += threads) {
      const auto [position, quad] = locate_piece(window, e);
      if (position >= window.positions) continue;
      const Position p = locate(window, position);
      const bool in = inside(image, at, p) && at.c + quad * 4 < image.channels;
      copy_async<16>(tile + (quad * window.pitch + position) * 4, in ? data + offset(p) + quad * 4 : data, in ? 16 : 0);
    }
    commit_async();
    wait_async<0>();
  } else {
    // Vector j of this thread passes through slot j % kInFlight of its ring; nobody else touches it, so no barrier is needed.
    constexpr int kV = kVector<T>;
    const auto slot = [&](int j) { return ring + (j % kInFlight * threads + thread) * kV; };
    const auto fetch = [&](int j) {
      const int e = thread + j * threads;
      const auto [position, piece] = locate_piece(window, e);
      if (position < window.positions) {
        const Position p = locate(window, position);
        const bool in = inside(image, at, p) && at.c + piece * kV < image.channels;
        copy_async<16>(slot(j), in ? data + offset(p) + piece * kV : data, in ? 16 : 0);
      }
      commit_async();
    };
    CNN_NO_UNROLL
    for (int j = 0; j < kInFlight - 1; ++j) fetch(j);
    CNN_NO_UNROLL
    for (int j = 0, e = thread; e < pieces; ++j, e += threads) {
      fetch(j + kInFlight - 1);
      wait_async<kInFlight - 1>();
      const auto [position, piece] = locate_piece(window, e);
      if (position >= window.positions) continue;
      const Vector<T, kV> held = load_vector<kV>(slot(j));
      CNN_UNROLL
      for (int q = 0; q < kV / 4; ++q) {
        Vector<float, 4> value;
        CNN_UNROLL
        for (int i = 0; i < 4; ++i) value.value[i] = widen(held.value[q * 4 + i]);
        store_quad(tile, window.pitch, piece * (kV / 4) + q, position, value);
      }
    }
  }
}

// The rows and columns of a window that lie in the image, and where its runs begin in memory and in `raw`.
template <class T>
struct Runs {
  static constexpr int kV = kVector<T>;
  int first_row, last_row, first_column, length, runs;

  __device__ __forceinline__ Runs(const Image& image, const Window& window, const WindowAt& at) {
    first_row = max(at.h, 0), last_row = min(at.h + window.rows, image.rows);
    first_column = max(at.w, 0);
    const int columns = max(min(at.w + window.columns, image.columns) - first_column, 0);
    length = window.merged ? max(last_row - first_row, 0) * columns : columns;
    runs = window.images * window.channels * (window.merged ? 1 : window.rows);
    if (window.planes) first_row = 0, length = window.channels * image.c, runs = window.images;
  }
  // Offset in memory of the run's first pixel.
  __device__ __forceinline__ int begin(const Image& image, const WindowAt& at, int n, int channel, int row) const {
    return (at.n + n) * image.n + (at.c + channel) * image.c + row * image.h + first_column;
  }
  __device__ __forceinline__ static int phase(const Image& image, int begin) { return (begin + image.skew) & (kV - 1); }
};

template <class T>
__device__ __forceinline__ void load_runs(const Image& image, const Window& window, const WindowAt& at, const Runs<T>& runs, T* raw) {
  constexpr int kV = kVector<T>;
  const T* const data = static_cast<const T*>(image.data);
  const int thread = int(threadIdx.x), threads = int(blockDim.x);

  // Neighbouring lanes share a run, and what there is to find out about it.
  const int lanes = 1 << window.log_run_lanes, lane = thread & (lanes - 1);
  CNN_NO_UNROLL
  for (int run = thread >> window.log_run_lanes; run < runs.runs; run += threads >> window.log_run_lanes) {
    int row = runs.first_row, rest = run;
    if (!window.merged) rest = window.by_rows.divmod(run, row), row += at.h;
    int channel = 0, n = rest;
    if (!window.planes) n = window.by_channels.divmod(rest, channel);
    if (at.n + n >= image.batch || at.c + channel >= image.channels || row < runs.first_row || row >= runs.last_row) continue;
    const int begin = runs.begin(image, at, n, channel, row), phase = Runs<T>::phase(image, begin);
    // A vector may take along neighbours that are the same image's: from `low` to `high`, counted from the run's first pixel.
    const int low = image.dense ? (at.n + n) * image.n - begin : 0;
    const int high = image.dense ? low + image.channels * image.rows * image.columns : runs.length;
    const T* const from = data + begin;
    T* const to = raw + run * window.run_pitch + phase;
    CNN_NO_UNROLL
    for (int first = lane * kV - phase; first < runs.length; first += lanes * kV) {  // the first vector may begin before the run
      if (first >= low && first + kV <= high) {
        copy_async<16>(to + first, from + first);
      } else {
        for (int i = max(first, 0); i < min(first + kV, runs.length); ++i) to[i] = __ldg(from + i);
      }
    }
  }
  commit_async();
  wait_async<0>();
  __syncthreads();
}

template <class T>
__device__ __forceinline__ void load_planar(const Image& image, const Window& window, const WindowAt& at, float* tile, T* raw) {
  const Runs<T> runs(image, window, at);
  load_runs<T>(image, window, at, runs, raw);

  // Neighbouring lanes share a row of a quad, and where the runs of its four channels are.
  const int lanes = 1 << window.log_line_lanes, lane = int(threadIdx.x) & (lanes - 1), half = window.columns / 2;
  CNN_NO_UNROLL
  for (int line = int(threadIdx.x) >> window.log_line_lanes; line < window.quads * window.images * window.rows;
       line += int(blockDim.x) >> window.log_line_lanes) {
    int row, n;
    const int quad = window.by_images.divmod(window.by_rows.divmod(line, row), n), h = at.h + row;
    const int channels = at.n + n < image.batch && unsigned(h) < unsigned(image.rows) ? image.channels - at.c - quad * 4 : 0;
    // Channel i has column w of the image at from[i] + w: its run, the row's place in it, and the phase of its beginning.
    int first = (n * window.channels + quad * 4) * window.run_pitch, step = window.run_pitch;
    int begin = runs.begin(image, at, n, quad * 4, window.merged ? runs.first_row : h), begin_step = image.c;
    if (window.planes) first = n * window.run_pitch + quad * 4 * image.c, step = image.c, begin -= quad * 4 * image.c, begin_step = 0;
    else if (!window.merged) first = first * window.rows + row * window.run_pitch, step *= window.rows;
    first += window.merged ? (h - runs.first_row) * image.columns : -runs.first_column;
    int from[4];
    CNN_UNROLL
    for (int i = 0; i < 4; ++i) from[i] = first + i * step + Runs<T>::phase(image, begin + i * begin_step);
    float* const to = tile + (quad * window.pitch + (n * window.rows + row) * window.columns) * 4;
    CNN_NO_UNROLL
    for (int place = lane; place < window.columns; place += lanes) {
      const int w = at.w + (window.phases == 1 ? place : place < half ? 2 * place : 2 * (place - half) + 1);
      Vector<float, 4> value{};
      if (unsigned(w) < unsigned(image.columns)) {
        CNN_UNROLL
        for (int i = 0; i < 4; ++i)
          if (i < channels) value.value[i] = widen(raw[from[i] + w]);
      }
      *reinterpret_cast<Vector<float, 4>*>(to + place * 4) = value;
    }
  }
}

// An image of at most 4 channels, for which a tile has one quad per pixel. It is read as runs, whichever way it lies: with its channels
// innermost a row is one run of columns * channels elements of a single channel.
//
// Of a single channel the quad of a pixel holds this pixel and the next ones, `channel_step` columns apart: the taps of a filter row are
// taken for channels.
struct Few {
  Image runs;
  Window window;      // of `runs`; positions, pitch and quads mean nothing
  int channels;       // of a quad; the rest of it are zeros
  int column_step;    // elements of a run from one column to the next
  int channel_step;   // and from one channel of a quad to the next, or 0: in the next run
  bool next_columns;  // channels of a quad are columns
};

template <class T>
__device__ __forceinline__ void load_few(const Few& few, const Window& window, const WindowAt& at, float* tile, T* raw) {
  const WindowAt runs_at{at.n, 0, at.h, at.w * few.column_step};
  const Runs<T> runs(few.runs, few.window, runs_at);
  load_runs<T>(few.runs, few.window, runs_at, runs, raw);
  const int columns = few.runs.columns / few.column_step;
  CNN_NO_UNROLL
  for (int position = int(threadIdx.x); position < window.positions; position += int(blockDim.x)) {
    const Position p = locate(window, position);
    const int h = at.h + p.row, w = at.w + p.column;
    Vector<float, 4> value{};
    if (at.n + p.image < few.runs.batch && unsigned(h) < unsigned(few.runs.rows)) {
      CNN_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int channel = few.channel_step == 0 ? i : 0, column = few.next_columns ? w + i * few.channel_step : w;
        if (i >= few.channels || unsigned(column) >= unsigned(columns)) continue;
        const int begin = runs.begin(few.runs, runs_at, p.image, channel, few.window.merged ? runs.first_row : h);
        const int run = few.window.merged ? p.image * few.window.channels + channel
                                          : (p.image * few.window.channels + channel) * few.window.rows + p.row;
        const int in_run = few.window.merged ? (h - runs.first_row) * few.runs.columns : -runs.first_column;
        value.value[i] =
            widen(raw[run * few.window.run_pitch + Runs<T>::phase(few.runs, begin) + in_run + w * few.column_step + i * few.channel_step]);
      }
    }
    store_quad(tile, window.pitch, 0, position, value);
  }
}

// Copies that are under way have landed when it returns, but for the barrier that other threads need.
template <class T>
__device__ __forceinline__ void load_window(const Image& image, const Window& window, const WindowAt& at, float* tile, T* raw) {
  if (image.planar) load_planar<T>(image, window, at, tile, raw);
  else load_channels_last<T>(image, window, at, tile, raw);
}

}  // namespace cnn::conv2d::grouped
