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
//   filter   [row of the filter, turn][64 columns][2]: taps 0 and 1, 2 and 3
//   halo     [place]
//
// Per item: 128 * 64 * taps_h * 16 * turns products, of which channels * taps_w to 16 * turns are the layer's: 147 of 224 for 7x7.
#pragma once

#include "conv2d/gemm/resident.cuh"

namespace cnn::conv2d {

template <class T>
struct StripImage {
  const T* from;
  int c, h, w;  // element strides
  int channels, height, width;

  // Zero outside of the image.
  __device__ __forceinline__ T read(int row, int column, int channel) const {
    const bool inside = unsigned(row) < unsigned(height) && unsigned(column) < unsigned(width) && channel < channels;
    return inside ? __ldg(from + row * h + column * w + channel * c) : narrow<T>(0.0f);
  }
};

// The halo of an image from row and column `first` on, `pixels` across: `to(row, chunk)` is where a chunk lies. Of planes a thread has the
// channels of a pixel, or of a chunk's two where chunks overlap, so that neighbours read neighbouring pixels; else one channel, so that
// they read the values that lie side by side.
template <int kThreads, class T, class To>
__device__ __forceinline__ void load_strip(const StripImage<T>& image, int first_h, int first_w, const Halo& halo,
                                           const FastDiv<int32_t>& pixels, int chunk_pixels, const To& to) {
  constexpr int kQuad = 4, kQuadBytes = kGemmChunkBytes / 2;
  if (image.c == 1) {
    CNN_NO_UNROLL
    for (int e = int(threadIdx.x); e < kQuad * halo.height * pixels.divisor; e += kThreads) {
      int pixel;
      const int row = pixels.divmod(e / kQuad, pixel), channel = e % kQuad, offset = channel * int(sizeof(T));
      const T value = image.read(first_h + row, first_w + pixel, channel);
      if (chunk_pixels == 2) {
        *reinterpret_cast<T*>(to(row, pixel / 2) + pixel % 2 * kQuadBytes + offset) = value;
      } else {  // the first of its own chunk, and the second of the one before
        if (pixel < halo.width) *reinterpret_cast<T*>(to(row, pixel) + offset) = value;
        if (pixel > 0) *reinterpret_cast<T*>(to(row, pixel - 1) + kQuadBytes + offset) = value;
      }
    }
  } else if (chunk_pixels == 2) {
    CNN_NO_UNROLL
    for (int e = int(threadIdx.x); e < halo.height * pixels.divisor; e += kThreads) {
      int pixel;
      const int row = pixels.divmod(e, pixel);
      Vector<T, kQuad> quad;
      CNN_UNROLL
      for (int channel = 0; channel < kQuad; ++channel) quad.value[channel] = image.read(first_h + row, first_w + pixel, channel);
      *reinterpret_cast<Vector<T, kQuad>*>(to(row, pixel / 2) + pixel % 2 * kQuadBytes) = quad;
    }
  } else {
    CNN_NO_UNROLL
    for (int e = int(threadIdx.x); e < halo.height * halo.width; e += kThreads) {
      int pixel;
      const int row = halo.width_div.divmod(e, pixel);
      Vector<T, 2 * kQuad> chunk;
      CNN_UNROLL
      for (int i = 0; i < 2 * kQuad; ++i) chunk.value[i] = image.read(first_h + row, first_w + pixel + i / kQuad, i % kQuad);
      *reinterpret_cast<Vector<T, 2 * kQuad>*>(to(row, pixel)) = chunk;
    }
  }
}

template <class T>
struct StripOperands {
  using Element = T;
  using Params = StripParams;
  static constexpr int kThreads = ResidentTile::kThreads, kQuad = 4, kColumns = 64, kTurnBytes = kColumns * 2 * kGemmChunkBytes;
  static constexpr int kTapsOfTurn = 4;

  // All taps of a tile of filters, whichever way they lie.
  __device__ static __forceinline__ void load_filter(const Params& r, const GemmItem& item, unsigned char* filter) {
    const GemmParams& p = r.gemm;
    const int columns_left = p.columns - item.column_tile * kColumns;
    const T* const from = static_cast<const T*>(p.filter) + item.column_tile * kColumns * p.filter_n;
    CNN_NO_UNROLL
    for (int e = int(threadIdx.x); e < r.taps_h * r.turns * kColumns * 2; e += kThreads) {
      const int half = e % 2, column = e / 2 % kColumns, row = e / (2 * kColumns);
      const int tap_h = row / r.turns, first_tap = row % r.turns * kTapsOfTurn + half * 2;
      Vector<T, 8> chunk;
      CNN_UNROLL
      for (int i = 0; i < 8; ++i) {
        const int tap = first_tap + i / kQuad, channel = i % kQuad;
        const bool exists = column < columns_left && tap < r.taps_w && channel < p.in_channels;
        chunk.value[i] =
            exists ? __ldg(from + column * p.filter_n + tap_h * p.filter_r + tap * p.filter_s + channel * p.filter_k) : narrow<T>(0.0f);
      }
      *reinterpret_cast<Vector<T, 8>*>(filter + row * kTurnBytes + resident_chunk(column, half, 1) * kGemmChunkBytes) = chunk;
    }
  }

  __device__ static __forceinline__ void load_halo(const Params& r, const GemmItem& item, unsigned char* halo) {
    const GemmParams& p = r.gemm;
    const TileOrigin origin(p, r.halo, item);
    const StripImage<T> image{
        static_cast<const T*>(p.in) + origin.n * p.in_n, p.in_c, p.in_h, p.in_w, p.in_channels, p.h.in_extent, p.w.in_extent};
    load_strip<kThreads>(image, origin.h, origin.w, r.halo, r.pixels, r.chunk_pixels,
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
          filter += kTurnBytes;
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
