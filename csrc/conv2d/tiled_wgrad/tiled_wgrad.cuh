// The tiled weight gradient's host side: what it refuses, the choice of tile and slabs, and the rows of the catalogue: for each of the
// families pointwise, dilated and transposed one for channels dense (nhwc) and one for rows of pixels dense (nchw). All rows of a layout
// are one compiled kernel. Configuration::tile is BM, BN, BK.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/cost.h"
#include "conv2d/eligibility.h"
#include "conv2d/pack_images/pack_images.h"
#include "conv2d/plan.h"
#include "conv2d/sum_slabs/sum_slabs.h"
#include "conv2d/tiled_wgrad/tensor.cuh"
#include "conv2d/tiled_wgrad/tiled_wgrad.h"

namespace cnn::conv2d {

// --- Eligibility.

enum class WgradFamily { kPointwise, kDense, kDilated, kTransposed };
constexpr const char* name_of(WgradFamily family) {
  return family == WgradFamily::kPointwise ? "pointwise"
         : family == WgradFamily::kDense   ? "dense"
         : family == WgradFamily::kDilated ? "dilated"
                                           : "transposed";
}

inline std::string why_not_family(WgradFamily family, const Problem& p) {
  const bool pointwise = p.R == 1 && p.S == 1;
  const bool dilated = (p.R > 1 && p.dilation_h > 1) || (p.S > 1 && p.dilation_w > 1);
  const bool strided = p.stride_h > 1 || p.stride_w > 1 || p.P * p.Q == 1;  // a filter that covers the image has no stride to show
  const std::string filter = std::to_string(p.R) + "x" + std::to_string(p.S);
  if (family == WgradFamily::kPointwise) return pointwise ? "" : filter + " filter: for 1x1";
  if (pointwise) return "1x1 filter: the pointwise kernels have it";
  if (family == WgradFamily::kDilated) return dilated ? "" : "dilation 1: for dilated filters";
  if (dilated) return "dilated filter: the dilated kernels have it";
  if (family == WgradFamily::kDense) return strided ? "strided: the transposed kernels have it" : "";
  return strided ? "" : "stride 1: for strided convolutions and their transposes";
}

inline std::string why_not_tiled_wgrad(WgradFamily family, bool channels_last, const Problem& p) {
  constexpr int kLeastGroup = 8, kFirstLayer = 4;
  if (std::string why = why_not_tuned(p); !why.empty()) return why;
  if (std::string why = why_not_family(family, p); !why.empty()) return why;
  if (p.C <= kFirstLayer) return "C = " + std::to_string(p.C) + ": the input of a first layer";
  if (p.groups > 1 && p.channels_per_group() < kLeastGroup)
    return std::to_string(p.channels_per_group()) + " channels a group: built for " + std::to_string(kLeastGroup) + " and more";
  if (channels_last) {
    if (p.x.d1 != 1) return "the channels of x are not dense";
    if (p.y.d1 != 1 && p.K > 1) return "the channels of y are not dense";
  } else {
    if (!p.x_is_planar()) return "the rows of x are not dense";
    if (!p.y_is_planar()) return "the rows of y are not dense";
  }
  return {};
}

// --- Geometry as the kernel sees it: dimensions that are one in memory become one.

struct WgradGeometry {
  int64_t N, H, W, P, Q;
  int64_t pad_h, pad_w;
  Strides x, y;

  WgradGeometry(const Problem& p, bool channels_last)
      : N(p.N), H(p.H), W(p.W), P(p.P), Q(p.Q), pad_h(p.pad_h), pad_w(p.pad_w), x(p.x), y(p.y) {
    const bool same = p.R * p.S == 1 && p.stride_h == 1 && p.stride_w == 1 && p.pad_h == 0 && p.pad_w == 0 && p.P == p.H && p.Q == p.W;
    if (!same) return;
    const bool rows = (p.H == 1 || (x.d2 == p.W * x.d3 && y.d2 == p.W * y.d3));
    if (!rows) return;
    W = Q = p.H * p.W, H = P = 1;
    if (!channels_last || (p.N > 1 && (x.d0 != W * x.d3 || y.d0 != W * y.d3))) return;
    W = Q = p.N * W, N = 1;
  }
};

// The most elements, a power of two up to 16 bytes, that divide all of `values`.
inline int common_unit(DType dtype, std::initializer_list<int64_t> values) {
  int64_t unit = 16 / size_of(dtype);
  for (int64_t value : values)
    while (value % unit != 0) unit /= 2;
  return int(unit);
}

// Elements of x and of y that can be copied at once as far as sizes and strides say.
struct WgradUnits {
  int x, y;
};

inline WgradUnits wgrad_units(const Problem& p, const WgradGeometry& g, bool channels_last, bool skip_padding) {
  const auto step = [](int64_t size, int64_t stride) { return size > 1 ? stride : 0; };  // a dimension of one never steps
  if (channels_last) {
    // Columns of several taps are cut into units too: none may belong to two taps.
    const int64_t channels = p.R * p.S > 1 || p.groups > 1 ? p.channels_per_group() : 0;
    const int64_t filters = p.groups > 1 ? p.filters_per_group() : 0;
    return {common_unit(p.dtype, {channels, step(g.N, g.x.d0), step(g.H, g.x.d2), step(g.W, g.x.d3)}),
            common_unit(p.dtype, {filters, step(g.N, g.y.d0), step(g.P, g.y.d2), step(g.Q, g.y.d3)})};
  }
  // A unit is of neighbouring pixels of one row, of which all are inside or none.
  int64_t shifts[2] = {0, 0};  // what the pixels of a unit are moved by, in rows and columns of the image
  if (p.R * p.S > 1 || p.pad_w > 0) shifts[0] = g.pad_w, shifts[1] = p.S > 1 ? p.dilation_w : 0;
  const bool x_dense = g.x.d3 == 1 && p.stride_w == 1, y_dense = g.y.d3 == 1;
  const int x =
      x_dense ? common_unit(p.dtype, {shifts[0], shifts[1], g.Q, g.W, step(g.N, g.x.d0), step(p.C, g.x.d1), step(g.H, g.x.d2)}) : 1;
  const bool rows_meet = !skip_padding && g.y.d2 == g.Q * g.y.d3;  // no pixel is left out: a unit of y may cross rows
  const int64_t y_run = rows_meet ? g.P * g.Q : g.Q, y_row = rows_meet ? 0 : step(g.P, g.y.d2);
  const int y = y_dense ? common_unit(p.dtype, {y_run, y_row, step(g.N, g.y.d0), step(p.K, g.y.d1)}) : 1;
  return {x, skip_padding ? std::min(x, y) : y};
}

// Outputs for which tap `tap` is inside the image.
inline int64_t outputs_inside(int64_t tap, int64_t stride, int64_t pad, int64_t dilation, int64_t extent, int64_t outputs) {
  const int64_t shift = pad - tap * dilation;
  const int64_t first = std::min(outputs, shift > 0 ? ceil_div(shift, stride) : 0);
  const int64_t end = extent + shift > 0 ? std::min(outputs, ceil_div(extent + shift, stride)) : 0;
  return std::max<int64_t>(0, end - first);
}

// The part of all (pixel, tap) pairs that is inside the image.
inline double part_inside(const Problem& p) {
  double rows = 0, columns = 0;
  for (int64_t r = 0; r < p.R; ++r) rows += double(outputs_inside(r, p.stride_h, p.pad_h, p.dilation_h, p.H, p.P));
  for (int64_t s = 0; s < p.S; ++s) columns += double(outputs_inside(s, p.stride_w, p.pad_w, p.dilation_w, p.W, p.Q));
  return rows * columns / (double(p.R * p.P) * double(p.S * p.Q));
}

// --- Tile, slabs, cost.

struct WgradSchedule {
  int log_bm = 0, log_bn = 0, log_bk = 0;
  bool skip_padding = false;  // and with it the taps outermost
  int64_t filter_tiles = 0, column_tiles = 0, slabs = 0;
  double asked = 0, cost = 0;  // bytes of x and y that the blocks ask for, and microseconds

  bool by_workspace = false;  // the sums go through it

  int64_t tiles(const Problem& p) const { return filter_tiles * column_tiles * p.groups; }
};

inline int log2_floor(int64_t value) {
  int log = 0;
  while (value >> (log + 1)) ++log;
  return log;
}

// Neighbouring lanes that copy neighbouring taps of one pixel, which under a stride lie side by side where the pixels do not.
inline int64_t tap_lanes(const Problem& p) { return int64_t(1) << log2_floor(std::min<int64_t>({p.stride_w, p.S, 8})); }

// Pixels of a stage: as many as it has bytes for, and at least four for each slice, which planar rows are taken in.
template <class Layout>
int log_stage_pixels(int bm, int bn, int bytes) {
  constexpr int kGroup = 4, kSize = int(sizeof(typename Layout::Element));
  const int slices = kTiledWgradThreads * kThreadTile * kThreadTile / (bm * bn);
  return log2_floor(std::min(kMostStagePixels, std::max(bytes / ((bm + bn) * kSize), kGroup * slices)));
}

template <class Layout>
int wgrad_shared_bytes(const WgradSchedule& s) {
  const int bm = 1 << s.log_bm, bn = 1 << s.log_bn, slices = kTiledWgradThreads * kThreadTile * kThreadTile / (bm * bn);
  const int stages = Layout::kStages * Layout::stage_length(bm, bn, 1 << s.log_bk) * int(sizeof(typename Layout::Element));
  return std::max(stages, slices * sums_slice(bm, bn, Layout::kRun) * int(sizeof(float)));
}

// Sectors touched over sectors used, where runs of so many elements begin at any multiple of `unit`. A single pixel is no run: its
// neighbours in memory are other channels' or images', which the same stage wants.
inline double sectors_of_run(const Problem& p, int64_t run, int unit) {
  if (run == 1) return 1;
  constexpr int kSector = 32;
  const int64_t bytes = run * size_of(p.dtype), offset = std::min(kSector, unit * size_of(p.dtype));
  return 1 + double(kSector - offset) / double(bytes);
}

template <class Layout>
void set_cost(WgradSchedule& s, const Problem& p, const WgradUnits& units, double pixels) {
  using T = typename Layout::Element;
  constexpr int kVector = 16 / int(sizeof(T));
  // Counted in the machine code of the inner loops, for a thread's 64 multiply-adds: reads of 16 values from shared memory, their
  // conversions, and the steps of pointers and counter. In all 87 and 75 instructions (halves and floats), planar 94 and 77.
  constexpr double kReads = Layout::kChannelsLast ? 2.0 * kThreadTile / kVector : 2.0 * kThreadTile / 4;
  constexpr double kConversions = sizeof(T) == 2 ? 2.0 * kThreadTile : 0;
  constexpr double kSteps = Layout::kChannelsLast ? 6 : 9;
  // On tensor cores a warp has 35 for 16 pixels of halves, 112 for 8 of floats, counted there too.
  constexpr double kTensorInstructions = sizeof(T) == 2 ? 35.0 / 16 : 112.0 / 8;
  constexpr double kPerPixel = Layout::kTensor ? kTensorInstructions : kThreadTile * kThreadTile + kReads + kConversions + kSteps;
  // For a copied unit: the read of a table, four additions and two comparisons of its place, two addresses, the copy, the loop. A value
  // that goes through a register is also loaded and stored.
  constexpr double kPerCopy = 14, kThroughRegister = 2;
  constexpr double kPerResult = 4;  // of a thread's 64: kept, read again, added, and its part of the store
  const double bm = double(1 << s.log_bm), bn = double(1 << s.log_bn), size = double(sizeof(T));
  const double tiles = double(s.tiles(p)), results = tiles * double(s.slabs) * kTiledWgradThreads * kThreadTile * kThreadTile;
  const auto per_copy = [&](int unit) { return kPerCopy + (unit * sizeof(T) < 4 ? kThroughRegister : 0); };
  const double copies = bm / units.y * per_copy(units.y) + bn / units.x * per_copy(units.x);
  const double rounded = double(s.slabs << s.log_bk) * std::ceil(pixels / double(s.slabs << s.log_bk));
  // Filters and columns that there are: the others are not read. Under a stride planar x leaves gaps in its sectors, but where neighbouring
  // lanes take neighbouring taps.
  const int64_t step = Layout::kChannelsLast ? 1 : std::min<int64_t>(p.stride_w, 32 / int64_t(sizeof(T)));
  const double gaps = std::max(1.0, double(step) / (s.skip_padding ? 1.0 : double(tap_lanes(p))));
  // Of planes a stage takes runs, each from its own channel.
  const WgradGeometry g(p, Layout::kChannelsLast);
  const int64_t stage = int64_t(1) << s.log_bk;
  const double y_ends = Layout::kChannelsLast ? 1 : sectors_of_run(p, std::min(stage, p.P * p.Q), units.y);
  const double x_ends = Layout::kChannelsLast ? 1 : sectors_of_run(p, std::min(stage, g.Q), units.x);
  s.asked = pixels * size * double(p.groups) *
            (y_ends * double(p.filters_per_group()) * double(s.column_tiles) +
             std::max(x_ends, gaps) * double(p.channels_per_group() * p.R * p.S) * double(s.filter_tiles));
  const double partial = s.by_workspace ? double(s.slabs) * double(p.filter_numel()) * sizeof(float) : 0;
  Work work;
  work.instructions = tiles * rounded * (bm * bn / (kThreadTile * kThreadTile) * kPerPixel + copies) + results * kPerResult +
                      double(s.by_workspace ? s.slabs : 0) * double(p.filter_numel()) * 8;
  work.dram_bytes = p.tensor_bytes() + 2 * partial;
  work.l2_bytes = s.asked + 2 * partial;
  work.l1_bytes = s.asked + tiles * rounded * bm * bn / (kThreadTile * kThreadTile) * 2 * kThreadTile * size;
  if (Layout::kTensor) {
    work.l1_bytes = s.asked + tiles * rounded * bm * bn / (64 * 32) * (64 + 32) * size;
    work.matrix_clocks = tiles * rounded * bm * bn / (16 * MatrixShape<T>::kDepth * 8) * kMatrixClocks;
  }
  work.blocks = tiles * double(s.slabs);
  work.threads = kTiledWgradThreads;
  work.launches = s.by_workspace ? 2 : 1;
  s.cost = microseconds(work);
}

// Less of the (pixel, tap) pairs inside the image: blocks leave out what is outside.
inline bool worth_skipping(double inside) { return inside < 0.9; }

inline WgradSchedule tiled_by(const Problem& p, bool channels_last, int log_bm, int log_bn, int log_bk, int64_t slabs, bool skip_padding) {
  WgradSchedule s;
  s.log_bm = log_bm, s.log_bn = log_bn, s.log_bk = log_bk;
  s.skip_padding = skip_padding;
  s.filter_tiles = ceil_div(p.filters_per_group(), int64_t(1) << log_bm);
  s.column_tiles = ceil_div(p.channels_per_group() * p.R * p.S, int64_t(1) << log_bn);
  s.slabs = slabs;
  // A block's columns are channels of a tap, but in a filter of planes the taps of a channel lie together: a store would fill a fraction of
  // a sector. sum_slabs turns the sums round.
  const bool turned = (channels_last || skip_padding) && p.R * p.S > 1 && p.channels_per_group() > 1 && p.w.d1 != 1;
  s.by_workspace = p.sums_in_workspace(slabs) || turned;
  return s;
}

// The tile and the number of slabs: of those that the model has within a tenth of the fastest, which is as exact as a model is, the ones
// that ask for the fewest bytes.
template <class Layout>
WgradSchedule schedule_tiled_wgrad(const Problem& p) {
  constexpr int64_t kMostWorkspace = int64_t(256) << 20;
  constexpr int kLeastStageBytes = 16 * 1024;  // less is too little on its way
  constexpr double kAsGood = 1.1;
  const double inside = part_inside(p);
  const bool skip = worth_skipping(inside);
  const WgradUnits units = wgrad_units(p, WgradGeometry(p, Layout::kChannelsLast), Layout::kChannelsLast, skip);
  const int64_t columns = p.channels_per_group() * p.R * p.S;
  WgradSchedule candidates[17 * 2 * 3];  // tiles, stages, slabs
  int count = 0;
  double least = 0;
  constexpr int kLeastM = Layout::kTensor ? kLogWarpFilters : 3, kLeastN = Layout::kTensor ? 6 : 4;
  constexpr int kLeast = Layout::kTensor ? kLeastM + kLeastN : 9;  // a slice has at least the eight threads that read together
  for (int log_bm = kLeastM; log_bm <= 7; ++log_bm) {
    for (int log_bn = kLeastN; log_bn <= 7; ++log_bn) {
      if (log_bm + log_bn < kLeast) continue;
      // Half of the tile would do, and is one.
      if (log_bm + log_bn > kLeast && log_bm > kLeastM && (int64_t(1) << (log_bm - 1)) >= p.filters_per_group()) continue;
      if (log_bm + log_bn > kLeast && log_bn > kLeastN && (int64_t(1) << (log_bn - 1)) >= columns) continue;
      // A block of several taps sums over what any of them reaches.
      const double taps = std::max(1.0, double(1 << log_bn) / double(p.channels_per_group()));
      const bool all = !skip || taps >= double(p.R * p.S);
      const double pixels = double(p.output_pixels()) * (all ? 1.0 : std::min(1.0, inside * std::sqrt(taps)));
      int last_bk = -1;
      for (int bytes = Layout::kStageBytes; bytes >= kLeastStageBytes; bytes /= 2) {
        const int log_bk = log_stage_pixels<Layout>(1 << log_bm, 1 << log_bn, bytes);
        if (log_bk == last_bk) break;
        last_bk = log_bk;
        const int64_t most = std::max<int64_t>(1, std::min(int64_t(pixels) / (int64_t(Layout::kStages - 1) << log_bk),
                                                           kMostWorkspace / (p.filter_numel() * int64_t(sizeof(float)))));
        for (int halves = 2; halves <= 4; ++halves) {  // two, three or four blocks on each multiprocessor
          const int64_t tiles = tiled_by(p, Layout::kChannelsLast, log_bm, log_bn, log_bk, 1, skip).tiles(p);
          const int64_t slabs = std::clamp<int64_t>(kTargetBlocks * halves / 2 / tiles, 1, most);
          WgradSchedule s = tiled_by(p, Layout::kChannelsLast, log_bm, log_bn, log_bk, slabs, skip);
          set_cost<Layout>(s, p, units, pixels);
          if (count == 0 || s.cost < least) least = s.cost;
          candidates[count++] = s;
        }
      }
    }
  }
  const WgradSchedule* best = nullptr;
  for (const WgradSchedule* s = candidates; s < candidates + count; ++s) {
    if (s->cost > kAsGood * least) continue;
    if (!best || s->asked < best->asked || (s->asked == best->asked && s->cost < best->cost)) best = s;
  }
  return *best;
}

template <class Layout>
Configuration configure_tiled_wgrad(const Problem& p) {
  const WgradSchedule s = schedule_tiled_wgrad<Layout>(p);
  Configuration c;
  c.blocks = s.tiles(p) * s.slabs;
  c.slabs = s.slabs;
  c.workspace_bytes = s.by_workspace ? s.slabs * p.filter_numel() * int64_t(sizeof(float)) : 0;
  c.threads = kTiledWgradThreads;
  c.shared_bytes = wgrad_shared_bytes<Layout>(s);
  c.tile[0] = 1 << s.log_bm, c.tile[1] = 1 << s.log_bn, c.tile[2] = 1 << s.log_bk;
  return c;
}

// --- Launch.

// The unit for a tensor that begins at `data`.
template <class T>
int aligned_log_unit(int unit, const void* data) {
  while (reinterpret_cast<std::uintptr_t>(data) % (std::uintptr_t(unit) * sizeof(T)) != 0) unit /= 2;
  return log2_floor(unit);
}

template <class Layout>
void run_tiled_wgrad(const Kernel& kernel, const Problem& p, const Configuration& configuration, const Arguments& a) {
  using T = typename Layout::Element;
  constexpr bool kChannelsLast = Layout::kChannelsLast;
  const WgradSchedule s = tiled_by(p, kChannelsLast, log2_floor(configuration.tile[0]), log2_floor(configuration.tile[1]),
                                   log2_floor(configuration.tile[2]), configuration.slabs, worth_skipping(part_inside(p)));
  const WgradGeometry g(p, kChannelsLast);
  const WgradUnits units = wgrad_units(p, g, kChannelsLast, s.skip_padding);
  TiledWgradParams q{};
  q.x = a.x, q.y = a.y, q.w = a.out;
  q.partial = s.by_workspace ? static_cast<float*>(a.workspace) : nullptr;
  q.x_n = int(g.x.d0), q.x_c = int(g.x.d1), q.x_h = int(g.x.d2), q.x_w = int(g.x.d3);
  q.y_n = int(g.y.d0), q.y_c = int(g.y.d1), q.y_h = int(g.y.d2), q.y_w = int(g.y.d3);
  q.w_k = int(p.w.d0), q.w_c = int(p.w.d1), q.w_r = int(p.w.d2), q.w_s = int(p.w.d3);
  q.N = int(g.N), q.H = int(g.H), q.W = int(g.W), q.P = int(g.P), q.Q = int(g.Q);
  q.stride_h = int(p.stride_h), q.stride_w = int(p.stride_w), q.pad_h = int(g.pad_h), q.pad_w = int(g.pad_w);
  q.dilation_h = int(p.dilation_h), q.dilation_w = int(p.dilation_w);
  q.filters = int(p.filters_per_group()), q.channels = int(p.channels_per_group());
  q.columns = int(p.channels_per_group() * p.R * p.S);
  q.taps_outermost = kChannelsLast || s.skip_padding;
  q.inner_columns = FastDiv<int32_t>(q.taps_outermost ? q.channels : p.R * p.S);
  q.S = FastDiv<int32_t>(p.S);
  q.filter_tiles = int(s.filter_tiles), q.column_tiles = int(s.column_tiles), q.groups = int(p.groups), q.slabs = int(s.slabs);
  q.log_bm = s.log_bm, q.log_bn = s.log_bn, q.log_bk = s.log_bk;
  q.log_x_unit = aligned_log_unit<T>(units.x, a.x), q.log_y_unit = aligned_log_unit<T>(units.y, a.y);
  // The threads hold a stage's pixels once for each of those taps.
  constexpr int kLogThreads = 8;
  static_assert(1 << kLogThreads == kTiledWgradThreads, "a tap's lanes for every pixel");
  if (!q.taps_outermost) q.log_tap_lanes = std::min(log2_floor(tap_lanes(p)), kLogThreads - (q.log_bk - q.log_x_unit));
  q.skip_padding = s.skip_padding;
  q.whole = {0, 0, int(g.N * g.P * g.Q), FastDiv<int32_t>(g.Q), FastDiv<int32_t>(g.P * g.Q)};
  const LaunchShape shape{dim3(unsigned(configuration.blocks)), dim3(kTiledWgradThreads), std::size_t(configuration.shared_bytes),
                          a.stream};
  launch(kernel.name.c_str(), shape, tiled_wgrad_kernel<Layout>, q);
  if (!s.by_workspace) return;
  const int64_t channels = p.channels_per_group();
  if (q.taps_outermost) add_slabs<T>({a.workspace, s.slabs, {p.K, p.R, p.S, channels}, a.out, {p.w.d0, p.w.d2, p.w.d3, p.w.d1}}, a);
  else add_slabs<T>({a.workspace, s.slabs, {p.K, channels, p.R, p.S}, a.out, {p.w.d0, p.w.d1, p.w.d2, p.w.d3}}, a);
}

template <class Layout, WgradFamily kFamily>
struct TiledWgradRow {
  static std::string why_not(const Kernel&, const Problem& p) {
    const std::string why = Layout::kTensor ? why_not_tensor_cores(p) : "";
    return why.empty() ? why_not_tiled_wgrad(kFamily, Layout::kChannelsLast, p) : why;
  }
  static double cost(const Kernel&, const Problem& p) { return schedule_tiled_wgrad<Layout>(p).cost; }
  static Configuration configure(const Kernel&, const Problem& p) { return configure_tiled_wgrad<Layout>(p); }
  static void run(const Kernel& kernel, const Problem& p, const Configuration& configuration, const Arguments& a) {
    run_tiled_wgrad<Layout>(kernel, p, configuration, a);
  }
};

template <class T, class Layout, class Row>
void add_tiled_wgrad_row(std::vector<Kernel>& catalogue, WgradFamily family, const char* layout) {
  Kernel row{};
  row.family = name_of(family);
  row.dtype = TypeTraits<T>::kDType;
  row.tf32 = Layout::kTensor && sizeof(T) == 4;
  row.name = std::string("conv2d_") + name_of(family) + "_wgrad_" + layout + "_" + arithmetic_of(row);
  row.passes = {Pass::kWgrad};
  row.tm = row.tn = kThreadTile;
  row.threads = kTiledWgradThreads;
  row.index_bits = 32;
  row.stages = Layout::kStages;
  use_functions<Row>(row);
  catalogue.push_back(row);
}

// For channels dense, for rows of pixels dense, and one that packs such rows; the first and the last on tensor cores too, the last in
// halves there alone.
template <class T, WgradFamily kFamily>
void add_tiled_wgrad_rows(std::vector<Kernel>& catalogue) {
  add_tiled_wgrad_row<T, ChannelsLast<T>, TiledWgradRow<ChannelsLast<T>, kFamily>>(catalogue, kFamily, "nhwc");
  add_tiled_wgrad_row<T, Planar<T>, TiledWgradRow<Planar<T>, kFamily>>(catalogue, kFamily, "nchw");
  if (sizeof(T) == 4)
    add_tiled_wgrad_row<T, ChannelsLast<T>, PackedRow<T, TiledWgradRow<ChannelsLast<T>, kFamily>>>(catalogue, kFamily, "packed");
  if constexpr (tensor_cores_have<T>) {
    add_tiled_wgrad_row<T, ChannelsLastTensor<T>, TiledWgradRow<ChannelsLastTensor<T>, kFamily>>(catalogue, kFamily, "tensor");
    add_tiled_wgrad_row<T, ChannelsLastTensor<T>, PackedRow<T, TiledWgradRow<ChannelsLastTensor<T>, kFamily>>>(catalogue, kFamily,
                                                                                                               "packed_tensor");
  }
}

template <class T>
void add_tiled_wgrad_kernels(std::vector<Kernel>& catalogue) {
  add_tiled_wgrad_rows<T, WgradFamily::kPointwise>(catalogue);
  add_tiled_wgrad_rows<T, WgradFamily::kDense>(catalogue);
  add_tiled_wgrad_rows<T, WgradFamily::kDilated>(catalogue);
  add_tiled_wgrad_rows<T, WgradFamily::kTransposed>(catalogue);
}

}  // namespace cnn::conv2d
