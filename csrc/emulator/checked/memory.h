// The memory that a launch may touch, and what is known of each piece of it: does it belong to a tensor, does it hold a value, who
// touched it last.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "emulator/checked/ordering.h"
#include "emulator/runtime.h"

namespace cnn::emulator {

// Who last touched a granule. Of more than kReaders unordered readers since the last write not all are remembered, but those of
// different warps are preferred: a writer that is ordered with one of them is then seldom ordered with all.
struct Cell {
  static constexpr int kReaders = 3, kAtomics = 2;
  Stamp writer;             // not by an atomic
  Stamp atomics[kAtomics];  // since then, as for readers
  Stamp readers[kReaders];
  std::uint32_t block = 0;   // shared memory: what is known is of this block, counted from 1
  std::uint8_t written = 0;  // a bit per byte: holds a value
  bool in_flight = false;    // an asynchronous copy is on its way here
};

// How often a piece of memory was touched, by block: 0 never, else the last block that did, counted from 1.
struct Touched {
  std::vector<std::uint32_t> read, written;
};

// A tensor, a workspace, a shared array or a module's variables.
struct Region {
  enum class Kind { kInput, kOutput, kWorkspace, kShared, kModule };
  std::string name;
  Kind kind = Kind::kInput;
  const unsigned char* base = nullptr;  // of the first element
  std::size_t bytes = 0;                // to the end of the last element
  std::size_t item_bytes = 1;
  std::vector<std::int64_t> sizes, strides;
  std::vector<bool> elements;  // per item between base and end; empty: all of them are the tensor's
  const void* key = nullptr;   // shared arrays: the site
  std::uint64_t handle = 0;
  Values values = Values::kOther;
  bool huge = false;  // holds values near the limits of its type, of which kernels may make others
  bool poisoned = false;

  std::size_t granule = 4;  // bytes per cell
  std::vector<Cell> cells;  // empty where nobody can write
  Touched items, sectors;   // counters; by granule of 4 bytes or less, and by 32 bytes

  bool is_shared() const { return kind == Kind::kShared; }
  bool contains(const unsigned char* address) const { return address >= base && address < base + bytes; }
  // Whether all of the bytes are elements.
  bool has_elements(const unsigned char* address, std::size_t size) const;
  // Cells fine enough for an access of `size` bytes at `address`.
  void refine(const unsigned char* address, std::size_t size);
  // "'x'[0, 3, 7, 7]" or "'tile' + 132 bytes".
  std::string place(const unsigned char* address) const;
  std::size_t element_bytes() const;
};

class Memory {
 public:
  std::uint64_t declare(const Buffer& buffer);
  void forget(std::uint64_t handle);
  Region* declared(std::uint64_t handle);

  // Orders of the last launch are forgotten, values remain.
  void launch_begins(bool check, bool count);
  // Where poisoned memory holds something else the host has written.
  void note_host_writes(std::uint32_t poison);
  void block_begins();
  void shared_array(const void* key, const char* name, const unsigned char* data, std::size_t bytes, bool check);

  // The region with the byte at `address`; null where there is none. Of several, one in which the byte is an element.
  Region* find(const unsigned char* address, std::size_t size);
  // Writable variables of the module that `address` lies in become a region, if they are what it points to.
  Region* find_module_data(const unsigned char* address, bool check);
  // A sentence about an address that is in no region.
  std::string describe_stray(const unsigned char* address) const;

  // Whether a tensor that kernels read holds values near the limits of its type.
  bool reads_huge_values() const;

  const std::vector<std::unique_ptr<Region>>& regions() const { return regions_; }

 private:
  std::vector<std::unique_ptr<Region>> regions_;
  Region* last_ = nullptr;
  std::uint64_t next_handle_ = 1;
};

}  // namespace cnn::emulator
