// Depthwise convolution of NCHW planes, wgrad.
//
//   dw[k, r, s] = sum over n, p, q of  dy[n, k, p, q] * x[n, k / m, p * stride - pad + r * dilation, (alike)]      m = K / C
//
// A block has some filters and a slab of images (or of bands of their rows), which it goes through one after the other. Its threads lie
// over a plane as in planar_gather.cuh, with the roles exchanged: a thread holds the 7 x 7 values of dy at its positions and one sum per
// tap, and slides down the rows of its window of x. x and dy are read once, while the image before is being summed:
//
//   load     runs of x and dy of the next image -> shared memory, cp.async of 16 bytes; halves are widened from there
//   compute  registers: 49 values of dy, taps^2 sums, one row of the window
//   reduce   sums -> shared memory -> the block's sum of each tap, in a fixed order -> partial [slab][k][r][s] -> sum_slabs
//
// Per pixel of dy, 3x3 stride 1: 9 FMAs, 1.7 + 1 reads of shared memory. Global memory: x and dy once, taps^2 floats per filter and slab.
#pragma once

#include "common/launch.h"
#include "common/recompute.h"
#include "conv2d/depthwise/planar_gather.cuh"

namespace cnn::conv2d {

struct PlanarWgradParams {
  const void *x, *y;
  void* dw;
  float* partial;  // [slabs][K][r][s]; null: one slab, written to dw
  Planes x_planes, y_planes;
  Skew x_skew, y_skew;  // stride 2
  int dw_k, dw_r, dw_s;
  int filters, multiplier;     // K, K / C
  int planes;                  // filters of a block
  FastDiv<int> filter_blocks;  // K in parts of `planes`
  FastDiv<int> bands;          // of a plane
  int band_rows, in_rows;      // positions of a band; rows of x that they see
  int units, slab_units;       // bands of all images; of a slab
  FastDiv<int> plane_threads, strips;
  PlanarAxis h, w;
  bool even;
  int x_values, y_values;  // elements of shared memory for a run of x, of y
  int readers;             // threads that add the sums of one tap
};

// sums += dy * window, tap by tap. `rows` is where row 0, column 0 of the thread's window would lie in shared memory.
template <int kTaps, class Window>
__device__ CNN_INNER_LOOP void add_products(float (&sums)[kTaps * kTaps], const float* rows, const float (&dy)[Window::kRows][kPlanarTile],
                                            int first_row, int height, int row_dilation, int row_pitch, int skew, bool even,
                                            int first_column, int width, int dilation) {
  constexpr int kStride = Window::kStride;
  CNN_UNROLL
  for (int i = 0; i < Window::kInRows; ++i) {
    if (unsigned(first_row + i * row_dilation) >= unsigned(height)) continue;  // in the padding
    float x[Window::kInColumns];
    const int left_out = Window::kSkewed ? i / Window::kGroupRows * skew : 0;
    read_window_row<Window>(x, rows + i * row_pitch + left_out, even, first_column, width, dilation);
    CNN_UNROLL
    for (int r = 0; r < kTaps; ++r) {  // row i is tap r of position (i - r) / kStride
      if ((i - r) % kStride != 0 || i < r || (i - r) / kStride >= Window::kRows) continue;
      CNN_UNROLL
      for (int s = 0; s < kTaps; ++s) {
        CNN_UNROLL
        for (int c = 0; c < kPlanarTile; ++c) sums[r * kTaps + s] += dy[(i - r) / kStride][c] * x[c * kStride + s];
      }
    }
  }
}

template <class T, int kTaps, int kStride>
__global__ void __launch_bounds__(planar_max_threads(kTaps), planar_least_blocks(kTaps)) planar_wgrad_kernel(const PlanarWgradParams p) {
  using Window = PlanarWindow<kTaps, kStride == 1 ? PlanarGather::kStride1 : PlanarGather::kStride2>;
  constexpr int kFilter = kTaps * kTaps;
  constexpr bool kNarrow = sizeof(T) < sizeof(float);
  CNN_DYNAMIC_SHARED(shared, float);
  // Runs of x and y, and what lands while they are read. Floats are read where they landed, so that the two change places.
  float* values = shared;
  T* landing = reinterpret_cast<T*>(shared + p.x_values + p.y_values);
  const int thread = int(threadIdx.x);

  int filter_block;
  const int slab = p.filter_blocks.divmod(int(blockIdx.x), filter_block);
  const int first_filter = filter_block * p.planes, planes = min(p.planes, p.filters - first_filter);
  const int first_unit = slab * p.slab_units, last_unit = min(first_unit + p.slab_units, p.units);

  // The positions of a thread, in the band. Worked out for each unit, so that they take no registers from the sums.
  struct Positions {
    int plane, group, band_row, column;
  };
  const auto positions_of = [&](int index) {
    int in_plane, strip;
    const int at_plane = p.plane_threads.divmod(index, in_plane), at_group = p.strips.divmod(in_plane, strip);
    return Positions{at_plane, at_group, p.h.first<Window::kRows>(at_group), p.w.first<kPlanarTile>(strip)};
  };

  struct Runs {
    Run<const T> x, y;
    int n, first_position;
    SkewedRun<Window::kGroupRows> x_place;
    SkewedRun<Window::kRows> y_place;
  };
  const auto runs_of = [&](int unit) {
    int band;
    const int n = p.bands.divmod(unit, band), first_position = band * p.band_rows;
    const int first_in = first_position * kStride - p.h.pad;
    const bool whole = p.bands.divisor == 1;
    const int top = whole ? 0 : max(0, first_in), bottom = whole ? p.x_planes.height : min(p.x_planes.height, first_in + p.in_rows);
    const int last_position = min(p.y_planes.height, first_position + p.band_rows);
    const T* const x = static_cast<const T*>(p.x) + n * p.x_planes.n + first_filter / p.multiplier * p.x_planes.c;
    const T* const y = static_cast<const T*>(p.y) + n * p.y_planes.n + first_filter * p.y_planes.c;
    const Run<const T> x_run{x + top * p.x_planes.h, planes, top, max(0, bottom - top), p.x_planes.width};
    const Run<const T> y_run{y + first_position * p.y_planes.h, planes, first_position, last_position - first_position, p.y_planes.width};
    return Runs{x_run,
                y_run,
                n,
                first_position,
                {p.x_skew, p.x_planes.in_runs ? x_run.lead() : 0, top - first_in},
                {p.y_skew, p.y_planes.in_runs ? y_run.lead() : 0, 0}};
  };
  const auto load = [&](const Run<const T>& run, const Planes& tensor, T* to, int multiplier, const auto& place) {
    constexpr bool kToPlace = Window::kSkewed && !kNarrow;
    if (tensor.in_runs) {
      if constexpr (kToPlace) copy_run_skewed(to, run, place);
      else copy_run(to, run);
    } else {
      const T* const first = run.first - first_filter / multiplier * tensor.c;
      for_each_element(run, [&](int e, int plane_here, int h, int w) {
        to[kToPlace ? place.at(e) : e] = __ldg(first + (first_filter + plane_here) / multiplier * tensor.c + h * tensor.h + w);
      });
    }
  };
  const auto load_unit = [&](int unit) {
    if (unit < last_unit) {
      const Runs runs = runs_of(unit);
      load(runs.x, p.x_planes, landing, p.multiplier, runs.x_place);
      load(runs.y, p.y_planes, landing + p.x_values, 1, runs.y_place);
    }
    commit_async();
  };

  float sums[kFilter];
  CNN_UNROLL
  for (int tap = 0; tap < kFilter; ++tap) sums[tap] = 0;

  load_unit(first_unit);
  for (int unit = first_unit; unit < last_unit; ++unit) {
    const Runs runs = runs_of(unit);
    const int x_lead = runs.x_place.lead, y_lead = runs.y_place.lead;
    wait_async<0>();
    __syncthreads();  // the unit has landed, and nobody reads the one before any more
    if constexpr (kNarrow) {
      if constexpr (Window::kSkewed) {
        place_run(values, landing, runs.x.count(), runs.x_place);
        place_run(values + p.x_values, landing + p.x_values, runs.y.count(), runs.y_place);
      } else {
        widen_run(values, landing, x_lead, x_lead + runs.x.count());
        widen_run(values + p.x_values, landing + p.x_values, y_lead, y_lead + runs.y.count());
      }
      __syncthreads();
    } else {
      T* const landed = landing;
      landing = values;
      values = landed;
    }
    load_unit(unit + 1);

    const auto [plane, group, band_row, column] = positions_of(recompute(thread));
    if (plane < planes) {
      const int in_column = column * kStride - p.w.pad;
      float dy[Window::kRows][kPlanarTile];
      const int y_left_out = Window::kSkewed ? plane * p.y_skew.plane + group * p.y_skew.group : 0;
      const int x_left_out = Window::kSkewed ? plane * p.x_skew.plane + group * p.x_skew.group : 0;
      const float* const dy_rows = values + p.x_values + y_lead + (plane * runs.y.rows + band_row) * runs.y.width + column + y_left_out;
      CNN_UNROLL
      for (int i = 0; i < Window::kRows; ++i) {
        const bool row_there = band_row + i * p.h.dilation < runs.y.rows;
        CNN_UNROLL
        for (int c = 0; c < kPlanarTile; ++c)
          dy[i][c] =
              row_there && column + c * p.w.dilation < runs.y.width ? dy_rows[i * p.h.dilation * runs.y.width + c * p.w.dilation] : 0.f;
      }
      const int in_row = (runs.first_position + band_row) * kStride - p.h.pad;
      const float* const x_rows =
          values + x_lead + (plane * runs.x.rows + in_row - runs.x.first_row) * runs.x.width + in_column + x_left_out;
      add_products<kTaps, Window>(sums, x_rows, dy, in_row, p.x_planes.height, p.h.dilation, p.h.dilation * runs.x.width, p.x_skew.group,
                                  p.even && (kStride == 1 || x_lead % 2 == 0), in_column, runs.x.width, p.w.dilation);
    }
  }

  // Reduce: `readers` threads add every readers-th thread's sum of a tap, then one adds theirs. Both read consecutive words.
  const int plane_threads = p.plane_threads.divisor, results = planes * kFilter;
  float* const all = shared;                                // [thread][tap]: an odd number of words from one thread to the next
  float* const parts = shared + int(blockDim.x) * kFilter;  // [plane][reader][tap]
  __syncthreads();
  if (positions_of(recompute(thread)).plane < planes) {
    CNN_UNROLL
    for (int tap = 0; tap < kFilter; ++tap) all[thread * kFilter + tap] = sums[tap];
  }
  __syncthreads();
  for (int e = thread; e < results * p.readers; e += int(blockDim.x)) {
    const int reader = e / kFilter % p.readers, plane_here = e / kFilter / p.readers;
    float sum = 0;
    for (int i = reader; i < plane_threads; i += p.readers) sum += all[(plane_here * plane_threads + i) * kFilter + e % kFilter];
    parts[e] = sum;
  }
  __syncthreads();
  for (int e = thread; e < results; e += int(blockDim.x)) {
    const int tap = e % kFilter, plane_here = e / kFilter;
    float sum = 0;
    for (int reader = 0; reader < p.readers; ++reader) sum += parts[(plane_here * p.readers + reader) * kFilter + tap];
    if (p.partial) {
      p.partial[(slab * p.filters + first_filter) * kFilter + e] = sum;
    } else {
      static_cast<T*>(p.dw)[(first_filter + plane_here) * p.dw_k + tap / kTaps * p.dw_r + tap % kTaps * p.dw_s] = narrow<T>(sum);
    }
  }
}

}  // namespace cnn::conv2d
