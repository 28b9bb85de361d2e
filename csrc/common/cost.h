// What a launch would take on the machine that the plan thinks of, an H200: the one measure by which kernels of all families are
// compared. A model, not a measurement; it looks at nothing but counts, so the plan is the same everywhere.
//
// Each resource is given its work at its full rate, and what belongs to one multiprocessor waits for the one with the most blocks. The
// slowest resource is the time; of the others an eighth is taken to show, since they never overlap perfectly (assumed: it decides
// only between kernels that one resource makes equal). cnnkernels/profile/hardware.py has the same constants with their sources.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace cnn {

constexpr double kMultiprocessors = 132;
constexpr double kClock = 1.98e9;         // Hz
constexpr double kLanesPerClock = 128;    // instructions of threads issued, per multiprocessor: 4 warps
constexpr double kL1BytesPerClock = 128;  // L1 and shared memory, per multiprocessor
constexpr double kL2BytesPerClock = 64;   // from L2 to one multiprocessor
constexpr double kL2Rate = 9.6e12;        // bytes / s
constexpr double kDramRate = 4.3e12;      // bytes / s
// Of one mma.sync of 16x8x16 halves, per multiprocessor: 2048 FMAs at 63 % of the 2048 a clock that wgmma reaches (arXiv 2402.13499).
constexpr double kMatrixClocks = 1.59;
constexpr double kLaunchSeconds = 2.3e-6;
constexpr double kHidingWarps = 8;  // with fewer on a multiprocessor its schedulers often have none that is ready

// Two blocks for each multiprocessor: what a reduction is split to give. A constant, not the GPU at hand, so that the split, and with it
// the rounding, is the same everywhere.
constexpr int64_t kTargetBlocks = 264;

// What all blocks of a launch do together.
struct Work {
  double instructions = 0;   // of threads: a warp's instruction is 32
  double dram_bytes = 0;     // each tensor's touched bytes once
  double l2_bytes = 0;       // what the blocks ask of L2: halos and re-reads as often as blocks read them
  double l1_bytes = 0;       // through L1 and shared memory; a bank conflict counts as the 128 bytes that it holds up
  double matrix_clocks = 0;  // of the tensor cores of a multiprocessor that did it all
  double blocks = 1;
  int threads = 256;  // of a block
  int launches = 1;
};

inline double microseconds(const Work& work) {
  constexpr double kOverlapLoss = 0.125;
  if (work.blocks <= 0) return 0;
  const double rounds = std::ceil(work.blocks / kMultiprocessors);
  const double imbalance = rounds * kMultiprocessors / work.blocks;
  const double warps = std::min(64.0, rounds * std::ceil(work.threads / 32.0));
  const double stalls = std::max(1.0, kHidingWarps / warps);
  const double all = kMultiprocessors * kClock;
  const double parts[] = {work.dram_bytes / kDramRate,
                          work.l2_bytes / kL2Rate,
                          work.l2_bytes / (kL2BytesPerClock * all) * imbalance * stalls,
                          work.l1_bytes / (kL1BytesPerClock * all) * imbalance * stalls,
                          work.instructions / (kLanesPerClock * all) * imbalance * stalls,
                          work.matrix_clocks / all * imbalance * stalls};
  double slowest = 0, sum = 0;
  for (double part : parts) slowest = std::max(slowest, part), sum += part;
  return (work.launches * kLaunchSeconds + slowest + kOverlapLoss * (sum - slowest)) * 1e6;
}

}  // namespace cnn
