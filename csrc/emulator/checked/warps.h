// From the lanes' own traces to the instructions of a warp.
//
// The fibers of a warp run one after the other, each up to its next barrier; a GPU runs them together, and lanes that part at a branch
// meet again behind it. So each lane's basic blocks and accesses are kept, and merged afterwards: of the lanes' next events the one at
// the lowest address (within the innermost call) goes first, together with every lane that is about to do the same. Code lies
// in the order of its control flow (-fno-reorder-blocks), so a lane that skipped a branch waits behind it for those that took it, and a
// lane that left a loop waits behind the loop. (Scheduling by lowest address is known from S. Collange's work on SIMT reconvergence.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "emulator/checked/counters.h"

namespace cnn::emulator {

struct Event {
  enum Kind : std::uint8_t { kCode, kAccess };
  const void* site = nullptr;
  const unsigned char* address = nullptr;
  Region* region = nullptr;
  std::uint16_t depth = 0;  // of calls
  std::uint16_t width = 0;
  Kind kind = kCode;
  Access access = Access::kLoad;
};

class Warps {
 public:
  // Lanes that hold more than this should let the others go on.
  static constexpr std::size_t kLongTrace = 4096;

  void block_begins(unsigned threads);
  void enter(unsigned thread) { ++lanes_[thread].depth; }
  void leave(unsigned thread) {
    if (lanes_[thread].depth > 0) --lanes_[thread].depth;
  }
  // Whether the lane's trace has become long.
  bool add(unsigned thread, Event event) {
    Lane& lane = lanes_[thread];
    event.depth = lane.depth;
    lane.events.push_back(event);
    return lane.events.size() > lane.limit;
  }
  void thread_ends(unsigned thread) { lanes_[thread].running = false; }
  // A thread that waits gives no events until the others have come: they need not wait for it.
  void thread_waits(unsigned thread, bool waits) { lanes_[thread].waits = waits; }

  // Merges what the warp of `thread` has; stops where a lane's next event is not known yet.
  void merge_warp(unsigned thread, Counters& counters);
  void merge_all(Counters& counters);
  // After merging without effect: the lane may grow further before it asks again.
  void allow_more(unsigned thread);

 private:
  struct Lane {
    std::vector<Event> events;
    std::size_t next = 0;
    std::size_t limit = kLongTrace;
    std::uint16_t depth = 0;
    bool running = true, waits = false;
  };
  std::vector<Lane> lanes_;
};

}  // namespace cnn::emulator
