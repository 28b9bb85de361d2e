// What the depthwise kernels for channels_last tensors share: how rows of an image come into shared memory, and how threads read them.
//
// A *unit* is a piece of an image: a slab of rows by a tile of columns by the channels of a block. A block works on one or several units
// side by side (threadIdx.z); a unit's threads are `strips` pieces of its columns (threadIdx.y) by vectors of V channels (threadIdx.x),
// so that consecutive lanes have consecutive channels. Rows arrive by cp.async, 16 bytes (a *chunk*) a copy, several rows ahead, in a ring:
//
//            strip 0              strip 1          ...   halo
//      | px0 | px1 | .. |pad| px0 | px1 | .. |pad|     | px | px |      a row of one unit; a pixel is `chunks` chunks of channels
//
// Pixels outside the image, and channels that do not exist, are filled with zeros by the copy itself: nothing behind it has a branch for
// borders. Between strips lie as many chunks as make lane i of a warp read bank i (mod 8 chunks): no read has a bank conflict.
//
// Dilation d with stride 1 is no case of its own: the output rows of one residue class modulo d, with the input rows that they read, are an
// ordinary convolution on rows d apart, columns alike. Classes are units like others.
#pragma once

#include "common/async_copy.h"
#include "common/fastdiv.h"
#include "common/types.h"
#include "common/vector.h"
#include "conv2d/epilogue.cuh"

namespace cnn::conv2d::channels_last {

constexpr int kChunkBytes = 16;
constexpr int kThreads = 128;  // of a block, at most

// Rows or columns. A *line* is the unit of work along the axis: one output (gather) or two (scatter).
struct Axis {
  int in_extent, out_extent;
  int in_first, in_step;    // what the first tap of line 0 reads, and from there to the next input
  int out_first, out_step;  // alike
  int lines;                // of a unit
  FastDiv<int32_t> classes, parts;
};

// A tensor whose channels are dense. Strides in elements.
struct Image {
  const void* data;
  int n, h, w;
  int copy_bytes;  // 16, 8 or 4, as its addresses and strides are aligned; 0: element by element
};

// How a row lies in shared memory. In chunks.
struct RowLayout {
  int strip_pitch;  // from strip to strip
  int row_pitch;    // from row to row of a unit's slot
  int pixels;       // of a row, with the halo
};

// What a block is, and its channels.
struct Grid {
  FastDiv<int32_t> channel_blocks;
  FastDiv<int32_t> multiplier;  // output channel / multiplier = input channel
  int units;
  int chunks;    // of a block's channels
  int channels;  // of the tensor that is written: K, or C in dgrad
};

// Where a unit lies.
struct Unit {
  int n, in_row, in_column, out_row, out_column;
};

template <int kInPerLine, int kOutPerLine>
__device__ __forceinline__ Unit locate_unit(const Axis& h, const Axis& w, int unit) {
  int tile, class_w, class_h, slab;
  const int n = h.parts.divmod(h.classes.divmod(w.classes.divmod(w.parts.divmod(unit, tile), class_w), class_h), slab);
  const int row = slab * h.lines, column = tile * w.lines;
  return {n, h.in_first + class_h + row * kInPerLine * h.in_step, w.in_first + class_w + column * kInPerLine * w.in_step,
          h.out_first + class_h + row * kOutPerLine * h.out_step, w.out_first + class_w + column * kOutPerLine * w.out_step};
}

// A thread's part in bringing rows: it walks over the pieces of a row that are copied at once, in steps of the unit's threads. Consecutive
// lanes take consecutive pieces: a warp's copies are whole runs of channels, and of pixels where a block has all channels.
template <class T, int kStrip>
struct RowLoader {
  int first_pixel, first_piece;  // of this thread
  int pixel_step, piece_step;    // pixels and pieces from one of its copies to the next
  int pieces;                    // of a pixel

  __device__ __forceinline__ RowLoader(const Image& image, const Grid& grid) {
    pieces = grid.chunks * (kChunkBytes / (image.copy_bytes ? image.copy_bytes : int(sizeof(T))));
    const int lane = int(threadIdx.y * blockDim.x + threadIdx.x), all = int(blockDim.x * blockDim.y);
    // In steps of whole strips, if few lanes idle for it: a quarter of a warp that goes from one strip to the next has a bank conflict.
    const int whole = all - all % (pieces * kStrip), lanes = whole * 8 >= all * 7 ? whole : all;
    first_pixel = lane < lanes ? lane / pieces : 1 << 30;
    first_piece = lane % pieces;
    pixel_step = lanes / pieces, piece_step = lanes % pieces;
  }

  // Brings the row at `row`, the address of column 0 and channel 0 of the tensor; only zeros if it does not exist. `column` is that of
  // pixel 0, `channel` the block's first one.
  __device__ __forceinline__ void load(unsigned char* slot, const RowLayout& layout, const Image& image, const Axis& w, const Grid& grid,
                                       const T* row, bool exists, int column, int channel) const {
    switch (image.copy_bytes) {
      case 16: return copy<16>(slot, layout, image, w, grid, row, exists, column, channel);
      case 8: return copy<8>(slot, layout, image, w, grid, row, exists, column, channel);
      case 4: return copy<4>(slot, layout, image, w, grid, row, exists, column, channel);
      default: return copy_elements(slot, layout, image, w, grid, row, exists, column, channel);
    }
  }

 private:
  template <class Visit>
  __device__ __forceinline__ void for_each_piece(const RowLayout& layout, Visit visit) const {
    int pixel = first_pixel, piece = first_piece;
    while (pixel < layout.pixels) {
      visit(pixel, piece, ((pixel / kStrip) * layout.strip_pitch) * kChunkBytes, pixel % kStrip);
      pixel += pixel_step, piece += piece_step;
      if (piece >= pieces) piece -= pieces, ++pixel;
    }
  }

  template <int kBytes>
  __device__ __forceinline__ void copy(unsigned char* slot, const RowLayout& layout, const Image& image, const Axis& w, const Grid& grid,
                                       const T* row, bool exists, int column, int channel) const {
    constexpr int kElements = kBytes / int(sizeof(T)) > 0 ? kBytes / int(sizeof(T)) : 1;
    const int left = (grid.channels - channel) * int(sizeof(T)), pixel_bytes = grid.chunks * kChunkBytes;
    row += channel;
    for_each_piece(layout, [&](int pixel, int piece, int strip, int in_strip) {
      const int from = column + pixel * w.in_step;
      const bool inside = exists && unsigned(from) < unsigned(w.in_extent);
      const int valid = inside ? max(0, min(kBytes, left - piece * kBytes)) : 0;
      copy_async<kBytes>(slot + strip + in_strip * pixel_bytes + piece * kBytes, row + (valid ? from * image.w + piece * kElements : 0),
                         valid);
    });
  }

  // For odd addresses and strides of halves, and where several output channels read one of the input.
  __device__ __forceinline__ void copy_elements(unsigned char* slot, const RowLayout& layout, const Image& image, const Axis& w,
                                                const Grid& grid, const T* row, bool exists, int column, int channel) const {
    for_each_piece(layout, [&](int pixel, int piece, int strip, int in_strip) {
      const int from = column + pixel * w.in_step, k = channel + piece;
      const bool inside = exists && unsigned(from) < unsigned(w.in_extent) && k < grid.channels;
      const T value = inside ? row[from * image.w + grid.multiplier.quotient(k)] : narrow<T>(0.0f);
      reinterpret_cast<T*>(slot + strip + in_strip * grid.chunks * kChunkBytes)[piece] = value;
    });
  }
};

// Reads a thread's pixels of one row in order: its strip, and the halo behind it.
template <class T, int V, int kStrip>
struct PixelReader {
  const unsigned char* at;
  int pixel_bytes, strip_bytes;  // to the next pixel, within a strip and from its last

  __device__ __forceinline__ PixelReader(const unsigned char* slot, const RowLayout& layout, const Grid& grid)
      : at(slot + int(threadIdx.y) * layout.strip_pitch * kChunkBytes + int(threadIdx.x) * V * int(sizeof(T))),
        pixel_bytes(grid.chunks * kChunkBytes),
        strip_bytes((layout.strip_pitch - (kStrip - 1) * grid.chunks) * kChunkBytes) {}

  // Pixel i; called with i = 0, 1, 2, ...
  __device__ __forceinline__ void read(int i, float (&value)[V]) {
    const Vector<T, V> packed = load_vector<V>(reinterpret_cast<const T*>(at));
    CNN_UNROLL
    for (int v = 0; v < V; ++v) value[v] = widen(packed.value[v]);
    at += (i + 1) % kStrip ? pixel_bytes : strip_bytes;
  }
};

// V channels of one pixel, as many of which exist as `left` says, in accesses of store_bytes.
template <int V, class T>
__device__ __forceinline__ void store_pixel(const Epilogue& epilogue, T* to, const float (&value)[V], int left, int store_bytes) {
  Vector<T, V> packed;
  CNN_UNROLL
  for (int v = 0; v < V; ++v) packed.value[v] = narrow<T>(value[v]);
  packed = finish(epilogue, to, packed, left, store_bytes >= V * int(sizeof(T)));
  if (store_bytes >= V * int(sizeof(T)) && left >= V) {
    *reinterpret_cast<Vector<T, V>*>(to) = packed;
    return;
  }
  CNN_UNROLL
  for (int v = 0; v < V; v += 2) {
    if (store_bytes >= 2 * int(sizeof(T)) && left >= v + 2) {
      *reinterpret_cast<Vector<T, 2>*>(to + v) = Vector<T, 2>{{packed.value[v], packed.value[v + 1]}};
    } else {
      if (left > v) to[v] = packed.value[v];
      if (left > v + 1) to[v + 1] = packed.value[v + 1];
    }
  }
}

}  // namespace cnn::conv2d::channels_last
