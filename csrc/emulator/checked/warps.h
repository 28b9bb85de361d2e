// From the lanes' own traces to the instructions of a warp.
//
// The fibers of a warp run one after the other, each up to its next barrier; a GPU runs them together, and lanes that part at a branch
// meet again behind it. So each lane's basic blocks and accesses are kept, and merged afterwards: of the lanes' next events the one that
// comes first in the order of control_flow.h (within the innermost call) goes first, together with every lane that is about to do the
// same. A lane that skipped a branch then waits behind it for those that took it, and one that left a loop behind the loop.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "emulator/checked/control_flow.h"
#include "emulator/checked/counters.h"

namespace cnn::emulator {

struct Event {
  enum Kind : std::uint8_t { kCode, kAccess };
  const void* site = nullptr;
  const unsigned char* address = nullptr;
  Region* region = nullptr;
  ControlFlow::Block block = 0;  // it is in
  ControlFlow::Block from = 0;   // of code: the block before
  std::uint16_t depth = 0;       // of calls
  std::uint16_t width = 0;
  Kind kind = kCode;
  Access access = Access::kLoad;
};

class Warps {
 public:
  // Lanes that hold more than this should let the others go on.
  static constexpr std::size_t kLongTrace = 4096;

  void launch_begins() { flow_.clear(); }
  void block_begins(unsigned threads);
  void enter(unsigned thread) { lanes_[thread].calls.push_back(ControlFlow::kStart); }
  void leave(unsigned thread) {
    if (lanes_[thread].calls.size() > 1) lanes_[thread].calls.pop_back();
  }
  // Whether the lane's trace has become long.
  bool add(unsigned thread, Event event) {
    Lane& lane = lanes_[thread];
    ControlFlow::Block& block = lane.calls.back();
    event.depth = std::uint16_t(lane.calls.size());
    event.from = block;
    if (event.kind == Event::kCode) block = flow_.enter(event.site, event.from);
    event.block = block;
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
    std::vector<ControlFlow::Block> calls;  // the block that the lane is in, of each function it is in
    bool running = true, waits = false;
  };
  std::uint64_t priority(const Event& event);

  std::vector<Lane> lanes_;
  ControlFlow flow_;
};

}  // namespace cnn::emulator
