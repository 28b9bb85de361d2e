// The copies of one operand of the implicit GEMM, from global into shared memory (tile.cuh has the two forms).
//
// source(slot), or source(row, unit), is the offset of a row of the operand, negative where there is nothing but zeros. Consecutive threads
// take consecutive units of 16 bytes, or of less where no more is aligned, along whatever is dense. Units of 4 bytes and more are cp.async,
// with zeros for what is not there; 2 bytes, for which there is none, go by registers, eight loads in flight in a thread.
//
// The loops are not unrolled, and nothing is worked out ahead of them: a step has two to eight copies of a thread for a thousand FMAs, and
// the registers are the results'.
#pragma once

#include "common/async_copy.h"
#include "common/recompute.h"
#include "common/sectors.h"
#include "conv2d/gemm/tile.cuh"

namespace cnn::conv2d {

// The row that a slot of the inner form holds.
template <int kThreadsAlong>
__device__ __forceinline__ int row_of_slot(int slot) {
  return tile_row<kThreadsAlong>(slot % kThreadsAlong, slot / kThreadsAlong);
}

// Copies a step's channels, of which `left` exist.
template <int kUnit, int kExtent, int kThreads, class T, class Source>
__device__ __forceinline__ void copy_inner_by(unsigned char* tile, const T* from, int left, Source source) {
  constexpr int kSize = int(sizeof(T)), kUnits = kGemmRowBytes / kUnit;  // of a row
  const int thread = recompute(int(threadIdx.x));
  const int element = thread % kUnits * (kUnit / kSize), valid = max(0, min(kUnit, (left - element) * kSize));
  static_assert(kThreads % kUnits == 0, "a thread's units are of the same channels");
  constexpr int kSlots = kThreads / kUnits;  // that are copied together
  if constexpr (kUnit >= 4) {
    CNN_NO_UNROLL
    for (int slot = thread / kUnits; slot < kExtent; slot += kSlots) {
      const int offset = source(slot);
      const bool some = offset >= 0 && valid > 0;
      copy_async<kUnit>(tile + inner_byte(slot, element * kSize), some ? from + offset + element : from, some ? valid : 0);
    }
  } else {
    constexpr int kBatch = kExtent / kSlots < 8 ? kExtent / kSlots : 8;
    static_assert(kExtent % (kSlots * kBatch) == 0, "whole batches");
    CNN_NO_UNROLL
    for (int slot = thread / kUnits; slot < kExtent; slot += kBatch * kSlots) {
      T value[kBatch];
      CNN_UNROLL
      for (int i = 0; i < kBatch; ++i) {
        const int offset = source(slot + i * kSlots);
        value[i] = offset >= 0 && valid > 0 ? from[offset + element] : T(0.0f);
      }
      CNN_UNROLL
      for (int i = 0; i < kBatch; ++i) *reinterpret_cast<T*>(tile + inner_byte(slot + i * kSlots, element * kSize)) = value[i];
    }
  }
}

// The same of channels that lie `step` apart; a unit is of neighbouring rows, of which those from `rows` on do not exist. Where units are
// small the rows of a channel may begin anywhere: the threads begin where a sector does, and take the first rows last. `begin` is the
// offset of the first row, were it there.
template <int kUnit, int kExtent, int kThreads, class T, class Source>
__device__ __forceinline__ void copy_outer_by(unsigned char* tile, const T* from, int step, int left, int rows, int begin, Source source) {
  constexpr int kSize = int(sizeof(T)), kElements = kUnit / kSize, kUnits = kExtent / kElements, kChannels = kGemmChunkBytes / kSize;
  constexpr int kTogether = kUnits < kThreads ? kThreads / kUnits : 1;  // channels
  static_assert((kUnits & (kUnits - 1)) == 0, "units are counted modulo a power of two");
  const int thread = recompute(int(threadIdx.x));
  const int depth = min(kGemmRowBytes / kSize, (left + kChannels - 1) / kChannels * kChannels);  // as much as is multiplied
  const int first = kUnits < kThreads ? thread / kUnits : 0;
  CNN_NO_UNROLL
  for (int unit = thread % kUnits; unit < kUnits; unit += kThreads) {
    if constexpr (kUnit == 16) {
      const int row = unit * kElements, offset = source(row, unit);
      const int valid = offset < 0 ? 0 : max(0, min(kUnit, (rows - row) * kSize));
      CNN_NO_UNROLL
      for (int k = first; k < depth; k += kTogether) {
        const bool some = k < left && valid > 0;
        copy_async<kUnit>(tile + (k * kExtent + row) * kSize, some ? from + offset + k * step : from, some ? valid : 0);
      }
    } else {
      const std::uintptr_t first_row = reinterpret_cast<std::uintptr_t>(from) + std::uintptr_t(begin * kSize);
      const auto row_at = [&](int k) {
        return ((unit - sector_phase(first_row + std::uintptr_t(k * step * kSize), kUnit)) & (kUnits - 1)) * kElements;
      };
      if constexpr (kUnit >= 4) {
        CNN_NO_UNROLL
        for (int k = first; k < depth; k += kTogether) {
          const int row = row_at(k), offset = source(row, row / kElements);
          const int valid = k < left && offset >= 0 ? max(0, min(kUnit, (rows - row) * kSize)) : 0;
          copy_async<kUnit>(tile + (k * kExtent + row) * kSize, valid > 0 ? from + offset + k * step : from, valid);
        }
      } else {
        constexpr int kBatch = 8;
        CNN_NO_UNROLL
        for (int k0 = first; k0 < depth; k0 += kBatch * kTogether) {
          T value[kBatch];
          CNN_UNROLL
          for (int i = 0; i < kBatch; ++i) {
            const int k = k0 + i * kTogether, row = row_at(k), offset = source(row, row);
            value[i] = k < left && offset >= 0 && row < rows ? from[offset + k * step] : T(0.0f);
          }
          CNN_UNROLL
          for (int i = 0; i < kBatch; ++i) {
            const int k = k0 + i * kTogether;
            if (k < depth) *reinterpret_cast<T*>(tile + (k * kExtent + row_at(k)) * kSize) = value[i];
          }
        }
      }
    }
  }
}

template <int kExtent, int kThreads, class T, class Source>
__device__ __forceinline__ void copy_inner(unsigned char* tile, const T* from, int left, int unit, Source source) {
  if (unit == 16) copy_inner_by<16, kExtent, kThreads>(tile, from, left, source);
  else if (unit == 8) copy_inner_by<8, kExtent, kThreads>(tile, from, left, source);
  else if (unit == 4) copy_inner_by<4, kExtent, kThreads>(tile, from, left, source);
  else if constexpr (sizeof(T) == 2) copy_inner_by<2, kExtent, kThreads>(tile, from, left, source);
}

template <int kExtent, int kThreads, class T, class Source>
__device__ __forceinline__ void copy_outer(unsigned char* tile, const T* from, int step, int left, int rows, int begin, int unit,
                                           Source source) {
  if (unit == 16) copy_outer_by<16, kExtent, kThreads>(tile, from, step, left, rows, begin, source);
  else if (unit == 8) copy_outer_by<8, kExtent, kThreads>(tile, from, step, left, rows, begin, source);
  else if (unit == 4) copy_outer_by<4, kExtent, kThreads>(tile, from, step, left, rows, begin, source);
  else if constexpr (sizeof(T) == 2) copy_outer_by<2, kExtent, kThreads>(tile, from, step, left, rows, begin, source);
}

}  // namespace cnn::conv2d
