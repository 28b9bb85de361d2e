// What the runtime tells whoever watches its launches, and what a watcher reports. The checked build has one (checked/checker.h); in the
// fast build nobody watches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "emulator/profile.h"
#include "emulator/vector_types.h"

#pragma GCC visibility push(default)
namespace cnn::emulator {

// An access or a wait: who, and where in the source. `site` is the return address of a call out of kernel code; null: unknown.
struct Party {
  uint3 block{}, thread{};
  const void* site = nullptr;
  const char* access = "";  // "read", "write", "atomic", or nothing
};

// One thing that a kernel did wrong.
struct Finding {
  const char* kind = "other";
  std::string what;   // "divergent barrier: ...", a predicate of the thread
  std::string place;  // the memory, for people: "'tile' + 132 bytes"
  Party party;
  bool whole_launch = false;  // no one thread's doing
  bool has_other = false;
  Party other;  // the other side of a race
  std::uint64_t count = 1;
};

// A finding with its sources looked up.
struct Report {
  Finding finding;
  std::string kernel, text;
  std::string file, function, other_file, other_function;
  int line = 0, other_line = 0;
  // Where the inlined functions that these lines are in were called, the innermost first: "window.cuh:210".
  std::vector<std::string> callers, other_callers;
};

struct Launch;
struct Buffer;

class Observer {
 public:
  virtual ~Observer() = default;
  virtual void launch_begins(Launch& launch) = 0;
  // Completes `launch.findings`.
  virtual void launch_ends(Launch& launch) = 0;
  virtual void block_begins(std::uint64_t index, uint3 block) = 0;
  virtual void block_ends() = 0;

  // Of the running thread (linear index in its block).
  virtual void thread_ends(unsigned thread) = 0;
  virtual void shared_array(const void* key, const char* name, unsigned char* data, std::size_t bytes) = 0;
  virtual void barrier_arrives(unsigned thread, int id, bool whole_block, bool waits, const void* site) = 0;
  // The barrier is complete; `waiting` are the threads that it lets go.
  virtual void barrier_completes(int id, bool whole_block, const std::vector<unsigned>& waiting) = 0;
  virtual void exchange_arrives(unsigned thread, const char* operation, const void* site) = 0;
  virtual void exchange_completes(unsigned warp, unsigned mask, const char* operation) = 0;
  virtual void fence(unsigned thread) = 0;
  virtual void fence_in_block(unsigned thread) = 0;
  virtual void atomic(unsigned thread, const void* address, std::size_t size, const void* site) = 0;
  virtual void async_copy_begins(unsigned thread, void* shared, const void* global, int bytes, int valid, const void* site) = 0;
  virtual void async_copy_lands(unsigned thread, void* shared, int bytes) = 0;

  // Buffers (runtime.h): a handle for what was declared.
  virtual std::uint64_t declare(const Buffer& buffer) = 0;
  virtual void forget(std::uint64_t handle) = 0;
  virtual void require_written(std::uint64_t handle, const std::string& kernel) = 0;

  // " at gather.cuh:120", or nothing where the source is unknown.
  virtual std::string at(const void* site) = 0;
  // Whether two calls stand at the same place in the source, and in functions called at the same places.
  virtual bool same_place(const void* site, const void* other) = 0;
  // What has been recorded is forgotten; or the launches from here on are compared with it, from the first on.
  virtual void begin_comparison(bool record) = 0;
  virtual Report report(const Launch& launch, const Finding& finding) = 0;

  // The counters of the launches since the last call. Clears.
  virtual std::vector<LaunchCounters> take_counters() = 0;
  // Of calls, given their return addresses.
  virtual std::vector<Source> sources(const std::vector<const void*>& sites) = 0;
};
// Set before the first launch, or never.
extern Observer* observer;

}  // namespace cnn::emulator
#pragma GCC visibility pop
