// See memory.h.
#include "emulator/checked/memory.h"

#include <elf.h>
#include <link.h>

#include <algorithm>
#include <numeric>

#include "emulator/checked/sources.h"
#include "emulator/checked/unset_values.h"

namespace cnn::emulator {
namespace {

constexpr std::size_t kGranule = 4, kSectorBytes = 32;

std::string shape(const Region& region) {
  std::string text;
  for (std::int64_t size : region.sizes) text += (text.empty() ? "" : "x") + std::to_string(size);
  return text + (text.empty() ? "" : ", ") + std::to_string(region.bytes) + " bytes";
}

std::string name_of(const Region& region) { return "'" + region.name + "'"; }

}  // namespace

bool Region::has_elements(const unsigned char* address, std::size_t size) const {
  if (address < base || address + size > base + bytes) return false;
  if (elements.empty()) return true;
  const auto offset = std::size_t(address - base);
  for (std::size_t item = offset / item_bytes; item <= (offset + size - 1) / item_bytes; ++item)
    if (!elements[item]) return false;
  return true;
}

void Region::refine(const unsigned char* address, std::size_t size) {
  const auto offset = std::size_t(address - base);
  while (granule > 1 && (offset % granule != 0 || size % granule != 0)) {
    std::vector<Cell> finer(cells.size() * 2);
    for (std::size_t i = 0; i < finer.size(); ++i) {
      finer[i] = cells[i / 2];
      finer[i].written = std::uint8_t(cells[i / 2].written >> (i % 2 * granule / 2) & ((1u << granule / 2) - 1));
    }
    cells = std::move(finer);
    granule /= 2;
  }
}

std::size_t Region::element_bytes() const {
  if (sizes.empty()) return bytes;
  return std::size_t(std::accumulate(sizes.begin(), sizes.end(), std::int64_t(1), std::multiplies<>())) * item_bytes;
}

std::string Region::place(const unsigned char* address) const {
  auto offset = std::int64_t(address - base);
  if (sizes.empty()) return "'" + name + "' + " + std::to_string(offset) + " bytes";
  // Largest stride first: of a tensor's element that is its index.
  std::vector<std::size_t> order(sizes.size());
  std::iota(order.begin(), order.end(), std::size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return strides[a] > strides[b]; });
  std::vector<std::int64_t> index(sizes.size());
  std::int64_t rest = offset / std::int64_t(item_bytes);
  for (std::size_t axis : order) {
    if (strides[axis] <= 0 || sizes[axis] == 1) continue;
    index[axis] = std::min(rest / strides[axis], sizes[axis] - 1);
    rest -= index[axis] * strides[axis];
  }
  std::string text;
  for (std::int64_t i : index) text += (text.empty() ? "" : ", ") + std::to_string(i);
  return "'" + name + "'[" + text + "]";
}

std::uint64_t Memory::declare(const Buffer& buffer) {
  auto region = std::make_unique<Region>();
  region->name = buffer.name;
  region->kind = buffer.use == Use::kInput    ? Region::Kind::kInput
                 : buffer.use == Use::kOutput ? Region::Kind::kOutput
                                              : Region::Kind::kWorkspace;
  region->base = static_cast<const unsigned char*>(buffer.data);
  region->item_bytes = buffer.item_bytes;
  region->sizes = buffer.sizes;
  region->strides = buffer.strides;
  region->handle = next_handle_++;
  std::int64_t last = 0, count = 1;
  for (std::size_t axis = 0; axis < buffer.sizes.size(); ++axis) {
    last += (buffer.sizes[axis] - 1) * buffer.strides[axis];
    count *= buffer.sizes[axis];
  }
  region->bytes = count == 0 ? 0 : std::size_t(last + 1) * buffer.item_bytes;
  if (count != 0 && last + 1 != count) {
    region->elements.resize(std::size_t(last + 1));
    std::vector<std::int64_t> index(buffer.sizes.size());
    for (std::int64_t i = 0; i < count; ++i) {
      std::int64_t offset = 0;
      for (std::size_t axis = 0; axis < index.size(); ++axis) offset += index[axis] * buffer.strides[axis];
      region->elements[std::size_t(offset)] = true;
      for (std::size_t axis = index.size(); axis-- > 0 && ++index[axis] == buffer.sizes[axis];) index[axis] = 0;
    }
  }
  region->values = buffer.values;
  region->poisoned = buffer.poisoned;
  if (buffer.use == Use::kInput && buffer.values != Values::kOther) {
    for (std::size_t offset = 0; offset < region->bytes && !region->huge; offset += region->item_bytes)
      region->huge = region->has_elements(region->base + offset, 1) && is_huge_input(region->base + offset, buffer.values);
  }
  regions_.push_back(std::move(region));
  last_ = nullptr;
  return regions_.back()->handle;
}

bool Memory::reads_huge_values() const {
  return std::any_of(regions_.begin(), regions_.end(), [](const auto& region) { return region->huge; });
}

void Memory::forget(std::uint64_t handle) {
  std::erase_if(regions_, [&](const auto& region) { return region->handle == handle && handle != 0; });
  last_ = nullptr;
}

Region* Memory::declared(std::uint64_t handle) {
  for (const auto& region : regions_)
    if (region->handle == handle) return region.get();
  return nullptr;
}

void Memory::launch_begins(bool check, bool count) {
  // Shared arrays are the launch's own; a module may have been unloaded.
  std::erase_if(regions_, [](const auto& region) { return region->is_shared() || region->kind == Region::Kind::kModule; });
  last_ = nullptr;
  for (const auto& region : regions_) {
    if (check && region->kind != Region::Kind::kInput) {
      if (region->cells.empty()) {
        region->granule = kGranule;
        region->cells.resize((region->bytes + kGranule - 1) / kGranule);
      }
      for (Cell& cell : region->cells) {
        cell.writer = {};
        for (Stamp& atomic : cell.atomics) atomic = {};
        for (Stamp& reader : cell.readers) reader = {};
        cell.in_flight = false;
      }
    }
    if (!check) region->cells.clear();  // what is written meanwhile is not noted
    const std::size_t items = count ? (region->bytes + region->item_bytes - 1) / region->item_bytes : 0;
    const std::size_t sectors = count ? region->bytes / kSectorBytes + 2 : 0;
    for (auto* touched : {&region->items.read, &region->items.written}) touched->assign(items, 0);
    for (auto* touched : {&region->sectors.read, &region->sectors.written}) touched->assign(sectors, 0);
  }
}

void Memory::note_host_writes(std::uint32_t poison) {
  for (const auto& region : regions_) {
    if (!region->poisoned || region->cells.empty()) continue;
    const auto filled = [&](std::size_t byte) { return region->base[byte] == (poison >> byte % 4 * 8 & 0xffu); };
    for (std::size_t item = 0; item < region->bytes; item += region->item_bytes) {
      bool written = false;
      for (std::size_t byte = item; byte < item + region->item_bytes && !written; ++byte) written = !filled(byte);
      for (std::size_t byte = item; byte < item + region->item_bytes && written; ++byte)
        region->cells[byte / region->granule].written |= std::uint8_t(1u << byte % region->granule);
    }
  }
}

// The arrays of the last block may lie elsewhere in this one.
void Memory::block_begins() {
  for (const auto& region : regions_)
    if (region->is_shared()) region->base = nullptr, region->bytes = 0;
  last_ = nullptr;
}

void Memory::shared_array(const void* key, const char* name, const unsigned char* data, std::size_t bytes, bool check) {
  Region* region = nullptr;
  for (const auto& candidate : regions_)
    if (candidate->is_shared() && candidate->key == key) region = candidate.get();
  if (region && region->base == data && region->bytes == bytes) return;
  if (!region) {
    regions_.push_back(std::make_unique<Region>());
    region = regions_.back().get();
    region->kind = Region::Kind::kShared;
    region->name = name;
    region->key = key;
  }
  region->base = data;
  region->bytes = bytes;
  if (check) region->cells.resize((bytes + region->granule - 1) / region->granule);
}

Region* Memory::find(const unsigned char* address, std::size_t size) {
  if (last_ && last_->has_elements(address, size)) return last_;
  Region* found = nullptr;
  for (const auto& region : regions_) {
    if (!region->contains(address)) continue;
    found = region.get();
    if (region->has_elements(address, size)) break;
  }
  if (found) last_ = found;
  return found;
}

Region* Memory::find_module_data(const unsigned char* address, bool check) {
  struct Search {
    const unsigned char* address;
    const unsigned char* begin = nullptr;
    std::size_t bytes = 0;
    bool writable = false;
  } search{address};
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* data) {
        auto* search = static_cast<Search*>(data);
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& header = info->dlpi_phdr[i];
          const auto* begin = reinterpret_cast<const unsigned char*>(info->dlpi_addr + header.p_vaddr);
          if (header.p_type != PT_LOAD || search->address < begin || search->address >= begin + header.p_memsz) continue;
          search->begin = begin;
          search->bytes = header.p_memsz;
          search->writable = header.p_flags & PF_W;
          return 1;
        }
        return 0;
      },
      &search);
  if (!search.begin) return nullptr;
  auto region = std::make_unique<Region>();
  region->kind = Region::Kind::kModule;
  const Variable variable = variable_at(address);
  if (address < variable.begin + variable.bytes) {
    region->name = variable.name;
    region->base = variable.begin;
    region->bytes = variable.bytes;
  } else {
    // Behind a variable, or what the compiler has not named.
    if (!variable.name.empty() && search.writable) return nullptr;
    region->name = "the module's data";
    region->base = search.begin;
    region->bytes = search.bytes;
  }
  if (check && search.writable) {
    region->cells.resize((region->bytes + region->granule - 1) / region->granule);
    for (Cell& cell : region->cells) cell.written = 0xff;
  }
  regions_.push_back(std::move(region));
  return regions_.back().get();
}

std::string Memory::describe_stray(const unsigned char* address) const {
  const Variable variable = variable_at(address);
  if (!variable.name.empty())
    return std::to_string(address - (variable.begin + variable.bytes)) + " bytes past the end of '" + variable.name + "' (" +
           std::to_string(variable.bytes) + " bytes)";
  constexpr std::ptrdiff_t kNear = 1 << 20;
  const Region* nearest = nullptr;
  std::ptrdiff_t distance = kNear;
  for (const auto& region : regions_) {
    if (region->bytes == 0 || region->kind == Region::Kind::kModule) continue;
    const std::ptrdiff_t here = address < region->base ? region->base - address : address - (region->base + region->bytes) + 1;
    if (here < distance) distance = here, nearest = region.get();
  }
  if (!nearest) return "in no tensor, workspace or shared array of this launch";
  if (address < nearest->base)
    return std::to_string(distance) + " bytes before the start of " + name_of(*nearest) + " (" + shape(*nearest) + ")";
  return std::to_string(distance - 1) + " bytes past the end of " + name_of(*nearest) + " (" + shape(*nearest) + ")";
}

}  // namespace cnn::emulator
