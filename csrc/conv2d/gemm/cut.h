// How the implicit GEMM cuts a problem: its parameters, but for pointers and what follows from where these point.
#pragma once

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>

#include "common/cost.h"
#include "common/integers.h"
#include "conv2d/gemm/gemm.h"
#include "conv2d/problem.h"

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
  int most_slabs = 64;
  // Elements from one group to the next where groups are not the channels of one image, in the order of GemmParams; and then the epilogue's
  // channels are the rows.
  std::optional<std::array<int, 3>> groups_apart = {};  // in, filter, out
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
  q.parts = q.planes = 1, q.class_count_h = q.class_count_w = 1;

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
    q.class_count_h = gemm_classes(q.h);
    const int classes_w = gemm_classes(q.w);
    // Classes of the columns interleave in a row of the result: one item does them all where its stores would otherwise have gaps.
    constexpr int kSector = 32;
    const bool gaps = q.out_planar || view.out_channels * p.groups * size < kSector;
    const bool fits =
        tile.stages * (tile.bm + tile.bn) * kGemmRowBytes + staging_bytes(tile, q.out_planar, classes_w, size) <= kGemmMostShared;
    q.parts = q.planes = gaps && fits && classes_w == q.w.out_step ? classes_w : 1;
    q.class_count_w = classes_w / q.parts;
    const auto more_taps = [](const GemmClass& a, const GemmClass& b) { return a.taps > b.taps; };
    std::stable_sort(q.h.classes, q.h.classes + q.class_count_h, more_taps);
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
  const int64_t row_items = int64_t(q.row_tiles) * q.class_count_h * q.class_count_w * q.groups;
  const int image_slot = tile.bm * kGemmRowBytes, filter_slot = tile.bn * kGemmRowBytes;
  const int staging = staging_bytes(tile, q.out_planar, q.parts, size);
  const bool one_tap = q.parts == 1 && q.class_count_h * q.class_count_w == 1 && (p.R * p.S == 1 || q.columns_are_taps);
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
    q.slabs = int(std::max<int64_t>(1, std::min({most, ceil_div(kTargetBlocks, items), int64_t(options.most_slabs)})));
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
  q.in_group = q.in_channels * q.in_c, q.out_group = q.out_channels * q.out_c;
  if (options.groups_apart) {
    q.in_group = (*options.groups_apart)[0], q.filter_group = (*options.groups_apart)[1], q.out_group = (*options.groups_apart)[2];
    q.channels_are_rows = true;
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

}  // namespace cnn::conv2d
