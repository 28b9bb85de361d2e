// See ordering.h.
#include "emulator/checked/ordering.h"

#include <algorithm>

namespace cnn::emulator {

void Ordering::launch_begins() { released_.clear(); }

void Ordering::block_begins(std::uint32_t block, unsigned threads) {
  block_ = block;
  epoch_ = 0;
  threads_.assign(threads, {});
  barriers_.clear();
  released_in_block_.clear();
  others_.clear();
  fenced_.clear();
  crosses_blocks_ = false;
}

Stamp Ordering::now(unsigned thread, Stamp::Kind kind, const void* site) const {
  return {site, block_, epoch_, threads_[thread].clock, std::uint16_t(thread), kind};
}

bool Ordering::before(const Stamp& stamp, unsigned thread) const {
  if (stamp.block == block_) {
    if (stamp.thread == thread || stamp.epoch < epoch_) return true;
    const Clocks& seen = threads_[thread].seen;
    return stamp.thread < seen.size() && stamp.clock < seen[stamp.thread];
  }
  return crosses_blocks_ && (covers(threads_[thread].others, stamp) || covers(others_, stamp));
}

bool Ordering::covers(const Blocks& blocks, const Stamp& stamp) {
  const auto found = blocks.find(stamp.block);
  if (found == blocks.end()) return false;
  const Knowledge& known = found->second;
  if (stamp.epoch != known.epoch) return stamp.epoch < known.epoch;
  return stamp.thread < known.clocks.size() && stamp.clock < known.clocks[stamp.thread];
}

void Ordering::merge(Clocks& into, const Clocks& from) {
  if (into.size() < from.size()) into.resize(from.size());
  for (std::size_t i = 0; i < from.size(); ++i) into[i] = std::max(into[i], from[i]);
}

void Ordering::merge(Blocks& into, const Blocks& from) {
  for (const auto& [block, known] : from) {
    Knowledge& mine = into[block];
    if (mine.epoch < known.epoch) mine = known;
    else if (mine.epoch == known.epoch) merge(mine.clocks, known.clocks);
  }
}

void Ordering::barrier_arrives(unsigned thread, int id, bool whole_block) {
  if (whole_block) return;
  Thread& self = threads_[thread];
  ++self.clock;
  Clocks& gathered = barriers_[id];
  merge(gathered, self.seen);
  if (gathered.size() <= thread) gathered.resize(thread + 1);
  gathered[thread] = self.clock;
}

void Ordering::barrier_completes(int id, bool whole_block, const std::vector<unsigned>& waiting) {
  if (!whole_block) {
    for (unsigned thread : waiting) merge(threads_[thread].seen, barriers_[id]);
    barriers_.erase(id);
    return;
  }
  ++epoch_;
  released_in_block_.clear();
  for (Thread& thread : threads_) {
    thread.clock = 0;
    thread.seen.clear();
    thread.fenced_in_block.clear();
    if (!crosses_blocks_) continue;
    merge(others_, thread.others);
    merge(fenced_, thread.fenced);
    thread.others.clear();
  }
}

void Ordering::warp_synchronises(unsigned first_thread, std::uint32_t mask) {
  Clocks gathered;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1u)) continue;
    Thread& self = threads_[first_thread + lane];
    ++self.clock;
    merge(gathered, self.seen);
    if (gathered.size() <= first_thread + lane) gathered.resize(first_thread + lane + 1);
    gathered[first_thread + lane] = self.clock;
  }
  for (unsigned lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1u) threads_[first_thread + lane].seen = gathered;
}

void Ordering::fence_in_block(unsigned thread) {
  Thread& self = threads_[thread];
  ++self.clock;
  self.fenced_in_block = self.seen;
  if (self.fenced_in_block.size() <= thread) self.fenced_in_block.resize(thread + 1);
  self.fenced_in_block[thread] = self.clock;
}

void Ordering::fence(unsigned thread) {
  fence_in_block(thread);
  Thread& self = threads_[thread];
  crosses_blocks_ = true;
  merge(self.fenced, {{block_, {epoch_, self.fenced_in_block}}});
  merge(self.fenced, others_);
  merge(self.fenced, self.others);
}

void Ordering::atomic(unsigned thread, const void* address) {
  Thread& self = threads_[thread];
  const auto in_block = released_in_block_.find(address);
  if (in_block != released_in_block_.end()) merge(self.seen, in_block->second);
  if (!self.fenced_in_block.empty()) merge(released_in_block_[address], self.fenced_in_block);
  const auto released = released_.find(address);
  if (released != released_.end()) {
    crosses_blocks_ = true;
    merge(self.others, released->second);
  }
  if (!self.fenced.empty()) merge(released_[address], self.fenced);
  if (!fenced_.empty()) merge(released_[address], fenced_);
}

}  // namespace cnn::emulator
