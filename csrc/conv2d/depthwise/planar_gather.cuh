// Depthwise convolution of NCHW planes, fprop and dgrad.
//
//   fprop            y[n, k, p, q] = sum over r, s of  x[n, k / m, p * stride - pad + r * dilation, (alike)] * w[k, r, s]      m = K / C
//   dgrad, stride 1  the same of dy, with the taps in reverse, pad = dilation * (taps - 1) - pad, and summed over a channel's m filters
//   dgrad, stride 2  dx[2i + a, 2j + b] = sum of dy[i + .., j + ..] * w[r, s] over the r of one parity and the s of one
//
//        strip 0  1  2  3
//       +------+------+------+------+     A block has whole planes, or a band of rows of one; thread = 7 x 7 results (stride 2 dgrad: 2 x 7
//  group|      |      |      |      |     blocks of 2 x 2). It slides down the rows of its window: each row is read once from shared
//  memory,
//    0  |7 x 7 |      |      |      |     6 * stride + taps values, and multiplied into every result that it belongs to. Rows outside the
//       +------+------+------+------+     image are skipped.
//  group|      |      |      |      |
//    1  |      |      |      |      |     load     run of x -> shared memory, cp.async of 16 bytes (planar_planes.cuh); halves to fp32
//       +------+------+------+------+     compute  registers: 49 sums, taps^2 weights, one row of the window
//                                         store    sums -> shared memory (where x was) -> 16-byte stores
//
// Per result, 3x3 stride 1: 9 FMAs, (9 rows * 9)/49 = 1.7 reads of shared memory. Global memory: x once (a band's halo of (taps - 1) rows
// twice, 112 x 112 is one band), y once.
#pragma once

#include "common/launch.h"
#include "common/recompute.h"
#include "conv2d/depthwise/planar_planes.cuh"

namespace cnn::conv2d {

enum class PlanarGather { kStride1, kStride2, kStride2Dgrad };

struct PlanarGatherParams {
  const void *in, *filter;
  Epilogue epilogue;
  void* out;
  Planes in_planes, out_planes;
  Skew in_skew, out_skew;  // stride 2
  int filter_k, filter_r, filter_s;
  bool filters_in_runs;     // as in_planes
  FastDiv<int> channels;    // of out
  FastDiv<int> multiplier;  // K / C
  bool fprop;
  int total_planes, planes;  // of out; of a block
  FastDiv<int> bands;        // of a plane
  int band_rows, in_rows;    // positions of a band; rows of `in` that they see
  FastDiv<int> plane_threads, strips;
  PlanarAxis h, w;
  int origin_h, origin_w;   // stride-2 dgrad: the first block of 2 x 2 begins so far before the image, 0 or 1
  bool even;                // columns divide into strips of 7 and the padding is (taps - 1) / 2: which columns to skip is known beforehand
  int values, raw_filters;  // floats of shared memory for a run of in or out; elements of it for filters as they land
};

// What a thread computes: kRows x 7 positions, at each of which there are kOut x kOut results.
template <int kTaps, PlanarGather kMode>
struct PlanarWindow {
  static constexpr bool kDgrad2 = kMode == PlanarGather::kStride2Dgrad;
  static constexpr int kStride = kMode == PlanarGather::kStride2 ? 2 : 1;  // of positions over `in`
  static constexpr int kRows = kDgrad2 ? 2 : kPlanarTile, kOut = kDgrad2 ? 2 : 1;
  static constexpr int kTapsHere = kDgrad2 ? (kTaps + 1) / 2 : kTaps;  // of the window over `in`, along each axis
  static constexpr bool kSkewed = kMode != PlanarGather::kStride1;
  static constexpr int kGroupRows = kRows * kStride;  // of `in`, from one group of threads to the next
  static constexpr int kPad = (kTaps - 1) / 2, kParity = kPad % 2;
  // Columns before the image that the first window sees when the padding is kPad.
  static constexpr int kLeft = kDgrad2 ? kTapsHere - 1 - kParity - kPad / 2 : kPad;
  static constexpr int kInRows = (kRows - 1) * kStride + kTapsHere, kInColumns = (kPlanarTile - 1) * kStride + kTapsHere;

  // Which tap, if any, takes row j of a position's window to its results of parity a. With h' = h + pad = 2u + b, tap r = b + 2t reads row
  // u - t of dy. Position i, where 2i + kParity is its first h', has the window rows from i + kParity - (kTapsHere - 1) on.
  __device__ static constexpr __forceinline__ int tap(int a, int j) {
    if (!kDgrad2) return j;
    const int b = (kParity + a) % 2, u = (kParity + a) / 2;
    const int r = b + 2 * (u - kParity + kTapsHere - 1 - j);
    return r >= 0 && r < kTaps ? r : -1;
  }
};

// Reads one row of a thread's window. `row` is where its first column would be; columns outside [0, width) are zeros.
template <class Window>
__device__ __forceinline__ void read_window_row(float (&x)[Window::kInColumns], const float* row, bool even, int first_column, int width,
                                                int dilation) {
  constexpr int kColumns = Window::kInColumns, kLeft = Window::kLeft, kInside = kPlanarTile * Window::kStride;
  if (even) {
    // Only the first strip's window begins in the padding, and only the last one's ends there.
    const bool left = first_column >= 0, right = first_column + kLeft + kInside < width;
    if constexpr (Window::kStride == 1) {
      CNN_UNROLL
      for (int j = 0; j < kColumns; ++j) {
        const bool there = j < kLeft ? left : j < kLeft + kInside || right;
        x[j] = there ? row[j] : 0.f;
      }
    } else {
      // In pairs: lanes are 14 words apart, an even number, but an odd number of pairs.
      constexpr int kBefore = kLeft % 2;
      CNN_UNROLL
      for (int j = -kBefore; j < kColumns; j += 2) {
        const bool there = j < kLeft ? left : j < kLeft + kInside || right;
        Vector<float, 2> pair{{0.f, 0.f}};
        if (there) pair = load_vector<2>(row + j);
        if (j >= 0) x[j >= 0 ? j : 0] = pair.value[0];
        if (j + 1 < kColumns) x[j + 1 < kColumns ? j + 1 : 0] = pair.value[1];
      }
    }
  } else {
    CNN_UNROLL
    for (int j = 0; j < kColumns; ++j) x[j] = unsigned(first_column + j * dilation) < unsigned(width) ? row[j * dilation] : 0.f;
  }
}

// sums += window * taps. `rows` is where row 0, column 0 of the thread's window would lie in shared memory; behind each group's rows of it
// `skew` words are left out.
template <int kTaps, class Window>
__device__ CNN_INNER_LOOP void add_window(float (&sums)[Window::kRows * Window::kOut][kPlanarTile * Window::kOut], const float* rows,
                                          const float (&w)[kTaps * kTaps], int first_row, int height, int row_dilation, int row_pitch,
                                          int skew, bool even, int first_column, int width, int dilation) {
  constexpr int kOut = Window::kOut, kStride = Window::kStride, kTapsHere = Window::kTapsHere;
  CNN_UNROLL
  for (int i = 0; i < Window::kInRows; ++i) {
    if (unsigned(first_row + i * row_dilation) >= unsigned(height)) continue;  // in the padding
    float x[Window::kInColumns];
    const int left_out = Window::kSkewed ? i / Window::kGroupRows * skew : 0;
    read_window_row<Window>(x, rows + i * row_pitch + left_out, even, first_column, width, dilation);
    CNN_UNROLL
    for (int j = 0; j < kTapsHere; ++j) {  // row i is the j-th of position (i - j) / kStride
      if ((i - j) % kStride != 0 || i < j || (i - j) / kStride >= Window::kRows) continue;
      const int position = (i - j) / kStride;
      CNN_UNROLL
      for (int a = 0; a < kOut; ++a) {
        const int r = Window::tap(a, j);
        if (r < 0) continue;
        CNN_UNROLL
        for (int l = 0; l < kTapsHere; ++l) {
          CNN_UNROLL
          for (int b = 0; b < kOut; ++b) {
            const int s = Window::tap(b, l);
            if (s < 0) continue;
            CNN_UNROLL
            for (int c = 0; c < kPlanarTile; ++c) sums[position * kOut + a][c * kOut + b] += x[c * kStride + l] * w[r * kTaps + s];
          }
        }
      }
    }
  }
}

template <class T, int kTaps, PlanarGather kMode>
__global__ void __launch_bounds__(planar_max_threads(kTaps), planar_least_blocks(kTaps)) planar_gather_kernel(const PlanarGatherParams p) {
  using Window = PlanarWindow<kTaps, kMode>;
  constexpr int kFilter = kTaps * kTaps, kOut = Window::kOut;
  CNN_DYNAMIC_SHARED(values, float);         // a run of `in`, then one of `out`
  float* const weights = values + p.values;  // [plane][r][s]
  T* const raw_filters = reinterpret_cast<T*>(weights + (p.planes * kFilter + 3) / 4 * 4);
  T* const raw = raw_filters + p.raw_filters;  // a run of `in`, where T is not float
  const int thread = int(threadIdx.x);

  int band;
  const int first_plane = p.bands.divmod(int(blockIdx.x), band) * p.planes;
  const int planes = min(p.planes, p.total_planes - first_plane);
  const int first_position = band * p.band_rows;
  const bool whole = p.bands.divisor == 1;
  const int first_window = first_position * Window::kStride - p.h.pad;  // the first row of the first windows
  const int first_in = whole ? 0 : max(0, first_window);
  const int last_in = whole ? p.in_planes.height : min(p.in_planes.height, first_window + p.in_rows);

  // This thread's positions.
  struct Positions {
    int plane, group, row, column;
  };
  const auto positions_of = [&](int index) {
    int in_plane, strip;
    const int at_plane = p.plane_threads.divmod(index, in_plane), at_group = p.strips.divmod(in_plane, strip);
    return Positions{at_plane, at_group, first_position + p.h.first<Window::kRows>(at_group), p.w.first<kPlanarTile>(strip)};
  };

  // Where a plane of `out` reads: its j-th plane of `in`, which with the same number is its filter.
  const auto channel_of = [&](int out_plane, int j, int& n) {
    int c;
    n = p.channels.divmod(out_plane, c);
    return p.fprop ? c : c * p.multiplier.divisor + j;
  };
  const auto source = [&](int out_plane, int j) {
    int n;
    const int k = channel_of(out_plane, j, n), c = p.fprop ? p.multiplier.quotient(k) : k;
    return static_cast<const T*>(p.in) + n * p.in_planes.n + c * p.in_planes.c;
  };

  float sums[Window::kRows * kOut][kPlanarTile * kOut];
  CNN_UNROLL
  for (int i = 0; i < Window::kRows * kOut; ++i) {
    CNN_UNROLL
    for (int c = 0; c < kPlanarTile * kOut; ++c) sums[i][c] = 0;
  }

  const int filters = p.fprop ? 1 : p.multiplier.divisor;
  for (int j = 0; j < filters; ++j) {
    // Load.
    const Run<const T> run{source(first_plane, j) + first_in * p.in_planes.h, planes, first_in, max(0, last_in - first_in),
                           p.in_planes.width};
    constexpr bool kNarrow = sizeof(T) < sizeof(float);
    T* const landing = kNarrow ? raw : reinterpret_cast<T*>(values);
    const int lead = p.in_planes.in_runs ? run.lead() : 0;
    const SkewedRun<Window::kGroupRows> place{p.in_skew, lead, first_in - first_window};
    if (j > 0) __syncthreads();  // the last filter's image is being read
    if (p.in_planes.in_runs) {
      if constexpr (Window::kSkewed && !kNarrow) copy_run_skewed(values, run, place);
      else copy_run(landing, run);
    } else {
      for_each_element(run, [&](int e, int plane_here, int h, int w) {
        landing[Window::kSkewed && !kNarrow ? place.at(e) : e] =
            __ldg(source(first_plane + plane_here, j) + (first_in + h) * p.in_planes.h + w);
      });
    }
    // Filters are a run, too, unless the block's planes are those of several images.
    int n, first_filter = channel_of(first_plane, j, n);
    const Run<const T> filter_run{static_cast<const T*>(p.filter) + first_filter * p.filter_k, planes, 0, 1, kFilter};
    const bool filters_run = p.filters_in_runs && first_filter + planes <= p.channels.divisor;
    const int filter_lead = filters_run ? filter_run.lead() : 0;
    if (filters_run) {
      copy_run(raw_filters, filter_run);
    } else {
      for (int e = thread; e < planes * kFilter; e += int(blockDim.x)) {
        const int k = channel_of(first_plane + e / kFilter, j, n), tap = e % kFilter;
        raw_filters[e] = __ldg(static_cast<const T*>(p.filter) + k * p.filter_k + tap / kTaps * p.filter_r + tap % kTaps * p.filter_s);
      }
    }
    commit_async();
    wait_async<0>();
    __syncthreads();
    if constexpr (kNarrow) {
      if constexpr (Window::kSkewed) place_run(values, raw, run.count(), place);
      else widen_run(values, raw, lead, lead + run.count());
    }
    // With the taps in reverse the block's filters are, too.
    const bool turned = kMode == PlanarGather::kStride1 && !p.fprop;
    for (int e = thread; e < planes * kFilter; e += int(blockDim.x))
      weights[turned ? planes * kFilter - 1 - e : e] = widen(raw_filters[filter_lead + e]);
    __syncthreads();

    // Compute.
    const auto [plane, group, row, column] = positions_of(thread);
    if (plane < planes) {
      const int in_row = row * Window::kStride - p.h.pad, in_column = column * Window::kStride - p.w.pad;
      float w[kFilter];
      CNN_UNROLL
      for (int tap = 0; tap < kFilter; ++tap) w[tap] = weights[(turned ? planes - 1 - plane : plane) * kFilter + tap];
      const bool even = p.even && (Window::kStride == 1 || lead % 2 == 0);
      const int width = run.width;
      const int left_out = Window::kSkewed ? plane * p.in_skew.plane + group * p.in_skew.group : 0;
      const float* const rows = values + lead + (plane * run.rows + in_row - first_in) * width + in_column + left_out;
      add_window<kTaps, Window>(sums, rows, w, in_row, p.in_planes.height, p.h.dilation, p.h.dilation * width, p.in_skew.group, even,
                                in_column, width, p.w.dilation);
    }
  }
  __syncthreads();

  // Store. Where the positions are is worked out again, so that it takes no registers from the sums.
  const auto [plane, group, row, column] = positions_of(recompute(thread));
  const int first_out = max(0, first_position * kOut - p.origin_h);
  const int last_out = whole ? p.out_planes.height : min(p.out_planes.height, (first_position + p.band_rows) * kOut - p.origin_h);
  const auto target = [&](int out_plane) {
    int c;
    const int n = p.channels.divmod(out_plane, c);
    return static_cast<T*>(p.out) + n * p.out_planes.n + c * p.out_planes.c;
  };
  const Run<T> run{target(first_plane) + first_out * p.out_planes.h, planes, first_out, max(0, last_out - first_out), p.out_planes.width};
  const int lead = p.out_planes.in_runs ? run.lead() : 0;
  const SkewedRun<Window::kRows * kOut> place{p.out_skew, lead, first_out - (first_position * kOut - p.origin_h)};
  if (plane < planes) {
    int channel;
    p.channels.divmod(first_plane + plane, channel);
    const PerChannel<T> z = per_channel<T>(p.epilogue, channel);
    const int width = run.width;
    const int left_out = Window::kSkewed ? plane * p.out_skew.plane + group * p.out_skew.group : 0;
    float* const to = values + lead + plane * run.rows * width + left_out;
    const bool pairs = kOut == 2 && p.even && lead % 2 == 0;
    CNN_UNROLL
    for (int i = 0; i < Window::kRows * kOut; ++i) {
      const int h = kOut == 2 ? row * 2 - p.origin_h + i : row + i * p.h.dilation;
      if (unsigned(h - run.first_row) >= unsigned(run.rows)) continue;
      float* const to_row = to + (h - run.first_row) * width;
      if (pairs) {
        CNN_UNROLL
        for (int c = 0; c + kOut <= kPlanarTile * kOut; c += 2) {
          const Vector<float, 2> pair{{z(sums[i][c]), z(sums[i][c + kOut - 1])}};
          *reinterpret_cast<Vector<float, 2>*>(to_row + column * 2 + c) = pair;
        }
      } else {
        CNN_UNROLL
        for (int c = 0; c < kPlanarTile * kOut; ++c) {
          const int w = kOut == 2 ? column * 2 - p.origin_w + c : column + c * p.w.dilation;
          if (unsigned(w) < unsigned(width)) to_row[w] = z(sums[i][c]);
        }
      }
    }
  }
  __syncthreads();
  if (p.out_planes.in_runs) {
    if constexpr (Window::kSkewed) store_run_skewed(p.epilogue, run, values, place);
    else store_run(p.epilogue, run, values);
  } else {
    for_each_element(run, [&](int e, int plane_here, int h, int w) {
      T* const to = target(first_plane + plane_here) + (run.first_row + h) * p.out_planes.h + w;
      *to = finish(p.epilogue, to, narrow<T>(values[Window::kSkewed ? place.at(e) : e]));
    });
  }
}

}  // namespace cnn::conv2d
