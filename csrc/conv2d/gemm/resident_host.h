// The host side of resident.cuh: how the work is cut. stack_host.h and strip_host.h have the rest.
#pragma once

#include "conv2d/gemm/host.h"
#include "conv2d/gemm/resident.h"

namespace cnn::conv2d {

constexpr GemmTileName kResidentName = GemmTileName::kResident128x64;
constexpr GemmTileShape kResidentTile = shape_of(kResidentName);
constexpr GemmOptions kResidentOptions{.slabs = false};
// What a block of sm_80 may have, 163 KB, less its tables. The model has the price of a block that is alone on its multiprocessor.
constexpr int64_t kResidentMostShared = 156 * 1024;
// The same where a block may have less.
inline int64_t resident_shared(const Problem& p) { return std::min(kResidentMostShared, p.block_shared - kStaticShared); }

// Params: StackParams or StripParams.
template <class Params>
struct ResidentPlan {
  GemmPlan plan;  // as plan_gemm has it; its parameters are those of `params` once these are cut
  Params params{};
  int blocks = 0, shared_bytes = 0;
  Work work;
};

// Rows are rectangles of so many columns.
inline void cut_rows(GemmParams& q, int tile_w) {
  q.flat = false, q.tile_w = tile_w, q.tile_h = kResidentTile.bm / tile_w;
  q.tiles_h = int(ceil_div(q.h.positions, q.tile_h)), q.tiles_w = int(ceil_div(q.w.positions, q.tile_w));
  q.row_tiles = q.batch * q.tiles_h * q.tiles_w, q.items = q.row_tiles * q.groups * q.column_items;
  q.tile_w_div = FastDiv<int32_t>(tile_w);
}

// Of so many units in a row, of which neighbouring results are `phases` apart, and so many lie in 128 bytes. As many as those are written
// together, some of every phase: phases begin where their parts of the banks lie side by side.
inline void set_places(Halo& halo, int height, int width, int phases, int in_line) {
  halo.height = height, halo.width = width;
  halo.phases = FastDiv<int32_t>(phases), halo.phase_width = int(ceil_div(width, phases));
  while (phases > 1 && halo.phase_width % in_line != std::max(1, in_line / phases) % in_line) ++halo.phase_width;
  halo.pitch = phases * halo.phase_width;
  halo.width_div = FastDiv<int32_t>(width);
}

// The blocks: each has one tile of columns, and goes through its tiles of rows. `halo_bytes`: of shared memory. Results are staged where
// the halo was, or behind it if there are classes left that read it.
template <class Params>
void set_blocks(ResidentPlan<Params>& plan, GemmParams& q, int halo_bytes, int size) {
  constexpr int kPerMultiprocessor = 228 * 1024, kTable = 4 * 1024;
  const int staged = staging_bytes(kResidentTile, q.out_planar, q.parts, size), filter_bytes = plan.params.filter_bytes;
  const bool once = q.class_count_h * q.class_count_w * q.parts == 1;
  q.staging = filter_bytes + (once ? 0 : int(round_up(halo_bytes, kStagingLine)));
  plan.shared_bytes = std::max(filter_bytes + halo_bytes, q.staging + staged);
  const int64_t beside = std::clamp<int64_t>(kPerMultiprocessor / (plan.shared_bytes + kTable), 1, kResidentTile.blocks);
  const int64_t columns = int64_t(q.groups) * q.column_items;
  const int64_t most = std::max<int64_t>(1, int64_t(kMultiprocessors) * beside / columns);
  plan.blocks = int(ceil_div(q.row_tiles, ceil_div(q.row_tiles, most)) * columns);
}

// What one turn of 16 channels is for each of a tile's warps, which has 2 x 16 rows: loads of matrices, multiplications, of so many clocks
// each, and instructions in all, counted in the machine code.
struct ResidentTurn {
  double loads, products, clocks, instructions;
};

// `turns` of all items, and so many instructions beside them.
inline Work resident_work(const Problem& p, const GemmParams& q, int blocks, double turns, const ResidentTurn& turn, double instructions,
                          double copied_bytes) {
  constexpr double kStore = 4;
  const double warps = kResidentTile.threads / 32.0, size = size_of(p.dtype);
  const double results = double(q.batch) * q.h.out_extent * q.w.out_extent * q.columns * q.groups;
  Work work;
  work.instructions = 32 * warps * turns * turn.instructions + instructions + results * kStore;
  work.matrix_clocks = warps * turns * turn.products * turn.clocks;
  work.l1_bytes = 512 * warps * turns * turn.loads + copied_bytes + 2 * size * results;
  // Of planes a tile's row of results is written by itself, by whole sectors.
  constexpr double kSector = 32;
  const double row = size * q.tile_w, whole_row = q.out_planar ? std::ceil(row / kSector) * kSector : row;
  work.l2_bytes = copied_bytes + size * results * whole_row / row;
  work.dram_bytes = p.tensor_bytes();
  work.blocks = blocks, work.threads = kResidentTile.threads;
  return work;
}

// The narrowest tiles that fit and are the fastest: `by` plans with tiles of so many columns.
template <class By>
auto plan_resident(const Problem& p, By by) {
  const int64_t most = resident_shared(p);
  auto best = by(8);
  for (int tile_w = 16; tile_w <= kResidentTile.bm; tile_w *= 2) {
    auto plan = by(tile_w);
    const bool fits = plan.shared_bytes <= most, best_fits = best.shared_bytes <= most;
    if (fits && (!best_fits || microseconds(plan.work) < microseconds(best.work))) best = plan;
  }
  return best;
}

// Which of them it was: a launch does not compare them again.
inline void set_tile(Configuration& c, const GemmParams& q) { c.tile[0] = q.tile_h, c.tile[1] = q.tile_w, c.tile[2] = kResidentTile.bn; }
inline int tile_columns(const Configuration& c) { return c.tile[1]; }

inline std::string why_not_resident(const Problem& p) {
  if (std::string why = why_not_tuned(p); !why.empty()) return why;
  if (std::max(p.stride_h, p.stride_w) > kMostClasses)
    return "stride " + std::to_string(std::max(p.stride_h, p.stride_w)) + ": built for strides up to " + std::to_string(kMostClasses);
  return {};
}

// A row of the catalogue. Of halves alone: `T`.
template <class T>
Kernel resident_row(const char* family, const std::string& name, std::vector<Pass> passes) {
  Kernel row{};
  row.name = "conv2d_" + name + "_" + short_name(TypeTraits<T>::kDType);
  row.family = family;
  row.dtype = TypeTraits<T>::kDType;
  row.passes = std::move(passes);
  row.bm = kResidentTile.bm, row.bn = kResidentTile.bn, row.bk = MatrixShape<T>::kDepth;
  row.tm = kResidentTile.tm, row.tn = kResidentTile.tn;
  row.threads = kResidentTile.threads;
  row.index_bits = 32;
  return row;
}

}  // namespace cnn::conv2d
