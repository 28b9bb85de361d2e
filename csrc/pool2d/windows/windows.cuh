// The windows family's host side: what it refuses, tiles and parameters from the problem, costs, and the rows of the catalogue. Included
// by instantiations/*.cu alone, one file per element type.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>
#include <utility>

#include "common/cost.h"
#include "pool2d/plan.h"
#include "pool2d/windows/gathered.cuh"
#include "pool2d/windows/planar.cuh"
#include "pool2d/windows/separable.cuh"
#include "pool2d/windows/windows.h"

namespace cnn::pool2d {

inline WindowShape shape_of(const Problem& p) {
  const auto is = [&](int64_t taps, int64_t stride) {
    return p.R == taps && p.S == taps && p.stride_h == stride && p.stride_w == stride && p.dilation_h == 1 && p.dilation_w == 1;
  };
  return is(2, 2)   ? WindowShape::k2x2Stride2
         : is(3, 2) ? WindowShape::k3x3Stride2
         : is(3, 1) ? WindowShape::k3x3Stride1
                    : WindowShape::kAny;
}

inline bool is_max(const Problem& p) { return p.op == Op::kMax || p.op == Op::kMaxBackward; }

// Cells of pixels, backward: from the one that holds pixel 0 to the one that holds the last.
struct Extent {
  int64_t first, count;
};
inline Extent cells(int64_t image, int64_t stride, int64_t pad) { return {pad / stride, (image - 1 + pad) / stride - pad / stride + 1}; }
inline Extent result_rows(const Problem& p) { return is_backward(p.op) ? cells(p.H, p.stride_h, p.pad_h) : Extent{0, p.P}; }
inline Extent result_columns(const Problem& p) { return is_backward(p.op) ? cells(p.W, p.stride_w, p.pad_w) : Extent{0, p.Q}; }

// What both layouts refuse.
inline std::string why_not_windows(const Problem& p) {
  if (!fits_32_bits(p)) return "an index or offset does not fit in 31 bits";
  if (p.levels > 1) return "a chain of poolings: it is run one by one";
  if (p.index_form == IndexForm::kFlat) return "flat indices: built for a byte of index, or none";
  if (is_backward(p.op) && shape_of(p) == WindowShape::kAny) return "backward it is built for 2x2 stride 2, 3x3 stride 2 and 3x3 stride 1";
  if (p.pad_h >= p.R || p.pad_w >= p.S) return "a padding as wide as the window";
  if ((p.P - 1) * p.stride_h - p.pad_h >= p.H || (p.Q - 1) * p.stride_w - p.pad_w >= p.W) return "a window that begins behind the image";
  return {};
}

inline bool is_empty(const Problem& p) { return p.planes() * p.H * p.W * p.P * p.Q == 0; }

// Of Maximum and Mean, per tap and result: a conversion; two comparisons and two selections, or an addition. Of their gradients: a
// comparison and an addition under it, or an addition.
inline double tap_instructions(const Problem& p) { return is_max(p) ? (is_backward(p.op) ? 2 : 5) : (is_backward(p.op) ? 1 : 2); }
// Once per result: the division (averages; backward once per window) and rounding.
inline double result_instructions(const Problem& p) { return is_max(p) ? 2 : 11; }
// How many taps are taken per result.
inline double taps_per_result(const Problem& p) { return double(p.R * p.S) / (is_backward(p.op) ? double(p.stride_h * p.stride_w) : 1); }
inline double results_of(const Problem& p) { return double(p.planes()) * double(is_backward(p.op) ? p.H * p.W : p.P * p.Q); }
inline double source_bytes(const Problem& p) {
  return double(p.planes()) *
         (is_backward(p.op) ? double(p.P * p.Q) * (size_of(p.dtype) + bytes_of(p.index_form)) : double(p.H * p.W) * size_of(p.dtype));
}

inline WindowAxis window_axis(int64_t image, int64_t outputs, int64_t taps, int64_t stride, int64_t pad, int64_t dilation) {
  return {int32_t(image), int32_t(outputs), int32_t(taps), int32_t(stride), int32_t(pad), int32_t(dilation)};
}

template <class Params>
void set_window(Params& q, const Problem& p, const Arguments& a) {
  q.source = is_backward(p.op) ? a.y : a.x;
  q.source_index = static_cast<const uint8_t*>(a.index);
  q.target = a.out;
  q.target_index = static_cast<uint8_t*>(a.index_out);
  q.h = window_axis(p.H, p.P, p.R, p.stride_h, p.pad_h, p.dilation_h);
  q.w = window_axis(p.W, p.Q, p.S, p.stride_w, p.pad_w, p.dilation_w);
  q.divisor = {int32_t(p.divisor_override), p.count_include_pad};
  q.shape = shape_of(p);
}

// --- Channels dense.

inline std::string why_not_channels(const Kernel& kernel, const Problem& p) {
  const auto dense = [&](const Strides& s) { return p.channels_dense(s); };
  if (!dense(p.x) || !dense(p.y) || (p.index_form != IndexForm::kNone && !dense(p.index))) return "the channels are not dense";
  if (p.C % kernel.planes != 0)
    return std::to_string(p.C) + " channels are no multiple of the " + std::to_string(kernel.planes) + " of 16 bytes";
  return why_not_windows(p);
}

// Rows of results that a thread slides down: each strip reads its halo anew, so as many as leave every multiprocessor eight blocks; two at
// least where windows overlap, and no more than eight, beyond which that saves next to nothing.
inline Configuration configure_channels(const Kernel& kernel, const Problem& p) {
  constexpr int64_t kMostStripRows = 8;
  if (is_empty(p)) return {};
  const bool any = shape_of(p) == WindowShape::kAny;
  const int64_t rows = result_rows(p).count, row_vectors = p.N * (p.C / kernel.planes);
  // Few results: one to a thread. Not of large planes whose windows overlap, nor where each pixel is in nine windows: a thread for each
  // result would ask L1 for twice as many bytes.
  constexpr int64_t kSmallPlane = 512;
  const bool few = row_vectors * ceil_div(result_columns(p).count, kSideBySide) * ceil_div(rows, 2) < kTargetBlocks * kChannelsThreads &&
                   (p.R <= p.stride_h || (p.R < 2 * p.stride_h && p.P * p.Q <= kSmallPlane));
  const int columns = any || few ? 1 : kSideBySide;
  const int64_t row_threads = row_vectors * ceil_div(result_columns(p).count, columns);
  const int64_t least_strip_rows = !any && !few && p.R > p.stride_h ? 2 : 1;
  const int64_t wanted = ceil_div(4 * kTargetBlocks * kChannelsThreads, row_threads);
  const int64_t strips = std::clamp(wanted, ceil_div(rows, kMostStripRows), ceil_div(rows, least_strip_rows));
  Configuration c;
  c.threads = kChannelsThreads;
  c.tile_planes = kernel.planes, c.tile_rows = int(ceil_div(rows, strips)), c.tile_columns = columns;  // of a thread
  c.blocks = ceil_div(row_threads * ceil_div(rows, c.tile_rows), kChannelsThreads);
  return c;
}

// --- Costs. The instructions are counted in the source, operation by operation, not in machine code.

inline double cost_channels(const Kernel& kernel, const Problem& p) {
  constexpr double kThread = 80;     // four divisions by multiplication, base addresses
  constexpr double kResultRow = 12;  // loop, bounds and divisors of a row
  constexpr double kLoad = 4;        // bounds of the column, address, load
  const Configuration c = kernel.configure(kernel, p);
  if (c.blocks == 0) return 0;
  const WindowShape shape = shape_of(p);
  const bool backward = is_backward(p.op);
  const double threads = double(c.blocks) * c.threads, rows = threads * c.tile_rows, vectors = results_of(p) / kernel.planes;
  // Elements of the source that a thread loads per row of results, and once per strip.
  double row_loads, strip_loads = 0;
  if (shape == WindowShape::kAny) {
    row_loads = double(p.R * p.S);
  } else if (backward) {
    const double over = double(ceil_div(p.R, p.stride_h));
    row_loads = c.tile_columns + over - 1, strip_loads = row_loads * (over - 1);
  } else {
    const double columns = double((c.tile_columns - 1) * p.stride_w + p.S);
    row_loads = columns * double(p.stride_h), strip_loads = columns * double(p.R - p.stride_h);
  }
  const double loads = rows * row_loads + threads * strip_loads;
  const double divided = p.op == Op::kAvgBackward ? loads : 0;  // a window's gradient is divided by each thread that reads it
  Work work;
  work.instructions = threads * kThread + rows * kResultRow + loads * kLoad +
                      vectors * kernel.planes * (taps_per_result(p) * tap_instructions(p) + (backward ? 1 : result_instructions(p))) +
                      divided * kernel.planes * result_instructions(p);
  work.dram_bytes = work.l2_bytes = p.tensor_bytes();
  work.l1_bytes = loads * (16 + (backward ? kernel.planes * bytes_of(p.index_form) : 0)) + (p.tensor_bytes() - source_bytes(p));
  work.blocks = double(c.blocks), work.threads = c.threads;
  return microseconds(work);
}

inline PixelStrides pixel_strides(const Strides& s, const void* tensor, int64_t channels, int64_t item_bytes) {
  const auto whole = [&](int64_t stride) { return stride % channels == 0; };
  const bool aligned = reinterpret_cast<std::uintptr_t>(tensor) % std::uintptr_t(channels * item_bytes) == 0;
  return {int32_t(s.d0), int32_t(s.d2), int32_t(s.d3), whole(s.d0) && whole(s.d2) && whole(s.d3) && aligned};
}

template <template <class, int> class Op_, class T, bool kBackward>
void run_channels(const Kernel& kernel, const Problem& p, const Configuration& c, const Arguments& a) {
  if (c.blocks == 0) return;
  const int64_t item = size_of(p.dtype), channels = kernel.planes;
  ChannelsParams q{};
  set_window(q, p, a);
  q.source_at = pixel_strides(p.source(), q.source, channels, item);
  q.source_index_at = pixel_strides(p.index, q.source_index, channels, 1);
  q.target_at = pixel_strides(p.target(), q.target, channels, item);
  q.target_index_at = pixel_strides(p.index, q.target_index, channels, 1);
  const Extent rows = result_rows(p), columns = result_columns(p);
  const int64_t vectors = p.C / channels, groups = ceil_div(columns.count, c.tile_columns), strips = ceil_div(rows.count, c.tile_rows);
  q.vectors = FastDiv<int32_t>(vectors), q.groups = FastDiv<int32_t>(groups), q.strips = FastDiv<int32_t>(strips);
  q.first_row = int32_t(rows.first), q.first_column = int32_t(columns.first);
  q.rows = int32_t(rows.count), q.strip_rows = c.tile_rows, q.side_by_side = c.tile_columns;
  q.threads = int32_t(p.N * vectors * groups * strips);
  const LaunchShape shape{dim3(unsigned(c.blocks)), dim3(kChannelsThreads), 0, a.stream};
  if constexpr (kBackward) launch(kernel.name.c_str(), shape, channels_backward_kernel<Op_, T>, q);
  else launch(kernel.name.c_str(), shape, channels_forward_kernel<Op_, T>, q);
}

// --- Columns dense.

// Eight blocks of this fit a multiprocessor. Wide rows may take more, up to what a block may have.
constexpr int64_t kPlanarBytes = 24 * 1024, kMostPlanarBytes = 224 * 1024;

inline bool rows_dense(const Strides& s, int64_t columns) { return (s.d3 == 1 || columns == 1) && s.d2 == columns; }
inline bool planes_dense(const Problem& p, const Strides& s, int64_t rows, int64_t columns) {
  return rows_dense(s, columns) && s.d1 == rows * columns && (p.N == 1 || s.d0 == p.C * s.d1);
}

// Whether 2x2 stride 2 needs no shared memory: all of x in windows, its rows whole sectors.
inline bool is_streamed(const Problem& p) {
  constexpr int64_t kSector = 32;
  const int64_t vector = 16 / size_of(p.dtype);
  const auto whole = [](const Strides& s, int64_t part) { return s.d3 == 1 && s.d2 % part == 0 && s.d1 % part == 0 && s.d0 % part == 0; };
  return shape_of(p) == WindowShape::k2x2Stride2 && p.pad_h == 0 && p.pad_w == 0 && p.H == 2 * p.P && p.W == 2 * p.Q &&
         p.W * size_of(p.dtype) % kSector == 0 && whole(p.x, vector) && whole(p.y, vector / 2) &&
         (p.index_form == IndexForm::kNone || whole(p.index, vector / 2));
}

// Shared memory of a tile, region after region.
struct PlanarMemory {
  int64_t index_in_at, out_at, index_out_at, shares_at, bytes;
};
inline PlanarMemory planar_memory(const Problem& p, int64_t planes, int64_t rows) {
  const bool backward = is_backward(p.op);
  const int64_t item = size_of(p.dtype);
  int64_t source = p.source_rows(), target = p.target_rows();  // rows of them, of each plane
  if (planes == 1) {
    const int64_t over = ceil_div(p.R, p.stride_h);
    source = std::min(source, backward ? rows + over - 1 : (rows - 1) * p.stride_h + (p.R - 1) * p.dilation_h + 1);
    target = std::min(target, backward ? rows * p.stride_h : rows);
  }
  const int64_t in = planes * source * p.source_columns(), out = planes * target * p.target_columns();
  const auto span = [](int64_t bytes) { return round_up(bytes, 16) + 64; };  // a Span's head, tail and margins
  const int64_t index = bytes_of(p.index_form);
  PlanarMemory m{};
  m.index_in_at = span(in * item);
  m.shares_at = m.index_in_at + (backward && index ? span(in) : 0);
  m.out_at = m.shares_at + (p.op == Op::kAvgBackward ? round_up(in * int64_t(sizeof(float)), 16) : 0);
  m.index_out_at = m.out_at + span(out * item);
  m.bytes = m.index_out_at + (!backward && index ? span(out) : 0);
  return m;
}

// 2x2 stride 2 with dense channels that are no whole vectors: rows of W * C elements, whose windows' taps are C apart.
inline bool is_interleaved(const Problem& p) {
  const auto dense = [&](const Strides& s, int64_t rows, int64_t columns) {
    return s.d1 == 1 && s.d3 == p.C && s.d2 == columns * p.C && (p.N == 1 || s.d0 == rows * columns * p.C);
  };
  return p.C > 1 && shape_of(p) == WindowShape::k2x2Stride2 && p.pad_h == 0 && p.pad_w == 0 && p.H == 2 * p.P && p.W == 2 * p.Q &&
         dense(p.x, p.H, p.W) && dense(p.y, p.P, p.Q) && (p.index_form == IndexForm::kNone || dense(p.index, p.P, p.Q));
}

// Where no window reaches beyond its own `stride` rows, and a plane is whole windows, all planes are one tall plane: its tiles and strips
// need not end where the planes do.
inline Problem folded(const Problem& p) {
  if (is_interleaved(p)) {
    Problem tall = p;
    tall.H *= p.N, tall.P *= p.N, tall.W *= p.C, tall.Q *= p.C;
    tall.N = tall.C = 1;
    tall.x = {tall.H * tall.W, tall.H * tall.W, tall.W, 1}, tall.y = {tall.P * tall.Q, tall.P * tall.Q, tall.Q, 1};
    tall.index = p.index_form == IndexForm::kNone ? p.index : tall.y;
    return tall;
  }
  const bool apart = p.pad_h == 0 && p.H == p.P * p.stride_h && (p.R - 1) * p.dilation_h < p.stride_h;
  if (!apart || !planes_dense(p, p.source(), p.source_rows(), p.source_columns()) ||
      (p.index_form != IndexForm::kNone && !planes_dense(p, p.index, p.P, p.Q)))
    return p;
  Problem tall = p;
  tall.H *= p.planes(), tall.P *= p.planes();
  tall.N = tall.C = 1;
  return tall;
}

inline std::string why_not_planar(const Kernel& kernel, const Problem& p) {
  if (!is_interleaved(p) || p.C % (16 / size_of(kernel.dtype)) == 0) {
    const auto columns_dense = [](const Strides& s, int64_t columns) { return s.d3 == 1 || columns == 1; };
    if (p.C > 1 && (p.channels_dense(p.x) || p.channels_dense(p.y)) && p.H * p.W > 1) return "the channels are dense, not the columns";
    if (!columns_dense(p.x, p.W) || !columns_dense(p.y, p.Q)) return "the columns are not dense";
    if (!planes_dense(p, p.target(), p.target_rows(), p.target_columns())) return "the result is not dense";
    if (p.index_form != IndexForm::kNone) {
      if (!columns_dense(p.index, p.Q)) return "the columns of the indices are not dense";
      if (!is_backward(p.op) && !planes_dense(p, p.index, p.P, p.Q)) return "the indices are not dense";
    }
  }
  const std::string why = why_not_windows(p);
  if (!why.empty() || is_empty(p)) return why;
  const int64_t bytes = planar_memory(folded(p), 1, 1).bytes;
  if (bytes > kMostPlanarBytes) return "the rows of a window take " + std::to_string(bytes) + " bytes of shared memory";
  return {};
}

// How the results (backward: cells) of a tile are dealt to its threads: `lanes` for the columns of a strip, some of them idle, and strips
// of `strip_rows` rows, one behind the other.
struct Deal {
  int64_t lanes, strip_rows;
};

// How the lanes of a tile access one tensor in shared memory: elements from one plane, and one row of results (backward: of cells), to the
// next; column c's element is c * stride / cell; bytes of an element and of an access; how many accesses there are for a row.
struct LaneAccess {
  int64_t plane, row, stride, cell, item_bytes, width, count;
  bool operator==(const LaneAccess&) const = default;
};

// What the best deal follows from.
struct DealtTile {
  int64_t planes, rows, columns, halo;  // results (backward: rows of cells); rows that a strip reads before its first
  LaneAccess reads, writes;
  bool operator==(const DealtTile&) const = default;
};

// Wavefronts of shared memory beyond the fewest, over the fewest, that an access takes under a deal: of the first warps, bank by bank.
// Strips lie their rows apart, whatever bank that is: lanes of two strips in one warp meet unless these are well chosen.
inline double bank_conflicts(const DealtTile& tile, const LaneAccess& access, const Deal& deal) {
  constexpr int64_t kWarps = 16, kBanks = 32, kBankBytes = 4;
  const int64_t strips = ceil_div(tile.rows, deal.strip_rows), items = std::min(tile.planes * strips * deal.lanes, kWarps * 32);
  const int64_t together = access.width <= kBankBytes ? 32 : 16;  // lanes that are served at once
  int64_t taken = 0, fewest = 0, column = 0, strip = 0, plane = 0;
  for (int64_t first = 0; first < items; first += together) {
    std::array<int64_t, kBanks> words{};
    int64_t last = -1;
    for (int64_t i = first; i < std::min(items, first + together); ++i) {
      if (column < tile.columns) {  // addresses rise with the lanes
        const int64_t at = plane * access.plane + strip * deal.strip_rows * access.row + column * access.stride / access.cell;
        const int64_t from = at * access.item_bytes / access.width * access.width;
        for (int64_t word = std::max(last + 1, from / kBankBytes); word <= (from + access.width - 1) / kBankBytes; ++word)
          ++words[std::size_t(word % kBanks)], last = word;
      }
      if (++column == deal.lanes) column = 0, ++strip;
      if (strip == strips) strip = 0, ++plane;
    }
    taken += std::max<int64_t>(1, *std::max_element(words.begin(), words.end())), ++fewest;
  }
  return double(taken - fewest) / double(fewest);
}

// The deal that takes the least time: rounds of the block, times the rows of a strip, longer by the bank conflicts (three times: they
// hold up the other warps too). Idle lanes behind the columns of a strip part the strips' banks; so do some numbers of rows.
inline Deal best_deal(const DealtTile& tile) {
  constexpr double kConflict = 3, kStripAsRows = 1;  // what a strip takes before its first row, as rows
  const double accesses = double(tile.reads.count + tile.writes.count);
  const int64_t step = tile.columns < 16 ? 1 : 8;
  Deal best{};
  double least = 0;
  for (int64_t lanes = tile.columns; lanes <= std::max<int64_t>(8, round_up(3 * tile.columns / 2, 32)); lanes = round_up(lanes + 1, step)) {
    for (int64_t strip_rows = 1; strip_rows <= tile.rows; ++strip_rows) {
      const int64_t strips = ceil_div(tile.rows, strip_rows);
      const double rounds = double(ceil_div(tile.planes * lanes * strips, kPlanarThreads));
      const double time = rounds * (2 * (double(strip_rows) + kStripAsRows) + double(tile.halo));
      if (best.lanes != 0 && time >= least) continue;
      const Deal deal{lanes, strip_rows};
      const double extra = (double(tile.reads.count) * bank_conflicts(tile, tile.reads, deal) +
                            double(tile.writes.count) * bank_conflicts(tile, tile.writes, deal)) /
                           accesses;
      const double slowed = time * (1 + kConflict * extra);
      if (best.lanes == 0 || slowed < least) best = deal, least = slowed;
    }
  }
  return best;
}

// `planes` planes of `rows` rows of results. The last few answers are kept: a launch asks three times.
inline Deal deal_of(const Problem& p, int64_t planes, int64_t rows) {
  const bool backward = is_backward(p.op), any = shape_of(p) == WindowShape::kAny, pairs = !backward && p.stride_w == 2 && !any;
  DealtTile tile{};
  tile.planes = planes, tile.rows = rows, tile.columns = p.target_columns(), tile.halo = ceil_div(p.R, p.stride_h) - 1;
  const int64_t item = size_of(p.dtype), read = p.op == Op::kAvgBackward ? int64_t(sizeof(float)) : item;
  const int64_t source_row = (backward ? 1 : p.stride_h) * p.source_columns(),
                target_row = (backward ? p.stride_h : 1) * p.target_columns();
  const int64_t over = ceil_div(p.S, p.stride_w);
  tile.reads = {p.source_rows() * p.source_columns(),
                source_row,
                backward ? 1 : p.stride_w,
                backward ? p.stride_w : 1,
                read,
                pairs ? 2 * read : read,
                backward ? over
                : any    ? p.R * p.S
                         : p.stride_h * (pairs ? ceil_div(p.S, 2) : p.S)};
  tile.writes = {p.target_rows() * p.target_columns(), target_row, 1, 1, item, item, backward ? p.stride_h : 1};

  constexpr std::size_t kKept = 8;
  static std::array<std::pair<DealtTile, Deal>, kKept> kept;
  static std::size_t next = 0;
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  for (const auto& [known, deal] : kept)
    if (known == tile) return deal;
  const Deal deal = best_deal(tile);
  kept[next++ % kKept] = {tile, deal};
  return deal;
}

// How many small planes a block takes at least, where they are next to each other: enough to read and write long spans, of whole vectors
// (powers of two of them) whatever the planes' size.
constexpr double kLeastTileBytes = 1900;
inline int64_t least_planes(const Problem& p) {
  int64_t planes = 1;
  while (double(planes) * p.tensor_bytes() / double(p.planes()) < kLeastTileBytes && 2 * planes <= p.planes()) planes *= 2;
  return planes;
}

// Rows that are whole sectors, in the source and in the target, if there is such a number of them and it is small.
inline int64_t rows_of_sectors(const Problem& p) {
  constexpr int64_t kSector = 32;
  const int64_t source_rows = is_backward(p.op) ? 1 : p.stride_h, target_rows = is_backward(p.op) ? p.stride_h : 1;
  for (int64_t rows = 1; rows <= kSector; rows *= 2)
    if (rows * source_rows * p.source_columns() * size_of(p.dtype) % kSector == 0 &&
        rows * target_rows * p.target_columns() * size_of(p.dtype) % kSector == 0)
      return rows;
  return 1;
}

inline Configuration configure_tiles(const Problem& p) {
  Configuration c;
  c.threads = kPlanarThreads;
  const int64_t rows = result_rows(p).count;
  const auto fits = [&](int64_t planes, int64_t tile_rows) { return planar_memory(p, planes, tile_rows).bytes <= kPlanarBytes; };
  // Whole planes, several of them where they are next to each other and small, but no more than leave enough blocks.
  int64_t planes = 1, tile_rows = rows;
  const bool together = planes_dense(p, p.source(), p.source_rows(), p.source_columns()) &&
                        (p.index_form == IndexForm::kNone || planes_dense(p, p.index, p.P, p.Q));
  if (together) {
    const int64_t least = least_planes(p), most = std::max(least, p.planes() / (8 * kTargetBlocks));
    for (int64_t more = least; more <= most && fits(more, rows); more += least) planes = more;
  }
  if (planes == 1) {
    const double row_bytes = p.tensor_bytes() / double(p.planes() * rows);
    const int64_t unit = p.planes() == 1 ? rows_of_sectors(p) : 1;
    tile_rows = std::min(rows, round_up(std::max(ceil_div(rows, std::min(rows, ceil_div(kTargetBlocks, p.planes()))),
                                                 std::min(rows, int64_t(std::ceil(kLeastTileBytes / row_bytes)))),
                                        unit));
    while (tile_rows > unit && !fits(1, tile_rows)) tile_rows = (tile_rows - 1) / unit * unit;
    while (tile_rows > 1 && !fits(1, tile_rows)) --tile_rows;
    if (unit == 1) tile_rows = ceil_div(rows, ceil_div(rows, tile_rows));
  }
  c.tile_planes = int(planes), c.tile_rows = int(tile_rows), c.tile_columns = int(p.target_columns());
  c.shared_bytes = int(planar_memory(p, planes, tile_rows).bytes);
  c.blocks = ceil_div(p.planes(), planes) * ceil_div(rows, tile_rows);
  return c;
}

inline Configuration configure_planar(const Kernel&, const Problem& p) {
  if (is_empty(p)) return {};
  if (!is_streamed(p)) return configure_tiles(folded(p));
  const int64_t vector = 16 / size_of(p.dtype);
  Configuration c;
  c.threads = kPlanarThreads;
  c.tile_planes = 1, c.tile_rows = is_backward(p.op) ? 2 : 1, c.tile_columns = int(is_backward(p.op) ? vector : vector / 2);  // of a thread
  c.blocks = ceil_div(p.planes() * p.P * (p.W / vector), kPlanarThreads);
  return c;
}

inline double cost_planar(const Kernel& kernel, const Problem& whole) {
  constexpr double kStreamed = 60;  // a thread's: two divisions by multiplication, addresses, three or four accesses
  constexpr double kStrip = 30;     // two divisions by multiplication, bounds, base addresses
  constexpr double kRow = 12;       // loop, bounds, addresses, the write to shared memory
  constexpr double kPass = 4;       // bytes of a lane: a warp's read or write of shared memory takes a pass, 128 bytes
  constexpr double kVector = 10;    // 16 bytes between global and shared memory: bounds, addresses, the copy
  const Configuration c = kernel.configure(kernel, whole);
  if (c.blocks == 0) return 0;
  const Problem p = is_streamed(whole) ? whole : folded(whole);
  const bool row_maxima = p.op == Op::kMax && shape_of(p) == WindowShape::k3x3Stride1;
  const double taken = row_maxima ? double(p.S + p.R) : taps_per_result(p);
  const double per_result = taken * tap_instructions(p) + (is_backward(p.op) ? 1 : result_instructions(p));
  const double divisions = p.op == Op::kAvgBackward ? double(p.planes() * p.P * p.Q) * (result_instructions(p) + 8) : 0;
  Work work;
  work.dram_bytes = work.l2_bytes = p.tensor_bytes();
  work.blocks = double(c.blocks), work.threads = c.threads;
  work.instructions = results_of(p) * per_result + divisions;
  if (is_streamed(p)) {
    work.instructions += double(c.blocks) * c.threads * kStreamed;
    work.l1_bytes = p.tensor_bytes();
    return microseconds(work);
  }
  const double copied = double(c.blocks) * c.shared_bytes;
  const Deal deal = deal_of(p, c.tile_planes, c.tile_rows);
  const double strips = double(ceil_div(c.tile_rows, deal.strip_rows) * deal.lanes * c.tile_planes);
  const double rows = results_of(p) / (is_backward(p.op) ? double(p.stride_h) : 1);  // per lane: of cells, backward
  // Reads of shared memory for a row of results (backward: of cells), and what is issued for them: the address, and for each tap its choice
  // of a pair and its bounds.
  const bool any = shape_of(p) == WindowShape::kAny;
  double reads, issued;
  if (is_backward(p.op)) {
    const double over = std::ceil(double(p.S) / double(p.stride_w));
    reads = over * (is_max(p) ? 2 : 1), issued = reads + 3 * over;
  } else if (any) {
    reads = double(p.R * p.S), issued = 5 * reads;
  } else {
    const double new_rows = double(p.stride_h), pairs = p.stride_w == 2 ? double((p.S + 1) / 2) : double(p.S);
    reads = new_rows * pairs, issued = new_rows * (2 + pairs + double(p.S) * (p.stride_w == 2 ? 2 : 1));
  }
  const double writes = is_backward(p.op) ? double(p.stride_h) : 1 + bytes_of(p.index_form);
  work.instructions += double(c.blocks) * strips * kStrip + rows * (kRow + issued) + copied / 16 * kVector;
  work.l1_bytes = 2 * copied + rows * kPass * (reads + writes);
  return microseconds(work);
}

inline PlaneStrides plane_strides(const Strides& s, bool span) {
  return {int32_t(s.d0), int32_t(s.d1), int32_t(s.d2), int32_t(s.d3), span};
}

template <template <class, int> class Op_, class T, bool kBackward>
void run_planar(const Kernel& kernel, const Problem& whole, const Configuration& c, const Arguments& a) {
  if (c.blocks == 0) return;
  const auto aligned = [](const void* tensor, int64_t bytes) {
    return reinterpret_cast<std::uintptr_t>(tensor) % std::uintptr_t(bytes) == 0;
  };
  const int64_t vector = 16 / size_of(whole.dtype);
  const bool streamed = is_streamed(whole) && aligned(kBackward ? a.out : a.x, 16) && aligned(kBackward ? a.y : a.out, 8) &&
                        aligned(a.index, vector / 2) && aligned(a.index_out, vector / 2);
  const Problem p = streamed ? whole : folded(whole);
  PlanarParams q{};
  set_window(q, p, a);
  q.interleaved = FastDiv<int32_t>(is_interleaved(whole) ? whole.C : 1);
  const auto strides = [&](const Strides& s, int64_t rows, int64_t columns) {
    return plane_strides(s, c.tile_planes > 1 ? planes_dense(p, s, rows, columns) : rows_dense(s, columns));
  };
  q.source_at = strides(p.source(), p.source_rows(), p.source_columns());
  q.source_index_at = strides(p.index, p.P, p.Q);
  q.channels = FastDiv<int32_t>(p.C);
  q.source_columns = FastDiv<int32_t>(p.source_columns()), q.source_rows = FastDiv<int32_t>(p.source_rows());
  q.planes = int32_t(p.planes());

  Configuration tile = c;
  q.streamed = streamed;
  if (q.streamed) {
    q.columns = FastDiv<int32_t>(p.W / vector), q.strips = FastDiv<int32_t>(p.P);
    q.threads = int32_t(p.planes() * p.P * (p.W / vector));
  } else {
    if (is_streamed(whole)) tile = configure_tiles(p);  // but for its address
    const Extent rows = result_rows(p);
    q.bands = FastDiv<int32_t>(ceil_div(rows.count, tile.tile_rows));
    q.tile_planes = tile.tile_planes;
    q.first_row = int32_t(rows.first), q.rows = int32_t(rows.count), q.tile_rows = tile.tile_rows;
    const Deal deal = deal_of(p, tile.tile_planes, tile.tile_rows);
    q.strips = FastDiv<int32_t>(ceil_div(tile.tile_rows, deal.strip_rows)), q.columns = FastDiv<int32_t>(deal.lanes);
    q.strip_rows = int32_t(deal.strip_rows);
    const PlanarMemory memory = planar_memory(p, tile.tile_planes, tile.tile_rows);
    q.index_in_at = int32_t(memory.index_in_at), q.out_at = int32_t(memory.out_at);
    q.index_out_at = int32_t(memory.index_out_at), q.shares_at = int32_t(memory.shares_at);
    tile.shared_bytes = int(memory.bytes);
  }
  const LaunchShape shape{dim3(unsigned(tile.blocks)), dim3(kPlanarThreads), std::size_t(tile.shared_bytes), a.stream};
  if constexpr (kBackward) launch(kernel.name.c_str(), shape, planar_backward_kernel<Op_, T>, q);
  else launch(kernel.name.c_str(), shape, planar_forward_kernel<Op_, T>, q);
}

// --- Odd windows at stride 1: rows first, then columns; backward, all windows of a pixel.

constexpr int64_t kSeparableBytes = 24 * 1024;

// Whether all tensors have their channels dense, or else are taken as planes.
inline bool channels_inner(const Problem& p) {
  return p.channels_dense(p.x) && p.channels_dense(p.y) && (p.index_form == IndexForm::kNone || p.channels_dense(p.index));
}

// Shared memory of a block, region after region: `count` planes, or vectors of each pixel's channels.
struct SeparableMemory {
  int64_t rows_at, taps_at, index_at, bytes;
};
inline SeparableMemory separable_memory(const Problem& p, int64_t count, int64_t vector) {
  const int64_t values = count * p.H * p.W, index = bytes_of(p.index_form);
  SeparableMemory m{};
  if (channels_inner(p)) {
    m.rows_at = values * 16;
    m.taps_at = m.rows_at + (is_backward(p.op) ? 0 : values * 16);
    m.bytes = m.index_at = m.taps_at + index * values * vector;
    return m;
  }
  const auto span = [](int64_t bytes) { return round_up(bytes, 16) + 64; };
  m.rows_at = span(values * size_of(p.dtype));
  m.taps_at = m.rows_at + span(values * size_of(p.dtype));
  m.index_at = m.taps_at + (index ? span(values) : 0);
  m.bytes = m.index_at + (index && !is_backward(p.op) ? span(values) : 0);
  return m;
}

inline std::string why_not_separable(const Kernel& kernel, const Problem& p) {
  if (!fits_32_bits(p)) return "an index or offset does not fit in 31 bits";
  if (p.index_form == IndexForm::kFlat) return "flat indices: built for a byte of index, or none";
  if (p.stride_h != 1 || p.stride_w != 1 || p.dilation_h != 1 || p.dilation_w != 1) return "built for stride 1 and dilation 1";
  if (p.R % 2 == 0 || p.S % 2 == 0 || 2 * p.pad_h + 1 != p.R || 2 * p.pad_w + 1 != p.S || p.P != p.H || p.Q != p.W)
    return "built for odd windows padded to keep the image's size";
  if (is_backward(p.op) && p.S > kMostGatheredColumns)
    return "windows of " + std::to_string(p.S) + " columns: built for up to " + std::to_string(kMostGatheredColumns);
  if (channels_inner(p)) {
    if (p.C % kernel.planes != 0)
      return std::to_string(p.C) + " channels are no multiple of the " + std::to_string(kernel.planes) + " of 16 bytes";
  } else {
    const auto columns_dense = [&](const Strides& s) { return s.d3 == 1 || p.W <= 1; };
    const bool indexed = p.index_form != IndexForm::kNone;
    if (!columns_dense(p.source()) || !planes_dense(p, p.target(), p.H, p.W) ||
        (indexed && (is_backward(p.op) ? !columns_dense(p.index) : !planes_dense(p, p.index, p.H, p.W))))
      return "neither channels nor columns are dense";
  }
  const int64_t bytes = separable_memory(p, 1, kernel.planes).bytes;
  if (bytes > kMostPlanarBytes) return "an image takes " + std::to_string(bytes) + " bytes of shared memory";
  return {};
}

// Channels dense: as many vectors as are whole sectors of every pixel, of its indices too, where the channels are a multiple of that. Else
// as many planes as fit.
inline Configuration configure_separable(const Kernel& kernel, const Problem& p) {
  constexpr int64_t kSector = 32;
  if (is_empty(p)) return {};
  const auto bytes = [&](int64_t count) { return separable_memory(p, count, kernel.planes).bytes; };
  Configuration c;
  c.threads = kSeparableThreads;
  c.tile_rows = int(p.H), c.tile_columns = int(p.W);
  if (channels_inner(p)) {
    const int64_t vectors = p.C / kernel.planes;
    int64_t group = p.index_form == IndexForm::kNone ? 2 : kSector / kernel.planes;
    while (group > 1 && (vectors % group != 0 || bytes(group) > kMostPlanarBytes)) group /= 2;
    c.tile_planes = int(group * kernel.planes);
    c.shared_bytes = int(bytes(group));
    c.blocks = p.N * (vectors / group);
    return c;
  }
  int64_t planes = 1;
  if (planes_dense(p, p.source(), p.H, p.W) && (p.index_form == IndexForm::kNone || planes_dense(p, p.index, p.H, p.W))) {
    const int64_t least = least_planes(p), most = std::max(least, p.planes() / (2 * kTargetBlocks));
    for (int64_t more = least; more <= most && bytes(more) <= kSeparableBytes; more += least) planes = more;
  }
  c.tile_planes = int(planes);
  c.shared_bytes = int(bytes(planes));
  c.blocks = ceil_div(p.planes(), planes);
  return c;
}

inline double cost_separable(const Kernel& kernel, const Problem& p) {
  constexpr double kItem = 25;   // a pass over one item: two divisions by multiplication, bounds, address, the write
  constexpr double kTap = 4;     // loop, address, read
  constexpr double kAsked = 8;   // backward, four windows' indices: shifts, comparison, their bits
  constexpr double kMatch = 18;  // backward, a match followed: its bit, where that is, bounds, the gradient, the sums
  const Configuration c = kernel.configure(kernel, p);
  if (c.blocks == 0) return 0;
  const bool channels = channels_inner(p), indexed = p.index_form != IndexForm::kNone;
  const double values = channels ? kernel.planes : is_backward(p.op) ? 4 : 1, items = results_of(p) / values * p.levels;
  Work work;
  work.dram_bytes = work.l2_bytes = p.tensor_bytes();
  work.blocks = double(c.blocks), work.threads = c.threads;
  if (is_backward(p.op)) {
    const double asked = items * double(p.R * p.S);
    if (channels) {  // some lane of a warp has a match under all but every tap: a gradient, and three instructions for each value
      work.instructions = items * 2 * kItem + asked * (2 * kTap + (kAsked / 4 + 3) * values);
    } else {  // the lane of a warp with the most matches in a row of windows has some 1.3 + 10 / R (of Poisson's distribution)
      work.instructions = items * (2 * kItem + (1.3 * double(p.R) + 10) * kMatch) + asked * kAsked;
    }
    work.l1_bytes = 3 * p.tensor_bytes() + (channels ? asked * values : items * double(p.R) * double(p.S + 7));
    return microseconds(work);
  }
  const double row_taps = double(p.S), taps = double(p.R) + row_taps, of_index = indexed ? 1.5 : 0;
  work.instructions = items * (2 * kItem + taps * (kTap + (tap_instructions(p) - 1) * values) + double(p.R) * of_index * values);
  work.l1_bytes = items * std::max(4.0, values * size_of(p.dtype)) * (taps + 4) + (indexed ? items * values * (double(p.R) + 3) : 0);
  return microseconds(work);
}

template <class T, bool kBackward>
void run_separable(const Kernel& kernel, const Problem& p, const Configuration& c, const Arguments& a) {
  if (c.blocks == 0) return;
  SeparableParams q{};
  q.source = kBackward ? a.y : a.x;
  q.source_index = static_cast<const uint8_t*>(a.index);
  q.target[0] = a.out;
  q.target_index = static_cast<uint8_t*>(a.index_out);
  for (int level = 1; level < p.levels; ++level) q.target[level] = a.next_out[level - 1];
  q.levels = p.levels;
  q.channels_inner = channels_inner(p);
  const int64_t item = size_of(p.dtype);
  q.pixels = pixel_strides(p.source(), q.source, kernel.planes, item);
  q.result_pixels = pixel_strides(p.target(), a.out, kernel.planes, item);
  for (int level = 1; level < p.levels; ++level)
    q.result_pixels.vector = q.result_pixels.vector && pixel_strides(p.y, q.target[level], kernel.planes, item).vector;
  q.index_pixels = pixel_strides(p.index, kBackward ? a.index : a.index_out, kernel.planes, 1);
  const auto planes_at = [&](const Strides& s) {
    return plane_strides(s, c.tile_planes > 1 ? planes_dense(p, s, p.H, p.W) : rows_dense(s, p.W));
  };
  q.planes_at = planes_at(p.source()), q.index_planes_at = planes_at(p.index);
  q.columns = FastDiv<int32_t>(p.W), q.rows = FastDiv<int32_t>(p.H), q.channels = FastDiv<int32_t>(p.C);
  const int64_t group = q.channels_inner ? c.tile_planes / kernel.planes : 1;
  q.group = FastDiv<int32_t>(group), q.tiles = FastDiv<int32_t>(std::max<int64_t>(1, p.C / kernel.planes / group));
  q.radius_h = int32_t(p.pad_h), q.radius_w = int32_t(p.pad_w);
  q.planes = int32_t(p.planes()), q.tile_planes = c.tile_planes;
  const SeparableMemory memory = separable_memory(p, q.channels_inner ? group : c.tile_planes, kernel.planes);
  q.rows_at = int32_t(memory.rows_at), q.taps_at = int32_t(memory.taps_at), q.index_at = int32_t(memory.index_at);
  const LaunchShape shape{dim3(unsigned(c.blocks)), dim3(kSeparableThreads), std::size_t(c.shared_bytes), a.stream};
  if constexpr (kBackward) launch(kernel.name.c_str(), shape, gathered_max_backward_kernel<T>, q);
  else launch(kernel.name.c_str(), shape, separable_max_kernel<T>, q);
}

// --- The catalogue.

template <template <class, int> class Op_, class T, bool kBackward>
void add_layouts(std::vector<Kernel>& catalogue, Op op) {
  Kernel row{};
  row.family = "windows";
  row.dtype = TypeTraits<T>::kDType;
  row.op = op;
  row.index_bits = 32;
  const auto named = [&](const char* layout) {
    return std::string("pool2d_") + name_of(op) + "_windows_" + layout + "_" + short_name(TypeTraits<T>::kDType);
  };
  Kernel channels = row;
  channels.name = named("channels");
  channels.planes = 16 / int(sizeof(T));
  channels.threads = kChannelsThreads;
  channels.why_not = why_not_channels, channels.cost = cost_channels, channels.configure = configure_channels;
  channels.run = run_channels<Op_, T, kBackward>;
  catalogue.push_back(channels);
  Kernel planar = row;
  planar.name = named("planar");
  planar.planes = 1;
  planar.threads = kPlanarThreads;
  planar.shared_bytes = int(kPlanarBytes);
  planar.why_not = why_not_planar, planar.cost = cost_planar, planar.configure = configure_planar;
  planar.run = run_planar<Op_, T, kBackward>;
  catalogue.push_back(planar);
}

template <class T, bool kBackward>
void add_separable(std::vector<Kernel>& catalogue, const char* how) {
  Kernel row{};
  row.op = kBackward ? Op::kMaxBackward : Op::kMax;
  row.name = std::string("pool2d_") + name_of(row.op) + "_windows_" + how + "_" + short_name(TypeTraits<T>::kDType);
  row.family = "windows";
  row.dtype = TypeTraits<T>::kDType;
  row.index_bits = 32;
  row.planes = 16 / int(sizeof(T));
  row.threads = kSeparableThreads;
  row.shared_bytes = int(kSeparableBytes);
  row.why_not = why_not_separable, row.cost = cost_separable, row.configure = configure_separable;
  row.run = run_separable<T, kBackward>;
  catalogue.push_back(row);
}

template <class T>
void add_windows_kernels(std::vector<Kernel>& catalogue) {
  add_layouts<Maximum, T, false>(catalogue, Op::kMax);
  add_separable<T, false>(catalogue, "separable");
  add_layouts<MaximumGradient, T, true>(catalogue, Op::kMaxBackward);
  add_separable<T, true>(catalogue, "gathered");
  add_layouts<Mean, T, false>(catalogue, Op::kAvg);
  add_layouts<MeanGradient, T, true>(catalogue, Op::kAvgBackward);
}

}  // namespace cnn::pool2d
