// Planes between global and shared memory: what the planar depthwise kernels have in common.
//
// A block has whole planes, or a band of rows of one plane. Either way its elements are one run of memory, whatever the width: 7 x 7
// planes of halves begin at odd multiples of 2 bytes, but 64 of them in a row are 6272 bytes. So a run is moved in 16-byte vectors, without
// a thought for rows, and lies in shared memory as in global memory, flat, at the same offset from a multiple of 16 bytes (`lead`):
//
//   global   ...|........|...#####|########|########|##......|...      | multiples of 16 bytes, # the run, lead = 3
//   shared               |...#####|########|########|##......|
//
// Vectors within the run are one cp.async or one 16-byte store, the bytes around it belong to others and are not touched. No zeros are put
// around an image: threads skip rows and columns that lie in the padding.
#pragma once

#include <cstdint>

#include "common/async_copy.h"
#include "common/fastdiv.h"
#include "common/types.h"
#include "common/vector.h"

namespace cnn::conv2d {

// A thread's positions: 7 columns of 7 rows. ImageNet's planes are 7 * 2^i wide, so nothing is left over; and lanes whose columns begin 7
// words apart are in 32 different banks without vectors, alignment or padding.
constexpr int kPlanarTile = 7;

// Of a block, and blocks that have to fit on a multiprocessor: 128 registers for a thread, and 168 for the 49 taps of 7 x 7.
constexpr int planar_max_threads(int taps) { return taps == 7 ? 128 : 256; }
constexpr int planar_least_blocks(int taps) { return taps == 7 ? 3 : 2; }

// One tensor of planes. Its columns are dense.
struct Planes {
  int n, c, h;  // element strides
  int height, width;
  bool in_runs;  // the planes of a block, or the rows of its band, follow each other without gaps
};

// Some rows of some planes, numbered (plane, row, column).
template <class T>
struct Run {
  T* first;  // its first element, where it is in runs
  int planes, first_row, rows, width;

  __device__ __forceinline__ int count() const { return planes * rows * width; }
  __device__ __forceinline__ int lead() const { return int(reinterpret_cast<std::uintptr_t>(first) % 16 / sizeof(T)); }
};

// Calls visit(element, plane, row, column) for each element of this thread's.
template <class T, class Visit>
__device__ __forceinline__ void for_each_element(const Run<T>& run, Visit visit) {
  const int pixels = run.rows * run.width;
  for (int e = int(threadIdx.x); e < run.count(); e += int(blockDim.x)) {
    const int plane = e / pixels, pixel = e % pixels;
    visit(e, plane, pixel / run.width, pixel % run.width);
  }
}

// Starts the copies of a run to `shared`, which gets the element i at run.lead() + i. To be committed and waited for.
template <class T>
__device__ __forceinline__ void copy_run(T* shared, const Run<const T>& run) {
  constexpr int kVector = 16 / int(sizeof(T));
  const int lead = run.lead(), end = lead + run.count();
  for (int v = int(threadIdx.x) * kVector; v < end; v += int(blockDim.x) * kVector) {
    if (v >= lead) {
      copy_async<16>(shared + v, run.first + (v - lead), min(16, (end - v) * int(sizeof(T))));
    } else {
      for (int i = lead; i < min(kVector, end); ++i) shared[i] = run.first[i - lead];
    }
  }
}

// values[i] = widen(narrow[i]), a multiple of four that covers [0, end): both begin at a multiple of 16 bytes and have room for it. What
// lies around the run is never looked at.
template <class T>
__device__ __forceinline__ void widen_run(float* values, const T* narrow_values, int lead, int end) {
  for (int i = lead / 4 * 4 + int(threadIdx.x) * 4; i < end; i += int(blockDim.x) * 4) {
    Vector<float, 4> wide;
    if (i >= lead && i + 4 <= end) {
      const Vector<T, 4> four = load_vector<4>(narrow_values + i);
      CNN_UNROLL
      for (int j = 0; j < 4; ++j) wide.value[j] = widen(four.value[j]);
      *reinterpret_cast<Vector<float, 4>*>(values + i) = wide;
    } else {
      for (int j = max(i, lead); j < min(i + 4, end); ++j) values[j] = widen(narrow_values[j]);
    }
  }
}

// Writes 16 bytes of results, from as many floats that begin at a multiple of 16 bytes.
template <class T>
__device__ __forceinline__ void store_vector(T* to, const float* values) {
  constexpr int kVector = 16 / int(sizeof(T)), kQuads = kVector / 4;
  // A vector of halves is two of floats. Of eight lanes, four read their first while the others read their second: together they have all
  // 32 banks.
  const int swapped = kQuads == 2 ? int(threadIdx.x) / 4 % 2 : 0;
  Vector<float, 4> quad[kQuads];
  CNN_UNROLL
  for (int i = 0; i < kQuads; ++i) quad[i] = load_vector<4>(values + (i ^ swapped) * 4);
  Vector<T, kVector> vector;
  CNN_UNROLL
  for (int i = 0; i < kVector; ++i) {
    const float here = quad[i / 4].value[i % 4], there = quad[kQuads - 1 - i / 4].value[i % 4];
    vector.value[i] = narrow<T>(swapped ? there : here);
  }
  *reinterpret_cast<Vector<T, kVector>*>(to) = vector;
}

// Writes values[lead + i] to the run's element i, in vectors of 16 bytes but at both ends.
template <class T>
__device__ __forceinline__ void store_run(const Run<T>& run, const float* values) {
  constexpr int kVector = 16 / int(sizeof(T));
  const int lead = run.lead(), end = lead + run.count();
  T* const to = run.first - lead;
  for (int v = int(threadIdx.x) * kVector; v < end; v += int(blockDim.x) * kVector) {
    if (v >= lead && v + kVector <= end) {
      store_vector(to + v, values + v);
    } else {
      for (int i = max(v, lead); i < min(v + kVector, end); ++i) to[i] = narrow<T>(values[i]);
    }
  }
}

// A row or column of threads' positions. Dilated, the positions fall into residue classes, in each of which the taps lie side by side; a
// thread has seven neighbours of one class.
struct PlanarAxis {
  FastDiv<int> threads;  // per residue class
  int dilation, pad;     // pad: how far the first position's window begins before the image

  // The i-th of thread `index`'s kPositions is first + i * dilation.
  template <int kPositions>
  __device__ __forceinline__ int first(int index) const {
    int within;
    const int residue = threads.divmod(index, within);
    return residue + dilation * within * kPositions;
  }
};

}  // namespace cnn::conv2d
