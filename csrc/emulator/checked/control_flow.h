// The basic blocks that a launch's threads went through, in the order in which a warp whose lanes part takes them.
//
// Blocks that every lane of a branch comes to lie behind the branch's arms, and blocks behind a loop lie behind all of the loop's: the
// weak topological order of F. Bourdoncle ("Efficient chaotic iteration strategies with widenings", 1993), of the edges seen so far.
// A loop's head has a second place at the loop's end, for lanes that come there again: they wait for the rest of their iteration.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

namespace cnn::emulator {

class ControlFlow {
 public:
  using Block = std::uint32_t;
  static constexpr Block kStart = 0;  // of every function, before its first block

  ControlFlow() { clear(); }
  void clear();
  // The block whose instrumentation returns to `site`, reached from `from`.
  Block enter(const void* site, Block from);
  // The place of `block` in the order, for a lane that comes from `from`. Less than 2^20.
  std::uint32_t place(Block block, Block from);

 private:
  struct Node {
    std::vector<Block> next;
    std::uint32_t place = 0;
    std::uint32_t end = 0;  // of the loop that it is the head of; else 0
  };
  void order();
  void order(const std::vector<Block>& blocks, std::uint32_t& place);

  std::vector<Node> nodes_;
  std::unordered_map<const void*, Block> known_;
  std::array<std::pair<const void*, Block>, 1024> recent_;
  std::vector<std::uint32_t> region_;  // which call of order() a block is of
  std::uint32_t regions_ = 0;
  bool changed_ = false;
};

}  // namespace cnn::emulator
