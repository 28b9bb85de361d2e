// The host side of the depthwise kernels for channels_last tensors: which problems they run, how these are cut, costs, and the rows of
// the catalogue. Included by instantiations/channels_last_*.cu alone.
//
// Configuration::tile is {chunks of 16 bytes of channels, strips, units side by side} of a block: its blockDim but for the vectors in a
// chunk.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/cost.h"
#include "common/integers.h"
#include "common/launch.h"
#include "conv2d/depthwise/channels_last_slide.cuh"
#include "conv2d/depthwise/channels_last_wgrad.cuh"
#include "conv2d/depthwise/depthwise.h"
#include "conv2d/eligibility.h"
#include "conv2d/plan.h"
#include "conv2d/sum_slabs/sum_slabs.h"

namespace cnn::conv2d {
namespace channels_last {

// V channels and output columns of a thread, as registers allow: weights or sums of K * K * V floats, and of K * columns * V. 7 columns
// are a whole strip of the planes that 7x7 filters see, which have 7, 14, 28 or 56. With stride 2 so few FMAs meet a pixel that memory
// is all that counts: fewer columns, for more threads and smaller rings.
template <class T, int K>
constexpr int kVector = K == 7   ? 2
                        : K == 5 ? 4
                                 : kChunkBytes / int(sizeof(T));
template <int K, int kStride>
constexpr int kGatherColumns = K == 7 ? (kStride == 1 ? 7 : 4) : 4 / kStride;

template <class T, int K, int kStride>
using GatherStep = Gather<K, kStride, kVector<T, K>, kGatherColumns<K, kStride>>;
template <class T, int K>
using ScatterStep = Scatter<K, kVector<T, K>, 4>;
template <class T, int K, int kStride>
using WgradStep = Correlate<K, kStride, kVector<T, K>, kGatherColumns<K, kStride>>;

inline bool is_scatter(const Problem& p) { return p.pass == Pass::kDgrad && p.stride_h == 2; }
inline const Strides& strides_in(const Problem& p) { return p.pass == Pass::kDgrad ? p.y : p.x; }
inline const Strides& strides_out(const Problem& p) { return p.pass == Pass::kDgrad ? p.x : p.y; }

template <int K>
std::string why_not(const Kernel&, const Problem& p) {
  if (const std::string why = why_not_tuned(p); !why.empty()) return why;
  if (!p.is_depthwise())
    return "groups " + std::to_string(p.groups) + " of " + std::to_string(p.C) + " channels: built for one channel each";
  if (p.R != K || p.S != K) {
    constexpr char digit[] = {char('0' + K), 0};
    return std::to_string(p.R) + "x" + std::to_string(p.S) + " filter: built for " + digit + "x" + digit;
  }
  if (p.stride_h != p.stride_w || p.stride_h > 2)
    return "stride " + std::to_string(p.stride_h) + "," + std::to_string(p.stride_w) + ": built for 1 and 2, the same along both axes";
  if (p.stride_h == 2 && std::max(p.dilation_h, p.dilation_w) > 1) return "dilation with stride 2: built for dilation with stride 1";
  if (p.pass == Pass::kDgrad && p.filters_per_group() > 1)
    return std::to_string(p.filters_per_group()) + " filters for each channel, which dgrad adds up: built for one";
  if (!p.x_is_channels_last() || !p.y_is_channels_last()) return "the channels are not dense: built for channels_last";
  return {};
}

// An axis of the problem as the kernels go along it.
struct Line {
  int64_t in_extent, out_extent, in_first, in_step, out_first, out_step;
  int64_t classes;  // of lines that do not share an input
  int64_t lines;    // of a class
};

inline Line line_of(const Problem& p, bool rows) {
  const bool dgrad = p.pass == Pass::kDgrad;
  const int64_t image = rows ? p.H : p.W, output = rows ? p.P : p.Q, taps = rows ? p.R : p.S;
  const int64_t dilation = rows ? p.dilation_h : p.dilation_w, pad = rows ? p.pad_h : p.pad_w;
  if (is_scatter(p)) {  // a line is rows 2u - pad and 2u - pad + 1 of the image, which dy's rows u - (taps - 1) / 2 ... u reach
    const int64_t first = pad / 2, last = (pad + image - 1) / 2;
    return {output, image, first - (taps - 1) / 2, 1, 2 * first - pad, 1, 1, last - first + 1};
  }
  const int64_t extent = dgrad ? image : output, classes = std::min(dilation, extent);
  const int64_t first = dgrad ? pad - dilation * (taps - 1) : -pad;
  return {dgrad ? output : image, extent, first, dilation, 0, dilation, classes, ceil_div(extent, dilation)};
}

// How a problem is cut. A block is chunks x strips x groups; a unit's slab has `rows` lines.
struct Cut {
  int64_t chunks, strips, groups, rows;
  int64_t channel_blocks, tiles, slabs, units;
  int64_t blocks, units_of_group;
};

// What the choice of a cut has to know of a kernel.
struct Shape {
  int vectors_of_chunk, lines_of_strip, inputs_of_line;  // along the columns
  int halo_columns;                                      // inputs beyond those of the lines
  int more_steps;                                        // than lines, of a slab
  double hiding_warps;                                   // on a multiprocessor, so that it does not wait
};
template <class T, class Step>
constexpr Shape shape_of() {
  constexpr int vectors = kChunkBytes / int(sizeof(T)) / Step::V;
  // 3x3 waits for memory, and more warps have more bytes in flight; larger filters for the FMAs of V * columns independent sums.
  constexpr double warps = Step::K == 3 ? kHidingWarps : kHidingWarps / 2;
  if constexpr (requires { Step::kLinesOfStrip; })
    return {vectors, Step::kLinesOfStrip, Step::kInPerLine, Step::kHalo, Step::kLines - 1, warps};
  else return {vectors, Step::kColumns, Step::kStride, Step::kHalo, Step::kLines - 1, warps};
}

// Chunks of channels and strips of columns of a block: the least overhang in channels and columns, re-read halo, cut sectors and idle
// lanes.
inline void choose_tile(const Problem& p, const Shape& shape, int64_t channels, int64_t columns, Cut& cut) {
  const int64_t all_chunks = ceil_div(channels * size_of(p.dtype), kChunkBytes), all_strips = ceil_div(columns, shape.lines_of_strip);
  double least = 0;
  cut.chunks = 0;
  for (int64_t chunks = 1; chunks <= std::min<int64_t>(all_chunks, 32); ++chunks) {
    const int64_t vectors = chunks * shape.vectors_of_chunk, most = kThreads / vectors;
    if (most == 0) break;
    const int64_t tiles = ceil_div(all_strips, most), strips = ceil_div(all_strips, tiles);
    const int64_t unit = vectors * strips, block = std::max<int64_t>(1, kThreads / unit) * unit;
    const double channel_overhang = double(round_up(all_chunks, chunks)) / double(all_chunks);
    const double column_overhang = double(tiles * strips) / double(all_strips);
    const double inputs = double(strips) * shape.lines_of_strip * shape.inputs_of_line;
    const double halo = tiles > 1 ? 1 + shape.halo_columns / inputs : 1;
    const bool whole_sectors = chunks == all_chunks || (chunks % 2 == 0 && all_chunks % 2 == 0);
    const double sectors = whole_sectors ? 1 : double(chunks + 2) / double(chunks);  // two of them are cut
    const double short_runs = 1 + 0.25 / double(chunks);
    const double idle_lanes = double(round_up(block, 32)) / double(block);
    const double waste = channel_overhang * column_overhang * halo * sectors * short_runs * idle_lanes;
    if (cut.chunks && waste > least) continue;
    least = waste;
    cut.chunks = chunks, cut.strips = strips, cut.tiles = tiles;
  }
  cut.channel_blocks = ceil_div(all_chunks, cut.chunks);
}

// Rows of a slab and units side by side: what keeps the busiest multiprocessor least busy. `parts`: blocks that one channel block is cut
// into at most, each of which goes through several units then; 0: each unit has threads of its own.
inline Cut choose_cut(const Problem& p, const Shape& shape, int64_t parts_wanted) {
  constexpr int64_t kFill = 3;                          // steps' worth of time until the first rows are there
  constexpr int64_t kMostSlabs = 32, kMostGroups = 64;  // a block's z ends at 64
  const Line h = line_of(p, true), w = line_of(p, false);
  Cut best{};
  choose_tile(p, shape, p.pass == Pass::kDgrad ? p.C : p.K, w.lines, best);
  const int64_t images = p.N * h.classes * w.classes * best.tiles;
  const int64_t unit_threads = best.chunks * shape.vectors_of_chunk * best.strips;
  double least = -1;
  for (int64_t groups = std::clamp<int64_t>(kThreads / unit_threads, 1, kMostGroups);; groups /= 2) {
    for (int64_t slabs = 1; slabs <= std::min(h.lines, kMostSlabs); ++slabs) {
      Cut cut = best;
      cut.groups = groups;
      cut.rows = ceil_div(h.lines, slabs), cut.slabs = ceil_div(h.lines, cut.rows);
      if (cut.slabs != slabs) continue;
      cut.units = images * cut.slabs;
      cut.units_of_group = 1;
      if (parts_wanted) cut.units_of_group = ceil_div(cut.units, groups * ceil_div(parts_wanted, cut.channel_blocks));
      cut.blocks = ceil_div(cut.units, groups * cut.units_of_group) * cut.channel_blocks;
      const double rounds = std::ceil(double(cut.blocks) / kMultiprocessors);
      const double warps = rounds * double(ceil_div(unit_threads * groups, 32));
      const double steps = double(cut.units_of_group * (cut.rows + shape.more_steps) + kFill);
      const double time = rounds * double(groups) * steps * std::max(1.0, shape.hiding_warps / warps);
      if (least >= 0 && time >= least) continue;
      least = time, best = cut;
    }
    if (groups == 1 || unit_threads * groups <= 32) break;
  }
  return best;
}

inline Axis axis_of(const Line& line, int64_t lines, int64_t parts) {
  return {int(line.in_extent),    int(line.out_extent), int(line.in_first), int(line.in_step),
          int(line.out_first),    int(line.out_step),   int(lines),         FastDiv<int32_t>(line.classes),
          FastDiv<int32_t>(parts)};
}

// The widest access, of 16 bytes at most, that the address and strides allow; 0 for less than `least`.
inline int aligned_bytes(const void* data, const Strides& s, int64_t element, int64_t least) {
  const uint64_t bits = uint64_t(reinterpret_cast<uintptr_t>(data)) | uint64_t((s.d0 | s.d2 | s.d3) * element);
  int64_t bytes = kChunkBytes;
  while (bits % uint64_t(bytes)) bytes /= 2;
  return bytes < least ? 0 : int(bytes);
}

inline Image image_of(const void* data, const Strides& s, int64_t element) {
  return {data, int(s.d0), int(s.d2), int(s.d3), aligned_bytes(data, s, element, 4)};
}

// Padded so that lanes read neighbouring banks, from strip to strip and from unit to unit.
inline RowLayout layout_of(const Cut& cut, int64_t strip, int64_t halo) {
  const int64_t lanes = cut.chunks;
  const int64_t strip_pitch = strip * cut.chunks + (((1 - strip) * lanes) % 8 + 8) % 8;
  const int64_t pixels = cut.strips * strip + halo;
  return {int(strip_pitch), int((pixels - 1) / strip * strip_pitch + ((pixels - 1) % strip + 1) * cut.chunks), int(pixels)};
}

// A unit's bytes, so that lane i of the next unit reads on where this one's last strip ends.
inline int64_t padded_unit(const Cut& cut, int64_t chunks) {
  return (chunks + ((cut.strips * cut.chunks - chunks) % 8 + 8) % 8) * kChunkBytes;
}

template <class T, class Step>
Cut slide_cut(const Problem& p) {
  return choose_cut(p, shape_of<T, Step>(), 0);
}

template <class T, class Step>
int64_t slide_ring_offset(const Cut& cut) {
  const int vectors = int(cut.chunks) * shape_of<T, Step>().vectors_of_chunk;
  return round_up((weight_floats<Step>(vectors) + 2 * vectors * Step::V) * int64_t(sizeof(float)), kChunkBytes);
}

template <class T, class Step>
int64_t slide_unit_bytes(const Cut& cut) {
  return padded_unit(cut, int64_t(stages_of_slide<T, Step>()) * Step::kInPerLine * layout_of(cut, Step::kStrip, Step::kHalo).row_pitch);
}

template <class T, class Step>
int64_t wgrad_unit_bytes(const Cut& cut) {
  constexpr int64_t stages = stages_of_wgrad<T, Step>(), x_rows = stages * Step::kStride, y_rows = stages + Step::kLines - 1;
  const int64_t x = layout_of(cut, Step::kStrip, Step::kHalo).row_pitch, y = layout_of(cut, Step::kColumns, 0).row_pitch;
  return padded_unit(cut, x_rows * x + y_rows * y);
}

// The work of a launch whose units read `in_bytes` per step and are written or read `out_bytes`, all counts of one thread and step:
// an FMA per tap and column of V channels; a conversion of each half on its way in and out; an access for each pixel; kCopy for each
// chunk that a thread copies (address, bounds, the step to the next), and kStep for the ring, the barrier and the rows' addresses.
constexpr double kCopy = 12, kStep = 40;
// A thread's multiply-adds between two pixels belong to 8 sums and more, each of its own: its warp keeps a scheduler as busy as two that
// go from one to the next.
constexpr int kIndependent = 2;

template <class T, class Step>
double slide_cost(const Problem& p) {
  const Cut cut = slide_cut<T, Step>(p);
  constexpr Shape shape = shape_of<T, Step>();
  constexpr double V = Step::V, kPixels = (Step::kStrip + Step::kHalo) * Step::kInPerLine, kResults = Step::kColumns * Step::kDone;
  constexpr double kFma = Step::kColumns * Step::K * Step::K * V / (Step::kScatter ? 2 : 1);
  constexpr double kConversions = sizeof(T) == 2 ? (kPixels + kResults / 2) * V : 0;
  constexpr double kSum = kFma + kConversions + kPixels * 2 + kResults * 4 + kStep;
  const double unit_threads = double(cut.chunks * shape.vectors_of_chunk * cut.strips);
  const double steps = double(cut.rows + shape.more_steps), units = double(cut.units * cut.channel_blocks);
  const double row_chunks = double((cut.strips * Step::kStrip + Step::kHalo) * cut.chunks) * Step::kInPerLine;
  const double results = unit_threads * kResults * V * sizeof(T) * double(cut.rows);
  Work work;
  work.instructions = units * (steps * (unit_threads * kSum + row_chunks * kCopy) + unit_threads * Step::K * Step::K * V);
  work.dram_bytes = p.tensor_bytes();
  work.l2_bytes = units * (steps * row_chunks * kChunkBytes + results);
  work.l1_bytes = units * (steps * (row_chunks * kChunkBytes + unit_threads * kPixels * V * sizeof(T)) + results);
  work.blocks = double(cut.blocks), work.threads = kIndependent * int(unit_threads * double(cut.groups));
  return microseconds(work);
}

template <class T, class Step>
double wgrad_cost_of(const Problem& p, const Cut& cut) {
  constexpr Shape shape = shape_of<T, Step>();
  constexpr double V = Step::V, kPixels = Step::kColumns * Step::K + (Step::kStrip + Step::kHalo) * Step::kStride;
  constexpr double kFma = Step::kColumns * Step::K * Step::K * V;
  constexpr double kSum = kFma + (sizeof(T) == 2 ? kPixels * V : 0) + kPixels * 2 + kStep;
  const double unit_threads = double(cut.chunks * shape.vectors_of_chunk * cut.strips);
  const double units = double(cut.units * cut.channel_blocks), lines = double(cut.rows), steps = lines + shape.more_steps;
  const double x_chunks = double((cut.strips * Step::kStrip + Step::kHalo) * cut.chunks) * Step::kStride;
  const double y_chunks = double(cut.strips * Step::kColumns * cut.chunks), chunks = units * (steps * x_chunks + lines * y_chunks);
  const double partial = double(cut.blocks / cut.channel_blocks * p.filter_numel()) * 2 * sizeof(float);
  Work work;
  work.instructions = units * lines * unit_threads * kSum + chunks * kCopy + double(cut.blocks) * Step::K * Step::K * V * kThreads * 4;
  work.dram_bytes = p.tensor_bytes() + partial;
  work.l2_bytes = chunks * kChunkBytes + partial;
  work.l1_bytes = work.l2_bytes + units * lines * unit_threads * kPixels * V * sizeof(T);
  work.blocks = double(cut.blocks), work.threads = kIndependent * int(unit_threads * double(cut.groups));
  work.launches = cut.blocks > cut.channel_blocks ? 2 : 1;
  return microseconds(work);
}

// Up to twice as many blocks as a reduction wants at least, so that two are on a multiprocessor; fewer where their partial sums, or the
// second launch, would take longer than is saved.
template <class T, class Step>
Cut wgrad_cut(const Problem& p) {
  Cut best = choose_cut(p, shape_of<T, Step>(), 1);
  constexpr double kMoreBlocks = 1.03;  // what the model may say against more of them, which hide latency: it has none
  double least = wgrad_cost_of<T, Step>(p, best);
  for (int64_t blocks = kTargetBlocks / 4; blocks <= 2 * kTargetBlocks; blocks *= 2) {
    const Cut cut = choose_cut(p, shape_of<T, Step>(), blocks);
    const double cost = wgrad_cost_of<T, Step>(p, cut);
    if (cost < kMoreBlocks * least) least = std::min(cost, least), best = cut;
  }
  return best;
}

inline Configuration configuration_of(const Cut& cut, int64_t vectors_of_chunk, int64_t shared_bytes) {
  Configuration c;
  c.blocks = cut.blocks;
  c.threads = int(cut.chunks * vectors_of_chunk * cut.strips * cut.groups);
  c.shared_bytes = int(shared_bytes);
  c.tile[0] = int(cut.chunks), c.tile[1] = int(cut.strips), c.tile[2] = int(cut.groups);
  return c;
}

template <class T, class Step>
Configuration configure_slide_step(const Problem& p) {
  const Cut cut = slide_cut<T, Step>(p);
  return configuration_of(cut, shape_of<T, Step>().vectors_of_chunk,
                          slide_ring_offset<T, Step>(cut) + cut.groups * slide_unit_bytes<T, Step>(cut));
}

// Words of shared memory between the sums of two taps, which one warp may read: their channels then lie in the banks that follow.
template <class T, class Step>
int64_t wgrad_tap_gap(const Cut& cut) {
  const int64_t channels = cut.chunks * shape_of<T, Step>().vectors_of_chunk * Step::V;
  return round_up(channels * cut.strips * cut.groups - channels, 32) - (channels * cut.strips * cut.groups - channels);
}

// Of a row of taps' sums, of all threads.
template <class T, class Step>
int64_t wgrad_sum_words(const Cut& cut) {
  const int64_t threads = cut.chunks * shape_of<T, Step>().vectors_of_chunk * cut.strips * cut.groups;
  return Step::K * (threads * Step::V + wgrad_tap_gap<T, Step>(cut));
}

template <class T, class Step>
Configuration configure_wgrad_step(const Problem& p) {
  const Cut cut = wgrad_cut<T, Step>(p);
  constexpr int64_t vectors = shape_of<T, Step>().vectors_of_chunk;
  const int64_t whole = cut.blocks == cut.channel_blocks ? cut.chunks * vectors * Step::V * Step::K * Step::K : 0;
  const int64_t sums = (wgrad_sum_words<T, Step>(cut) + whole) * int64_t(sizeof(float));
  Configuration c = configuration_of(cut, vectors, std::max(cut.groups * wgrad_unit_bytes<T, Step>(cut), sums));
  c.slabs = cut.blocks / cut.channel_blocks;
  c.workspace_bytes = p.sums_in_workspace(c.slabs) ? c.slabs * p.filter_numel() * int64_t(sizeof(float)) : 0;
  return c;
}

template <class T, class Step>
void run_slide_step(const Kernel& kernel, const Problem& p, const Configuration& configuration, const Arguments& a) {
  const Cut cut = slide_cut<T, Step>(p);
  const Line h = line_of(p, true), w = line_of(p, false);
  const bool dgrad = p.pass == Pass::kDgrad;
  const Strides &in = strides_in(p), &out = strides_out(p);
  SlideParams q{};
  q.grid = {FastDiv<int32_t>(cut.channel_blocks), FastDiv<int32_t>(p.filters_per_group()), int(cut.units), int(cut.chunks),
            int(dgrad ? p.C : p.K)};
  q.h = axis_of(h, cut.rows, cut.slabs);
  q.w = axis_of(w, cut.strips * Step::kLinesOfStrip, cut.tiles);
  q.in = image_of(dgrad ? a.y : a.x, in, sizeof(T));
  if (p.filters_per_group() > 1) q.in.copy_bytes = 0;
  q.layout = layout_of(cut, Step::kStrip, Step::kHalo);
  q.filter = a.w, q.epilogue = a.epilogue, q.out = a.out;
  q.filter_k = int(p.w.d0), q.filter_r = int(p.w.d2), q.filter_s = int(p.w.d3);
  q.out_n = int(out.d0), q.out_h = int(out.d2), q.out_w = int(out.d3);
  q.store_bytes = aligned_bytes(a.out, out, sizeof(T), 0);
  q.rows = int((cut.rows + Step::kLines - 1) * Step::kInPerLine) - (Step::kScatter || Step::kStride == 1 ? 0 : 1);
  q.ring_bytes = int(slide_ring_offset<T, Step>(cut));
  q.unit_bytes = int(slide_unit_bytes<T, Step>(cut));
  q.turned = dgrad && !Step::kScatter;
  const dim3 block(unsigned(cut.chunks) * shape_of<T, Step>().vectors_of_chunk, unsigned(cut.strips), unsigned(cut.groups));
  launch(kernel.name.c_str(), {dim3(unsigned(cut.blocks)), block, std::size_t(configuration.shared_bytes), a.stream}, slide_kernel<T, Step>,
         q);
}

template <class T, class Step>
void run_wgrad_step(const Kernel& kernel, const Problem& p, const Configuration& configuration, const Arguments& a) {
  const Cut cut = wgrad_cut<T, Step>(p);
  WgradParams q{};
  q.grid = {FastDiv<int32_t>(cut.channel_blocks), FastDiv<int32_t>(p.filters_per_group()), int(cut.units), int(cut.chunks), int(p.K)};
  q.h = axis_of(line_of(p, true), cut.rows, cut.slabs);
  q.w = axis_of(line_of(p, false), cut.strips * Step::kColumns, cut.tiles);
  q.x = image_of(a.x, p.x, sizeof(T)), q.y = image_of(a.y, p.y, sizeof(T));
  if (p.filters_per_group() > 1) q.x.copy_bytes = 0;
  q.x_layout = layout_of(cut, Step::kStrip, Step::kHalo), q.y_layout = layout_of(cut, Step::kColumns, 0);
  q.rows = int((cut.rows - 1) * Step::kStride + Step::K);
  q.units_of_group = int(cut.units_of_group);
  q.unit_bytes = int(wgrad_unit_bytes<T, Step>(cut));
  q.block_channels = FastDiv<int32_t>(cut.chunks * (kChunkBytes / int(sizeof(T))));
  q.tap_gap = int(wgrad_tap_gap<T, Step>(cut)), q.whole = int(wgrad_sum_words<T, Step>(cut));
  q.partial = p.sums_in_workspace(configuration.slabs) ? static_cast<float*>(a.workspace) : nullptr;
  q.out = a.out, q.filter_k = int(p.w.d0), q.filter_r = int(p.w.d2), q.filter_s = int(p.w.d3);
  const dim3 block(unsigned(cut.chunks) * shape_of<T, Step>().vectors_of_chunk, unsigned(cut.strips), unsigned(cut.groups));
  launch(kernel.name.c_str(), {dim3(unsigned(cut.blocks)), block, std::size_t(configuration.shared_bytes), a.stream}, wgrad_kernel<T, Step>,
         q);
  if (q.partial) add_slabs<T>({a.workspace, configuration.slabs, {1, p.R, p.S, p.K}, a.out, {0, p.w.d2, p.w.d3, p.w.d0}}, a);
}

// Calls visit.operator()<Step>() with the step that runs the problem.
template <class T, int K, class Visit>
auto with_slide(const Problem& p, Visit visit) {
  if (is_scatter(p)) return visit.template operator()<ScatterStep<T, K>>();
  if (p.stride_h == 2) return visit.template operator()<GatherStep<T, K, 2>>();
  return visit.template operator()<GatherStep<T, K, 1>>();
}
template <class T, int K, class Visit>
auto with_wgrad(const Problem& p, Visit visit) {
  if (p.stride_h == 2) return visit.template operator()<WgradStep<T, K, 2>>();
  return visit.template operator()<WgradStep<T, K, 1>>();
}

template <class T, int K>
Kernel row(const char* what, std::vector<Pass> passes) {
  Kernel row{};
  row.name = std::string("conv2d_depthwise_") + what + "_" + std::to_string(K) + "x" + std::to_string(K) + "_channels_last_" +
             short_name(TypeTraits<T>::kDType);
  row.family = "depthwise";
  row.dtype = TypeTraits<T>::kDType;
  row.passes = std::move(passes);
  row.threads = kThreads;
  row.index_bits = 32;
  row.why_not = why_not<K>;
  return row;
}

template <class T, int K>
void add(std::vector<Kernel>& catalogue) {
  Kernel slide = row<T, K>("slide", {Pass::kFprop, Pass::kDgrad});
  slide.cost = [](const Kernel&, const Problem& p) { return with_slide<T, K>(p, [&]<class Step>() { return slide_cost<T, Step>(p); }); };
  slide.configure = [](const Kernel&, const Problem& p) {
    return with_slide<T, K>(p, [&]<class Step>() { return configure_slide_step<T, Step>(p); });
  };
  slide.run = [](const Kernel& kernel, const Problem& p, const Configuration& c, const Arguments& a) {
    with_slide<T, K>(p, [&]<class Step>() { run_slide_step<T, Step>(kernel, p, c, a); });
  };
  catalogue.push_back(slide);

  Kernel wgrad = row<T, K>("wgrad", {Pass::kWgrad});
  wgrad.cost = [](const Kernel&, const Problem& p) {
    return with_wgrad<T, K>(p, [&]<class Step>() { return wgrad_cost_of<T, Step>(p, wgrad_cut<T, Step>(p)); });
  };
  wgrad.configure = [](const Kernel&, const Problem& p) {
    return with_wgrad<T, K>(p, [&]<class Step>() { return configure_wgrad_step<T, Step>(p); });
  };
  wgrad.run = [](const Kernel& kernel, const Problem& p, const Configuration& c, const Arguments& a) {
    with_wgrad<T, K>(p, [&]<class Step>() { run_wgrad_step<T, Step>(kernel, p, c, a); });
  };
  catalogue.push_back(wgrad);
}

}  // namespace channels_last

template <class T>
void add_depthwise_channels_last_kernels(std::vector<Kernel>& catalogue) {
  channels_last::add<T, 3>(catalogue);
  channels_last::add<T, 5>(catalogue);
  channels_last::add<T, 7>(catalogue);
}

}  // namespace cnn::conv2d
