// Sums over slabs, in order.
//
//   out[i] = epilogue(sum over slabs of partial[slab][i])
//
// A block has 256 threads, as `readers` rows of 256 / readers results. Consecutive threads read consecutive results of one slab; reader r
// adds slabs r, r + readers, ... in order, and a tree in shared memory adds the readers. The number of readers follows from the number
// of slabs alone, and with it the order of every addition.
// Bytes: partial once, out once. Additions: one per element of partial.
//
// Where the results lie in another order, out[outer][column][row] of partial[slab][outer][row][column] (a filter's taps, the pixels of a
// plane), a block has a tile of 32 columns and up to 128 rows: a warp reads 32 columns of a row, up to eight readers add its slabs in
// turn and a tree the readers, as above, and the tile is turned round in shared memory and written along its rows.
#pragma once

#include "common/fastdiv.h"
#include "common/integers.h"
#include "common/launch.h"
#include "common/sectors.h"
#include "common/types.h"
#include "conv2d/epilogue.cuh"
#include "conv2d/sum_slabs/sum_slabs.h"

namespace cnn::conv2d {

constexpr int kSumSlabsThreads = 256;

template <class Index>
struct SumSlabsParams {
  const void* partial;
  void* out;
  FastDiv<Index> extent1, extent2, extent3;
  Index stride0, stride1, stride2, stride3;
  Index slabs, results;
  int readers;
  Epilogue epilogue;
  bool channel_is_1;  // of the dimensions; else 3
};

template <class T, class Index>
__global__ void __launch_bounds__(kSumSlabsThreads, 1) sum_slabs_kernel(const SumSlabsParams<Index> p) {
  using Acc = Accumulator<T>;
  CNN_SHARED(sums, Acc[kSumSlabsThreads]);  // [reader][result]
  const int thread = int(threadIdx.x), width = kSumSlabsThreads / p.readers;
  const int reader = thread / width, column = thread % width;
  const Index result = Index(blockIdx.x) * width + column;

  Acc sum = 0;
  if (result < p.results) {
    const Acc* const partial = static_cast<const Acc*>(p.partial) + result;
    for (Index slab = reader; slab < p.slabs; slab += p.readers) sum += partial[slab * p.results];
  }
  if (p.readers > 1) {
    sums[thread] = sum;
    for (int half = p.readers / 2; half > 0; half /= 2) {
      __syncthreads();
      if (reader < half) sums[thread] = sum += sums[thread + half * width];
    }
  }
  if (reader > 0 || result >= p.results) return;
  Index i1, i2, i3;
  const Index i0 = p.extent1.divmod(p.extent2.divmod(p.extent3.divmod(result, i3), i2), i1);
  T* const to = static_cast<T*>(p.out) + i0 * p.stride0 + i1 * p.stride1 + i2 * p.stride2 + i3 * p.stride3;
  *to = finish(p.epilogue, to, narrow<T>(per_channel<T>(p.epilogue, p.channel_is_1 ? i1 : i3)(sum)));
}

constexpr int kTurnedColumns = 32, kTurnedRows = 128, kTurnedReaders = 8;

struct SumTurnedSlabsParams {
  const void* partial;
  void* out;
  int rows, columns, row_tiles, column_tiles;
  int outer_stride, column_stride;  // of out; its rows are neighbours
  int slabs, results;
  int log_readers;
  FastDiv<int32_t> by_rows;
  Epilogue epilogue;  // columns are the channels
};

template <class T>
__global__ void __launch_bounds__(kSumSlabsThreads, 1) sum_turned_slabs_kernel(const SumTurnedSlabsParams p) {
  using Acc = Accumulator<T>;
  constexpr int kPitch = kTurnedColumns + 1;
  CNN_SHARED(tile, Acc[kTurnedRows * kPitch]);  // [row][column]
  CNN_SHARED(sums, Acc[kSumSlabsThreads]);      // [row][reader][column]
  const int thread = int(threadIdx.x), lane = thread % 32, warp = thread / 32;
  int index = int(blockIdx.x);
  const int row0 = index % p.row_tiles * kTurnedRows;
  index /= p.row_tiles;
  const int column0 = index % p.column_tiles * kTurnedColumns, outer = index / p.column_tiles;
  const int rows = min(kTurnedRows, p.rows - row0), columns = min(kTurnedColumns, p.columns - column0);

  // Read.
  const int readers = 1 << p.log_readers, reader = warp & (readers - 1);
  const Acc* const partial = static_cast<const Acc*>(p.partial) + (outer * p.rows + row0) * p.columns + column0 + lane;
  for (int first = 0; first < rows; first += kSumSlabsThreads / 32 >> p.log_readers) {
    const int row = first + (warp >> p.log_readers);
    Acc sum = 0;
    if (row < rows && lane < columns)
      for (int slab = reader; slab < p.slabs; slab += readers) sum += partial[slab * p.results + row * p.columns];
    if (readers > 1) {
      sums[thread] = sum;
      for (int half = readers / 2; half > 0; half /= 2) {
        __syncthreads();
        if (reader < half) sums[thread] = sum += sums[thread + half * 32];
      }
      __syncthreads();  // before the next rows' sums
    }
    if (reader == 0 && row < rows) tile[row * kPitch + lane] = sum;
  }
  __syncthreads();

  // Write.
  const auto write = [&](T* to, int row, int column) {
    *to = finish(p.epilogue, to, narrow<T>(per_channel<T>(p.epilogue, column0 + column)(tile[row * kPitch + column])));
  };
  T* const out = static_cast<T*>(p.out) + outer * p.outer_stride + column0 * p.column_stride + row0;
  if (p.row_tiles == 1) {
    for (int e = thread; e < rows * columns; e += kSumSlabsThreads) {
      int row;
      const int column = p.by_rows.divmod(e, row);
      write(out + column * p.column_stride + row, row, column);
    }
  } else {
    // Rows of planes begin anywhere in a sector: the threads begin where one does, and the first of the rows come last.
    for (int e = thread; e < kTurnedRows * columns; e += kSumSlabsThreads) {
      const int column = e / kTurnedRows;
      T* const to = out + column * p.column_stride;
      const int row = (e - sector_phase(to, int(sizeof(T)))) & (kTurnedRows - 1);
      if (row < rows) write(to + row, row, column);
    }
  }
}

// Whether the results of `s` are to be turned round.
inline bool is_turned(const Slabs& s) {
  const bool rows_dense = s.stride[2] == 1 && (s.extent[1] == 1 || s.stride[1] == s.extent[2]);
  return s.channel == 3 && rows_dense && s.extent[1] * s.extent[2] > 1 && s.extent[3] > 1 && s.stride[3] != 1;
}

template <class T>
void launch_sum_turned_slabs(const Slabs& s, cudaStream_t stream) {
  static const std::string name = std::string("conv2d_sum_turned_slabs_") + short_name(TypeTraits<T>::kDType);
  constexpr int kSlabsPerReader = 4;
  SumTurnedSlabsParams q{};
  q.partial = s.partial, q.out = s.out;
  q.rows = int(s.extent[1] * s.extent[2]), q.columns = int(s.extent[3]);
  q.row_tiles = int(ceil_div(q.rows, kTurnedRows)), q.column_tiles = int(ceil_div(q.columns, kTurnedColumns));
  q.outer_stride = int(s.stride[0]), q.column_stride = int(s.stride[3]);
  q.slabs = int(s.slabs), q.results = int(s.extent[0] * q.rows * q.columns);
  while (1 << q.log_readers < kTurnedReaders && (int64_t(kSlabsPerReader) << q.log_readers) < s.slabs) ++q.log_readers;
  q.by_rows = FastDiv<int32_t>(q.rows);
  q.epilogue = s.epilogue;
  const int64_t blocks = s.extent[0] * q.row_tiles * q.column_tiles;
  launch(name.c_str(), {dim3(unsigned(blocks)), dim3(kSumSlabsThreads), 0, stream}, sum_turned_slabs_kernel<T>, q);
}

template <class T, class Index>
void launch_sum_slabs(const Slabs& s, cudaStream_t stream) {
  static const std::string name = std::string("conv2d_sum_slabs_") + short_name(TypeTraits<T>::kDType) + (sizeof(Index) == 8 ? "_i64" : "");
  constexpr int kMostReaders = 16, kSlabsPerReader = 4;
  SumSlabsParams<Index> q{};
  q.partial = s.partial, q.out = s.out;
  q.extent1 = FastDiv<Index>(s.extent[1]), q.extent2 = FastDiv<Index>(s.extent[2]), q.extent3 = FastDiv<Index>(s.extent[3]);
  q.stride0 = Index(s.stride[0]), q.stride1 = Index(s.stride[1]), q.stride2 = Index(s.stride[2]), q.stride3 = Index(s.stride[3]);
  q.slabs = Index(s.slabs);
  q.results = Index(s.extent[0] * s.extent[1] * s.extent[2] * s.extent[3]);
  q.epilogue = s.epilogue, q.channel_is_1 = s.channel == 1;
  q.readers = 1;
  while (q.readers < kMostReaders && int64_t(q.readers) * kSlabsPerReader < s.slabs) q.readers *= 2;
  const int64_t blocks = ceil_div(int64_t(q.results), kSumSlabsThreads / q.readers);
  launch(name.c_str(), {dim3(unsigned(blocks)), dim3(kSumSlabsThreads), 0, stream}, sum_slabs_kernel<T, Index>, q);
}

template <class T>
void sum_slabs(const Slabs& s, cudaStream_t stream) {
  int64_t numel = s.slabs, reach = 1;
  for (int i = 0; i < 4; ++i) numel *= s.extent[i], reach += (s.extent[i] - 1) * s.stride[i];
  if (numel == 0) return;
  if (std::max(numel, reach) >= kIndexLimit) launch_sum_slabs<T, int64_t>(s, stream);
  else if (is_turned(s)) launch_sum_turned_slabs<T>(s, stream);
  else launch_sum_slabs<T, int32_t>(s, stream);
}

}  // namespace cnn::conv2d
