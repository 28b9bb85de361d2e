// The adaptive family's host side: the image as the kernels see it, how blocks share it, costs, and the rows of the catalogue. Included by
// instantiations/*.cu alone, one file per element type.
#pragma once

#include <algorithm>
#include <bit>
#include <numeric>

#include "common/cost.h"
#include "pool2d/adaptive/channels.cuh"
#include "pool2d/adaptive/channels_backward.cuh"
#include "pool2d/adaptive/planes.cuh"
#include "pool2d/adaptive/planes_backward.cuh"
#include "pool2d/plan.h"

namespace cnn::pool2d {

// A part of a window is at least this many accesses of each of its readers; with more parts than these the second stage would cost more.
constexpr int64_t kLeastReads = 8, kMostParts = 32;

inline int64_t power_of_2_below(int64_t n) { return int64_t(std::bit_floor(uint64_t(std::max<int64_t>(1, n)))); }
inline int64_t even_share(int64_t extent, int64_t most) { return ceil_div(extent, ceil_div(extent, std::max<int64_t>(1, most))); }
inline double log2_of(int64_t n) { return std::log2(double(n)); }

// Whether elements of an axis of `size` lie `step` apart: of a single one any stride says so.
inline bool steps_by(int64_t size, int64_t stride, int64_t step) { return size <= 1 || stride == step; }

// The problem as the kernels see it. Is the image one window, and its rows follow each other in x, it is one row.
inline Problem flattened(const Problem& p) {
  Problem flat = p;
  if (p.P != 1 || p.Q != 1 || p.H <= 1) return flat;
  if (p.W > 1 && p.x.d2 != p.W * p.x.d3) return flat;
  if (p.W == 1) flat.x.d3 = p.x.d2;
  flat.H = 1, flat.W = p.H * p.W;
  return flat;
}

// The pixels of all windows of an axis together: where windows overlap, they share one pixel.
inline double window_pixels(int64_t image, int64_t windows) { return double(image) + double(windows - std::gcd(image, windows)); }
// The largest window's.
inline int64_t largest_window(int64_t image, int64_t windows) {
  return windows == 0 ? 0 : std::min(image, ceil_div(image, windows) + (image % windows ? 1 : 0));
}

inline std::string why_not_grid(const Configuration& c) {
  return c.blocks > INT32_MAX ? "a grid has at most 2^31 - 1 blocks" : std::string();
}

// --- A thread to N channels: channels.cuh, channels_backward.cuh.

// Vectors of channels side by side in a block: 512 bytes of a pixel, less where that leaves too few blocks but at least 64, and whole
// sectors of them. `others`: what blocks are multiplied by.
inline int64_t lanes_for(int64_t vectors, int64_t others) {
  constexpr int64_t kMost = 32, kLeast = 4;
  int64_t lanes = kMost;
  while (lanes > kLeast && ceil_div(vectors, lanes) * others < kTargetBlocks) lanes /= 2;
  lanes = even_share(vectors, lanes);
  return lanes > 1 ? round_up(lanes, 2) : 1;
}

// DRAM gives its full rate to 3 MB in flight: 4.3e12 bytes/s by the 0.7 us that a read takes (assumed). A launch with fewer of its `bytes`
// in flight takes longer, as if it moved more.
inline double as_if_moved(double bytes, double in_flight) {
  constexpr double kEnough = 3e6;
  return bytes * std::max(1.0, kEnough / std::max(1.0, std::min(bytes, in_flight)));
}

// L1 bytes for each byte that scalar accesses ask for, by `run` neighbouring lanes: what a warp touches in that many lines takes
// 0.54 + 0.255 clocks per line, in each of which 128 bytes could have moved (docs/emulator.md).
inline double spread_of(int64_t run, int element_bytes) {
  const double lines = 32.0 / double(std::clamp<int64_t>(run, 1, 32));
  return std::max(1.0, 0.54 + 0.255 * lines) * 128 / (32.0 * element_bytes);
}

inline bool channels_inner(const Problem& p) { return p.channels_dense(is_backward(p.op) ? p.target() : p.source()); }

inline double work_per_value(const Problem& p) {  // conversion; addition, or two comparisons and two selections
  return (size_of(p.dtype) == 2 ? 1 : 0) + (p.op == Op::kAdaptiveMax ? 4 : 1);
}

inline bool is_vector(const Problem& p, const Strides& s, int64_t height, int64_t width, int planes) {
  const auto whole = [&](int64_t size, int64_t stride) { return size <= 1 || stride % planes == 0; };
  return p.channels_dense(s) && p.C % planes == 0 && whole(p.N, s.d0) && whole(height, s.d2) && whole(width, s.d3);
}

inline double channels_microseconds(const Kernel& kernel, const Problem& original, const Configuration& c) {
  constexpr double kThread = 150;  // the block's and thread's place, the window's ends, the store
  constexpr double kPixel = 20;    // the walk and the offset, in 64 bits; the comparison with the count, the read
  constexpr double kRead = 5;      // an access of its own for each of the N values: address of 64 bits, comparison, read
  constexpr double kMerge = 8;     // of a value: to shared memory, from it, and the merge
  const Problem p = flattened(original);
  if (c.blocks == 0) return 0;
  const double pixels = double(p.N) * window_pixels(p.H, p.P) * window_pixels(p.W, p.Q), vectors = double(ceil_div(p.C, kernel.planes));
  const double values = double(kernel.planes), threads = double(c.blocks) * c.threads;
  const bool vector = is_vector(p, p.x, p.H, p.W, kernel.planes);
  Work work;
  work.instructions = threads * (kThread + values * kMerge * (c.readers > 1 ? 2 : 0)) +
                      pixels * vectors * (kPixel + values * (work_per_value(p) + (vector ? 0 : kRead)));
  const double read = pixels * vectors * values * size_of(p.dtype);
  work.l1_bytes = read * (vector ? 1 : spread_of(p.x.d3 == 1 ? c.readers : 1, size_of(p.dtype)));
  const double once = p.tensor_bytes() + double(c.workspace_bytes) * 2;
  work.dram_bytes = as_if_moved(once, double(c.blocks) * c.threads * (vector ? 64 : 16));
  work.l2_bytes = std::max(read, once);
  work.blocks = double(c.blocks), work.threads = c.threads, work.launches = c.parts > 1 ? 2 : 1;
  return microseconds(work);
}
inline double channels_cost(const Kernel& kernel, const Problem& p) {
  return channels_microseconds(kernel, p, kernel.configure(kernel, p));
}

// `c` with every window cut into parts, where that is modelled to be faster: few blocks leave most of the machine idle. `reads`: accesses
// that each reader of a window makes.
template <class State>
Configuration with_parts(const Kernel& kernel, const Problem& p, const Configuration& c, int64_t reads,
                         double (*cost)(const Kernel&, const Problem&, const Configuration&)) {
  const int64_t parts = std::min({kMostParts, ceil_div(kTargetBlocks, c.blocks), reads / kLeastReads});
  if (parts < 2) return c;
  Configuration cut = c;
  cut.parts = int(parts);
  cut.blocks = c.blocks * parts;
  cut.workspace_bytes = Partials<State>::bytes(parts, p.planes() * p.P * p.Q);
  return cost(kernel, p, cut) < cost(kernel, p, c) ? cut : c;
}

// Readers: enough for a thread on every lane of the machine, but several accesses each. Items fill the block.
template <class State>
Configuration configure_channels(const Kernel& kernel, const Problem& original) {
  const Problem p = flattened(original);
  const int64_t outputs = p.P * p.Q, vectors = ceil_div(p.C, kernel.planes);
  if (p.N * outputs * vectors == 0) return {};
  constexpr int64_t kThreadsWanted = kTargetBlocks * kAdaptiveThreads, kReads = 4;
  const int64_t window = std::max<int64_t>(1, (p.H / p.P) * (p.W / p.Q));
  const bool inner = channels_inner(p);
  int64_t lanes = inner ? lanes_for(vectors, p.N * (outputs == 1 ? 1 : ceil_div(outputs, 8))) : 1, readers = 1;
  const int64_t most_readers = std::min(power_of_2_below(kAdaptiveThreads / lanes), power_of_2_below(window / kReads));
  while (readers < most_readers && (p.N * outputs * vectors * readers < kThreadsWanted || (!inner && readers < 32))) readers *= 2;
  int64_t items = std::min(outputs, kAdaptiveThreads / (lanes * readers));
  const auto blocks = [&] { return p.N * ceil_div(vectors, lanes) * ceil_div(outputs, items); };
  if (!inner) lanes = std::min(vectors, kAdaptiveThreads / (readers * items));
  while (lanes * readers * items > 64 && items > 1 && blocks() < kTargetBlocks) items = ceil_div(items, 2);
  while (!inner && lanes * readers * items > 64 && lanes > 1 && blocks() < kTargetBlocks) lanes = ceil_div(lanes, 2);

  Configuration c;
  c.blocks = blocks();
  c.threads = int(round_up(lanes * readers * items, 32));
  c.tile_planes = int(lanes) * kernel.planes, c.tile_rows = 1, c.tile_columns = int(items);
  c.readers = int(readers);
  c.shared_bytes = readers > 1 ? kernel.shared_bytes : 0;
  return with_parts<State>(kernel, original, c, window / readers, channels_microseconds);
}

template <class State>
std::string why_not_channels(const Kernel& kernel, const Problem& original) {
  const Problem p = flattened(original);
  if (State::kIndices && (largest_window(p.H, p.P) - 1) * p.W + largest_window(p.W, p.Q) > INT32_MAX)
    return "a window of a maximum spans more than 2^31 pixels";
  return why_not_grid(kernel.configure(kernel, original));
}

inline Place place_of(const Problem& p, const Strides& s, int64_t height, int64_t width, int planes, const void* tensor) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(tensor) % 16 == 0;
  return {s.d0, s.d1, s.d2, s.d3, aligned && is_vector(p, s, height, width, planes)};
}

inline ThreadMap thread_map(const Kernel& kernel, const Configuration& c, bool inner) {
  return {FastDiv<int32_t>(c.tile_planes / kernel.planes), FastDiv<int32_t>(c.tile_columns), std::countr_zero(unsigned(c.readers)), inner};
}

template <class State>
void run_merge(const Kernel& kernel, const Problem& p, const Configuration& c, const Arguments& a, const Partials<State>& partials) {
  static const std::string name = kernel.name + "_merge";
  MergeParams<State> q{};
  q.partials = partials;
  q.y = a.out, q.index = static_cast<int64_t*>(a.index_out);
  const auto steps = [](int64_t (&step)[4], const Strides& s) { step[0] = s.d0, step[1] = s.d1, step[2] = s.d2, step[3] = s.d3; };
  steps(q.y_step, p.y);
  steps(q.index_step, p.index);
  q.h = Windows<int64_t>(p.H, p.P), q.w = Windows<int64_t>(p.W, p.Q);
  q.channels = p.C;
  q.parts = c.parts;
  const int64_t blocks = ceil_div(partials.results, kAdaptiveThreads);
  launch(name.c_str(), {dim3(unsigned(blocks)), dim3(kAdaptiveThreads), 0, a.stream}, adaptive_merge_parts_kernel<State>, q);
}

template <class State>
void run_channels(const Kernel& kernel, const Problem& original, const Configuration& c, const Arguments& a) {
  if (c.blocks == 0) return;
  const Problem p = flattened(original);
  ChannelsParams<State> q{};
  q.x = a.x, q.y = a.out, q.index = static_cast<int64_t*>(a.index_out);
  if (c.parts > 1) q.partials = Partials<State>(a.workspace, c.parts, p.planes() * p.P * p.Q);
  q.x_at = place_of(p, p.x, p.H, p.W, kernel.planes, a.x);
  q.y_at = place_of(p, p.y, p.P, p.Q, kernel.planes, a.out);
  q.index_at = place_of(p, p.index, p.P, p.Q, kernel.planes, a.index_out);
  q.h = Windows<int64_t>(p.H, p.P), q.w = Windows<int64_t>(p.W, p.Q);
  q.channels = p.C;
  q.groups = FastDiv<int32_t>(ceil_div(p.C, c.tile_planes));
  q.tiles = FastDiv<int32_t>(ceil_div(p.P * p.Q, c.tile_columns));
  q.parts = FastDiv<int32_t>(c.parts);
  q.threads = thread_map(kernel, c, channels_inner(p));
  launch(kernel.name.c_str(), {dim3(unsigned(c.blocks)), dim3(unsigned(c.threads)), 0, a.stream}, adaptive_channels_kernel<State>, q);
  if (c.parts > 1) run_merge<State>(kernel, p, c, a, q.partials);
}

// A tile of pixels for `readers` threads on each vector of channels. A thread has several pixels, to read gradients less often than it
// stores: of a maximum, whose indices are four times as large as a half's gradients and more, more of them.
inline Configuration configure_channels_backward(const Kernel& kernel, const Problem& original) {
  const Problem p = flattened(original);
  const int64_t pixels = p.H * p.W, vectors = ceil_div(p.C, kernel.planes);
  if (p.N * pixels * vectors == 0) return {};
  constexpr int64_t kMostPixels = 32;
  const int64_t least = p.op == Op::kAdaptiveMaxBackward ? 8 : 4;
  const bool inner = channels_inner(p);
  int64_t lanes = inner ? lanes_for(vectors, p.N * ceil_div(pixels, 64)) : 1;
  const int64_t readers = std::min(power_of_2_below(kAdaptiveThreads / lanes), power_of_2_below(pixels / least));
  if (!inner) lanes = std::min(vectors, kAdaptiveThreads / readers);
  int64_t each = std::min(kMostPixels, ceil_div(pixels, readers));
  const auto blocks = [&] { return p.N * ceil_div(vectors, lanes) * ceil_div(pixels, each * readers); };
  while (each > least && blocks() < kTargetBlocks) each = std::max(least, each / 2);

  Configuration c;
  c.blocks = blocks();
  c.threads = int(round_up(lanes * readers, 32));
  c.tile_planes = int(lanes) * kernel.planes, c.tile_rows = int(each * readers), c.tile_columns = 1;
  c.readers = int(readers);
  return c;
}

// The cells of an axis: its windows, and between two that overlap the pixel that they share. No more than pixels.
inline double cells_of(int64_t image, int64_t windows) {
  return double(std::min(image, std::max<int64_t>(1, 2 * windows - std::gcd(image, windows))));
}

// What the gradients of one cell cost, for `values` channels or pixels.
inline double cell_instructions(const Problem& p, double values) {
  constexpr double kWindow = 25;   // its size, its address, the read; maximum: two reads
  constexpr double kDivision = 9;  // of one value
  const double windows = window_pixels(p.H, p.P) * window_pixels(p.W, p.Q) / (double(p.H) * double(p.W));
  return windows * (kWindow + values * (p.op == Op::kAdaptiveMaxBackward ? 3 : kDivision + 1));
}
constexpr double kCellPlace = 60;  // both axes' windows, forward and backward

inline double channels_backward_cost(const Kernel& kernel, const Problem& original) {
  constexpr double kThread = 120, kPixel = 32;  // the walk and whether the cell holds it, in 64 bits; the store
  constexpr double kStore = 5;                  // an access of its own for each of the N values
  const Problem p = flattened(original);
  const Configuration c = kernel.configure(kernel, original);
  if (c.blocks == 0) return 0;
  const double values = double(kernel.planes), pixels = double(p.N) * double(p.H) * double(p.W) * double(ceil_div(p.C, kernel.planes));
  const bool vector = is_vector(p, p.x, p.H, p.W, kernel.planes), maximum = p.op == Op::kAdaptiveMaxBackward;
  // A thread enters a cell with each pixel where cells are narrower than its step.
  const double columns = cells_of(p.W, p.Q), rows = cells_of(p.H, p.P), step = c.readers;
  const double entered = std::min(1.0, columns > 1 ? step * columns / double(p.W) : step * rows / (double(p.H) * double(p.W)));
  Work work;
  work.instructions =
      double(c.blocks) * c.threads * kThread + pixels * (kPixel + (maximum ? 4 : 1) * values + (vector ? 0 : kStore * values) +
                                                         entered * (kCellPlace + cell_instructions(p, values)));
  work.dram_bytes = work.l2_bytes = p.tensor_bytes();
  work.l1_bytes = pixels * values * size_of(p.dtype) * (vector ? 1 : spread_of(p.x.d3 == 1 ? c.readers : 1, size_of(p.dtype)));
  work.blocks = double(c.blocks), work.threads = c.threads;
  return microseconds(work);
}

inline std::string why_not_channels_backward(const Kernel& kernel, const Problem& p) { return why_not_grid(kernel.configure(kernel, p)); }

template <class Index>
GradientParams<Index> gradient_params(const Problem& p, const Arguments& a, int planes) {
  const auto at = [&](const Strides& s, const void* tensor) {
    return typename GradientParams<Index>::Offsets{Index(s.d0), Index(s.d1), Index(s.d2), Index(s.d3),
                                                   planes > 1 && place_of(p, s, p.P, p.Q, planes, tensor).vector};
  };
  const auto axis = [](int64_t image, int64_t windows) {
    return TwoWays<Index>{Windows<Index>(image, windows), Windows<Index>(windows, image)};
  };
  return {a.y, static_cast<const int64_t*>(a.index), axis(p.H, p.P), axis(p.W, p.Q), at(p.y, a.y), at(p.index, a.index)};
}

template <class Gradient>
void run_channels_backward(const Kernel& kernel, const Problem& original, const Configuration& c, const Arguments& a) {
  if (c.blocks == 0) return;
  const Problem p = flattened(original);
  ChannelsBackwardParams q{};
  q.gradient = gradient_params<int64_t>(p, a, kernel.planes);
  q.x = a.out;
  q.x_at = place_of(p, p.x, p.H, p.W, kernel.planes, a.out);
  q.channels = p.C;
  q.tile_pixels = c.tile_rows;
  q.groups = FastDiv<int32_t>(ceil_div(p.C, c.tile_planes));
  q.tiles = FastDiv<int32_t>(ceil_div(p.H * p.W, c.tile_rows));
  q.threads = thread_map(kernel, c, channels_inner(p));
  launch(kernel.name.c_str(), {dim3(unsigned(c.blocks)), dim3(unsigned(c.threads)), 0, a.stream},
         adaptive_channels_backward_kernel<Gradient>, q);
}

// --- Dense planes: planes.cuh, planes_backward.cuh.

// x's planes where they follow each other: all of them, or those of one image.
struct Runs {
  bool dense;
  int64_t planes, step;
};
inline Runs runs_of(const Problem& p) {
  const int64_t plane = p.H * p.W;
  const bool dense = steps_by(p.W, p.x.d3, 1) && steps_by(p.H, p.x.d2, p.W) && steps_by(p.C, p.x.d1, plane);
  if (dense && steps_by(p.N, p.x.d0, p.C * plane)) return {true, p.planes(), 0};
  return {dense, p.C, p.x.d0};
}

// Registers let a multiprocessor hold six to eight blocks of 256 threads; six times 32 KB fit its 228. Whole planes come in half as much,
// for more blocks to take turns at reading.
constexpr int64_t kMostStage = 32 * 1024, kPlanesStage = 16 * 1024;
// From here on a warp reads a plane of one window straight into registers: twice 16 bytes a lane.
constexpr int64_t kStreamedPlane = 1024;

inline bool is_streamed(const Problem& p) { return p.P == 1 && p.Q == 1 && p.H * p.W * size_of(p.dtype) >= kStreamedPlane; }

// Rows of x that `rows` rows of windows need, at most.
inline int64_t band_of(const Problem& p, int64_t rows) { return std::min(p.H, ceil_div(rows * p.H, p.P) + (p.H % p.P ? 1 : 0)); }

inline double planes_microseconds(const Kernel& kernel, const Problem& original, const Configuration& c) {
  constexpr double kThread = 60;
  constexpr double kVector = 12;  // an access of 16 bytes: its address and bounds; staged, the copy
  constexpr double kStaged = 3;   // of a value: the read, its address, the loop; one row at a time, the walk as well
  constexpr double kWalk = 6;
  constexpr double kWindow = 20;  // of a reader: the window's place; of several windows, their ends
  constexpr double kEnds = 50;
  constexpr double kMerge = 3;  // of a shuffle; a maximum has two, and more to merge
  const Problem p = flattened(original);
  if (c.blocks == 0) return 0;
  const bool streamed = is_streamed(p);
  const double values = double(p.planes()) * window_pixels(p.H, p.P) * window_pixels(p.W, p.Q);
  const double windows = double(p.planes()) * double(p.P) * double(p.Q) * c.parts, bytes = values * size_of(p.dtype);
  Work work;
  work.instructions =
      double(c.blocks) * c.threads * kThread + bytes / 16 * kVector +
      values * (work_per_value(p) + (streamed ? 0 : kStaged + (p.Q > 1 ? kWalk : 0))) +
      windows * c.readers * (kWindow + (p.P * p.Q > 1 ? kEnds : 0) + log2_of(c.readers) * kMerge * (p.op == Op::kAdaptiveMax ? 3 : 1));
  work.l2_bytes = p.tensor_bytes() + double(c.workspace_bytes) * 2;
  work.dram_bytes = as_if_moved(work.l2_bytes, double(c.blocks) * (streamed ? c.threads * 64 : c.shared_bytes));
  work.l1_bytes = streamed ? bytes : bytes + values * 4;
  work.blocks = double(c.blocks), work.threads = c.threads, work.launches = c.parts > 1 && streamed ? 2 : 1;
  (void)kernel;
  return microseconds(work);
}
inline double planes_cost(const Kernel& kernel, const Problem& p) { return planes_microseconds(kernel, p, kernel.configure(kernel, p)); }

// Lanes that share a window of the stage: few, since each window is decoded by all of them. One window per plane: as many as the planes'
// distance needs for the groups of a warp to read different banks.
inline int64_t staged_readers(const Problem& p) {
  const int64_t pixels = std::max<int64_t>(1, p.H / p.P) * std::max<int64_t>(1, p.W / p.Q);
  if (p.P * p.Q > 1) return std::min<int64_t>(32, power_of_2_below(pixels / 4));
  const int64_t readers = std::min<int64_t>(8, std::bit_ceil(uint64_t(pixels)));
  const int64_t even = int64_t(1) << std::countr_zero(uint64_t(p.H * p.W));  // the power of 2 in the distance
  return std::min<int64_t>(32, std::max(readers, even));
}

// How far apart the planes of a warp's groups are: as many banks as a group reads, or twice that of halves, whose runs may straddle words.
inline int64_t staged_spread(const Problem& p, int64_t readers) {
  if (p.P * p.Q > 1 || readers >= 32) return 1;
  const int64_t even = int64_t(1) << std::countr_zero(uint64_t(p.H * p.W));
  return std::max<int64_t>(1, readers * (size_of(p.dtype) == 2 ? 2 : 1) / even);
}

template <class State>
Configuration configure_planes(const Kernel& kernel, const Problem& original) {
  const Problem p = flattened(original);
  const int64_t plane_bytes = p.H * p.W * size_of(p.dtype);
  if (p.planes() * p.P * p.Q == 0) return {};
  Configuration c;
  c.threads = kAdaptiveThreads;
  if (is_streamed(p)) {
    const int64_t vectors = plane_bytes / 16;
    int64_t readers = 32;
    while (readers < kAdaptiveThreads && p.planes() * readers < kTargetBlocks * kAdaptiveThreads && vectors / readers >= kLeastReads)
      readers *= 2;
    const int64_t planes = std::min(p.planes(), kAdaptiveThreads / readers);
    c.threads = int(planes * readers);
    c.blocks = ceil_div(p.planes(), planes);
    c.tile_planes = int(planes), c.tile_rows = c.tile_columns = 1;
    c.readers = int(readers);
    return with_parts<State>(kernel, original, c, vectors / readers, planes_microseconds);
  }
  const Runs runs = runs_of(p);
  const int64_t readers = staged_readers(p), spread = staged_spread(p, readers);
  int64_t planes = 1, rows = p.P;
  if (plane_bytes <= kPlanesStage) {
    const int64_t set = p.P * p.Q == 1 ? 32 / readers * spread : 1;  // planes that a warp takes in turns
    planes = std::max<int64_t>(1, kPlanesStage / plane_bytes);
    planes = std::min(planes, std::max<int64_t>(1, ceil_div(p.planes(), kTargetBlocks)));
    if (planes > set) planes = planes / set * set;
    else planes = std::min(set, std::max<int64_t>(1, kPlanesStage / plane_bytes));
    planes = std::min(planes, p.P * p.Q == 1 ? std::min<int64_t>(runs.planes, kMostTilePlanes) : runs.planes);
  } else {
    while (rows > 1 && band_of(p, rows) * p.W * size_of(p.dtype) > kMostStage) rows = ceil_div(rows, 2);
  }
  const int64_t elements = planes > 1 ? planes * p.H * p.W : band_of(p, rows) * p.W;
  c.blocks = p.planes() / runs.planes * ceil_div(runs.planes, planes) * ceil_div(p.P, rows);
  c.tile_planes = int(planes), c.tile_rows = int(rows), c.tile_columns = int(p.Q);
  c.chunk_rows = int(band_of(p, rows)), c.chunk_columns = int(p.W);
  c.shared_bytes = int(std::min<int64_t>(INT32_MAX, round_up(elements * size_of(p.dtype), 16) + 16));  // and the lead before the first
  const int64_t windows = planes * rows * p.Q;
  c.threads = int(std::clamp<int64_t>(round_up(windows * readers, 32), 64, kAdaptiveThreads));
  c.readers = int(readers);
  return c;
}

template <class State>
std::string why_not_planes(const Kernel& kernel, const Problem& original) {
  const Problem p = flattened(original);
  if (!runs_of(p).dense) return "x's rows or planes do not follow each other: made for NCHW";
  if (!fits_32_bits(p)) return "an index or offset does not fit in 31 bits";
  if (p.planes() * p.P * p.Q == 0) return {};
  const Configuration c = kernel.configure(kernel, original);
  if (!is_streamed(p) && c.shared_bytes > kMostStage + 32)
    return "a row of windows takes " + std::to_string(c.shared_bytes) + " bytes of shared memory, and it has " + std::to_string(kMostStage);
  return why_not_grid(c);
}

template <class State>
void run_planes(const Kernel& kernel, const Problem& original, const Configuration& c, const Arguments& a) {
  if (c.blocks == 0) return;
  const Problem p = flattened(original);
  const Runs runs = runs_of(p);
  PlanesParams<State> q{};
  q.x = a.x, q.y = a.out, q.index = static_cast<int64_t*>(a.index_out);
  q.h = Windows<int32_t>(p.H, p.P), q.w = Windows<int32_t>(p.W, p.Q);
  q.plane = int32_t(p.H * p.W);
  q.run = FastDiv<int32_t>(runs.planes), q.run_step = int32_t(runs.step);
  q.channels = FastDiv<int32_t>(p.C);
  const auto steps = [](int32_t (&step)[4], const Strides& s) {
    step[0] = int32_t(s.d0), step[1] = int32_t(s.d1), step[2] = int32_t(s.d2), step[3] = int32_t(s.d3);
  };
  steps(q.y_step, p.y);
  steps(q.index_step, p.index);
  q.planes = int32_t(p.planes());
  q.readers_log2 = std::countr_zero(unsigned(c.readers));
  q.streamed = is_streamed(p);
  if (q.streamed) {
    q.parts = FastDiv<int32_t>(c.parts);
    q.part_elements = int32_t(round_up(ceil_div(p.H * p.W, c.parts), 16 / size_of(p.dtype)));
    if (c.parts > 1) q.partials = Partials<State>(a.workspace, c.parts, p.planes());
  } else {
    q.parts = FastDiv<int32_t>(ceil_div(p.P, c.tile_rows));
    q.tiles = FastDiv<int32_t>(ceil_div(runs.planes, c.tile_planes));
    q.tile_planes = c.tile_planes;
    q.band_rows = c.tile_rows;
    q.windows = FastDiv<int32_t>(c.tile_rows * p.Q);
    q.columns = FastDiv<int32_t>(p.Q);
    q.spread_log2 = std::countr_zero(uint64_t(staged_spread(p, c.readers)));
  }
  const LaunchShape shape{dim3(unsigned(c.blocks)), dim3(unsigned(c.threads)), std::size_t(c.shared_bytes), a.stream};
  launch(kernel.name.c_str(), shape, adaptive_planes_kernel<State>, q);
  if (c.parts > 1) run_merge<State>(kernel, p, c, a, q.partials);
}

inline Configuration configure_planes_backward(const Kernel& kernel, const Problem& p) {
  const int64_t elements = p.planes() * p.H * p.W, vectors = ceil_div(elements, kernel.planes);
  if (elements == 0) return {};
  constexpr int64_t kMostStores = 4;
  const int64_t stores = std::clamp<int64_t>(vectors / (kTargetBlocks * kAdaptiveThreads), 1, kMostStores);
  Configuration c;
  c.threads = int(std::clamp<int64_t>(round_up(ceil_div(vectors, kTargetBlocks * stores), 32), 64, kAdaptiveThreads));
  c.blocks = ceil_div(vectors, int64_t(c.threads) * stores);
  c.tile_planes = 1, c.tile_rows = int(stores), c.tile_columns = c.threads * kernel.planes;
  c.readers = 1;
  return c;
}

inline std::string why_not_planes_backward(const Kernel& kernel, const Problem& p) {
  const int64_t plane = p.H * p.W;
  const bool dense =
      steps_by(p.W, p.x.d3, 1) && steps_by(p.H, p.x.d2, p.W) && steps_by(p.C, p.x.d1, plane) && steps_by(p.N, p.x.d0, p.C * plane);
  if (!dense) return "the result is not dense in NCHW";
  if (!fits_32_bits(p)) return "an index or offset does not fit in 31 bits";
  return why_not_grid(kernel.configure(kernel, p));
}

inline double planes_backward_cost(const Kernel& kernel, const Problem& original) {
  constexpr double kStore = 30;  // the first element's place, the store
  constexpr double kPart = 10;   // what lies in one cell and row: whether the cell holds it, where it ends
  const Problem p = flattened(original);
  const Configuration c = kernel.configure(kernel, original);
  if (c.blocks == 0) return 0;
  const double values = double(kernel.planes), plane = double(p.H) * double(p.W), stores = double(p.planes()) * plane / values;
  const double columns = cells_of(p.W, p.Q), parts = std::min(values, 1 + values * columns / double(p.W));
  // A thread's stores lie a block's width apart. Where columns are one cell, another plane is entered, whose cell has the same place.
  const double entered = columns > 1 ? parts : std::min(1.0, c.threads * values / plane) + values / plane;
  const double per_value = p.op == Op::kAdaptiveMaxBackward ? 3 : 1.5;
  Work work;
  work.instructions =
      stores * (kStore + parts * (kPart + values * per_value) + entered * ((columns > 1 ? kCellPlace : 10) + cell_instructions(p, 1)));
  work.dram_bytes = work.l2_bytes = work.l1_bytes = p.tensor_bytes();
  work.blocks = double(c.blocks), work.threads = c.threads;
  return microseconds(work);
}

template <class Gradient>
void run_planes_backward(const Kernel& kernel, const Problem& original, const Configuration& c, const Arguments& a) {
  if (c.blocks == 0) return;
  const Problem p = flattened(original);
  PlanesBackwardParams q{};
  q.gradient = gradient_params<int32_t>(p, a, 1);
  q.x = a.out;
  q.plane = FastDiv<int32_t>(p.H * p.W), q.width = FastDiv<int32_t>(p.W), q.channels = FastDiv<int32_t>(p.C);
  q.elements = int32_t(p.planes() * p.H * p.W);
  q.stores = c.tile_rows;
  launch(kernel.name.c_str(), {dim3(unsigned(c.blocks)), dim3(unsigned(c.threads)), 0, a.stream}, adaptive_planes_backward_kernel<Gradient>,
         q);
}

// --- The catalogue.

template <class T>
Kernel adaptive_row(Op op, const char* what, int index_bits) {
  Kernel row{};
  row.name = std::string("pool2d_") + name_of(op) + "_" + what + "_" + std::to_string(kAdaptiveVector<T>) + "x" +
             std::to_string(kAdaptiveThreads) + "_" + short_name(TypeTraits<T>::kDType);
  row.family = "adaptive";
  row.dtype = TypeTraits<T>::kDType;
  row.op = op;
  row.planes = kAdaptiveVector<T>;
  row.threads = kAdaptiveThreads;
  row.index_bits = index_bits;
  return row;
}

template <class State, bool kPlanes>
void add_forward(std::vector<Kernel>& catalogue, Op op) {
  using T = typename State::T;
  Kernel row = adaptive_row<T>(op, "channels", 64);
  row.shared_bytes = int(sizeof(StateShelf<State, kAdaptiveVector<T>, kAdaptiveThreads>));
  row.why_not = why_not_channels<State>;
  row.cost = channels_cost;
  row.configure = configure_channels<State>;
  row.run = run_channels<State>;
  catalogue.push_back(row);
  if constexpr (kPlanes) {
    row = adaptive_row<T>(op, "planes", 32);
    row.shared_bytes = int(kMostStage + 32);
    row.why_not = why_not_planes<State>;
    row.cost = planes_cost;
    row.configure = configure_planes<State>;
    row.run = run_planes<State>;
    catalogue.push_back(row);
  }
}

template <template <class, class, int> class Gradient, class T, bool kPlanes>
void add_backward(std::vector<Kernel>& catalogue, Op op) {
  Kernel row = adaptive_row<T>(op, "channels", 64);
  row.why_not = why_not_channels_backward;
  row.cost = channels_backward_cost;
  row.configure = configure_channels_backward;
  row.run = run_channels_backward<Gradient<T, int64_t, kAdaptiveVector<T>>>;
  catalogue.push_back(row);
  if constexpr (kPlanes) {
    row = adaptive_row<T>(op, "planes", 32);
    row.why_not = why_not_planes_backward;
    row.cost = planes_backward_cost;
    row.configure = configure_planes_backward;
    row.run = run_planes_backward<Gradient<T, int32_t, 1>>;
    catalogue.push_back(row);
  }
}

// fp64 is for checking gradients: the kernels that are right for everything are enough.
template <class T>
void add_adaptive_kernels(std::vector<Kernel>& catalogue) {
  constexpr bool kPlanes = sizeof(T) < 8;
  add_forward<Mean<T>, kPlanes>(catalogue, Op::kAdaptiveAvg);
  add_forward<Maximum<T>, kPlanes>(catalogue, Op::kAdaptiveMax);
  add_backward<MeanGradient, T, kPlanes>(catalogue, Op::kAdaptiveAvgBackward);
  add_backward<MaximumGradient, T, kPlanes>(catalogue, Op::kAdaptiveMaxBackward);
}

}  // namespace cnn::pool2d
