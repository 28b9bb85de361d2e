// Depthwise wgrad, channels_last: x and dy are read once.
//
//   dw[k, r, s] = sum over n, p, q of  dy[n, p, q, k] * x[n, p * stride - pad + r * d, q * stride - pad + s * d, k / m]
//
//              columns of a unit: strips of kColumns outputs, one per thread
//            +-----------+-----------+---
//   x row    | x x x x x | x x x x x |      each row of x once into registers ...
//            +-----------+-----------+---
//   dy rows  | y y y y   | y y y y   |   k  ... with each of the k rows of dy that it meets (k / 2 with stride 2): a thread's k * k * V
//            | y y y y   | y y y y   |      sums stay in registers
//            | y y y y   | y y y y   |
//            +-----------+-----------+---
//
// Rows of both come into shared memory as in channels_last_rows.cuh; those of dy stay there for as long as rows of x come that they meet.
// (The other way round, k rows of x to one of dy, the halo would be read k times.) A block goes through several units; then its strips
// and its units' groups are added in order, a row of taps at a time, and the block's sums are written as partial[slab][tap][k], along k.
// sum_slabs adds the slabs. A single slab's sums are written to dw, along the taps of one channel after the other.
//
// Bytes: x (slab + k - stride) / slab times, dy once, and 8 * k * k * K per slab. Shared memory, for each pixel of dy: one write each of x
// and dy, k reads of dy, and stride * (kColumns * stride + k - stride) / kColumns of x. FMAs: k * k per element of dy.
#pragma once

#include "conv2d/depthwise/channels_last_rows.cuh"

namespace cnn::conv2d::channels_last {

template <int K_, int kStride_, int V_, int kColumns_>
struct Correlate {
  static constexpr int K = K_, kStride = kStride_, V = V_, kColumns = kColumns_;
  static constexpr int kLines = (K + kStride - 1) / kStride;  // steps that a row of dy stays
  static constexpr int kStrip = kColumns * kStride, kHalo = K - kStride;
};

// As stages_of_slide, for both tensors.
template <class T, class Step>
CNN_HOST_DEVICE constexpr int stages_of_wgrad() {
  const int step_bytes = (Step::kStrip * Step::kStride + Step::kColumns) * Step::V * int(sizeof(T));
  const int stages = 1 + (192 + step_bytes - 1) / step_bytes;
  return stages < 3 ? 3 : stages > 8 ? 8 : stages;
}

struct WgradParams {
  Grid grid;
  Axis h, w;
  Image x, y;
  RowLayout x_layout, y_layout;
  int rows;            // of x that a unit needs
  int units_of_group;  // that a group of threads goes through
  int unit_bytes;      // of one group's rings
  FastDiv<int32_t> block_channels;
  int tap_gap;     // words of shared memory between the sums of two taps
  int whole;       // offset of the block's dw in shared memory, behind a row of taps' sums, in words
  float* partial;  // or null: one slab, written to out
  void* out;
  int filter_k, filter_r, filter_s;
};

// The rows of one step: into which unit, and which of its steps.
struct Cursor {
  int unit, step;

  __device__ __forceinline__ void advance(int steps) {
    if (++step == steps) step = 0, ++unit;
  }
};

template <class T, class Step>
__global__ void __launch_bounds__(kThreads, 2) wgrad_kernel(const WgradParams p) {
  constexpr int V = Step::V, K = Step::K, kStages = stages_of_wgrad<T, Step>(), kRows = Step::kStride;
  constexpr int kRing = kStages + Step::kLines - 1;  // rows of dy
  CNN_DYNAMIC_SHARED(shared, unsigned char);
  int channel_block;
  const int slab = p.grid.channel_blocks.divmod(int(blockIdx.x), channel_block);
  const int channels = p.grid.chunks * (kChunkBytes / int(sizeof(T)));  // of the block
  const int channel = channel_block * channels;
  const int x_row_bytes = p.x_layout.row_pitch * kChunkBytes, y_row_bytes = p.y_layout.row_pitch * kChunkBytes;
  unsigned char* const x_ring = shared + int(threadIdx.z) * p.unit_bytes;
  unsigned char* const y_ring = x_ring + kStages * kRows * x_row_bytes;

  const int steps = p.h.lines + Step::kLines - 1, all_steps = steps * p.units_of_group;
  const int first_unit = (slab * int(blockDim.z) + int(threadIdx.z)) * p.units_of_group;
  const RowLoader<T, Step::kStrip> x_loader(p.x, p.grid);
  const RowLoader<T, Step::kColumns> y_loader(p.y, p.grid);
  Grid y_grid = p.grid;
  y_grid.multiplier = FastDiv<int32_t>(1);
  Axis y_columns = p.w;
  y_columns.in_extent = p.w.out_extent, y_columns.in_step = p.w.out_step;

  Cursor coming{first_unit, 0};
  Unit at{};
  int x_fill = 0, y_fill = 0;
  const auto bring = [&](int step) {
    if (step < all_steps) {
      const bool active = coming.unit < p.grid.units;
      if (coming.step == 0) at = locate_unit<Step::kStride, 1>(p.h, p.w, active ? coming.unit : 0);
      CNN_UNROLL
      for (int e = 0; e < kRows; ++e) {
        const int t = coming.step * kRows + e, row = at.in_row + t * p.h.in_step;
        const bool exists = active && t < p.rows && unsigned(row) < unsigned(p.h.in_extent);
        x_loader.load(x_ring + (x_fill * kRows + e) * x_row_bytes, p.x_layout, p.x, p.w, p.grid,
                      static_cast<const T*>(p.x.data) + (exists ? at.n * p.x.n + row * p.x.h : 0), exists, at.in_column, channel);
      }
      if (coming.step < p.h.lines) {
        const int row = at.out_row + coming.step * p.h.out_step;
        const bool exists = active && row < p.h.out_extent;
        y_loader.load(y_ring + y_fill * y_row_bytes, p.y_layout, p.y, y_columns, y_grid,
                      static_cast<const T*>(p.y.data) + (exists ? at.n * p.y.n + row * p.y.h : 0), exists, at.out_column, channel);
      }
      coming.advance(steps);
    }
    x_fill = x_fill + 1 < kStages ? x_fill + 1 : 0;
    y_fill = y_fill + 1 < kRing ? y_fill + 1 : 0;
    commit_async();
  };
  for (int step = 0; step < kStages - 1; ++step) bring(step);

  float sum[K][K][V];
  CNN_UNROLL
  for (int r = 0; r < K; ++r) {
    CNN_UNROLL
    for (int s = 0; s < K; ++s) {
      CNN_UNROLL
      for (int v = 0; v < V; ++v) sum[r][s][v] = 0.0f;
    }
  }

  int x_slot = 0, y_slot = 0, step_of_unit = 0;
  for (int step = 0; step < all_steps; ++step) {
    wait_async<kStages - 2>();
    __syncthreads();  // the step's rows are there for everybody, and everybody is done with those that are overwritten next
    bring(step + kStages - 1);

    CNN_UNROLL
    for (int e = 0; e < kRows; ++e) {
      constexpr int kPixels = Step::kStrip + Step::kHalo;
      float x[kPixels][V];
      PixelReader<T, V, Step::kStrip> x_pixels(x_ring + (x_slot * kRows + e) * x_row_bytes, p.x_layout, p.grid);
      CNN_UNROLL
      for (int i = 0; i < kPixels; ++i) x_pixels.read(i, x[i]);
      CNN_UNROLL
      for (int r = e; r < K; r += kRows) {
        const int back = r / kRows;                                          // steps since the row of dy came
        if (unsigned(step_of_unit - back) >= unsigned(p.h.lines)) continue;  // before the unit's first row, or behind its last one
        const int slot = y_slot >= back ? y_slot - back : y_slot - back + kRing;
        PixelReader<T, V, Step::kColumns> y_pixels(y_ring + slot * y_row_bytes, p.y_layout, p.grid);
        CNN_UNROLL
        for (int c = 0; c < Step::kColumns; ++c) {
          float y[V];
          y_pixels.read(c, y);
          CNN_UNROLL
          for (int s = 0; s < K; ++s) {
            CNN_UNROLL
            for (int v = 0; v < V; ++v) sum[r][s][v] += x[c * Step::kStride + s][v] * y[v];
          }
        }
      }
    }
    step_of_unit = step_of_unit + 1 < steps ? step_of_unit + 1 : 0;
    x_slot = x_slot + 1 < kStages ? x_slot + 1 : 0;
    y_slot = y_slot + 1 < kRing ? y_slot + 1 : 0;
  }

  // A row of taps of every thread: [tap][group and strip][channel]. Threads are V words apart, so that every 32 / V of them begin with
  // another of their words: sum v lies at v ^ order. Read along the channels, 32 words remain 32 words. Between taps lie as many words as
  // make the next tap's channels follow in the next banks.
  const int thread_row = int(threadIdx.z * blockDim.y + threadIdx.y), thread_rows = int(blockDim.z * blockDim.y);
  const int vectors = int(blockDim.x), threads = thread_rows * vectors, thread = thread_row * vectors + int(threadIdx.x);
  const int order = thread / (32 / V) % V, tap_pitch = threads * V + p.tap_gap;
  float* const sums = reinterpret_cast<float*>(shared);
  CNN_UNROLL
  for (int r = 0; r < K; ++r) {
    __syncthreads();
    CNN_UNROLL
    for (int s = 0; s < K; ++s) {
      CNN_UNROLL
      for (int v = 0; v < V; ++v) sums[s * tap_pitch + thread * V + (v ^ order)] = sum[r][s][v];
    }
    __syncthreads();
    for (int e = thread; e < K * channels; e += threads) {
      int c;
      const int s = p.block_channels.divmod(e, c), k = channel + c;
      const float* const from = sums + s * tap_pitch;
      float total = 0.0f;
      for (int row = 0; row < thread_rows; ++row) {
        const int writer = row * vectors + c / V;
        total += from[writer * V + (c % V ^ writer / (32 / V) % V)];
      }
      if (!p.partial) sums[p.whole + c * K * K + r * K + s] = total;  // lanes are K * K words apart, an odd number
      else if (k < p.grid.channels) p.partial[(slab * K * K + r * K + s) * p.grid.channels + k] = total;
    }
  }
  if (p.partial) return;
  __syncthreads();
  for (int e = thread; e < min(channels, p.grid.channels - channel) * K * K; e += threads) {
    const int k = channel + e / (K * K), tap = e % (K * K);
    static_cast<T*>(p.out)[k * p.filter_k + tap / K * p.filter_r + tap % K * p.filter_s] = narrow<T>(sums[p.whole + e]);
  }
}

}  // namespace cnn::conv2d::channels_last
