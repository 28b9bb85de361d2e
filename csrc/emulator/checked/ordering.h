// Which accesses of a launch are ordered by synchronisation: the happens-before relation, kept so that most questions are one comparison.
//
// Time of a thread is (epoch, clock). The epoch counts the barriers that the whole block has passed: accesses of earlier epochs come
// before those of later ones, whoever makes them. The clock counts the thread's own smaller synchronisations within an epoch
// (__syncwarp, barriers of part of the block, fences); `seen` says up to which clock of every other thread it has heard.
// Shuffles and votes order nothing: the programming guide promises no memory ordering for them.
// Otherwise threads are ordered by what one releases (a fence, then an atomic) and another acquires (an atomic on the same address), blocks
// by __threadfence() alone. The fence on the acquiring side, which the PTX model asks for too, is not insisted on.
#pragma once

#include <cstdint>
#include <map>
#include <unordered_map>
#include <vector>

namespace cnn::emulator {

struct Stamp {
  enum Kind : std::uint8_t { kNone, kPlain, kAtomic };
  const void* site = nullptr;
  std::uint32_t block = 0, epoch = 0, clock = 0;
  std::uint16_t thread = 0;
  Kind kind = kNone;
};

class Ordering {
 public:
  void launch_begins();
  void block_begins(std::uint32_t block, unsigned threads);

  Stamp now(unsigned thread, Stamp::Kind kind, const void* site) const;
  // Whether the stamped access is ordered before whatever `thread` does next.
  bool before(const Stamp& stamp, unsigned thread) const;

  void barrier_arrives(unsigned thread, int id, bool whole_block);
  void barrier_completes(int id, bool whole_block, const std::vector<unsigned>& waiting);
  void warp_synchronises(unsigned first_thread, std::uint32_t mask);
  void fence(unsigned thread);
  void fence_in_block(unsigned thread);
  void atomic(unsigned thread, const void* address);

 private:
  using Clocks = std::vector<std::uint32_t>;  // by thread; a thread beyond its end: 0
  // Of a block: all of the epochs before `epoch`, and in it what is before the clocks.
  struct Knowledge {
    std::uint32_t epoch = 0;
    Clocks clocks;
  };
  using Blocks = std::map<std::uint32_t, Knowledge>;
  struct Thread {
    std::uint32_t clock = 0;
    Clocks seen;
    Clocks fenced_in_block;  // what its next atomic releases to its block
    Blocks others, fenced;
  };

  static void merge(Clocks& into, const Clocks& from);
  static void merge(Blocks& into, const Blocks& from);
  static bool covers(const Blocks& blocks, const Stamp& stamp);

  std::uint32_t block_ = 0, epoch_ = 0;
  std::vector<Thread> threads_;
  Blocks others_, fenced_;          // of the whole block, as of its last barrier
  bool crosses_blocks_ = false;     // anything of the two kinds above exists
  std::map<int, Clocks> barriers_;  // what has arrived at a barrier of part of the block
  std::unordered_map<const void*, Blocks> released_;
  std::unordered_map<const void*, Clocks> released_in_block_;  // since its last barrier
};

}  // namespace cnn::emulator
