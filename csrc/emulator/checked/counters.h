// What a launch moved, counted as the hardware groups it: 32 lanes of a warp to one instruction.
//
// Global memory: the 32-byte sectors that an instruction touches, against the fewest that could hold the bytes its lanes ask for; the
// 128-byte lines that they are in; and, since L1 is the memory that shared memory is too, what follows as well.
// Shared memory: 32 banks of 4 bytes. An instruction takes as many wavefronts as the busiest bank has different words; 8-byte accesses
// go half a warp at a time, 16-byte accesses a quarter (programming guide and Nsight Compute's documentation). Lanes of different
// halves or quarters that read the same words may be served together on a GPU; here each part counts for itself.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>

#include "emulator/checked/memory.h"
#include "emulator/profile.h"

namespace cnn::emulator {

// One instruction of a warp: the lanes that take part.
struct WarpAccess {
  Access access = Access::kLoad;
  const void* site = nullptr;
  unsigned width = 0;  // bytes per lane
  unsigned lanes = 0;  // how many take part
  std::array<std::uint8_t, 32> lane;
  std::array<const unsigned char*, 32> address;
};

class Counters {
 public:
  void block_begins() { ++block_; }
  void access(const WarpAccess& access, Region& region);
  void code(const void* site, unsigned lanes);
  // The totals by place, and by tensor.
  void finish(const Memory& memory, LaunchCounters& totals) const;

 private:
  struct Key {
    const void* site;
    const Region* region;
    Access access;
    bool operator==(const Key&) const = default;
  };
  struct Hash {
    std::size_t operator()(const Key& key) const {
      return std::hash<const void*>()(key.site) ^ (std::hash<const void*>()(key.region) << 1) ^ std::size_t(key.access);
    }
  };
  std::unordered_map<Key, SiteCounters, Hash> sites_;
  std::unordered_map<const void*, CodeCounters> code_;
  std::unordered_map<const Region*, BufferCounters> buffers_;
  std::uint32_t block_ = 0;
};

}  // namespace cnn::emulator
