// What a forward pass keeps of the pixels that it has seen, as policies of channels.cuh and planes.cuh: a mean's sum, a maximum and
// where it is.
//
//   Mean     y = sum / rows / columns of the window, in torch's order of divisions
//   Maximum  y = the maximum, index = h * W + w of it. NaN is greater than everything; of equal values the first in row-major order is
//            taken, of NaNs the last, as torch does. A window of -inf has the index of its first pixel.
//
// `number` is the pixel's in the window, (h - h_begin) * W + (w - w_begin). A thread takes its pixels in ascending order; merging looks at
// the numbers, so that a maximum does not depend on who merges with whom. Sums do, in the last bit: the order in which threads are merged
// is fixed by the plan.
#pragma once

#include "common/types.h"
#include "common/vector.h"

namespace cnn::pool2d {

template <class T_>
struct Mean {
  using T = T_;
  using Acc = Accumulator<T>;
  static constexpr bool kIndices = false;

  Acc value;

  __device__ __forceinline__ void clear() { value = Acc(0); }
  __device__ __forceinline__ void take(T x, int32_t) { value += widen(x); }
  // N neighbours at once, in pairs: one addition deep in the sum, and fewer roundings of large sums.
  template <int N>
  __device__ __forceinline__ void take(const Vector<T, N>& x, int32_t) {
    Acc sums[N];
    CNN_UNROLL
    for (int i = 0; i < N; ++i) sums[i] = widen(x.value[i]);
    CNN_UNROLL
    for (int half = N / 2; half > 0; half /= 2) {
      CNN_UNROLL
      for (int i = 0; i < half; ++i) sums[i] = sums[2 * i] + sums[2 * i + 1];
    }
    value += sums[0];
  }
  __device__ __forceinline__ void merge(const Mean& other) { value += other.value; }
  __device__ __forceinline__ Mean shuffled(int distance) const { return {__shfl_xor_sync(0xffffffffu, value, distance)}; }
  __device__ __forceinline__ T result(int64_t rows, int64_t columns) const { return narrow<T>(value / Acc(rows) / Acc(columns)); }
};

template <class T_>
struct Maximum {
  using T = T_;
  using Acc = Accumulator<T>;
  static constexpr bool kIndices = true;

  Acc value;
  int32_t number;

  __device__ __forceinline__ void clear() { value = -Acc(INFINITY), number = 0; }
  __device__ __forceinline__ void take(T x, int32_t at) {
    const Acc candidate = widen(x);
    const bool better = candidate > value || isnan(candidate);
    value = better ? candidate : value;
    number = better ? at : number;
  }
  template <int N>
  __device__ __forceinline__ void take(const Vector<T, N>& x, int32_t first) {
    CNN_UNROLL
    for (int i = 0; i < N; ++i) take(x.value[i], first + i);
  }
  __device__ __forceinline__ void merge(const Maximum& other) {
    const bool earlier = other.number < number;
    const bool greater = other.value > value || (other.value == value && earlier);
    const bool better = isnan(other.value) ? !(isnan(value) && earlier) : !isnan(value) && greater;
    value = better ? other.value : value;
    number = better ? other.number : number;
  }
  __device__ __forceinline__ Maximum shuffled(int distance) const {
    return {__shfl_xor_sync(0xffffffffu, value, distance), __shfl_xor_sync(0xffffffffu, number, distance)};
  }
  __device__ __forceinline__ T result(int64_t, int64_t) const { return narrow<T>(value); }
};

// Values of a block's threads in shared memory, N of each, so that neighbouring threads' 16-byte accesses lie side by side: of N = 8 floats
// the first four of all threads, then the other four.
template <class V, int N, int kThreads>
struct Shelf {
  static constexpr int kPiece = sizeof(V) * N < 16 ? N : int(16 / sizeof(V));
  Vector<V, kPiece> pieces[N / kPiece][kThreads];

  __device__ __forceinline__ void put(int slot, const V (&values)[N]) {
    CNN_UNROLL
    for (int piece = 0; piece < N / kPiece; ++piece) {
      Vector<V, kPiece> v;
      CNN_UNROLL
      for (int i = 0; i < kPiece; ++i) v.value[i] = values[piece * kPiece + i];
      pieces[piece][slot] = v;
    }
  }
  __device__ __forceinline__ void get(int slot, V (&values)[N]) const {
    CNN_UNROLL
    for (int piece = 0; piece < N / kPiece; ++piece) {
      const Vector<V, kPiece> v = pieces[piece][slot];
      CNN_UNROLL
      for (int i = 0; i < kPiece; ++i) values[piece * kPiece + i] = v.value[i];
    }
  }
};

// The same for N of a policy's states.
template <class State, int N, int kThreads>
struct StateShelf;

template <class T, int N, int kThreads>
struct StateShelf<Mean<T>, N, kThreads> {
  Shelf<Accumulator<T>, N, kThreads> values;

  __device__ __forceinline__ void put(int slot, const Mean<T> (&states)[N]) {
    Accumulator<T> v[N];
    CNN_UNROLL
    for (int i = 0; i < N; ++i) v[i] = states[i].value;
    values.put(slot, v);
  }
  __device__ __forceinline__ void get(int slot, Mean<T> (&states)[N]) const {
    Accumulator<T> v[N];
    values.get(slot, v);
    CNN_UNROLL
    for (int i = 0; i < N; ++i) states[i].value = v[i];
  }
};

template <class T, int N, int kThreads>
struct StateShelf<Maximum<T>, N, kThreads> {
  Shelf<Accumulator<T>, N, kThreads> values;
  Shelf<int32_t, N, kThreads> numbers;

  __device__ __forceinline__ void put(int slot, const Maximum<T> (&states)[N]) {
    Accumulator<T> v[N];
    int32_t n[N];
    CNN_UNROLL
    for (int i = 0; i < N; ++i) v[i] = states[i].value, n[i] = states[i].number;
    values.put(slot, v);
    numbers.put(slot, n);
  }
  __device__ __forceinline__ void get(int slot, Maximum<T> (&states)[N]) const {
    Accumulator<T> v[N];
    int32_t n[N];
    values.get(slot, v);
    numbers.get(slot, n);
    CNN_UNROLL
    for (int i = 0; i < N; ++i) states[i].value = v[i], states[i].number = n[i];
  }
};

// Partial results of windows that several blocks share: [part][result], the maxima's numbers behind all values. A result's number is
// ((n * P + p) * Q + q) * C + c.
template <class State>
struct Partials {
  typename State::Acc* values;
  int32_t* numbers;
  int64_t results;

  Partials() = default;
  Partials(void* workspace, int64_t parts, int64_t results)
      : values(static_cast<typename State::Acc*>(workspace)),
        numbers(reinterpret_cast<int32_t*>(values + parts * results)),
        results(results) {}

  static int64_t bytes(int64_t parts, int64_t results) {
    return (parts * results * int64_t(sizeof(typename State::Acc) + (State::kIndices ? sizeof(int32_t) : 0)) + 7) / 8 * 8;
  }
  __device__ __forceinline__ void put(int64_t part, int64_t result, const State& state) const {
    values[part * results + result] = state.value;
    if constexpr (State::kIndices) numbers[part * results + result] = state.number;
  }
  __device__ __forceinline__ State get(int64_t part, int64_t result) const {
    State state;
    state.value = values[part * results + result];
    if constexpr (State::kIndices) state.number = numbers[part * results + result];
    return state;
  }
};

}  // namespace cnn::pool2d
