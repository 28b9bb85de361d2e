// Depthwise fprop and dgrad, channels_last: a window that slides down the image.
//
//   gather:   y[n, p, q, k]  = sum over r, s of  x[n, p * stride - pad + r * d, q * stride - pad + s * d, k / m] * w[k, r, s]
//   scatter:  dx[n, h, w, c] = sum over r, s with h = 2p - pad + r, w = 2q - pad + s  of  dy[n, p, q, c] * w[c, r, s]
//
// fprop is a gather; so is dgrad with stride 1, with the taps turned round and pad' = d * (k - 1) - pad. dgrad with stride 2 is the
// scatter.
//
//              columns of a unit: strips of kColumns outputs, one per thread
//            +-----------+-----------+---
//   row t    | x x x x   | x x x x   |      each input row comes once into shared memory (channels_last_rows.cuh) ...
//            +-----------+-----------+---
//                  | each pixel once into registers, times the k taps of each of its columns
//                  v
//   sums  a  |  row of results with 1 tap row done   ... and is added to all rows of results it takes part in: k of them (scatter and
//         b  |  with 2 done                          stride 1), (k + 1) / 2 (gather with stride 2). Then the oldest are complete: they
//         c  |  with 3 done: written                 are written, and the sums move up.
//
// The move costs nothing: the first multiply-add of a sum reads its predecessor, sum[a] = x * w + sum[a + 1]. So a step has the same
// registers as the one before, and is written once. Weights of a thread's V channels, k * k * V, stay in registers.
//
// Bytes per output: the input once per unit and (slab + k - 1) / slab of its rows, the output once. Shared memory: one write of a chunk,
// (kColumns + k - 1) / kColumns reads. FMAs: k * k per output (a quarter of it in the scatter).
#pragma once

#include <cstdint>

#include "conv2d/depthwise/channels_last_rows.cuh"

namespace cnn::conv2d::channels_last {

// V channels and kColumns output columns to a thread; kWidth columns of the image to a strip.
template <int K_, int kStride_, int V_, int kColumns_>
struct Gather {
  static constexpr bool kScatter = false;
  static constexpr int K = K_, kStride = kStride_, V = V_, kColumns = kColumns_;
  static constexpr int kInPerLine = kStride, kOutPerLine = 1;
  static constexpr int kLines = (K + kStride - 1) / kStride;  // of results that an input row takes part in
  static constexpr int kSums = kLines, kDone = 1;             // rows of sums, and how many of them a step completes
  static constexpr int kStrip = kColumns * kStride, kHalo = K - kStride;
  static constexpr int kLinesOfStrip = kColumns;

  // The tap of input pixel i in output column c; the tap row of the step's input row e in the row of sums a. Out of 0 ... K - 1: none.
  __device__ static constexpr int tap_column(int i, int c) { return i - c * kStride; }
  __device__ static constexpr int tap_row(int e, int a) { return kStride * (kLines - 1 - a) + e; }
  // Whether it is the step's first tap of its sum.
  __device__ static constexpr bool is_first(int e, int s) { return e == 0 && s == 0; }
};

template <int K_, int V_, int kColumns_>
struct Scatter {
  static constexpr bool kScatter = true;
  static constexpr int K = K_, kStride = 2, V = V_, kColumns = kColumns_;
  static constexpr int kInPerLine = 1, kOutPerLine = 2;
  static constexpr int kLines = (K + 1) / 2;
  static constexpr int kSums = K, kDone = 2;
  static constexpr int kStrip = kColumns / 2, kHalo = kLines - 1;
  static constexpr int kLinesOfStrip = kColumns / 2;

  __device__ static constexpr int tap_column(int i, int c) { return c - 2 * (i - kHalo); }
  __device__ static constexpr int tap_row(int, int a) { return a; }
  __device__ static constexpr bool is_first(int, int s) { return s + 2 >= K; }
};

// Steps whose rows are in shared memory or on their way: so many that a thread has some 192 bytes in flight, 48 KB with 256 threads on a
// multiprocessor. H200: 4.3 TB/s times a latency of 0.7 us are 23 KB on each.
template <class T, class Step>
CNN_HOST_DEVICE constexpr int stages_of_slide() {
  const int step_bytes = Step::kStrip * Step::kInPerLine * Step::V * int(sizeof(T));
  const int stages = 1 + (192 + step_bytes - 1) / step_bytes;
  return stages < 3 ? 3 : stages > 8 ? 8 : stages;
}

struct SlideParams {
  Grid grid;
  Axis h, w;
  Image in;
  RowLayout layout;
  const void* filter;
  Epilogue epilogue;
  void* out;
  int filter_k, filter_r, filter_s;
  int out_n, out_h, out_w;
  int store_bytes;  // widest access that the output's addresses and strides allow
  int rows;         // of the input that a unit needs
  int ring_bytes;   // offset of the rings in shared memory, behind weights, factors and offsets
  int unit_bytes;   // of one unit's ring
  bool turned;      // taps in reverse order
};

// Weights of the block's channels in shared memory: as they lie in a dense filter, [channel][tap], or all of it in reverse. A thread reads
// its V * K * K in vectors if whole phases of a warp have different channels: neighbouring threads then find theirs an odd number of
// vectors apart. If not, the threads of one phase that begin another strip would meet the others' banks, and it reads word by word, an odd
// number of words from its neighbours. Where the number is even, a vector or a word is left out between threads.
template <class Step>
struct WeightLayout {
  static constexpr int kOfThread = Step::V * Step::K * Step::K;
  static constexpr int kVector = kOfThread % 4 == 0 ? 4 : 2;

  CNN_HOST_DEVICE static constexpr bool in_vectors(int vectors) { return vectors % (32 / kVector) == 0; }
  CNN_HOST_DEVICE static constexpr int gap(int vectors) {
    const int unit = in_vectors(vectors) ? kVector : 1;
    return kOfThread / unit % 2 ? 0 : unit;
  }
};

// Of a block with so many threads along the channels.
template <class Step>
CNN_HOST_DEVICE constexpr int weight_floats(int vectors) {
  return vectors * (WeightLayout<Step>::kOfThread + WeightLayout<Step>::gap(vectors));
}

template <class T, class Step>
__device__ __forceinline__ void stage_weights(const SlideParams& p, float* weights, float* factor, int channel, int channels) {
  constexpr int K = Step::K, kTaps = K * K, kOfThread = WeightLayout<Step>::kOfThread;
  const int gap = WeightLayout<Step>::gap(int(blockDim.x));
  const int thread = int((threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x);
  const int threads = int(blockDim.x * blockDim.y * blockDim.z), all = channels * kTaps;
  const T* const filter = static_cast<const T*>(p.filter) + channel * p.filter_k;
  // Warps begin at multiples of 32 bytes: a dense filter's sectors are read once each.
  const int lead = int(reinterpret_cast<std::uintptr_t>(filter) % 32 / sizeof(T));
  for (int e = thread - lead; e < all; e += threads) {
    if (e < 0) continue;
    const int c = e / kTaps, tap = e % kTaps;
    const bool exists = channel + c < p.grid.channels;
    const int to = p.turned ? all - 1 - e : e;
    weights[to + to / kOfThread * gap] =
        exists ? widen(__ldg(filter + c * p.filter_k + tap / K * p.filter_r + tap % K * p.filter_s)) : 0.0f;
  }
  if (!p.epilogue.has_channels()) return;
  for (int c = thread; c < channels; c += threads) {
    const PerChannel<T> z = per_channel<T>(p.epilogue, min(channel + c, p.grid.channels - 1));
    factor[c] = z.factor, factor[channels + c] = z.offset;
  }
}

// weight[tap][v] of a thread. In reverse its last channel comes first; the taps are to be in reverse.
template <class Step, int kVector, bool kTurned>
__device__ __forceinline__ void read_weights(const float* weights, float (&weight)[Step::K * Step::K][Step::V]) {
  constexpr int kTaps = Step::K * Step::K, V = Step::V;
  const int place = kTurned ? int(blockDim.x) - 1 - int(threadIdx.x) : int(threadIdx.x);
  const float* const mine = weights + place * (V * kTaps + WeightLayout<Step>::gap(int(blockDim.x)));
  CNN_UNROLL
  for (int i = 0; i < V * kTaps; i += kVector) {
    const Vector<float, kVector> some = load_vector<kVector>(mine + i);
    CNN_UNROLL
    for (int j = 0; j < kVector; ++j) {
      const int v = (i + j) / kTaps;
      weight[(i + j) % kTaps][kTurned ? V - 1 - v : v] = some.value[j];
    }
  }
}

template <class Step>
__device__ __forceinline__ void read_weights(const float* weights, bool turned, float (&weight)[Step::K * Step::K][Step::V]) {
  constexpr int kVector = WeightLayout<Step>::kVector;
  if (WeightLayout<Step>::in_vectors(int(blockDim.x))) {
    if (turned) read_weights<Step, kVector, true>(weights, weight);
    else read_weights<Step, kVector, false>(weights, weight);
  } else {
    if (turned) read_weights<Step, 1, true>(weights, weight);
    else read_weights<Step, 1, false>(weights, weight);
  }
}

// Adds row e of a step to the sums.
template <int e, class Step, class Reader>
__device__ __forceinline__ void add_row(Reader pixels, const float (&weight)[Step::K * Step::K][Step::V],
                                        float (&sum)[Step::kSums][Step::kColumns][Step::V]) {
  CNN_UNROLL
  for (int i = 0; i < Step::kStrip + Step::kHalo; ++i) {
    float x[Step::V];
    pixels.read(i, x);
    CNN_UNROLL
    for (int c = 0; c < Step::kColumns; ++c) {
      const int s = Step::tap_column(i, c);
      if (s < 0 || s >= Step::K) continue;
      CNN_UNROLL
      for (int a = 0; a < Step::kSums; ++a) {
        const int r = Step::tap_row(e, a);
        if (r >= Step::K) continue;
        CNN_UNROLL
        for (int v = 0; v < Step::V; ++v) {
          const float before = !Step::is_first(e, s) ? sum[a][c][v] : a + Step::kDone < Step::kSums ? sum[a + Step::kDone][c][v] : 0.0f;
          sum[a][c][v] = x[v] * weight[r * Step::K + s][v] + before;
        }
      }
    }
  }
}

// On a multiprocessor: 3x3 in fp32 needs 128 registers, of which ptxas would take two more.
template <class Step>
constexpr int kSlideBlocks = Step::K == 3 && Step::V == 4 ? 4 : 2;

template <class T, class Step>
__global__ void __launch_bounds__(kThreads, kSlideBlocks<Step>) slide_kernel(const SlideParams p) {
  constexpr int V = Step::V, K = Step::K, kStages = stages_of_slide<T, Step>(), kRows = Step::kInPerLine;
  CNN_DYNAMIC_SHARED(shared, unsigned char);
  int channel_block;
  const int unit = p.grid.channel_blocks.divmod(int(blockIdx.x), channel_block) * int(blockDim.z) + int(threadIdx.z);
  const int channels = p.grid.chunks * (kChunkBytes / int(sizeof(T)));  // of the block
  const int channel = channel_block * channels;
  float* const weights = reinterpret_cast<float*>(shared);
  float *const factor = weights + weight_floats<Step>(int(blockDim.x)), *const offset = factor + channels;  // epilogue.cuh
  unsigned char* const ring = shared + p.ring_bytes + int(threadIdx.z) * p.unit_bytes;
  const int row_bytes = p.layout.row_pitch * kChunkBytes;

  const bool active = unit < p.grid.units;
  const Unit at = locate_unit<Step::kInPerLine, Step::kOutPerLine>(p.h, p.w, active ? unit : 0);
  const int steps = p.h.lines + Step::kLines - 1;
  const RowLoader<T, Step::kStrip> loader(p.in, p.grid);
  const T* const image = static_cast<const T*>(p.in.data) + at.n * p.in.n;

  int fill = 0;  // slot of the ring that is filled next
  const auto bring = [&](int step) {
    if (step < steps) {
      CNN_UNROLL
      for (int e = 0; e < kRows; ++e) {
        const int t = step * kRows + e, row = at.in_row + t * p.h.in_step;
        const bool exists = active && t < p.rows && unsigned(row) < unsigned(p.h.in_extent);
        loader.load(ring + (fill * kRows + e) * row_bytes, p.layout, p.in, p.w, p.grid, image + (exists ? row * p.in.h : 0), exists,
                    at.in_column, channel);
      }
    }
    fill = fill + 1 < kStages ? fill + 1 : 0;
    commit_async();
  };
  for (int step = 0; step < kStages - 1; ++step) bring(step);

  stage_weights<T, Step>(p, weights, factor, channel, channels);
  __syncthreads();
  float weight[K * K][V];
  read_weights<Step>(weights, p.turned, weight);

  float sum[Step::kSums][Step::kColumns][V];
  CNN_UNROLL
  for (int a = 0; a < Step::kSums; ++a) {
    CNN_UNROLL
    for (int c = 0; c < Step::kColumns; ++c) {
      CNN_UNROLL
      for (int v = 0; v < V; ++v) sum[a][c][v] = 0.0f;
    }
  }

  const int thread_channel = channel + int(threadIdx.x) * V;
  const int left = p.grid.channels - thread_channel;
  const int first_column = at.out_column + int(threadIdx.y) * Step::kColumns * p.w.out_step;
  T* const out = static_cast<T*>(p.out) + at.n * p.out_n + thread_channel;
  int slot = 0;
  for (int step = 0; step < steps; ++step) {
    wait_async<kStages - 2>();
    __syncthreads();  // the step's rows are there for everybody, and everybody is done with those of the step before
    bring(step + kStages - 1);

    const unsigned char* const rows = ring + slot * kRows * row_bytes;
    slot = slot + 1 < kStages ? slot + 1 : 0;
    using Reader = PixelReader<T, V, Step::kStrip>;
    add_row<0, Step>(Reader(rows, p.layout, p.grid), weight, sum);
    if constexpr (kRows == 2) add_row<1, Step>(Reader(rows + row_bytes, p.layout, p.grid), weight, sum);

    const int line = step - (Step::kLines - 1);
    if (line < 0 || !active || left <= 0) continue;
    CNN_UNROLL
    for (int f = 0; f < Step::kDone; ++f) {
      const int row = at.out_row + (line * Step::kOutPerLine + f) * p.h.out_step;
      if (unsigned(row) >= unsigned(p.h.out_extent)) continue;
      CNN_UNROLL
      for (int c = 0; c < Step::kColumns; ++c) {
        const int column = first_column + c * p.w.out_step;
        if (unsigned(column) >= unsigned(p.w.out_extent)) continue;
        float result[V];
        CNN_UNROLL
        for (int v = 0; v < V; ++v) result[v] = sum[f][c][v];
        if (p.epilogue.has_channels()) {
          CNN_UNROLL
          for (int v = 0; v < V; ++v) result[v] = result[v] * factor[int(threadIdx.x) * V + v] + offset[int(threadIdx.x) * V + v];
        }
        store_pixel<V>(p.epilogue, out + row * p.out_h + column * p.out_w, result, left, p.store_bytes);
      }
    }
  }
}

}  // namespace cnn::conv2d::channels_last
