// The implicit GEMM's host side, for the families that use it: parameters from the problem, how the work is cut, and its cost.
#pragma once

#include <algorithm>
#include <numeric>
#include <string>

#include "common/cost.h"
#include "common/matrix.h"
#include "conv2d/eligibility.h"
#include "conv2d/gemm/gemm.h"
#include "conv2d/pack_images/pack_images.h"
#include "conv2d/plan.h"
#include "conv2d/sum_slabs/sum_slabs.h"

namespace cnn::conv2d {

constexpr int64_t kGemmMostShared = 110 * 1024;  // of a block that is to have another one beside it

// fprop and dgrad seen as a gather: which tensor is read, which is written.
struct GemmView {
  const Strides &in, &out;
  int64_t in_channels, out_channels;  // per group
  int64_t in_h, in_w, out_h, out_w;
  bool fprop;

  explicit GemmView(const Problem& p)
      : in(p.pass == Pass::kFprop ? p.x : p.y),
        out(p.pass == Pass::kFprop ? p.y : p.x),
        in_channels(p.pass == Pass::kFprop ? p.channels_per_group() : p.filters_per_group()),
        out_channels(p.pass == Pass::kFprop ? p.filters_per_group() : p.channels_per_group()),
        in_h(p.pass == Pass::kFprop ? p.H : p.P),
        in_w(p.pass == Pass::kFprop ? p.W : p.Q),
        out_h(p.pass == Pass::kFprop ? p.P : p.H),
        out_w(p.pass == Pass::kFprop ? p.Q : p.W),
        fprop(p.pass == Pass::kFprop) {}
};

// How a problem is cut: all that does not depend on where the tensors lie.
struct GemmPlan {
  GemmParams params{};  // but for pointers, units and what follows from them
  bool in_planar = false;
  bool packs_filter = false;
  int64_t partial_bytes = 0, packed_bytes = 0;
  int blocks = 0, shared_bytes = 0;
  double steps = 0;  // of all items: one tap and 64 bytes of channels each
};

inline GemmAxis gemm_axis(bool fprop, int64_t out, int64_t in, int64_t taps, int64_t stride, int64_t pad, int64_t dilation) {
  GemmAxis axis{};
  axis.in_extent = int(in), axis.out_extent = int(out);
  if (fprop) {
    axis.positions = int(out), axis.out_step = 1, axis.in_per_out = int(stride), axis.in_per_tap = int(dilation), axis.tap_step = 1;
    axis.classes[0] = {0, 0, int(taps), -int(pad)};
    return axis;
  }
  const int64_t tap_step = stride / std::gcd(stride, dilation);
  axis.positions = int(ceil_div(out, stride)), axis.out_step = int(stride), axis.in_per_out = 1;
  axis.in_per_tap = -int(tap_step * dilation / stride), axis.tap_step = int(tap_step);
  for (int64_t residue = 0; residue < std::min(stride, out); ++residue) {
    int64_t first = 0;
    const int64_t candidates = std::min(tap_step, taps);
    while (first < candidates && (residue + pad - first * dilation) % stride != 0) ++first;
    const bool any = first < candidates;
    axis.classes[residue] = {int(residue), int(any ? first : 0), int(any ? (taps - 1 - first) / tap_step + 1 : 0),
                             int((residue + pad - first * dilation) / stride)};
  }
  return axis;
}

inline int gemm_classes(const GemmAxis& axis) { return axis.out_step == 1 ? 1 : std::min(axis.out_step, axis.out_extent); }

// Whether no two taps of a transposed convolution meet: stride and filter are equal, and every pixel of the result is a tap of one pixel.
inline bool taps_are_apart(const Problem& p) {
  return p.pass == Pass::kDgrad && p.R * p.S > 1 && p.R == p.stride_h && p.S == p.stride_w && p.pad_h == 0 && p.pad_w == 0 &&
         p.dilation_h == 1 && p.dilation_w == 1 && p.H == p.P * p.R && p.W == p.Q * p.S;
}

// The order in which (r, s, channel) are dense in the filter: 1 channel innermost, 2 channel outermost, 0 neither.
inline int column_order(const Problem& p) {
  const int64_t channels = p.channels_per_group();
  if (p.w.d1 == 1 && p.w.d3 == channels && p.w.d2 == p.S * channels) return 1;
  if (p.w.d3 == 1 && p.w.d2 == p.S && p.w.d1 == p.R * p.S) return 2;
  return 0;
}

// Taps of all tiles of so many rows along one axis.
inline double live_taps(const GemmAxis& axis, int tile) {
  double sum = 0;
  for (int first = 0; first < axis.positions; first += tile) {
    const GemmTaps taps = axis.live_taps(axis.classes[0], first, std::min(first + tile, axis.positions) - 1);
    sum += taps.end - taps.begin;
  }
  return sum;
}

// Rows of consecutive pixels, or of rectangles tile_h x tile_w where these multiply a tenth fewer (tap, row) pairs: their rows are short
// runs of memory where pixels are dense. Axes are independent.
inline void choose_rows(GemmParams& q, int bm) {
  const int64_t pixels = int64_t(q.batch) * q.h.positions * q.w.positions;
  q.flat = true, q.row_tiles = int(ceil_div(pixels, bm));
  const int rows = int(std::min<int64_t>(q.h.positions, 1 + ceil_div(bm, q.w.positions)));  // of the image, that such a tile lies in
  constexpr double kWorthCutting = 0.9;
  double least = kWorthCutting * q.row_tiles * live_taps(q.h, rows) / double(ceil_div(q.h.positions, rows)) * q.w.classes[0].taps;
  constexpr int kMostAcross = 8;
  for (int across = 1; across <= kMostAcross; ++across) {
    const int tile_w = int(ceil_div(q.w.positions, across)), tile_h = bm / std::max(1, tile_w);
    if (tile_h < 1 || ceil_div(q.w.positions, tile_w) != across) continue;
    const double all = double(q.batch) * live_taps(q.h, tile_h) * live_taps(q.w, tile_w);
    if (all >= least) continue;
    least = all;
    q.flat = false, q.tile_h = tile_h, q.tile_w = tile_w;
    q.tiles_h = int(ceil_div(q.h.positions, tile_h)), q.tiles_w = across;
    q.row_tiles = q.batch * q.tiles_h * q.tiles_w;
  }
}

template <class Visit>
void for_each_axis_class(const GemmAxis& axis, Visit visit) {
  for (int i = 0; i < gemm_classes(axis); ++i) visit(axis.classes[i]);
}

// The steps of all row tiles and classes, for one tile of columns, one group and all slabs.
inline double gemm_steps(const GemmParams& q) {
  double steps = 0;
  if (q.columns_are_taps) {
    steps = q.row_tiles;  // of one tap and one class: the others are columns
  } else if (q.flat) {
    double taps = 0;
    for_each_axis_class(
        q.h, [&](const GemmClass& h) { for_each_axis_class(q.w, [&](const GemmClass& w) { taps += double(h.taps) * w.taps; }); });
    steps = taps * q.row_tiles;
  } else {
    steps = q.batch * live_taps(q.h, q.tile_h) * live_taps(q.w, q.tile_w);
  }
  return steps * q.chunks;
}

struct GemmOptions {
  bool keep_operands = false;  // an item may do all columns, a block keep the filter: for one tap
  bool rectangles = false;     // rows may be rectangles, for taps that fall on padding
  bool slabs = true;           // the reduction may be cut
};

inline GemmPlan plan_gemm(const Problem& p, GemmTileName name, const GemmOptions& options) {
  const GemmTileShape tile = shape_of(name);
  const GemmView view(p);
  const int size = size_of(p.dtype), depth = kGemmRowBytes / size;
  GemmPlan plan;
  GemmParams& q = plan.params;
  plan.in_planar = !(view.in.d1 == 1 && view.in_channels * p.groups > 1);
  q.out_planar = !(view.out.d1 == 1 && view.out_channels * p.groups > 1);
  q.batch = int(p.N), q.groups = int(p.groups);
  q.in_channels = int(view.in_channels), q.out_channels = q.columns = int(view.out_channels);
  q.in_n = int(view.in.d0), q.in_c = int(view.in.d1), q.in_h = int(view.in.d2), q.in_w = int(view.in.d3);
  q.out_n = int(view.out.d0), q.out_c = int(view.out.d1), q.out_h = int(view.out.d2), q.out_w = int(view.out.d3);
  q.filter_group = int(p.filters_per_group() * p.w.d0);
  q.filter_n = int(view.fprop ? p.w.d0 : p.w.d1), q.filter_k = int(view.fprop ? p.w.d1 : p.w.d0);
  q.filter_r = int(p.w.d2), q.filter_s = int(p.w.d3);
  q.h = gemm_axis(view.fprop, view.out_h, view.in_h, p.R, p.stride_h, p.pad_h, p.dilation_h);
  q.w = gemm_axis(view.fprop, view.out_w, view.in_w, p.S, p.stride_w, p.pad_w, p.dilation_w);
  q.parts = q.planes = 1, q.class_count_w = 1;
  int class_count_h = 1;

  const int order = taps_are_apart(p) ? column_order(p) : 0;
  // The columns of the product lie as the result does: (r, s, channel) where channels are dense, else (channel, r, s).
  q.columns_are_taps = q.out_planar ? order == 2 && tile.bn % p.S == 0 : order == 1;
  q.column_inner = q.column_s = FastDiv<int32_t>(1);
  if (q.columns_are_taps) {
    // One tap for all.
    q.taps_outermost = order == 1;
    q.columns = int(view.out_channels * p.R * p.S);
    q.filter_n = 1;
    q.column_inner = FastDiv<int32_t>(q.taps_outermost ? view.out_channels : p.R * p.S), q.column_s = FastDiv<int32_t>(p.S);
    q.h.classes[0] = q.w.classes[0] = {0, 0, 1, 0};
    if (q.out_planar && !q.taps_outermost) q.planes = int(p.S);
  } else {
    class_count_h = gemm_classes(q.h);
    const int classes_w = gemm_classes(q.w);
    // Classes of the columns interleave in a row of the result: one item does them all where its stores would otherwise have gaps.
    constexpr int kSector = 32;
    const bool gaps = q.out_planar || view.out_channels * p.groups * size < kSector;
    const bool fits =
        tile.stages * (tile.bm + tile.bn) * kGemmRowBytes + staging_bytes(tile, q.out_planar, classes_w, size) <= kGemmMostShared;
    q.parts = q.planes = gaps && fits && classes_w == q.w.out_step ? classes_w : 1;
    q.class_count_w = classes_w / q.parts;
    const auto more_taps = [](const GemmClass& a, const GemmClass& b) { return a.taps > b.taps; };
    std::stable_sort(q.h.classes, q.h.classes + class_count_h, more_taps);
    if (q.parts == 1) std::stable_sort(q.w.classes, q.w.classes + classes_w, more_taps);
  }
  q.filter_inner = q.filter_k == 1 && !q.columns_are_taps && !(q.filter_n == 1 && q.columns > 1);
  // One of a single tap is read element by element where CUDA cores multiply; the tensor cores' copies are of neighbours.
  plan.packs_filter = !q.filter_inner && q.filter_n != 1 && q.columns > 1 && !q.columns_are_taps && (p.R * p.S > 1 || tile.is_tensor());

  q.chunks = int(ceil_div(q.in_channels, depth));
  q.column_tiles = int(ceil_div(q.columns, tile.bn));
  q.flat = true;
  q.row_tiles = int(ceil_div(int64_t(q.batch) * q.h.positions * q.w.positions, tile.bm));
  if (options.rectangles) choose_rows(q, tile.bm);
  q.positions_w = FastDiv<int32_t>(q.w.positions), q.positions_hw = FastDiv<int32_t>(int64_t(q.h.positions) * q.w.positions);
  q.tile_w_div = FastDiv<int32_t>(std::max(1, q.tile_w));
  const double steps = gemm_steps(q);
  plan.steps = steps * q.column_tiles * q.groups;

  // One item for all columns of its rows, if there are items enough and its image fits; one block for several items, if its filter fits and
  // would otherwise be read more often than seems good.
  const int64_t row_items = int64_t(q.row_tiles) * class_count_h * q.class_count_w * q.groups;
  const int image_slot = tile.bm * kGemmRowBytes, filter_slot = tile.bn * kGemmRowBytes;
  const int staging = staging_bytes(tile, q.out_planar, q.parts, size);
  const bool one_tap = q.parts == 1 && class_count_h * q.class_count_w == 1 && (p.R * p.S == 1 || q.columns_are_taps);
  q.column_tiles_per_item = 1;
  q.slabs = 1;
  q.image_slots = q.filter_slots = tile.stages;
  const bool keep_operands = options.keep_operands && !tile.is_tensor();
  if (keep_operands && one_tap && q.column_tiles > 1 && row_items >= kTargetBlocks &&
      (q.chunks + tile.stages - 1) * image_slot + tile.stages * filter_slot + staging <= kGemmMostShared) {
    q.column_tiles_per_item = q.column_tiles;
    q.image_slots = std::max(tile.stages, q.chunks + tile.stages - 1);
  }
  q.column_items = int(ceil_div(q.column_tiles, q.column_tiles_per_item));
  int64_t items = row_items * q.column_items;
  constexpr double kRereads = 0.4;  // of the filter, per byte of image and result
  constexpr int kItemsPerBlock = 2;
  const int resident_slots = q.column_tiles_per_item * q.chunks;
  const double rereads = double(q.columns) * q.in_channels / (double(tile.bm) * (q.columns + q.in_channels));
  if (keep_operands && one_tap && p.pad_h == 0 && p.pad_w == 0 && q.column_items == 1 && q.groups == 1 && rereads > kRereads &&
      items >= kItemsPerBlock * kTargetBlocks && q.image_slots * image_slot + resident_slots * filter_slot + staging <= kGemmMostShared) {
    q.filter_resident = true;
    q.filter_slots = resident_slots;
  }
  // The reduction is cut where there are few tiles, into slabs of eight steps at least.
  constexpr int kLeastSteps = 8;
  if (options.slabs && q.column_tiles_per_item == 1 && q.parts == 1 && items < kTargetBlocks) {
    const int64_t most = int64_t(steps / double(std::max<int64_t>(1, row_items / q.groups)) / kLeastSteps);
    q.slabs = int(std::max<int64_t>(1, std::min({most, ceil_div(kTargetBlocks, items), int64_t(64)})));
    items *= q.slabs;
  }
  if (q.slabs > 1) {
    plan.partial_bytes = q.slabs * p.N * view.out_channels * p.groups * view.out_h * view.out_w * 4;
    const int channels = int(view.out_channels * p.groups), h = int(view.out_h), w = int(view.out_w);
    // Channels innermost, whatever the result's order: rows of a class of columns would have gaps. sum_slabs turns them round.
    if (q.planes == 1) q.out_planar = false;
    if (q.out_planar) q.out_w = 1, q.out_h = w, q.out_c = w * h;
    else q.out_c = 1, q.out_w = channels, q.out_h = channels * w;
    q.out_n = channels * h * w;
    q.slab_stride = q.batch * q.out_n;
  }
  if (plan.packs_filter) plan.packed_bytes = int64_t(size) * p.groups * p.R * p.S * q.in_channels * round_up(q.columns, 8);

  q.items = int(items);
  const int stages = q.image_slots * image_slot + q.filter_slots * filter_slot;
  const int staged = q.slabs > 1 ? staging_bytes(tile, q.out_planar, q.parts, 4) : staging;
  const bool once = q.column_tiles_per_item == 1 && q.parts == 1 && !q.filter_resident;  // the stages are free when there are results
  q.staging = once ? 0 : stages;
  plan.shared_bytes = once ? std::max(stages, staged) : stages + staged;
  plan.blocks = q.items;
  if (q.filter_resident) {
    constexpr int kPerMultiprocessor = 228 * 1024;
    const int64_t beside = std::min<int64_t>(512 / tile.threads, kPerMultiprocessor / (plan.shared_bytes + 2048));
    const int64_t rounds = ceil_div(items, int64_t(kMultiprocessors) * std::max<int64_t>(1, beside));
    plan.blocks = int(ceil_div(items, rounds));
  }
  return plan;
}

// The largest of 16, 8, 4 bytes, or the element, that divides all of `bytes`.
inline int common_unit(std::initializer_list<int64_t> bytes, int size) {
  for (int unit = 16; unit > size; unit /= 2)
    if (std::all_of(bytes.begin(), bytes.end(), [&](int64_t b) { return b % unit == 0; })) return unit;
  return size;
}

inline int image_unit(const GemmPlan& plan, const Problem& p, const void* in) {
  const GemmParams& q = plan.params;
  const int size = size_of(p.dtype);
  const int64_t address = reinterpret_cast<std::intptr_t>(in);
  if (!plan.in_planar)
    return common_unit(
        {address, int64_t(size) * q.in_n, int64_t(size) * q.in_h, int64_t(size) * q.in_w, q.groups > 1 ? int64_t(size) * q.in_channels : 0},
        size);
  if (q.w.in_per_out != 1 || q.in_w != 1) return size;
  const bool one_tap = q.h.classes[0].taps == 1 && q.w.classes[0].taps == 1;
  const bool whole = one_tap && q.parts == 1 && q.class_count_w == 1 && q.h.in_per_out == 1 && q.h.classes[0].first_in == 0 &&
                     q.w.classes[0].first_in == 0 && q.h.in_extent == q.h.positions && q.w.in_extent == q.w.positions &&
                     q.in_h == q.in_w * q.w.in_extent;
  const int64_t n = int64_t(size) * q.in_n, c = int64_t(size) * q.in_c;
  if (whole && q.flat) return common_unit({address, n, c, int64_t(size) * q.h.in_extent * q.w.in_extent}, size);
  int64_t shift = 0;  // of the source's columns: a multiple of the unit for every class and tap
  for_each_axis_class(q.w, [&](const GemmClass& w) { shift = std::gcd(shift, int64_t(w.first_in)); });
  if (q.w.classes[0].taps > 1 || gemm_classes(q.w) > 1) shift = std::gcd(shift, int64_t(q.w.in_per_tap));
  return common_unit({address, n, c, int64_t(size) * q.in_h, int64_t(size) * q.w.in_extent, int64_t(size) * q.w.positions, size * shift,
                      q.flat ? 0 : int64_t(size) * q.tile_w},
                     size);
}

// Of the filter as it is read: packed, where it is packed.
inline int filter_unit(const GemmParams& q, const Problem& p, const void* filter) {
  const int size = size_of(p.dtype);
  if (!q.filter_inner && q.filter_n != 1 && q.columns > 1) return size;
  const int64_t address = reinterpret_cast<std::intptr_t>(filter), bytes = size;
  const auto step = [&](int64_t taps, int64_t stride) { return q.columns_are_taps || taps == 1 ? 0 : bytes * stride; };
  return common_unit({address, bytes * (q.filter_inner ? q.filter_n : q.filter_k), step(p.R, q.filter_r), step(p.S, q.filter_s),
                      q.groups > 1 ? bytes * q.filter_group : 0},
                     size);
}

inline int out_vector(const GemmParams& q, const void* out, int size) {
  const int64_t address = reinterpret_cast<std::intptr_t>(out);
  const int64_t n = int64_t(size) * q.out_n, c = int64_t(size) * q.out_c, h = int64_t(size) * q.out_h, w = int64_t(size) * q.out_w;
  int unit;
  if (!q.out_planar) {
    unit = common_unit({address, n, h, w, int64_t(size) * q.out_channels}, size);
  } else if (q.out_w != 1 && q.w.out_extent > 1) {
    unit = size;
  } else {
    const bool rows_whole = q.w.positions * q.planes == q.w.out_extent;  // no row of the result ends within a vector
    const bool plane = q.flat && rows_whole && q.h.out_step == 1 && q.out_h == q.w.out_extent;
    if (plane) unit = common_unit({address, n, c, int64_t(size) * q.h.out_extent * q.w.out_extent}, size);
    else if (q.w.out_step != q.planes) unit = size;
    else
      unit = common_unit(
          {address, n, c, h, rows_whole ? int64_t(size) * q.w.out_extent : 1, q.flat ? 0 : int64_t(size) * q.tile_w * q.planes}, size);
  }
  return unit == 16 ? 16 / size : unit == 8 ? 8 / size : 1;
}

// Launches the packing of the filter into `packed`, where it is read from then on.
template <class T>
void pack_filter(GemmParams& q, const Problem& p, void* packed, cudaStream_t stream) {
  PackFilterParams f{};
  f.filter = q.filter, f.packed = packed;
  f.filter_group = q.filter_group, f.filter_k = q.filter_k, f.filter_n = q.filter_n, f.filter_r = q.filter_r, f.filter_s = q.filter_s;
  f.groups = q.groups, f.k = q.in_channels, f.n = q.columns, f.taps = int(p.R * p.S);
  f.pitch = int(round_up(q.columns, 8));
  f.n_before_k = q.filter_k < q.filter_n;
  f.width = FastDiv<int32_t>(p.S);
  static const std::string pack = std::string("conv2d_pack_filter_") + short_name(TypeTraits<T>::kDType);
  launch_pack_filter<T>(pack.c_str(), f, stream);
  q.filter = packed;
  q.filter_n = 1, q.filter_k = f.pitch, q.filter_s = f.k * f.pitch, q.filter_r = int(p.S) * q.filter_s;
  q.filter_group = f.taps * q.filter_s;
}

// How results of `size` bytes each go to `out`.
inline void set_stores(GemmParams& q, const GemmTileShape& tile, const void* out, int size) {
  q.out_vector = out_vector(q, out, size);
  q.planes_div = FastDiv<int32_t>(q.planes);
  const int last = q.columns - (q.column_tiles - 1) * tile.bn;
  const int rows = staged_rows(tile, q.parts, size);
  q.out_units = FastDiv<int32_t>(q.out_planar ? rows * q.planes / q.out_vector : tile.bn / q.out_vector);
  q.out_units_last = q.out_planar ? q.out_units : FastDiv<int32_t>(ceil_div(last, q.out_vector));
}

template <class T>
void run_gemm(const Kernel& kernel, const Problem& p, GemmTileName name, const GemmOptions& options, const Arguments& a) {
  const GemmView view(p);
  const GemmTileShape tile = shape_of(name);
  GemmPlan plan = plan_gemm(p, name, options);
  GemmParams& q = plan.params;
  const int size = int(sizeof(T));
  q.in = view.fprop ? a.x : a.y;
  q.filter = a.w, q.epilogue = a.epilogue, q.out = a.out;
  if (q.slabs > 1) q.partial = static_cast<float*>(a.workspace), q.epilogue = {};  // which sum_slabs has
  if (plan.packs_filter) pack_filter<T>(q, p, static_cast<unsigned char*>(a.workspace) + round_up(plan.partial_bytes, 16), a.stream);
  q.image_unit = image_unit(plan, p, q.in);
  q.filter_unit = filter_unit(q, p, q.filter);
  set_stores(q, tile, q.partial ? a.workspace : a.out, q.partial ? 4 : size);
  if constexpr (tensor_cores_have<T>) {
    if (tile.is_tensor()) launch_tensor_gemm<T>(kernel.name.c_str(), name, q, plan.blocks, plan.shared_bytes, a.stream);
  }
  if (!tile.is_tensor()) launch_gemm<T>(kernel.name.c_str(), name, plan.in_planar, q, plan.blocks, plan.shared_bytes, a.stream);
  if (q.slabs == 1) return;
  const int64_t channels = view.out_channels * p.groups;
  const Strides& out = view.out;
  if (q.out_planar)
    sum_slabs<T>({a.workspace, q.slabs, {p.N, channels, view.out_h, view.out_w}, a.out, {out.d0, out.d1, out.d2, out.d3}, a.epilogue, 1},
                 a.stream);
  else
    sum_slabs<T>({a.workspace, q.slabs, {p.N, view.out_h, view.out_w, channels}, a.out, {out.d0, out.d2, out.d3, out.d1}, a.epilogue, 3},
                 a.stream);
}

inline Configuration configure_gemm(const Problem& p, GemmTileName name, const GemmOptions& options) {
  const GemmPlan plan = plan_gemm(p, name, options);
  Configuration c;
  c.blocks = plan.blocks;
  c.slabs = plan.params.slabs;
  c.workspace_bytes = plan.packs_filter ? round_up(plan.partial_bytes, 16) + plan.packed_bytes : plan.partial_bytes;
  c.shared_bytes = plan.shared_bytes;
  return c;
}

// What every family that uses the implicit GEMM refuses.
inline std::string why_not_gemm(const Problem& p, GemmTileName name) {
  const GemmView view(p);
  if (shape_of(name).is_tensor()) {
    if (std::string why = why_not_tensor_cores(p); !why.empty()) return why;
    if (view.in.d1 != 1 && view.in_channels * p.groups > 1) return "the image it reads is not channels_last, nor packed so";
    if (std::max(p.R, p.S) > kMostTensorTaps)
      return "filter " + std::to_string(p.R) + "x" + std::to_string(p.S) + ": built for up to " + std::to_string(kMostTensorTaps) +
             " rows and columns";
  }
  if (std::string why = why_not_tuned(p); !why.empty()) return why;
  if (!view.fprop && std::max(p.stride_h, p.stride_w) > kMostClasses)
    return "stride " + std::to_string(std::max(p.stride_h, p.stride_w)) + ": built for strides up to " + std::to_string(kMostClasses);
  return {};
}

// The instructions of a step's products on CUDA cores, for all threads, and the bytes that they read from shared memory.
inline Work cuda_core_step(const GemmTileShape& tile, int depth, int size) {
  // Per row, column and channel: one FMA; TM + TN values read from shared memory, 8 bytes an instruction, and of halves widened. So for
  // 8 x 8 results and four channels 288 and 352 instructions (floats, halves); in the machine code there are 278 to 307 and 345 to 362.
  const double per_result = double(tile.tm + tile.tn) / (tile.tm * tile.tn);
  const double reads = per_result * size / 8, widening = size == 2 ? per_result : 0;
  const double fmas = double(tile.bm) * tile.bn * depth;
  Work work;
  work.instructions = fmas * (1 + reads + widening);
  work.l1_bytes = fmas * per_result * size;
  return work;
}

// The same on tensor cores: mma and ldmatrix, of which each warp has two turns (tensor.cuh). Floats are rounded, by two instructions each,
// and those of a filter that is not dense along the reduction are loaded one by one.
inline Work tensor_core_step(const GemmTileShape& tile, int size, bool filter_inner) {
  const double warps = tile.threads / 32, rows = double(tile.bm) / tile.warps_m / 16, columns = double(tile.bn) / tile.warps_n / 8;
  const double registers = 2 * (4 * rows + 2 * columns) * warps;  // of operands
  const bool one_by_one = size == 4 && !filter_inner;
  const double loads = 2 * (rows + (one_by_one ? 2 * columns : columns / 2)) * warps;
  Work work;
  work.instructions = 32 * (2 * rows * columns * warps + loads + (size == 4 ? 2 * registers : 0));
  work.l1_bytes = 128 * registers;
  work.matrix_clocks = 2 * rows * columns * warps * kMatrixClocks;
  return work;
}

inline double gemm_cost(const Problem& p, GemmTileName name, const GemmOptions& options) {
  const GemmTileShape tile = shape_of(name);
  const GemmPlan plan = plan_gemm(p, name, options);
  const GemmParams& q = plan.params;
  const int size = size_of(p.dtype), depth = std::min(kGemmRowBytes / size, int(round_up(q.in_channels, kGemmTurn)));
  const Work step = tile.is_tensor() ? tensor_core_step(tile, size, q.filter_inner) : cuda_core_step(tile, depth, size);
  // A step's copies, for a unit: 20 instructions on CUDA cores (offset, bounds, two addresses, the copy, the loop), and 100 of each thread
  // for the walk. On tensor cores 128 x 128 has 131 to 137 beside its products and their loads in the machine code, for 8 copies: 6 for
  // each and 85 for the walk.
  const double copy = tile.is_tensor() ? 6 : 20, overhead = tile.is_tensor() ? 85 : 100;
  constexpr double kStore = 4;
  const double image_tiles = q.column_tiles_per_item > 1 ? plan.steps / q.column_tiles : plan.steps;
  const double filter_tiles = q.filter_resident ? double(plan.blocks) * q.filter_slots : plan.steps;
  const int unit = image_unit(plan, p, nullptr);
  const double copies =
      (image_tiles * tile.bm / unit + filter_tiles * tile.bn / (plan.packs_filter ? kGemmChunkBytes : filter_unit(q, p, nullptr))) *
      kGemmRowBytes;
  const double results =
      double(p.N) * (p.pass == Pass::kFprop ? double(p.P) * double(p.Q) * double(p.K) : double(p.H) * double(p.W) * double(p.C));
  Work work;
  work.instructions = plan.steps * (step.instructions + overhead * tile.threads) + copies * copy + results * kStore;
  work.matrix_clocks = plan.steps * step.matrix_clocks;
  work.dram_bytes = p.tensor_bytes() + 2 * double(plan.partial_bytes + plan.packed_bytes);
  // Pixels of planes that are copied one by one: their sectors have gaps under a stride, and runs begin and end within some
  // (assumed: 128 bytes that begin anywhere touch five sectors for four).
  constexpr double kEnds = 1.2;
  const bool one_by_one = plan.in_planar && unit < kGemmChunkBytes;
  const double sectors = one_by_one ? kEnds * std::min(q.w.in_per_out, 32 / size) : 1;
  // A class of columns that is written by itself leaves gaps in the sectors of a plane.
  const double gaps = q.out_planar && q.class_count_w > 1 ? std::min(q.w.out_step, 32 / size) : 1;
  work.l2_bytes = (image_tiles * tile.bm * sectors + filter_tiles * tile.bn) * kGemmRowBytes *
                      std::min(1.0, double(q.in_channels) * size / kGemmRowBytes) +
                  results * size * (q.slabs > 1 ? 1 + 8.0 * q.slabs / size : gaps);
  work.l1_bytes = plan.steps * step.l1_bytes + copies * 16 + results * 2 * size;
  work.blocks = plan.blocks, work.threads = tile.threads;
  work.launches = 1 + (q.slabs > 1) + plan.packs_filter;
  return microseconds(work);
}

inline std::string name_of(GemmTileName name) {
  const GemmTileShape tile = shape_of(name);
  return (tile.is_tensor() ? "tensor_" : "") + std::to_string(tile.bm) + "x" + std::to_string(tile.bn);
}

// What a row of a family does. Family: kName, kOptions, passes and why_not, as static members.
template <class T, class Family, GemmTileName kTile>
struct GemmRow {
  static std::string why_not(const Kernel&, const Problem& p) {
    const std::string why = Family::why_not(p);
    return why.empty() ? why_not_gemm(p, kTile) : why;
  }
  static double cost(const Kernel&, const Problem& p) { return gemm_cost(p, kTile, Family::kOptions); }
  static Configuration configure(const Kernel&, const Problem& p) { return configure_gemm(p, kTile, Family::kOptions); }
  static void run(const Kernel& kernel, const Problem& p, const Configuration&, const Arguments& a) {
    run_gemm<T>(kernel, p, kTile, Family::kOptions, a);
  }
};

// The row for the images as they lie, and the one that packs them.
template <class T, class Family, GemmTileName kTile>
void add_gemm_rows(std::vector<Kernel>& catalogue) {
  const GemmTileShape tile = shape_of(kTile);
  Kernel row{};
  row.tf32 = tile.is_tensor() && sizeof(T) == 4;
  row.family = Family::kName;
  row.dtype = TypeTraits<T>::kDType;
  const std::string rest = name_of(kTile) + "_" + arithmetic_of(row);
  row.name = std::string("conv2d_") + Family::kName + "_" + rest;
  row.passes = Family::passes();
  row.bm = tile.bm, row.bn = tile.bn, row.bk = kGemmRowBytes / int(sizeof(T)), row.tm = tile.tm, row.tn = tile.tn;
  row.threads = tile.threads;
  row.index_bits = 32;
  row.stages = tile.stages;
  use_functions<GemmRow<T, Family, kTile>>(row);
  catalogue.push_back(row);
  row.name = std::string("conv2d_") + Family::kName + "_packed_" + rest;
  use_functions<PackedRow<T, GemmRow<T, Family, kTile>>>(row);
  catalogue.push_back(row);
}

// A family's rows on tensor cores, where these multiply the type.
template <class T, class Family>
void add_tensor_gemm_rows(std::vector<Kernel>& catalogue) {
  if constexpr (tensor_cores_have<T>) {
    add_gemm_rows<T, Family, GemmTileName::kTensor128x256>(catalogue);
    add_gemm_rows<T, Family, GemmTileName::kTensor128x128>(catalogue);
    add_gemm_rows<T, Family, GemmTileName::kTensor128x64>(catalogue);
    add_gemm_rows<T, Family, GemmTileName::kTensor64x64>(catalogue);
  }
}

}  // namespace cnn::conv2d
