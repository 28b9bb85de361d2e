// First layers on tensor cores (resident.cuh): images of up to 4 channels, which lie in shared memory as a strip of quads of channels, 8
// bytes to a pixel, filled up with zeros. So 16 neighbouring values are four taps of a row of the filter: ldmatrix reads them where they
// lie, each row of a matrix from the pixel under its result on, and no column of an im2col is ever written.
//
//   a row of the halo   | r g b 0 | r g b 0 | r g b 0 | r g b 0 | ...     a chunk: two pixels
//   result q, turn 0    [-- q * stride -------------------------]         four taps; result q + 1 begins `stride` pixels further on
//
// A matrix's row begins with a chunk. With an even stride that is every second pixel; with an odd one results begin at any pixel, and
// every pixel has a chunk of its own, it and the next one. The taps of a turn that are beyond the filter are zeros in both operands: a NaN
// under one of them is none of this result's.
//
// Shared memory, in chunks:
//   filter   [row of the filter, turn][64 columns, and one for the banks' sake][2]: taps 0 and 1, 2 and 3
//   rows     [row of the halo][channel if they are planes][chunk]: as they lie in memory, copied one item ahead
//   halo     [place]: the strip, made of the rows
// While the filter is loaded its columns pass through the room of rows and halo.
//
// Per item: 128 * 64 * taps_h * 16 * turns products, of which channels * taps_w to 16 * turns are the layer's: 147 of 224 for 7x7.
#pragma once

#include "conv2d/gemm/resident.cuh"

namespace cnn::conv2d {

// The pixels of an image under a tile of results, from the first one on, and those of a row that the image has.
struct StripWindow {
  int n, h, w, begin, end;

  __device__ __forceinline__ StripWindow(const StripRows& s, int n, int h, int w, int pixels)
      : n(n), h(h), w(w), begin(max(w, 0)), end(min(w + pixels, s.width)) {}
  // Of a row of the halo, the element where its run begins.
  __device__ __forceinline__ int run(const StripRows& s, int row) const { return n * s.n + (h + row) * s.h + begin * s.w; }
};

// Copies the rows under a window as they lie in memory, from which turn_strip makes the strip. By chunks the copies are on their way until
// wait_async; a chunk of memory is one of shared memory, so a run begins in its first one where it begins in memory.
template <int kThreads, class T>
__device__ __forceinline__ void copy_strip(const StripRows& s, const void* image, const StripWindow& window, int height,
                                           unsigned char* rows) {
  constexpr int kOfChunk = kGemmChunkBytes / int(sizeof(T));
  const T* const x = static_cast<const T*>(image);
  const int values = (window.end - window.begin) * s.of_pixel.divisor;
  if (threadIdx.x == 0) *reinterpret_cast<uint4*>(rows + height * s.row_chunks * kGemmChunkBytes) = uint4{};  // the zeros of turn_strip
  if (s.chunk_mask != 0) {
    CNN_NO_UNROLL
    for (int e = int(threadIdx.x); e < height * s.runs.divisor * s.chunks.divisor; e += kThreads) {
      int chunk, of_row;
      const int row = s.runs.divmod(s.chunks.divmod(e, chunk), of_row), first = window.run(s, row) + of_row * s.c;
      const int from = (first & ~s.chunk_mask) + chunk * kOfChunk, left = first + values - from;
      if (unsigned(window.h + row) < unsigned(s.height) && left > 0)
        copy_async<16>(rows + (row * s.row_chunks + of_row * s.chunks.divisor + chunk) * kGemmChunkBytes, x + from,
                       min(left * int(sizeof(T)), kGemmChunkBytes));
    }
  } else {
    CNN_NO_UNROLL
    for (int e = int(threadIdx.x); e < height * s.runs.divisor * s.values.divisor; e += kThreads) {
      int value, of_row, of_pixel;
      const int row = s.runs.divmod(s.values.divmod(e, value), of_row);
      const int pixel = s.of_pixel.divmod(value, of_pixel), channel = s.channels_inside ? of_pixel : of_row;
      if (unsigned(window.h + row) < unsigned(s.height) && value < values)
        reinterpret_cast<T*>(rows + (row * s.row_chunks + of_row * s.chunks.divisor) * kGemmChunkBytes)[value] =
            __ldg(x + window.run(s, row) + pixel * s.w + channel * s.c);
    }
  }
}

// Makes the strip of rows that are there: `to(row, chunk)` is where a chunk lies. What the image does not have is read where zeros are, so
// that nothing branches.
template <int kThreads, class T, class To>
__device__ __forceinline__ void turn_strip(const StripRows& s, const StripWindow& window, const unsigned char* rows, const Halo& halo,
                                           int chunk_pixels, const To& to) {
  constexpr int kQuad = 4, kOfChunk = kGemmChunkBytes / int(sizeof(T));
  const T* const values = reinterpret_cast<const T*>(rows);
  const int zero = halo.height * s.row_chunks * kOfChunk;
  CNN_NO_UNROLL
  for (int e = int(threadIdx.x); e < halo.height * halo.width; e += kThreads) {
    int chunk;
    const int row = halo.width_div.divmod(e, chunk), pixel = window.w + chunk * chunk_pixels, first = window.run(s, row);
    const int under = row * s.row_chunks * kOfChunk + (pixel - window.begin) * s.of_pixel.divisor;
    const bool row_exists = unsigned(window.h + row) < unsigned(s.height);
    const bool exists[2] = {row_exists && pixel >= window.begin && pixel < window.end,
                            row_exists && pixel + 1 >= window.begin && pixel + 1 < window.end};
    Vector<T, 2 * kQuad> both;
    CNN_UNROLL
    for (int channel = 0; channel < kQuad; ++channel) {
      const int run = s.channels_inside ? 0 : channel, at = channel - run + run * s.chunks.divisor * kOfChunk;
      const int place = under + at + ((first + run * s.c) & s.chunk_mask);
      CNN_UNROLL
      for (int i = 0; i < 2; ++i)
        both.value[i * kQuad + channel] = values[exists[i] && channel < s.channels ? place + i * s.of_pixel.divisor : zero];
    }
    *reinterpret_cast<Vector<T, 2 * kQuad>*>(to(row, chunk)) = both;
  }
}

template <class T>
struct StripOperands {
  using Element = T;
  using Params = StripParams;
  static constexpr int kThreads = ResidentTile::kThreads, kQuad = 4, kColumns = 64;
  static constexpr int kTapsOfTurn = 4, kOfChunk = kGemmChunkBytes / int(sizeof(T));

  // All taps of a tile of filters: some columns of them at once come as they lie in memory, and are turned from there.
  __device__ static __forceinline__ void load_filter(const Params& r, const GemmItem& item, unsigned char* filter) {
    const int columns = min(kColumns, r.gemm.columns - item.column_tile * kColumns);
    unsigned char* const memory = filter + r.rows_at;
    CNN_NO_UNROLL
    for (int first = 0; first < kColumns; first += r.filter_columns) {
      const int count = min(r.filter_columns, columns - first);
      copy_filter(r, item.column_tile * kColumns + first, count, reinterpret_cast<T*>(memory));
      commit_async();
      wait_async<0>();
      __syncthreads();
      turn_filter(r, first, count, reinterpret_cast<const T*>(memory), filter);
      __syncthreads();
    }
  }

  __device__ static __forceinline__ void copy_filter(const Params& r, int first, int count, T* to) {
    const GemmParams& p = r.gemm;
    const T* const from = static_cast<const T*>(p.filter) + first * p.filter_n;
    const int values = r.filter_taps.divisor * p.in_channels;
    if (r.filter_by_chunks) {
      CNN_NO_UNROLL
      for (int e = int(threadIdx.x) * kOfChunk; e < count * values; e += kThreads * kOfChunk)
        copy_async<16>(to + e, from + e, min((count * values - e) * int(sizeof(T)), kGemmChunkBytes));
    } else {
      CNN_NO_UNROLL
      for (int e = int(threadIdx.x); e < count * values; e += kThreads) {
        int tap, tap_w, channel;
        const int column = r.channels.divmod(r.filter_taps.divmod(e, tap), channel), tap_h = r.filter_taps_w.divmod(tap, tap_w);
        to[column * values + tap_h * r.filter_r + tap_w * r.filter_s + channel * r.filter_k] =
            __ldg(from + column * p.filter_n + tap_h * p.filter_r + tap_w * p.filter_s + channel * p.filter_k);
      }
    }
  }

  // A thread has a chunk, two taps of a column; those of one column side by side read, and write, side by side.
  __device__ static __forceinline__ void turn_filter(const Params& r, int first, int count, const T* from, unsigned char* filter) {
    const int values = r.filter_taps.divisor * r.gemm.in_channels;
    CNN_NO_UNROLL
    for (int e = int(threadIdx.x); e < r.filter_columns * r.filter_chunks.divisor; e += kThreads) {
      int chunk_of_column;
      const int column = r.filter_chunks.divmod(e, chunk_of_column);
      int chunk_of_row;
      const int tap_h = r.filter_row_chunks.divmod(chunk_of_column, chunk_of_row), first_tap = chunk_of_row * 2;
      if (tap_h >= r.taps_h) continue;
      const int half = chunk_of_column % 2, row = chunk_of_column / 2;
      const T* const at = from + column * values + tap_h * r.filter_r + first_tap * r.filter_s;
      Vector<T, 2 * kQuad> chunk;
      CNN_UNROLL
      for (int i = 0; i < 2 * kQuad; ++i) {
        const bool exists = column < count && first_tap + i / kQuad < r.taps_w && i % kQuad < r.gemm.in_channels;
        chunk.value[i] = exists ? at[i / kQuad * r.filter_s + i % kQuad * r.filter_k] : narrow<T>(0.0f);
      }
      *reinterpret_cast<Vector<T, 2 * kQuad>*>(filter + row * kStripTurnBytes + resident_chunk(first + column, half, 1) * kGemmChunkBytes) =
          chunk;
    }
  }

  __device__ static __forceinline__ StripWindow window(const Params& r, const GemmItem& item) {
    const TileOrigin origin(r.gemm, r.halo, item);
    return {r.rows, origin.n, origin.h, origin.w, r.pixels};
  }

  // The next item's rows come while this one is multiplied.
  __device__ static __forceinline__ void copy_ahead(const Params& r, const GemmItem& item, unsigned char* shared) {
    copy_strip<kThreads, T>(r.rows, r.gemm.in, window(r, item), r.halo.height, shared + r.rows_at);
  }

  __device__ static __forceinline__ void load_halo(const Params& r, const GemmItem& item, unsigned char* shared) {
    wait_async<0>();
    __syncthreads();
    unsigned char* const halo = shared + r.filter_bytes;
    turn_strip<kThreads, T>(r.rows, window(r, item), shared + r.rows_at, r.halo, r.chunk_pixels,
                            [&](int row, int chunk) { return halo + r.halo.place(row, chunk) * kGemmChunkBytes; });
  }

  struct Results : ResidentResults<T, true> {
    using Base = ResidentResults<T, true>;
    using Base::kRows, Base::first, Base::lane;
    static constexpr int kFragments = kColumns / 8;

    __device__ __forceinline__ void multiply(const Params& r, int, const unsigned char* halo, const unsigned char* filter) {
      Base::find(r.gemm, r.halo);
      const int across = 2 / r.chunk_pixels;  // chunks from taps 0 and 1 to taps 2 and 3
      CNN_NO_UNROLL
      for (int row = 0; row < r.taps_h; ++row) {
        CNN_NO_UNROLL
        for (int turn = 0; turn < r.turns; ++turn) {
          const int chunk = (2 * turn + lane() / 16) * across;
          multiply_turn(r.halo.place(row, chunk), r.taps_w - turn * kTapsOfTurn, halo, filter);
          filter += kStripTurnBytes;
        }
      }
    }

   private:
    // `taps`: that are left; there are four in a turn.
    __device__ __forceinline__ void multiply_turn(int shift, int taps, const unsigned char* halo, const unsigned char* filter) {
      std::uint32_t a[kRows][4];
      CNN_UNROLL
      for (int m = 0; m < kRows; ++m) {
        ldmatrix<4>(a[m], halo + (first[m] + shift) * kGemmChunkBytes);
        // Registers 0 and 1 are of tap 0 in the first two lanes of four and of tap 1 in the others, registers 2 and 3 of taps 2 and 3.
        CNN_UNROLL
        for (int i = 0; i < 4; ++i)
          if (i / 2 * 2 + lane() % 4 / 2 >= taps) a[m][i] = 0;
      }
      CNN_UNROLL
      for (int n = 0; n < kFragments; n += 2) {
        std::uint32_t four[4];
        ldmatrix<4>(four, filter + resident_chunk(n * 8 + lane() / 16 * 8 + lane() % 8, lane() / 8 % 2, 1) * kGemmChunkBytes);
        Base::add(n, a, four);
      }
    }
  };
};

}  // namespace cnn::conv2d
