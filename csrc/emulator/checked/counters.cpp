// See counters.h.
#include "emulator/checked/counters.h"

#include <algorithm>

namespace cnn::emulator {
namespace {

constexpr std::uintptr_t kSectorBytes = 32, kLineBytes = 128;
constexpr unsigned kBanks = 32, kBankBytes = 4;

const char* use_of(Region::Kind kind) {
  switch (kind) {
    case Region::Kind::kInput: return "input";
    case Region::Kind::kOutput: return "output";
    case Region::Kind::kModule: return "module";
    default: return "workspace";
  }
}

// The lanes' addresses in order, which they nearly always are already.
std::array<std::uintptr_t, 32> sorted_addresses(const WarpAccess& access) {
  std::array<std::uintptr_t, 32> addresses;
  for (unsigned i = 0; i < access.lanes; ++i) addresses[i] = reinterpret_cast<std::uintptr_t>(access.address[i]);
  const auto end = addresses.begin() + access.lanes;
  if (!std::is_sorted(addresses.begin(), end)) std::sort(addresses.begin(), end);
  return addresses;
}

struct Footprint {
  std::uint64_t bytes = 0, sectors = 0, lines = 0;
};

// The different bytes, sectors and cache lines of a warp's access.
Footprint footprint(const std::array<std::uintptr_t, 32>& sorted, unsigned lanes, unsigned width) {
  Footprint total;
  std::uintptr_t covered = 0, next_sector = 0, next_line = 0;
  for (unsigned i = 0; i < lanes; ++i) {
    const std::uintptr_t begin = sorted[i], end = begin + width;
    if (end > covered) total.bytes += end - std::max(begin, covered), covered = end;
    const std::uintptr_t first = std::max(begin / kSectorBytes, next_sector), last = (end - 1) / kSectorBytes;
    if (last >= first) total.sectors += last - first + 1, next_sector = last + 1;
    const std::uintptr_t first_line = std::max(begin / kLineBytes, next_line), last_line = (end - 1) / kLineBytes;
    if (last_line >= first_line) total.lines += last_line - first_line + 1, next_line = last_line + 1;
  }
  return total;
}

// Different words in the busiest bank, over the lanes of one part of a warp.
unsigned wavefronts_of(std::array<std::uintptr_t, 128>& words, unsigned count) {
  std::sort(words.begin(), words.begin() + count);
  std::array<unsigned, kBanks> load{};
  unsigned most = 0;
  for (unsigned i = 0; i < count; ++i)
    if (i == 0 || words[i] != words[i - 1]) most = std::max(most, ++load[words[i] % kBanks]);
  return most;
}

struct Wavefronts {
  unsigned taken = 0, least = 0;
};

Wavefronts wavefronts(const WarpAccess& access) {
  const unsigned part_lanes = access.width <= 4 ? 32 : access.width <= 8 ? 16 : 8;
  Wavefronts total;
  std::array<std::uintptr_t, 128> words;
  unsigned count = 0;
  for (unsigned i = 0; i < access.lanes; ++i) {
    const auto address = reinterpret_cast<std::uintptr_t>(access.address[i]);
    for (std::uintptr_t word = address / kBankBytes; word <= (address + access.width - 1) / kBankBytes && count < words.size(); ++word)
      words[count++] = word;
    if (i + 1 < access.lanes && access.lane[i + 1] / part_lanes == access.lane[i] / part_lanes) continue;
    total.taken += wavefronts_of(words, count);
    total.least += 1;
    count = 0;
  }
  return total;
}

// Marks [begin, end) as touched by the block; how many pieces nobody, and how many this block, had touched before.
void touch(std::vector<std::uint32_t>& touched, std::size_t begin, std::size_t end, std::uint32_t block, std::uint64_t& in_launch,
           std::uint64_t& in_block) {
  for (std::size_t i = begin; i < std::min(end, touched.size()); ++i) {
    in_launch += touched[i] == 0;
    in_block += touched[i] != block;
    touched[i] = block;
  }
}

}  // namespace

void Counters::code(const void* site, unsigned lanes) {
  CodeCounters& counters = code_[site];
  ++counters.warps;
  counters.lanes += lanes;
}

void Counters::access(const WarpAccess& access, Region& region) {
  SiteCounters& site = sites_[{access.site, &region, access.access}];
  if (site.instructions == 0) {
    site.site = access.site;
    site.shared = region.is_shared();
    site.access = access.access;
    site.buffer = region.name;
    site.width = access.width;
  }
  const auto sorted = sorted_addresses(access);
  const Footprint used = footprint(sorted, access.lanes, access.width);
  ++site.instructions;
  site.lanes += access.lanes;
  site.bytes_asked += std::uint64_t(access.lanes) * access.width;
  site.bytes_used += used.bytes;
  const Wavefronts taken = wavefronts(access);
  site.wavefronts += taken.taken;
  site.least_wavefronts += taken.least;
  if (region.is_shared()) return;
  site.lines += used.lines;
  site.sectors += used.sectors;
  site.least_sectors += (used.bytes + kSectorBytes - 1) / kSectorBytes;

  BufferCounters& buffer = buffers_[&region];
  const bool reads = access.access != Access::kStore, writes = access.access == Access::kStore || access.access == Access::kAtomic;
  const auto base = reinterpret_cast<std::uintptr_t>(region.base);
  const std::uintptr_t first_sector = base / kSectorBytes;
  for (unsigned i = 0; i < access.lanes; ++i) {
    const std::uintptr_t begin = sorted[i], end = begin + access.width;
    const std::size_t item = (begin - base) / region.item_bytes, last_item = (end - base + region.item_bytes - 1) / region.item_bytes;
    const std::size_t sector = begin / kSectorBytes - first_sector, last_sector = (end - 1) / kSectorBytes - first_sector + 1;
    const auto note = [&](std::vector<std::uint32_t>& items, std::vector<std::uint32_t>& sectors, std::uint64_t& bytes,
                          std::uint64_t& block_bytes, std::uint64_t& launch_sectors, std::uint64_t& block_sectors) {
      std::uint64_t in_launch = 0, in_block = 0;
      touch(items, item, last_item, block_, in_launch, in_block);
      bytes += in_launch * region.item_bytes;
      block_bytes += in_block * region.item_bytes;
      touch(sectors, sector, last_sector, block_, launch_sectors, block_sectors);
    };
    if (reads)
      note(region.items.read, region.sectors.read, buffer.read_bytes, buffer.block_read_bytes, buffer.read_sectors,
           buffer.block_read_sectors);
    if (writes)
      note(region.items.written, region.sectors.written, buffer.written_bytes, buffer.block_written_bytes, buffer.written_sectors,
           buffer.block_written_sectors);
  }
}

void Counters::finish(const Memory& memory, LaunchCounters& totals) const {
  for (const auto& [key, site] : sites_) totals.sites.push_back(site);
  for (const auto& [site, counters] : code_) totals.code.push_back(counters), totals.code.back().site = site;
  const auto by_site = [](const auto& a, const auto& b) { return a.site < b.site; };
  std::sort(totals.sites.begin(), totals.sites.end(), by_site);
  std::sort(totals.code.begin(), totals.code.end(), by_site);
  for (const auto& region : memory.regions()) {
    if (region->is_shared()) continue;
    const auto found = buffers_.find(region.get());
    if (found == buffers_.end() && region->kind == Region::Kind::kModule) continue;
    BufferCounters buffer = found == buffers_.end() ? BufferCounters{} : found->second;
    buffer.name = region->name;
    buffer.use = use_of(region->kind);
    buffer.bytes = region->element_bytes();
    totals.buffers.push_back(buffer);
  }
}

}  // namespace cnn::emulator
