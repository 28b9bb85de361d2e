// The host side of the planar depthwise kernels: tiling, parameters, costs, and the rows of the catalogue. Included by
// instantiations/planar_*.cu alone. Configuration::tile: planes of a block, rows and columns of positions.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "common/cost.h"
#include "common/integers.h"
#include "conv2d/depthwise/depthwise.h"
#include "conv2d/depthwise/planar_gather.cuh"
#include "conv2d/depthwise/planar_wgrad.cuh"
#include "conv2d/depthwise/slabs.h"
#include "conv2d/eligibility.h"
#include "conv2d/plan.h"
#include "conv2d/sum_slabs/sum_slabs.h"

namespace cnn::conv2d {

constexpr int64_t kPlanarLeastThreads = 128;  // of a block: 2 KB in flight with one copy of each thread

// How planes are cut. Positions are those of y, or for dgrad those of dx, of stride-2 dgrad its blocks of 2 x 2.
struct PlanarTiling {
  int64_t stride = 1, dilation_h = 1, dilation_w = 1;  // of positions over the rows that are read
  int64_t positions_h = 0, positions_w = 0;
  int64_t taps_h = 0;              // of the window over what is read
  int64_t rows = 0;                // of a thread
  int64_t strips = 0, groups = 0;  // threads of a plane, or of a band
  int64_t bands = 1, planes = 1;   // of a plane; of a block
  int64_t band_rows = 0, in_rows = 0;

  // Some have no positions, and help to move planes.
  int64_t threads() const { return std::max<int64_t>(busy_threads(), kPlanarLeastThreads); }
  int64_t busy_threads() const { return round_up(planes * groups * strips, 32); }
};

// How a run lies in shared memory (planar_planes.cuh).
struct PlanarLayout {
  int64_t group = 0, plane = 0;  // words left out
  int64_t unit = 0;              // elements that stay together; 0: nothing is left out
  int64_t elements = 0;          // that it may take
};

// What is read (in) and written (out) at the positions.
struct PlanarView {
  const Strides &in, &out;
  int64_t in_c, in_h, in_w, out_c, out_h, out_w;

  explicit PlanarView(const Problem& p)
      : in(p.pass == Pass::kDgrad ? p.y : p.x),
        out(p.pass == Pass::kDgrad ? p.x : p.y),
        in_c(p.pass == Pass::kDgrad ? p.K : p.C),
        in_h(p.pass == Pass::kDgrad ? p.P : p.H),
        in_w(p.pass == Pass::kDgrad ? p.Q : p.W),
        out_c(p.pass == Pass::kDgrad ? p.C : p.K),
        out_h(p.pass == Pass::kDgrad ? p.H : p.P),
        out_w(p.pass == Pass::kDgrad ? p.W : p.Q) {}
};

inline bool is_stride2_dgrad(const Problem& p) { return p.pass == Pass::kDgrad && p.stride_h == 2; }

// Stride-2 dgrad: how far the first block of 2 x 2 begins before the image, so that block i's first row is 2i + kPad % 2 rows behind the
// padding's start, up to a multiple of 2.
inline int64_t block_origin(int64_t pad, int64_t taps) { return (pad + (taps - 1) / 2) % 2; }

// How far the first position's window begins before the image.
inline int64_t planar_pad(const Problem& p, int64_t pad, int64_t taps, int64_t dilation) {
  if (p.pass != Pass::kDgrad) return pad;
  if (p.stride_h == 1) return dilation * (taps - 1) - pad;
  // Block i begins at h' = h + pad = 2 (i + first) + parity, and its window at row i + first + parity - ((taps + 1) / 2 - 1).
  const int64_t parity = (taps - 1) / 2 % 2, first = (pad - block_origin(pad, taps) - parity) / 2;
  return (taps + 1) / 2 - 1 - parity - first;
}

// Wavefronts in which a block's first two warps would each read or write a word, or of even `words` two.
inline int64_t planar_wavefronts(const PlanarTiling& t, int64_t words, int64_t group_pitch, int64_t plane_pitch) {
  const int64_t size = words % 2 == 0 ? 2 : 1, lanes = 32 / size, threads = std::min<int64_t>(64, t.planes * t.groups * t.strips);
  int64_t wavefronts = 0;
  for (int64_t first = 0; first < threads; first += lanes) {
    int64_t used[32] = {}, most = 0;
    for (int64_t thread = first; thread < std::min(first + lanes, threads); ++thread) {
      const int64_t group = thread / t.strips % t.groups, plane = thread / t.strips / t.groups;
      most = std::max(most, ++used[(thread % t.strips * words + group * group_pitch + plane * plane_pitch) / size % lanes]);
    }
    wavefronts += most;
  }
  return wavefronts;
}

// A run of `rows` rows of each plane. Threads are `words` words apart, their groups group_rows rows, of which the first group's begin
// `before` rows before the run at most.
inline PlanarLayout planar_layout(const Problem& p, const PlanarTiling& t, int64_t rows, int64_t width, int64_t words, int64_t group_rows,
                                  int64_t before) {
  PlanarLayout best;
  best.elements = run_elements(t.planes * rows * width);
  if (p.stride_h == 1) return best;
  const auto banks = [](int64_t n) { return (n % 32 + 32) % 32; };
  int64_t fewest = planar_wavefronts(t, words, group_rows * width, rows * width);
  const int64_t none = planar_wavefronts(t, words, t.strips * words, t.groups * t.strips * words);  // without conflicts
  // Nothing left out, else something behind planes alone, else behind groups as well: places that are side by side should stay so.
  for (const int64_t group : {int64_t(0), banks(t.strips * words - group_rows * width)}) {
    const int64_t within = (rows - 1 + std::max<int64_t>(0, before)) / group_rows * group;  // of a plane
    for (const int64_t unit : {4, 2, 1}) {
      if (width % unit != 0 || group % unit != 0) continue;
      for (int64_t plane = within; fewest > none && plane < within + (t.planes > 1 ? 32 : 1); plane += unit) {
        const int64_t wavefronts = planar_wavefronts(t, words, group_rows * width + group, rows * width + plane);
        if (wavefronts >= fewest) continue;
        fewest = wavefronts;
        best = {group, plane, unit, run_elements(t.planes * (rows * width + plane))};
      }
    }
  }
  return best;
}

inline PlanarLayout planar_in_layout(const Problem& p, const PlanarTiling& t) {
  const PlanarView view(p);
  const int64_t before = is_stride2_dgrad(p) ? planar_pad(p, p.pad_h, p.R, 1) : p.pad_h;
  return planar_layout(p, t, std::min(t.in_rows, view.in_h), view.in_w, kPlanarTile * t.stride, t.rows * t.stride, before);
}

// wgrad: of dy at the positions.
inline PlanarLayout planar_out_layout(const Problem& p, const PlanarTiling& t) {
  const PlanarView view(p);
  const int64_t results = is_stride2_dgrad(p) ? 2 : 1;  // of a position
  return planar_layout(p, t, std::min(t.band_rows * results, view.out_h), view.out_w, kPlanarTile * results, t.rows * results,
                       is_stride2_dgrad(p) ? block_origin(p.pad_h, p.R) : 0);
}

// Floats for a run of what is read, in which later a run of results lies.
inline int64_t planar_gather_values(const Problem& p, const PlanarTiling& t) {
  return std::max(planar_in_layout(p, t).elements, planar_out_layout(p, t).elements);
}

// For the filters of a block as they land.
inline int64_t planar_raw_filters(const Problem& p, const PlanarTiling& t) { return run_elements(t.planes * p.R * p.S); }

inline int64_t planar_gather_shared(const Problem& p, const PlanarTiling& t) {
  const int64_t raw = size_of(p.dtype) < 4 ? planar_in_layout(p, t).elements : 0;
  return (planar_gather_values(p, t) + round_up(t.planes * p.R * p.S, 4)) * 4 + (planar_raw_filters(p, t) + raw) * size_of(p.dtype);
}

inline int64_t planar_readers(const Problem& p, const PlanarTiling& t) {
  return std::clamp<int64_t>(t.threads() / (t.planes * p.R * p.S), 1, t.groups * t.strips);
}

inline int64_t planar_wgrad_shared(const Problem& p, const PlanarTiling& t) {
  const int64_t values = planar_in_layout(p, t).elements + planar_out_layout(p, t).elements;
  const int64_t sums = (t.threads() + t.planes * planar_readers(p, t)) * p.R * p.S * 4;
  return std::max(values * (4 + size_of(p.dtype)), sums);
}

inline int64_t planar_shared(const Problem& p, const PlanarTiling& t) {
  return p.pass == Pass::kWgrad ? planar_wgrad_shared(p, t) : planar_gather_shared(p, t);
}

inline PlanarTiling planar_tiling(const Problem& p) {
  constexpr int64_t kFewestThreads = 8;            // of a block when planes are few
  constexpr int64_t kSmallThreads = 128;           // of a block of small planes
  constexpr int64_t kGoodSharedBytes = 75 * 1024;  // three blocks on a multiprocessor
  const PlanarView view(p);
  const bool blocks2 = is_stride2_dgrad(p);
  PlanarTiling t;
  t.stride = p.pass == Pass::kDgrad ? 1 : p.stride_h;
  t.dilation_h = p.dilation_h, t.dilation_w = p.dilation_w;
  t.positions_h = blocks2 ? ceil_div(view.out_h + block_origin(p.pad_h, p.R), 2) : view.out_h;
  t.positions_w = blocks2 ? ceil_div(view.out_w + block_origin(p.pad_w, p.S), 2) : view.out_w;
  t.taps_h = blocks2 ? (p.R + 1) / 2 : p.R;
  t.rows = blocks2 ? 2 : kPlanarTile;
  t.strips = t.dilation_w * ceil_div(ceil_div(t.positions_w, t.dilation_w), kPlanarTile);
  const int64_t groups = t.dilation_h * ceil_div(ceil_div(t.positions_h, t.dilation_h), t.rows);
  const int64_t step = t.dilation_h;  // a band has as many groups of each residue class
  const auto band = [&](int64_t most) {
    t.bands = ceil_div(groups, most);
    t.groups = t.bands == 1 ? groups : round_up(ceil_div(groups, t.bands), step);
    t.bands = ceil_div(groups, t.groups);
    t.band_rows = t.groups * t.rows;
    t.in_rows = t.bands == 1 ? view.in_h : (t.band_rows - 1) * t.stride + (t.taps_h - 1) * t.dilation_h + 1;
  };
  // A whole plane, or bands of equal height, of as many groups as there are threads and room for. Few planes are cut until every
  // multiprocessor has a block, if that leaves a warp to each.
  const int64_t threads = planar_max_threads(int(p.R));
  const int64_t all = p.pass == Pass::kWgrad ? p.K : p.N * view.out_c, slabs = p.pass == Pass::kWgrad ? p.N : 1;
  int64_t most = std::max(step, threads / std::min(t.strips, threads) / step * step);
  const auto few = [&] { return all * slabs * t.bands < int64_t(kMultiprocessors) && t.strips * (t.groups - step) >= 32; };
  for (band(most); most > step && (planar_shared(p, t) > kGoodSharedBytes || few()); band(most)) most -= step;
  if (t.bands > 1) return t;
  // Some planes, so that the multiprocessor with the most threads has few; what a block does besides is taken for 16 threads more.
  const int64_t plane_threads = t.strips * t.groups;
  int64_t fewest = 0;
  for (int64_t planes = std::max<int64_t>(1, kSmallThreads / plane_threads); planes * plane_threads >= kFewestThreads || fewest == 0;
       planes /= 2) {
    const int64_t here = std::min(planes, all), blocks = ceil_div(all, here) * slabs;
    const int64_t most_threads = ceil_div(blocks, int64_t(kMultiprocessors)) * (here * plane_threads + 16);
    if (fewest == 0 || most_threads < fewest) fewest = most_threads, t.planes = here;
    if (planes == 1) break;
  }
  while (t.planes > 1 && planar_shared(p, t) > kGoodSharedBytes) t.planes = ceil_div(t.planes, 2);
  return t;
}

template <int kTaps>
std::string why_not_planar(const Kernel&, const Problem& p) {
  const std::string why = why_not_tuned(p);
  if (!why.empty()) return why;
  if (!p.is_depthwise()) return "not depthwise: " + std::to_string(p.groups) + " groups of " + std::to_string(p.C) + " channels";
  if (p.R != kTaps || p.S != kTaps) return "built for filters of " + std::to_string(kTaps) + "x" + std::to_string(kTaps);
  if (!p.x_is_planar() || !p.y_is_planar()) return "the columns of a plane are not dense";
  if (p.stride_h != p.stride_w) return "built for the same stride in rows and columns";
  if (p.stride_h > 2) return "stride " + std::to_string(p.stride_h) + ": built for strides 1 and 2";
  if (p.stride_h == 2 && (p.dilation_h > 1 || p.dilation_w > 1)) return "dilation with stride 2: built for either of them alone";
  const PlanarTiling t = planar_tiling(p);
  if (t.strips * t.groups > planar_max_threads(kTaps))
    return "a row of " + std::to_string(t.positions_w) + " results is too long for a block";
  if (planar_shared(p, t) > p.block_shared) return "a band of rows does not fit in shared memory";
  return {};
}

// Whether the planes of a block, or the rows of its band, follow each other in memory.
inline bool in_runs(const Strides& s, int64_t channels, int64_t height, int64_t width, bool one_plane, bool one_image) {
  const bool rows = height == 1 || s.d2 == width, planes = s.d1 == height * width, images = one_image || s.d0 == channels * s.d1;
  return rows && (one_plane || (planes && images));
}

// Threads are the same in every plane, so each is charged for its whole tile, results outside included. Instructions of one, per row of its
// window: a read and, at the edges, a select for each column, and the FMAs; besides, per result, kPlanarResult: the addition of the bias,
// the bound and the write to shared memory, and for each element moved in vectors the address, the bound, and of halves the conversions.
constexpr double kPlanarResult = 3, kPlanarMove = 2, kPlanarMoveHalf = 3.5, kPlanarPlace = 4;

inline double planar_plane_instructions(const Problem& p, const PlanarTiling& t) {
  const PlanarView view(p);
  const double columns = double((kPlanarTile - 1) * t.stride + t.taps_h), taps = double(p.R * p.S), positions = double(kPlanarTile);
  const double results = is_stride2_dgrad(p) ? 4 : 1;
  double rows = 0, pairs = 0;  // of a window, in the image; with a row of positions
  for (int64_t first = 0; first < t.positions_h; first += t.rows) {
    for (int64_t i = 0; i < (t.rows - 1) * t.stride + t.taps_h; ++i) {
      const int64_t h = first * t.stride + i - (t.taps_h - 1) / 2;
      if (h < 0 || h >= view.in_h) continue;
      ++rows;
      pairs += double(std::min(t.rows - 1, i / t.stride) - std::max<int64_t>(0, ceil_div(i - t.taps_h + 1, t.stride)) + 1);
    }
  }
  const double groups = double(ceil_div(t.positions_h, t.rows)), fmas = pairs / double(t.taps_h) * positions * taps;
  return double(t.strips) * (fmas + rows * columns * 1.25 + groups * (taps + double(t.rows) * positions * results * kPlanarResult));
}

inline Work planar_work(const Problem& p, const PlanarTiling& t, const Configuration& configuration, int64_t images) {
  const double tiles = double(images) * double(t.bands) * double(t.groups * t.strips);
  const double elements = double(p.N) * (double(p.C) * double(p.H * p.W) + double(p.K) * double(p.P * p.Q));
  const double halo = 1 + double(t.bands - 1) * double(t.in_rows - t.band_rows * t.stride) / double(std::max<int64_t>(1, p.H));
  const double columns = double((kPlanarTile - 1) * t.stride + t.taps_h), rows = double((t.rows - 1) * t.stride + t.taps_h);
  // Windows are worked on by the warps that have positions, of which so many fewer are there to hide each other's latency.
  const auto stalls = [&](int64_t threads) {
    return std::max(1.0, kHidingWarps / (std::ceil(double(configuration.blocks) / kMultiprocessors) * double(ceil_div(threads, 32))));
  };
  const double waits = stalls(t.busy_threads()) / stalls(t.threads());
  // With stride 2 a quad is besides brought to its place: two divisions by multiplication, bounds, and the address.
  const double places = p.stride_h == 2 ? kPlanarPlace : 0;
  Work work;
  work.instructions = double(images) * planar_plane_instructions(p, t) * waits +
                      elements * ((size_of(p.dtype) < 4 ? kPlanarMoveHalf : kPlanarMove) + places);
  work.dram_bytes = p.tensor_bytes();
  work.l2_bytes = p.tensor_bytes() * std::max(1.0, halo);
  // Windows; landing, widening, results there and back.
  work.l1_bytes = 4 * (tiles * rows * columns * waits + (size_of(p.dtype) < 4 ? 3 : 2) * elements);
  work.blocks = double(configuration.blocks);
  work.threads = configuration.threads;
  return work;
}

inline Configuration configure_planar_gather(const Kernel&, const Problem& p) {
  const PlanarTiling t = planar_tiling(p);
  Configuration c;
  c.blocks = ceil_div(p.N * PlanarView(p).out_c, t.planes) * t.bands;
  c.threads = int(t.threads());
  c.shared_bytes = int(planar_gather_shared(p, t));
  c.tile[0] = int(t.planes), c.tile[1] = int(t.band_rows), c.tile[2] = int(t.positions_w);
  return c;
}

inline double planar_gather_cost(const Kernel& kernel, const Problem& p) {
  const PlanarTiling t = planar_tiling(p);
  const double filters = p.pass == Pass::kDgrad ? double(p.K / p.C) : 1;
  Work work = planar_work(p, t, kernel.configure(kernel, p), p.N * PlanarView(p).out_c);
  work.instructions *= filters;
  return microseconds(work);
}

inline FastDiv<int> planar_div(int64_t divisor) { return FastDiv<int>(std::max<int64_t>(1, divisor)); }

inline Skew skew_of(const PlanarLayout& layout, int64_t height, int64_t width) {
  return {planar_div(width), planar_div(height), int(layout.group), int(layout.plane), int(layout.unit)};
}

inline Planes planes_of(const Strides& s, int64_t height, int64_t width, bool runs) {
  return {int(s.d0), int(s.d1), int(s.d2), int(height), int(width), runs};
}

inline PlanarAxis planar_axis(int64_t threads, int64_t dilation, int64_t pad) {
  return {planar_div(threads / dilation), int(dilation), int(pad)};
}

// Whether which columns to skip follows from the strip being the first or the last one.
inline bool planar_even(const Problem& p, const PlanarTiling& t, const PlanarView& view) {
  const bool aligned = t.dilation_w == 1 && t.positions_w % kPlanarTile == 0 && p.pad_w == (p.S - 1) / 2;
  return aligned && view.in_w == t.positions_w * t.stride && (!is_stride2_dgrad(p) || view.out_w == 2 * t.positions_w);
}

template <class T, int kTaps>
void run_planar_gather(const Kernel& kernel, const Problem& p, const Configuration& configuration, const Arguments& a) {
  const PlanarTiling t = planar_tiling(p);
  const PlanarView view(p);
  const bool fprop = p.pass == Pass::kFprop, one_plane = t.planes == 1;
  PlanarGatherParams q{};
  q.in = fprop ? a.x : a.y, q.filter = a.w, q.epilogue = a.epilogue, q.out = a.out;
  const bool in_order = p.K == p.C || one_plane;  // a block's planes of `in` are as many and in the order of those of `out`
  q.in_planes =
      planes_of(view.in, view.in_h, view.in_w, in_order && in_runs(view.in, view.in_c, view.in_h, view.in_w, one_plane, p.N == 1));
  q.out_planes = planes_of(view.out, view.out_h, view.out_w, in_runs(view.out, view.out_c, view.out_h, view.out_w, one_plane, p.N == 1));
  q.in_skew = skew_of(planar_in_layout(p, t), view.in_h, view.in_w);
  q.out_skew = skew_of(planar_out_layout(p, t), view.out_h, view.out_w);
  q.filter_k = int(p.w.d0), q.filter_r = int(p.w.d2), q.filter_s = int(p.w.d3);
  const bool filters_follow = p.w.d0 == p.R * p.S && p.w.d2 == p.S && p.w.d3 == 1;
  q.filters_in_runs = filters_follow && (fprop || p.K == p.C || one_plane);
  q.channels = planar_div(view.out_c), q.multiplier = planar_div(p.K / p.C), q.fprop = fprop;
  q.total_planes = int(p.N * view.out_c), q.planes = int(t.planes);
  q.bands = planar_div(t.bands), q.band_rows = int(t.band_rows), q.in_rows = int(t.in_rows);
  q.plane_threads = planar_div(t.groups * t.strips), q.strips = planar_div(t.strips);
  q.h = planar_axis(t.groups, t.dilation_h, planar_pad(p, p.pad_h, p.R, p.dilation_h));
  q.w = planar_axis(t.strips, t.dilation_w, planar_pad(p, p.pad_w, p.S, p.dilation_w));
  if (is_stride2_dgrad(p)) q.origin_h = int(block_origin(p.pad_h, p.R)), q.origin_w = int(block_origin(p.pad_w, p.S));
  q.even = planar_even(p, t, view);
  q.values = int(planar_gather_values(p, t)), q.raw_filters = int(planar_raw_filters(p, t));
  const LaunchShape shape{dim3(unsigned(configuration.blocks)), dim3(unsigned(configuration.threads)),
                          std::size_t(configuration.shared_bytes), a.stream};
  const auto kernel_of = is_stride2_dgrad(p) ? planar_gather_kernel<T, kTaps, PlanarGather::kStride2Dgrad>
                         : p.stride_h == 2   ? planar_gather_kernel<T, kTaps, PlanarGather::kStride2>
                                             : planar_gather_kernel<T, kTaps, PlanarGather::kStride1>;
  launch(kernel.name.c_str(), shape, kernel_of, q);
}

// Units (bands of images) of a slab.
inline int64_t planar_slab_units(const Problem& p, const PlanarTiling& t) {
  return best_slab_units(p, p.N * t.bands, ceil_div(p.K, t.planes), t.threads());
}

inline Configuration configure_planar_wgrad(const Kernel&, const Problem& p) {
  const PlanarTiling t = planar_tiling(p);
  Configuration c;
  c.slabs = ceil_div(p.N * t.bands, planar_slab_units(p, t));
  c.blocks = c.slabs * ceil_div(p.K, t.planes);
  c.workspace_bytes = p.sums_in_workspace(c.slabs) ? c.slabs * p.filter_numel() * 4 : 0;
  c.threads = int(t.threads());
  c.shared_bytes = int(planar_wgrad_shared(p, t));
  c.tile[0] = int(t.planes), c.tile[1] = int(t.band_rows), c.tile[2] = int(t.positions_w);
  return c;
}

inline double planar_wgrad_cost(const Kernel& kernel, const Problem& p) {
  const PlanarTiling t = planar_tiling(p);
  const Configuration configuration = kernel.configure(kernel, p);
  Work work = planar_work(p, t, configuration, p.N * p.K);
  work.dram_bytes += 2 * double(configuration.workspace_bytes), work.l2_bytes += 2 * double(configuration.workspace_bytes);
  work.launches = p.sums_in_workspace(configuration.slabs) ? 2 : 1;
  return microseconds(work);
}

template <class T, int kTaps>
void run_planar_wgrad(const Kernel& kernel, const Problem& p, const Configuration& configuration, const Arguments& a) {
  const PlanarTiling t = planar_tiling(p);
  const PlanarView view(p);
  const bool one_plane = t.planes == 1;
  PlanarWgradParams q{};
  q.x = a.x, q.y = a.y, q.dw = a.out;
  q.partial = p.sums_in_workspace(configuration.slabs) ? static_cast<float*>(a.workspace) : nullptr;
  // A block's planes are all of one image.
  q.x_planes = planes_of(p.x, p.H, p.W, (p.K == p.C || one_plane) && in_runs(p.x, p.C, p.H, p.W, one_plane, true));
  q.y_planes = planes_of(p.y, p.P, p.Q, in_runs(p.y, p.K, p.P, p.Q, one_plane, true));
  q.dw_k = int(p.w.d0), q.dw_r = int(p.w.d2), q.dw_s = int(p.w.d3);
  q.filters = int(p.K), q.multiplier = int(p.K / p.C);
  q.planes = int(t.planes), q.filter_blocks = planar_div(ceil_div(p.K, t.planes));
  q.bands = planar_div(t.bands), q.band_rows = int(t.band_rows), q.in_rows = int(t.in_rows);
  q.units = int(p.N * t.bands), q.slab_units = int(planar_slab_units(p, t));
  q.plane_threads = planar_div(t.groups * t.strips), q.strips = planar_div(t.strips);
  q.h = planar_axis(t.groups, t.dilation_h, p.pad_h), q.w = planar_axis(t.strips, t.dilation_w, p.pad_w);
  q.even = planar_even(p, t, view);
  const PlanarLayout x_layout = planar_in_layout(p, t), y_layout = planar_out_layout(p, t);
  q.x_skew = skew_of(x_layout, p.H, p.W), q.y_skew = skew_of(y_layout, p.P, p.Q);
  q.x_values = int(x_layout.elements), q.y_values = int(y_layout.elements);
  q.readers = int(planar_readers(p, t));
  const LaunchShape shape{dim3(unsigned(configuration.blocks)), dim3(unsigned(configuration.threads)),
                          std::size_t(configuration.shared_bytes), a.stream};
  launch(kernel.name.c_str(), shape, p.stride_h == 2 ? planar_wgrad_kernel<T, kTaps, 2> : planar_wgrad_kernel<T, kTaps, 1>, q);
  if (q.partial) add_slabs<T>({a.workspace, configuration.slabs, {p.K, 1, p.R, p.S}, a.out, {p.w.d0, p.w.d1, p.w.d2, p.w.d3}}, a);
}

template <class T, int kTaps>
void add_planar(std::vector<Kernel>& catalogue) {
  const std::string taps = std::to_string(kTaps) + "x" + std::to_string(kTaps), dtype = short_name(TypeTraits<T>::kDType);
  Kernel row{};
  row.family = "depthwise";
  row.dtype = TypeTraits<T>::kDType;
  row.tm = row.tn = kPlanarTile;
  row.threads = planar_max_threads(kTaps);
  row.index_bits = 32;
  row.why_not = why_not_planar<kTaps>;

  row.name = "conv2d_depthwise_planar_gather_" + taps + "_" + dtype;
  row.passes = {Pass::kFprop, Pass::kDgrad};
  row.cost = planar_gather_cost, row.configure = configure_planar_gather, row.run = run_planar_gather<T, kTaps>;
  catalogue.push_back(row);

  row.name = "conv2d_depthwise_planar_wgrad_" + taps + "_" + dtype;
  row.passes = {Pass::kWgrad};
  row.cost = planar_wgrad_cost, row.configure = configure_planar_wgrad, row.run = run_planar_wgrad<T, kTaps>;
  catalogue.push_back(row);
}

template <class T>
void add_depthwise_planar_kernels(std::vector<Kernel>& catalogue) {
  add_planar<T, 3>(catalogue);
  add_planar<T, 5>(catalogue);
  add_planar<T, 7>(catalogue);
}

}  // namespace cnn::conv2d
