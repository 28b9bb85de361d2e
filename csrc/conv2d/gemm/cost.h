// The modelled cost of an implicit GEMM.
#pragma once

#include <algorithm>

#include "common/cost.h"
#include "common/matrix.h"
#include "conv2d/gemm/units.h"

namespace cnn::conv2d {

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

// `tensor_bytes`: what is touched at least once.
inline double gemm_cost(const Problem& p, GemmTileName name, const GemmOptions& options, double tensor_bytes) {
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
  work.dram_bytes = tensor_bytes + 2 * double(plan.partial_bytes + plan.packed_bytes);
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

}  // namespace cnn::conv2d
