// What the checked build counts of a launch (checked/counters.h says how), and how places in the source are named.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "emulator/vector_types.h"

namespace cnn::emulator {

enum class Access : std::uint8_t { kLoad, kStore, kAtomic, kAsyncCopy };

struct Source {
  std::string module;        // the shared object
  std::uint64_t offset = 0;  // in it
  std::string file, function;
  int line = 0;                      // 0: unknown
  std::vector<std::string> callers;  // where the inlined functions around it were called, the innermost first: "window.cuh:210"
};

// Of one place in the source and one tensor or array.
struct SiteCounters {
  const void* site = nullptr;
  bool shared = false;
  Access access = Access::kLoad;
  std::string buffer;
  unsigned width = 0;
  std::uint64_t instructions = 0, lanes = 0, bytes_asked = 0, bytes_used = 0;
  std::uint64_t sectors = 0, least_sectors = 0, lines = 0;
  std::uint64_t wavefronts = 0, least_wavefronts = 0;
};

// Of a basic block.
struct CodeCounters {
  const void* site = nullptr;
  std::uint64_t warps = 0, lanes = 0;
};

struct BufferCounters {
  std::string name;
  const char* use = "";
  std::uint64_t bytes = 0;
  std::uint64_t read_bytes = 0, written_bytes = 0, block_read_bytes = 0, block_written_bytes = 0;
  std::uint64_t read_sectors = 0, written_sectors = 0, block_read_sectors = 0, block_written_sectors = 0;
};

struct LaunchCounters {
  std::string kernel, symbol;
  dim3 grid, block;
  std::uint64_t blocks = 0, blocks_run = 0;
  std::size_t static_shared_bytes = 0, dynamic_shared_bytes = 0;
  std::uint64_t block_barriers = 0, warp_barriers = 0, shuffles = 0;
  std::uint64_t matrix_products = 0, matrix_multiply_adds = 0;  // mma: instructions, and what they compute together
  std::vector<BufferCounters> buffers;
  std::vector<SiteCounters> sites;
  std::vector<CodeCounters> code;
};

}  // namespace cnn::emulator
