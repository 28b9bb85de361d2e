// See warps.h.
#include "emulator/checked/warps.h"

#include <algorithm>

namespace cnn::emulator {

// Deeper calls first, then by block, and within a block by address, of which the lower bits will do.
std::uint64_t Warps::priority(const Event& event) {
  const std::uint64_t place = flow_.place(event.block, event.kind == Event::kCode ? event.from : ControlFlow::kStart);
  return std::uint64_t(std::uint8_t(~event.depth)) << 56 | place << 36 | (reinterpret_cast<std::uint64_t>(event.site) & 0xfffffffffull);
}

void Warps::block_begins(unsigned threads) {
  lanes_.resize(threads);
  for (Lane& lane : lanes_) {
    lane.events.clear();
    lane.next = 0;
    lane.limit = kLongTrace;
    lane.calls.assign(1, ControlFlow::kStart);
    lane.running = true;
    lane.waits = false;
  }
}

void Warps::allow_more(unsigned thread) { lanes_[thread].limit = lanes_[thread].events.size() * 2; }

void Warps::merge_all(Counters& counters) {
  for (unsigned thread = 0; thread < lanes_.size(); thread += kWarpSize) merge_warp(thread, counters);
}

void Warps::merge_warp(unsigned thread, Counters& counters) {
  const unsigned first = thread / kWarpSize * kWarpSize;
  const unsigned count = std::min<unsigned>(kWarpSize, unsigned(lanes_.size()) - first);
  Lane* const lanes = lanes_.data() + first;
  constexpr std::uint64_t kNothing = ~std::uint64_t(0);
  std::array<std::uint64_t, kWarpSize> next;
  bool known = true;
  const auto look = [&](unsigned i) {
    Lane& lane = lanes[i];
    if (lane.next < lane.events.size()) {
      next[i] = priority(lane.events[lane.next]);
    } else {
      next[i] = kNothing;
      if (lane.running && !lane.waits) known = false;
    }
  };
  for (unsigned i = 0; i < count; ++i) look(i);
  while (known) {
    const std::uint64_t first_of_all = *std::min_element(next.begin(), next.begin() + count);
    if (first_of_all == kNothing) break;
    WarpAccess access;
    const Event* leader = nullptr;
    for (unsigned i = 0; i < count; ++i) {
      if (next[i] != first_of_all) continue;
      const Event& event = lanes[i].events[lanes[i].next];
      // The same instruction on another array, or another part of a copy: an instruction of its own, next time around.
      if (leader &&
          (event.kind != leader->kind || event.region != leader->region || event.width != leader->width || event.access != leader->access))
        continue;
      if (!leader) leader = &event;
      access.lane[access.lanes] = std::uint8_t(i);
      access.address[access.lanes++] = event.address;
    }
    if (leader->kind == Event::kCode) {
      counters.code(leader->site, access.lanes);
    } else {
      access.access = leader->access;
      access.site = leader->site;
      access.width = leader->width;
      counters.access(access, *leader->region);
    }
    for (unsigned i = 0; i < access.lanes; ++i) {
      ++lanes[access.lane[i]].next;
      look(access.lane[i]);
    }
  }
  for (unsigned i = 0; i < count; ++i) {
    Lane& lane = lanes[i];
    lane.events.erase(lane.events.begin(), lane.events.begin() + std::ptrdiff_t(lane.next));
    lane.next = 0;
    if (lane.events.size() < kLongTrace) lane.limit = kLongTrace;
  }
}

}  // namespace cnn::emulator
