// See control_flow.h.
#include "emulator/checked/control_flow.h"

#include <algorithm>

namespace cnn::emulator {

void ControlFlow::clear() {
  nodes_.assign(1, {});
  known_.clear();
  recent_.fill({nullptr, kStart});
  changed_ = true;
}

ControlFlow::Block ControlFlow::enter(const void* site, Block from) {
  auto& [recent_site, block] = recent_[reinterpret_cast<std::uintptr_t>(site) / 4 % recent_.size()];
  if (recent_site != site) {
    const auto [found, is_new] = known_.try_emplace(site, Block(nodes_.size()));
    if (is_new) nodes_.emplace_back();
    recent_site = site;
    block = found->second;
  }
  std::vector<Block>& next = nodes_[from].next;
  if (std::find(next.begin(), next.end(), block) == next.end()) {
    next.push_back(block);
    changed_ = true;
  }
  return block;
}

std::uint32_t ControlFlow::place(Block block, Block from) {
  if (changed_) order();
  const Node& node = nodes_[block];
  const bool again = node.end && nodes_[from].place >= node.place && nodes_[from].place <= node.end;
  return again ? node.end : node.place;
}

void ControlFlow::order() {
  std::vector<Block> all(nodes_.size());
  for (Block block = 0; block < all.size(); ++block) all[block] = block;
  for (Node& node : nodes_) node.end = 0;
  region_.assign(nodes_.size(), 0);
  regions_ = 0;
  std::uint32_t place = 0;
  order(all, place);
  changed_ = false;
}

// Tarjan's strongly connected components, without recursion for the sake of the fibers' stacks; each of more than one block is a loop,
// whose blocks are ordered in turn without its head. The first block of `blocks` is the one where they are entered.
void ControlFlow::order(const std::vector<Block>& blocks, std::uint32_t& place) {
  const std::uint32_t region = ++regions_;
  for (Block block : blocks) region_[block] = region;
  struct Visit {
    Block block;
    std::size_t next;
  };
  std::unordered_map<Block, std::uint32_t> index, low;
  std::vector<Block> open;  // Tarjan's stack
  std::vector<std::vector<Block>> components;
  std::vector<Visit> path;
  const auto begin = [&](Block block) {
    index[block] = low[block] = std::uint32_t(index.size());
    open.push_back(block);
    path.push_back({block, 0});
  };
  for (Block root : blocks) {
    if (index.count(root)) continue;
    begin(root);
    while (!path.empty()) {
      Visit& visit = path.back();
      const Block block = visit.block;
      if (visit.next < nodes_[block].next.size()) {
        const Block next = nodes_[block].next[visit.next++];
        if (region_[next] != region) continue;
        if (!index.count(next)) begin(next);
        else if (std::find(open.begin(), open.end(), next) != open.end()) low[block] = std::min(low[block], index[next]);
        continue;
      }
      path.pop_back();
      if (!path.empty()) low[path.back().block] = std::min(low[path.back().block], low[block]);
      if (low[block] != index[block]) continue;
      // The component's first block in the order of the search is where it is entered.
      const auto first = std::find(open.begin(), open.end(), block);
      components.emplace_back(first, open.end());
      open.erase(first, open.end());
    }
  }
  // They come last first.
  for (auto component = components.rbegin(); component != components.rend(); ++component) {
    const Block head = component->front();
    const std::vector<Block>& next = nodes_[head].next;
    nodes_[head].place = place++;
    if (component->size() == 1 && std::find(next.begin(), next.end(), head) == next.end()) continue;
    order({component->begin() + 1, component->end()}, place);
    nodes_[head].end = place++;
  }
}

}  // namespace cnn::emulator
