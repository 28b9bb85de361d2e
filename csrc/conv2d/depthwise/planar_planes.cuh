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
#include <type_traits>

#include "common/async_copy.h"
#include "common/fastdiv.h"
#include "common/types.h"
#include "common/vector.h"
#include "conv2d/epilogue.cuh"

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

// With stride 2 the rows of neighbouring threads lie an even number of rows apart, in the same banks: 8 rows of 112 are 28 * 32 words. So
// some words are left out behind the rows of each group of threads, and behind each plane, as many as make every thread's place 7 (stride
// 2: 14) words behind its neighbour's, modulo 32, also where the neighbour has other rows or another plane.
struct Skew {
  FastDiv<int> width, height;  // of a plane
  int group, plane;            // words left out
  int unit;                    // 4, 2 or 1 elements stay together, and are left out together; 0: nothing is left out
};

// Where the elements of a run lie. kRows: of a group.
template <int kRows>
struct SkewedRun {
  const Skew& skew;
  int lead;
  int before;  // rows of the first group before the run's first row

  __device__ __forceinline__ int at(int e) const {
    int row;
    const int plane = skew.height.divmod(skew.width.quotient(e), row);
    return lead + e + plane * skew.plane + int(unsigned(max(0, row + before)) / kRows) * skew.group;
  }
  // Elements of which it is known that they lie side by side.
  __device__ __forceinline__ int unit() const { return lead % skew.unit == 0 ? skew.unit : 1; }
  __device__ __forceinline__ bool in_order() const { return skew.unit == 0; }
};

// Calls visit(integer) with the constant that `unit` is.
template <class Visit>
__device__ __forceinline__ void with_unit(int unit, Visit visit) {
  if (unit == 4) visit(std::integral_constant<int, 4>());
  else if (unit == 2) visit(std::integral_constant<int, 2>());
  else visit(std::integral_constant<int, 1>());
}

// units[i] = units[i ^ order]
template <int kUnits, class Unit>
__device__ __forceinline__ void exchange(Unit (&units)[kUnits], int order) {
  CNN_UNROLL
  for (int bit = 1; bit < kUnits; bit *= 2) {
    CNN_UNROLL
    for (int i = 0; i < kUnits; ++i) {
      if (i & bit) continue;
      const Unit low = units[i], high = units[i | bit];
      CNN_UNROLL
      for (int j = 0; j < int(sizeof(Unit) / sizeof(float)); ++j) {
        units[i].value[j] = order & bit ? high.value[j] : low.value[j];
        units[i | bit].value[j] = order & bit ? low.value[j] : high.value[j];
      }
    }
  }
}

// With which of its kUnits units of kUnit words a thread begins that moves kVector elements from e on: its neighbours are kVector words
// apart, and would meet each bank several times if all began with the first. Every 32 / kVector lanes begin with another one; those behind
// words left out so many units before the others, that their places are as they would be otherwise.
template <int kUnit, int kUnits, int kRows>
__device__ __forceinline__ int first_unit(const SkewedRun<kRows>& place, int e) {
  constexpr int kVector = kUnit * kUnits;
  const int left_out = place.at(e) - place.lead - e;
  return int(unsigned(int(threadIdx.x) / (32 / kVector) - left_out / kUnit) % kUnits);
}

// Four floats, elements e .. e + 3 of a run, to their places.
template <int kUnit, int kRows>
__device__ __forceinline__ void place_quad(float* values, const SkewedRun<kRows>& place, int e, const Vector<float, 4>& quad) {
  constexpr int kUnits = 4 / kUnit;
  const int order = first_unit<kUnit, kUnits>(place, e);
  Vector<float, kUnit> units[kUnits];
  CNN_UNROLL
  for (int i = 0; i < 4; ++i) units[i / kUnit].value[i % kUnit] = quad.value[i];
  exchange(units, order);
  CNN_UNROLL
  for (int i = 0; i < kUnits; ++i) *reinterpret_cast<Vector<float, kUnit>*>(values + place.at(e + (i ^ order) * kUnit)) = units[i];
}

// Brings elements to their places, as floats, from where they are in order: a run's first element is from[place.lead]. Halves have landed
// in shared memory before; floats come from global memory.
template <class T, int kRows>
__device__ __forceinline__ void place_run(float* values, const T* from, int count, const SkewedRun<kRows>& place) {
  const int lead = place.lead, end = lead + count;
  if constexpr (sizeof(T) < sizeof(float)) {
    if (place.in_order()) return widen_run(values, from, lead, end);
  }
  with_unit(place.unit(), [&](auto unit) {
    for (int v = lead / 4 * 4 + int(threadIdx.x) * 4; v < end; v += int(blockDim.x) * 4) {
      if (v >= lead && v + 4 <= end) {
        const Vector<T, 4> four = load_vector<4>(from + v);
        Vector<float, 4> quad;
        CNN_UNROLL
        for (int j = 0; j < 4; ++j) quad.value[j] = widen(four.value[j]);
        place_quad<decltype(unit)::value>(values, place, v - lead, quad);
      } else {
        for (int i = max(v, lead); i < min(v + 4, end); ++i) values[place.at(i - lead)] = widen(from[i]);
      }
    }
  });
}

// Brings a run of floats from global memory to their places. To be committed and waited for.
template <int kRows>
__device__ __forceinline__ void copy_run_skewed(float* values, const Run<const float>& run, const SkewedRun<kRows>& place) {
  const int lead = place.lead, end = lead + run.count();
  if (place.in_order()) return copy_run(values, run);
  if (place.unit() < 4) return place_run(values, run.first - lead, run.count(), place);
  for (int v = int(threadIdx.x) * 4; v < end; v += int(blockDim.x) * 4)
    copy_async<16>(values + place.at(v), run.first + v, min(16, (end - v) * 4));  // the lead is 0: a place's unit is 4 then
}

// Writes 16 bytes of results, from as many floats that begin at a multiple of 16 bytes.
template <class T>
__device__ __forceinline__ void store_vector(const Epilogue& epilogue, T* to, const float* values) {
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
  *reinterpret_cast<Vector<T, kVector>*>(to) = finish(epilogue, to, vector);
}

// Writes values[lead + i] to the run's element i, in vectors of 16 bytes but at both ends.
template <class T>
__device__ __forceinline__ void store_run(const Epilogue& epilogue, const Run<T>& run, const float* values) {
  constexpr int kVector = 16 / int(sizeof(T));
  const int lead = run.lead(), end = lead + run.count();
  T* const to = run.first - lead;
  for (int v = int(threadIdx.x) * kVector; v < end; v += int(blockDim.x) * kVector) {
    if (v >= lead && v + kVector <= end) {
      store_vector(epilogue, to + v, values + v);
    } else {
      for (int i = max(v, lead); i < min(v + kVector, end); ++i) to[i] = finish(epilogue, to + i, narrow<T>(values[i]));
    }
  }
}

// The same, of results that lie skewed.
template <class T, int kRows>
__device__ __forceinline__ void store_run_skewed(const Epilogue& epilogue, const Run<T>& run, const float* values,
                                                 const SkewedRun<kRows>& place) {
  constexpr int kVector = 16 / int(sizeof(T));
  if (place.in_order()) return store_run(epilogue, run, values);
  const int lead = place.lead, end = lead + run.count();
  T* const to = run.first - lead;
  with_unit(place.unit(), [&](auto unit) {
    constexpr int kUnit = decltype(unit)::value, kUnits = kVector / kUnit;
    for (int v = int(threadIdx.x) * kVector; v < end; v += int(blockDim.x) * kVector) {
      if (v >= lead && v + kVector <= end) {
        const int order = first_unit<kUnit, kUnits>(place, v - lead);
        Vector<float, kUnit> units[kUnits];
        CNN_UNROLL
        for (int i = 0; i < kUnits; ++i) units[i] = load_vector<kUnit>(values + place.at(v - lead + (i ^ order) * kUnit));
        exchange(units, order);
        Vector<T, kVector> vector;
        CNN_UNROLL
        for (int i = 0; i < kVector; ++i) vector.value[i] = narrow<T>(units[i / kUnit].value[i % kUnit]);
        *reinterpret_cast<Vector<T, kVector>*>(to + v) = finish(epilogue, to + v, vector);
      } else {
        for (int i = max(v, lead); i < min(v + kVector, end); ++i) to[i] = finish(epilogue, to + i, narrow<T>(values[place.at(i - lead)]));
      }
    }
  });
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
