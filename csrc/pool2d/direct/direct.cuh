// The direct family's host side: tiles and parameters from the problem, costs, and the rows of the catalogue. Included by
// instantiations/*.cu alone, one file per element type.
#pragma once

#include <algorithm>
#include <numeric>

#include "common/cost.h"
#include "pool2d/direct/avg.cuh"
#include "pool2d/direct/gather.cuh"
#include "pool2d/direct/max.cuh"
#include "pool2d/plan.h"

namespace cnn::pool2d {

// The size of equal parts of `extent`, as few as can be of at most `most`.
inline int64_t even_part(int64_t extent, int64_t most) { return ceil_div(extent, ceil_div(extent, std::max<int64_t>(1, most))); }

// Registers let a multiprocessor hold five or six blocks of 256 threads: six times 33 KB (1 of it the system's) fit its 228.
constexpr int kMaxStageBytes = 32 * 1024;

// The source positions that `targets` neighbouring ones need on one axis, as many as there are at most.
inline int64_t region_extent(const Problem& p, int64_t targets, int64_t sources, int64_t taps, int64_t stride, int64_t dilation) {
  const int64_t reach = (taps - 1) * dilation;
  return std::min(sources, is_backward(p.op) ? (targets - 1 + reach) / stride + 1 : (targets - 1) * stride + reach + 1);
}

struct Region {
  int64_t rows, columns;
};
inline Region region_of(const Problem& p, int64_t rows, int64_t columns) {
  return {region_extent(p, rows, p.source_rows(), p.R, p.stride_h, p.dilation_h),
          region_extent(p, columns, p.source_columns(), p.S, p.stride_w, p.dilation_w)};
}

// A tile of at most kernel.threads vectors, fewer where that gives less than kTargetBlocks tiles. Channels dense: 128 bytes of
// channels of each pixel, by some 4 x 8 pixels. Else up to 32 columns, for 128-byte rows of fp32, by as many rows as there is room
// for, for little halo. What small images leave goes to more planes.
inline Configuration configure_window(const Kernel& kernel, const Problem& p) {
  const int64_t height = p.target_rows(), width = p.target_columns();
  if (p.planes() * height * width == 0) return {};
  constexpr int64_t kLeastThreads = 64;
  const int64_t vectors = ceil_div(p.planes(), kernel.planes);
  const int64_t threads =
      std::clamp<int64_t>(round_up(ceil_div(vectors * height * width, kTargetBlocks), 32), kLeastThreads, kernel.threads);
  int64_t groups = 1, columns, rows;
  if (p.channels_dense(p.target())) {
    constexpr int kLine = 128;
    groups = even_part(ceil_div(p.C, kernel.planes), kLine / (size_of(p.dtype) * kernel.planes));
    columns = even_part(width, std::min<int64_t>(8, threads / groups));
    rows = even_part(height, threads / (groups * columns));
    columns = even_part(width, threads / (groups * rows));
  } else {
    columns = even_part(width, 32);
    rows = even_part(height, threads / columns);
    columns = even_part(width, threads / rows);
  }
  groups = std::max(groups, even_part(vectors, threads / (rows * columns)));

  Configuration c;
  // A region with its channels dense streams well in rows. One with its columns dense had better fit, or its rows are cut up.
  const Region region = region_of(p, rows, columns);
  const int64_t plane_bytes = std::max<int64_t>(1, region.rows * region.columns) * kernel.slot_bytes;
  if (!p.channels_dense(p.source())) groups = std::min(groups, std::max<int64_t>(1, kMaxStageBytes / plane_bytes));
  const int64_t row_bytes = std::max<int64_t>(1, region.columns) * groups * kernel.slot_bytes;
  c.chunk_rows = int(std::clamp<int64_t>(kMaxStageBytes / row_bytes, 1, std::max<int64_t>(1, region.rows)));
  c.chunk_columns = int(std::clamp<int64_t>(kMaxStageBytes / (groups * kernel.slot_bytes), 1, std::max<int64_t>(1, region.columns)));
  const int64_t staged = groups * c.chunk_rows * c.chunk_columns;
  c.shared_bytes = int(staged * kernel.slot_bytes);
  c.tile_planes = int(groups) * kernel.planes, c.tile_rows = int(rows), c.tile_columns = int(columns);
  c.blocks = ceil_div(vectors, groups) * ceil_div(height, rows) * ceil_div(width, columns);
  // Small tiles do with fewer threads; but one for every few slots, or a large window is brought in by a handful.
  constexpr int64_t kSlotsPerThread = 8;
  c.threads = int(std::min<int64_t>(kernel.threads, round_up(std::max(groups * rows * columns, staged / kSlotsPerThread), 32)));
  return c;
}

// Whether a vector of `planes` planes is contiguous and aligned, as far as strides say.
inline bool is_vector(const Problem& p, const Strides& s, int planes) {
  return planes > 1 && p.channels_dense(s) && p.C % planes == 0 && s.d0 % planes == 0 && s.d2 % planes == 0 && s.d3 % planes == 0;
}

inline std::string why_not_direct(const Kernel& kernel, const Problem& problem) {
  if (problem.levels > 1) return "a chain of poolings: it is run one by one";
  if (kernel.index_bits == 32 && !fits_32_bits(problem)) return "an index or offset does not fit in 31 bits";
  if (kernel.configure(kernel, problem).blocks > INT32_MAX) return "a grid has at most 2^31 - 1 blocks";
  return {};
}

// 64-bit index arithmetic takes two to four instructions where 32-bit takes one.
constexpr double kWideIndexFactor = 3;

// 32-byte sectors that a warp's access touches: `run` neighbouring threads read elements `step` apart, the next ones elsewhere.
inline double sectors(int64_t run, int64_t step, int bytes) {
  constexpr double kWarp = 32, kSector = 32;
  const double in_run = double(std::min<int64_t>(run, 32));
  return std::min(kWarp, kWarp / in_run * std::max(1.0, in_run * double(step * bytes) / kSector));
}

// What is issued, counted in the inner loops of window.cuh, max.cuh and avg.cuh, and what the L1 and shared-memory path moves.
inline double window_cost(const Kernel& kernel, const Problem& p) {
  constexpr double kThread = 100;  // locating the tile, windows, offsets, and writing
  constexpr double kSlot = 15;     // a slot's coordinates: two divisions by multiplication, bounds, address; the store
  constexpr double kTap = 6;       // coordinate, address, comparison, branch, read
  constexpr double kRead = 2;      // a global read and its address
  constexpr double kPass = 4;      // bytes of a thread: a warp's access takes a pass of L1, 128 bytes, though it moves fewer
  const Configuration c = kernel.configure(kernel, p);
  if (c.blocks == 0) return 0;
  const bool backward = is_backward(p.op), routed = p.op == Op::kMaxBackward, target_channels = p.channels_dense(p.target());
  const double per_value = p.op == Op::kMax ? 5
                           : routed         ? 4
                                            : 2,  // with the conversion to fp32
      division = 10.0 * kernel.planes;

  // One vector of `strides`' tensor: instructions and sectors, `run` threads along the columns, or along the channels.
  struct Access {
    double issued = 0, moved = 0;
  };
  const auto access = [&](const Strides& strides, int bytes, bool along_channels, int64_t run) -> Access {
    if (is_vector(p, strides, kernel.planes)) return {kRead, double(kernel.planes * bytes)};
    const bool dense = along_channels ? p.channels_dense(strides) : strides.d3 == 1;
    const double each = along_channels ? sectors(dense ? p.C : 1, kernel.planes, bytes) : sectors(dense ? run : 1, 1, bytes);
    return {kRead * kernel.planes, std::max(kPass, each) * kernel.planes};
  };

  const double vectors = double(c.tile_planes / kernel.planes) * c.tile_rows * c.tile_columns;
  double taps = double(p.R) * double(p.S);
  if (backward) taps = std::max(1.0, taps / double(p.stride_h * p.stride_w));
  const Region region = region_of(p, c.tile_rows, c.tile_columns);
  const double slots = double(c.tile_planes / kernel.planes) * double(region.rows) * double(region.columns);
  const bool source_channels = p.channels_dense(p.source());
  Access source = access(p.source(), size_of(p.dtype), source_channels, c.chunk_columns);
  if (routed) {
    const Access index = access(p.index, bytes_of(p.index_form), source_channels, c.chunk_columns);
    source.issued += index.issued, source.moved += index.moved;
  }
  const double conflicts = backward || target_channels ? 1 : double(std::min<int64_t>(p.stride_w, 8));
  const double issued = c.threads * kThread + vectors * (taps * (kTap + per_value * kernel.planes) + (p.op == Op::kAvg ? division : 0)) +
                        slots * (kSlot + source.issued + (p.op == Op::kAvgBackward ? division : 0));
  double moved = slots * (source.moved + kernel.slot_bytes) + vectors * taps * kernel.slot_bytes * conflicts;
  moved += vectors * access(p.target(), size_of(p.dtype), target_channels, c.tile_columns).moved;
  if (p.op == Op::kMax && p.index_form != IndexForm::kNone)
    moved += vectors * access(p.index, bytes_of(p.index_form), target_channels, c.tile_columns).moved;
  Work work;
  work.instructions = issued * double(c.blocks) * (kernel.index_bits == 64 ? kWideIndexFactor : 1);
  work.l1_bytes = moved * double(c.blocks);
  work.dram_bytes = work.l2_bytes = p.tensor_bytes();
  work.blocks = double(c.blocks), work.threads = c.threads;
  return microseconds(work);
}

template <class Index>
Layout<Index> layout_of(const Problem& p, const Strides& s, int planes, const void* tensor, std::size_t element_bytes) {
  const std::size_t alignment = std::clamp<std::size_t>(element_bytes * std::size_t(planes), 1, 16);  // no indices: 0 bytes
  const bool aligned = reinterpret_cast<std::uintptr_t>(tensor) % alignment == 0;
  return {Index(s.d0), Index(s.d1), Index(s.d2), Index(s.d3), Index(s.d0 - (p.C - 1) * s.d1), is_vector(p, s, planes) && aligned};
}

inline Box box(int64_t groups, int64_t rows, int64_t columns, bool groups_inner) {
  return {FastDiv<int32_t>(groups_inner ? groups : columns),
          FastDiv<int32_t>(groups_inner ? columns : rows),
          int32_t(groups),
          int32_t(rows),
          int32_t(columns),
          groups_inner};
}

template <class Index>
Axis<Index> axis(int64_t image, int64_t outputs, int64_t taps, int64_t stride, int64_t pad, int64_t dilation) {
  return {Index(image),
          Index(outputs),
          Index(taps),
          Index(pad),
          FastDiv<Index>(stride),
          FastDiv<Index>(dilation),
          Index(dilation / std::gcd(stride, dilation))};
}

template <class Policy>
void run_window(const Kernel& kernel, const Problem& p, const Configuration& c, const Arguments& a) {
  using Index = typename Policy::Index;
  if (c.blocks == 0) return;
  const std::size_t bytes = std::size_t(size_of(p.dtype));
  WindowParams<Index> q{};
  q.source = is_backward(p.op) ? a.y : a.x;
  q.source_index = a.index;
  q.target = a.out;
  q.target_index = a.index_out;
  q.index_form = p.index_form;
  q.source_at = layout_of<Index>(p, p.source(), kernel.planes, q.source, bytes);
  q.source_index_at = layout_of<Index>(p, p.index, kernel.planes, q.source_index, std::size_t(bytes_of(p.index_form)));
  q.target_at = layout_of<Index>(p, p.target(), kernel.planes, q.target, bytes);
  q.target_index_at = layout_of<Index>(p, p.index, kernel.planes, q.target_index, std::size_t(bytes_of(p.index_form)));
  q.h = axis<Index>(p.H, p.P, p.R, p.stride_h, p.pad_h, p.dilation_h);
  q.w = axis<Index>(p.W, p.Q, p.S, p.stride_w, p.pad_w, p.dilation_w);
  q.image_columns = FastDiv<Index>(p.W), q.window_columns = FastDiv<Index>(p.S);
  q.planes = {FastDiv<Index>(p.C), Index(p.planes())};
  q.row_tiles = FastDiv<Index>(ceil_div(p.target_rows(), c.tile_rows));
  q.column_tiles = FastDiv<Index>(ceil_div(p.target_columns(), c.tile_columns));
  const int64_t groups = c.tile_planes / kernel.planes;
  q.tile = box(groups, c.tile_rows, c.tile_columns, p.channels_dense(p.target()));
  q.chunk = box(groups, c.chunk_rows, c.chunk_columns, p.channels_dense(p.source()));
  q.divisor_override = Index(p.divisor_override);
  q.count_include_pad = p.count_include_pad;
  const LaunchShape shape{dim3(unsigned(c.blocks)), dim3(unsigned(c.threads)), std::size_t(c.shared_bytes), a.stream};
  launch(kernel.name.c_str(), shape, window_kernel<Policy>, q);
}

inline double gather_cost(const Kernel& kernel, const Problem& p) {
  constexpr double kInstructions = 30;  // per result: five divisions by multiplication, two reads, a write
  const Configuration c = kernel.configure(kernel, p);
  Work work;
  work.instructions = double(p.planes()) * double(p.P) * double(p.Q) * kInstructions * (kernel.index_bits == 64 ? kWideIndexFactor : 1);
  work.dram_bytes = work.l2_bytes = work.l1_bytes = p.tensor_bytes();
  work.blocks = double(c.blocks), work.threads = c.threads;
  return microseconds(work);
}

inline Configuration configure_gather(const Kernel& kernel, const Problem& p) {
  Configuration c;
  c.blocks = ceil_div(p.planes() * p.P * p.Q, kGatherThreads * kGatherResults);
  c.threads = kernel.threads;
  return c;
}

template <class T, class Index>
void run_gather(const Kernel& kernel, const Problem& p, const Configuration& c, const Arguments& a) {
  if (c.blocks == 0) return;
  const bool channels_inner = p.channels_dense(p.y);
  GatherParams<Index> q{};
  q.x = a.x, q.index = a.index, q.out = a.out;
  const auto order = [&](Index(&step)[4], const Strides& s, bool image) {
    const Index c = Index(s.d1), h = image ? 0 : Index(s.d2), w = image ? 0 : Index(s.d3);
    step[0] = Index(s.d0), step[1] = channels_inner ? h : c, step[2] = channels_inner ? w : h, step[3] = channels_inner ? c : w;
  };
  order(q.x_step, p.x, true);
  order(q.index_step, p.index, false);
  order(q.out_step, p.y, false);
  q.extent1 = FastDiv<Index>(channels_inner ? p.P : p.C);
  q.extent2 = FastDiv<Index>(channels_inner ? p.Q : p.P);
  q.extent3 = FastDiv<Index>(channels_inner ? p.C : p.Q);
  q.channels_inner = channels_inner;
  q.index_form = p.index_form;
  q.h = axis<Index>(p.H, p.P, p.R, p.stride_h, p.pad_h, p.dilation_h);
  q.w = axis<Index>(p.W, p.Q, p.S, p.stride_w, p.pad_w, p.dilation_w);
  q.x_h = Index(p.x.d2), q.x_w = Index(p.x.d3);
  q.image_columns = FastDiv<Index>(p.W), q.window_columns = FastDiv<Index>(p.S);
  q.results = Index(p.planes() * p.P * p.Q);
  launch(kernel.name.c_str(), {dim3(unsigned(c.blocks)), dim3(kGatherThreads), 0, a.stream}, gather_kernel<T, Index>, q);
}

template <class T, class Index>
Kernel direct_row(Op op, const char* variant, int planes, int threads) {
  Kernel row{};
  row.name = std::string("pool2d_") + name_of(op) + variant + "_" + std::to_string(planes) + "x" + std::to_string(threads) + "_" +
             short_name(TypeTraits<T>::kDType) + (sizeof(Index) == 8 ? "_i64" : "");
  row.family = "direct";
  row.dtype = TypeTraits<T>::kDType;
  row.op = op;
  row.planes = planes;
  row.threads = threads;
  row.index_bits = int(sizeof(Index)) * 8;
  row.why_not = why_not_direct;
  return row;
}

template <class Policy>
void add_window(std::vector<Kernel>& catalogue, Op op) {
  Kernel row = direct_row<typename Policy::T, typename Policy::Index>(op, "_staged", Policy::kPlanes, kWindowThreads);
  row.slot_bytes = Slots<typename Policy::Source::Tap>::kBytes;
  row.shared_bytes = kMaxStageBytes;
  row.cost = window_cost;
  row.configure = configure_window;
  row.run = run_window<Policy>;
  catalogue.push_back(row);
}

template <class T, class Index, int N>
void add_windows(std::vector<Kernel>& catalogue) {
  add_window<MaxForward<T, Index, N>>(catalogue, Op::kMax);
  add_window<MaxBackward<T, Index, N>>(catalogue, Op::kMaxBackward);
  add_window<AvgForward<T, Index, N>>(catalogue, Op::kAvg);
  add_window<AvgBackward<T, Index, N>>(catalogue, Op::kAvgBackward);
}

template <class T, class Index>
void add_gather(std::vector<Kernel>& catalogue) {
  Kernel row = direct_row<T, Index>(Op::kMaxGather, "", kGatherResults, kGatherThreads);
  row.cost = gather_cost;
  row.configure = configure_gather;
  row.run = run_gather<T, Index>;
  catalogue.push_back(row);
}

// Vectors of up to 16 bytes and four results; 64-bit indices for tensors beyond 2^31 elements.
template <class T>
void add_direct_kernels(std::vector<Kernel>& catalogue) {
  constexpr int kVector = sizeof(T) == 8 ? 2 : 4;
  add_windows<T, int32_t, kVector>(catalogue);
  add_windows<T, int64_t, kVector>(catalogue);
  add_gather<T, int32_t>(catalogue);
  add_gather<T, int64_t>(catalogue);
}

}  // namespace cnn::pool2d
