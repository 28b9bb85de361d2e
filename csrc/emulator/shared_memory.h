// Guarded memory for one block's shared arrays: each array lies flush against an inaccessible page, on the side that the
// schedule chooses, and the rest of its page is a canary that is checked when the block ends.
#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <vector>

namespace cnn::emulator {

enum class GuardSide { kAfter, kBefore };

class SharedMemory {
 public:
  SharedMemory() = default;
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  ~SharedMemory();

  // Forgets the previous block's arrays.
  // All ones, the usual poison, are a NaN in fp64, fp32, fp16 and bf16, and -1 in every integer.
  void begin_block(GuardSide side, unsigned char poison = 0xff);
  // Memory for the array identified by `key`; the first call in a block fills it with poison.
  void* array(const void* key, const char* name, std::size_t bytes);
  std::size_t bytes_in_use() const { return in_use_; }
  // Whether this block has asked for the array.
  bool holds(const void* key) const;
  // Name of an array whose canary was overwritten in this block, or null.
  const char* overwritten() const;
  // If `address` lies in a guard of this block's arrays: a sentence about where. Otherwise empty. Async-signal-safe but for
  // the string.
  std::string describe(const void* address) const;

 private:
  struct Region {
    unsigned char* mapping = nullptr;  // guard, pages, guard
    std::size_t pages_bytes = 0;
    bool used = false;
    unsigned char* pages() const;
  };
  struct Array {
    const void* key;
    const char* name;
    std::size_t bytes;
    unsigned char* data;
    Region* region;
  };
  Region* take_region(std::size_t bytes);

  std::deque<Region> regions_;  // addresses stay valid while it grows
  std::vector<Array> arrays_;
  std::size_t in_use_ = 0;
  GuardSide side_ = GuardSide::kAfter;
  unsigned char poison_ = 0xff;
};

}  // namespace cnn::emulator
