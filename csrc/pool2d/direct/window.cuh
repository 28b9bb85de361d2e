// The skeleton of every windowed pooling, forward and backward: walk, for each pixel of the target, a rectangle of the source.
//
//   forward:   target y(p, q),  source x:           rows p * stride - pad + r * dilation, 0 <= r < R, that lie in the image
//   backward:  target x(h, w),  source gradient of y:  rows p that have a tap on h, among
//                               ceil((h + pad - (R - 1) * dilation) / stride) .. (h + pad) / stride
//
// Columns alike. What is done with a source value is the policy's business (max.cuh, avg.cuh). Every pixel walks its rectangle in
// row-major order, whatever the tile and the chunk: ties, NaNs and the rounding of sums are the same in every kernel.
//
// Tile: a block owns tile.rows x tile.columns pixels of tile.groups vectors of N planes (planes.cuh), a thread one vector: N
// results in registers. Vectors, or else columns, are innermost among the threads, whichever is dense in the target.
//
//     source region of a tile: rows (tile.rows - 1) * stride + (R - 1) * dilation + 1, columns alike (backward: divided by stride)
//       +---------------+
//       |    chunk 0    |   The region is brought to shared memory, each element once and coalesced: consecutive
//       +---------------+   threads along vectors or columns, whichever is dense in the source; a slot holds one vector, so a
//       |    chunk 1    |   thread reads its N values in one access, and neighbouring threads neighbouring slots. A region that
//       +---------------+   is larger than the chunk is streamed top down in whole rows, or in pieces of one row.
//
// Bytes per block: the region once from L2, of which the halo is shared with neighbours; tile.rows * tile.columns * N * groups
// results. Operations: R * S taps per result (backward: R * S / stride^2), and some 20 instructions per staged vector.
//
// Why staged. An element has R * S / stride^2 readers; backward its division (avg) or the decoding of its index (max) is paid once, and
// with its channels apart (NCHW) a staged tap is one read for N planes instead of N.
#pragma once

#include "common/launch.h"
#include "pool2d/direct/direct.h"
#include "pool2d/direct/planes.cuh"
#include "pool2d/problem.h"

namespace cnn::pool2d {

// One axis of the pooling.
template <class Index>
struct Axis {
  Index image, outputs, taps, pad;
  FastDiv<Index> stride, dilation;
  Index next_window;  // from one window that has a pixel as a tap to the next: dilation / gcd(stride, dilation)

  struct Range {
    Index first, last, step;  // empty if last < first
  };
  // What the windows of target positions t0..t1 span.
  template <bool kBackward>
  __device__ __forceinline__ Range region(Index t0, Index t1) const {
    const Index extent = (taps - 1) * dilation.divisor;
    if (kBackward) {
      const Index first = t0 + pad - extent;
      return {first <= 0 ? 0 : stride.quotient(first + stride.divisor - 1), min(outputs - 1, stride.quotient(t1 + pad)), 1};
    }
    return {max(Index(0), t0 * stride.divisor - pad), min(image - 1, t1 * stride.divisor - pad + extent), 1};
  }
  // The source positions of target position t.
  template <bool kBackward>
  __device__ __forceinline__ Range window(Index t) const {
    Range range = region<kBackward>(t, t);
    if (kBackward) {
      range.step = next_window;
      for (Index i = 1; i < next_window && range.first <= range.last && !is_tap(t, range.first); ++i) ++range.first;
      if (!is_tap(t, range.first)) range.last = range.first - 1;
    } else {
      const Index start = t * stride.divisor - pad;
      range.step = dilation.divisor;
      if (start < 0)
        range.first = start + dilation.quotient(dilation.divisor - 1 - start) * dilation.divisor;  // past the taps before the image
    }
    return range;
  }
  // Whether pixel t, known to lie between the ends of a window, is one of its taps.
  __device__ __forceinline__ bool is_tap(Index t, Index window) const {
    Index remainder;
    dilation.divmod(max(Index(0), t + pad - window * stride.divisor), remainder);
    return remainder == 0;
  }
  // The pixel of tap r of window t, and the tap of window t that pixel i is.
  __device__ __forceinline__ Index pixel(Index t, Index r) const { return t * stride.divisor - pad + r * dilation.divisor; }
  __device__ __forceinline__ Index tap(Index t, Index i) const { return dilation.quotient(i - pixel(t, 0)); }
};

// A box of pixels x vectors, flattened with the vectors or the columns innermost.
struct Box {
  FastDiv<int32_t> inner, middle;
  int32_t groups, rows, columns;
  bool groups_inner;  // (row, column, group), else (group, row, column)

  struct At {
    int32_t group, row, column;
  };
  __device__ __forceinline__ int32_t size() const { return groups * rows * columns; }
  __device__ __forceinline__ At at(int32_t index) const {
    int32_t low, mid;
    const int32_t high = middle.divmod(inner.divmod(index, low), mid);
    return groups_inner ? At{low, high, mid} : At{high, mid, low};
  }
  __device__ __forceinline__ int32_t slot(int32_t group, int32_t row, int32_t column) const {
    return groups_inner ? (row * columns + column) * groups + group : (group * rows + row) * columns + column;
  }
};

template <class Index>
struct WindowParams {
  const void* source;        // x; backward: the gradient of y
  const void* source_index;  // max backward
  void* target;              // y; backward: the gradient of x
  void* target_index;        // max
  IndexForm index_form;      // of the one or the other
  Layout<Index> source_at, source_index_at, target_at, target_index_at;
  Axis<Index> h, w;
  FastDiv<Index> image_columns, window_columns;  // W, S
  Planes<Index> planes;
  FastDiv<Index> row_tiles, column_tiles;
  Box tile, chunk;
  Index divisor_override;  // avg; 0: none
  bool count_include_pad;  // avg

  template <bool kBackward>
  __device__ __forceinline__ Index target_rows() const {
    return kBackward ? h.image : h.outputs;
  }
  template <bool kBackward>
  __device__ __forceinline__ Index target_columns() const {
    return kBackward ? w.image : w.outputs;
  }
};

// A thread's share of the target.
template <class Index>
struct Target {
  Index plane, row, column;
  typename Axis<Index>::Range h, w;
};

// The values of source itself as taps.
template <class T, class Index, int N>
struct PlainSource {
  using Tap = Vector<T, N>;
  const WindowParams<Index>& p;
  PlaneOffsets<Index, N> planes;

  __device__ __forceinline__ PlainSource(const WindowParams<Index>& p, Index plane) : p(p), planes(p.source_at, p.planes, plane) {}
  __device__ __forceinline__ Tap read(Index row, Index column) const {
    return load(static_cast<const T*>(p.source), p.source_at, planes, row, column);
  }
};

// Taps in shared memory.
template <class Tap>
struct Slots {
  static constexpr int kBytes = int(sizeof(Tap));
  Tap* taps;

  __device__ __forceinline__ Slots(unsigned char* memory, int32_t) : taps(reinterpret_cast<Tap*>(memory)) {}
  __device__ __forceinline__ void put(int32_t slot, const Tap& tap) const { taps[slot] = tap; }
  __device__ __forceinline__ Tap get(int32_t slot) const { return taps[slot]; }
};

// Blocks that should fit a multiprocessor: as many as the registers allow without spilling.
template <class T, class Index>
constexpr int kWindowBlocks = sizeof(Index) == 8 ? 1
                              : sizeof(T) == 8   ? 4
                                                 : 5;

// Policy:  T, Index, kPlanes, kBackward;
//   Source(params, plane): read(row, column) -> Tap, one pixel's tap from global memory;
//   Result(params, target): take(tap, row, column) in row-major order, then write().
template <class Policy>
__global__ void __launch_bounds__(kWindowThreads, kWindowBlocks<typename Policy::T, typename Policy::Index>)
    window_kernel(const WindowParams<typename Policy::Index> p) {
  using Index = typename Policy::Index;
  using Source = typename Policy::Source;
  constexpr bool kBackward = Policy::kBackward;
  const int32_t thread = int32_t(threadIdx.x);

  Index column_tile, row_tile;
  const Index group_tile = p.row_tiles.divmod(p.column_tiles.divmod(Index(blockIdx.x), column_tile), row_tile);
  const Index first_plane = group_tile * p.tile.groups * Policy::kPlanes;
  const Index first_row = row_tile * p.tile.rows, first_column = column_tile * p.tile.columns;
  const Index target_rows = p.template target_rows<kBackward>(), target_columns = p.template target_columns<kBackward>();

  const Box::At mine = p.tile.at(thread);
  Target<Index> target;
  target.plane = first_plane + mine.group * Policy::kPlanes;
  target.row = first_row + mine.row;
  target.column = first_column + mine.column;
  const bool exists = thread < p.tile.size() && target.plane < p.planes.count && target.row < target_rows && target.column < target_columns;
  target.h = p.h.template window<kBackward>(target.row);
  target.w = p.w.template window<kBackward>(target.column);
  typename Policy::Result result(p, target);

  CNN_DYNAMIC_SHARED(memory, unsigned char);
  const Slots<typename Source::Tap> slots(memory, p.chunk.size());
  if (!exists) target.h.last = target.h.first - 1;  // it still has to load and to wait

  const auto rows = p.h.template region<kBackward>(first_row, min(first_row + p.tile.rows, target_rows) - 1);
  const auto columns = p.w.template region<kBackward>(first_column, min(first_column + p.tile.columns, target_columns) - 1);
  const int32_t step = p.chunk.slot(0, 0, int32_t(target.w.step));

  Index row = target.h.first;  // the next one to take
  for (Index chunk_row = rows.first; chunk_row <= rows.last; chunk_row += p.chunk.rows) {
    const Index rows_end = min(chunk_row + p.chunk.rows, rows.last + 1);
    Index column = target.w.first, next_row = row;
    for (Index chunk_column = columns.first; chunk_column <= columns.last; chunk_column += p.chunk.columns) {
      const Index columns_end = min(chunk_column + p.chunk.columns, columns.last + 1);
      if (chunk_row > rows.first || chunk_column > columns.first) __syncthreads();  // the last chunk has been read
      for (int32_t slot = thread; slot < p.chunk.size(); slot += int32_t(blockDim.x)) {
        const Box::At at = p.chunk.at(slot);
        const Index plane = first_plane + at.group * Policy::kPlanes, r = chunk_row + at.row, c = chunk_column + at.column;
        if (plane < p.planes.count && r < rows_end && c < columns_end) slots.put(slot, Source(p, plane).read(r, c));
      }
      __syncthreads();
      // A chunk in several pieces of a row has no more than one row, so `next_column` always ends at the piece's end.
      Index next_column = column;
      for (next_row = row; next_row <= target.h.last && next_row < rows_end; next_row += target.h.step) {
        int32_t slot = p.chunk.slot(mine.group, int32_t(next_row - chunk_row), int32_t(column - chunk_column));
        for (next_column = column; next_column <= target.w.last && next_column < columns_end; next_column += target.w.step) {
          result.take(slots.get(slot), next_row, next_column);
          slot += step;
        }
      }
      column = next_column;
    }
    row = next_row;
  }
  if (!exists) return;
  result.write();
}

}  // namespace cnn::pool2d
