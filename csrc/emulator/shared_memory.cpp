// Guard pages, poison and canaries of shared arrays. See shared_memory.h.
#include "emulator/shared_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>

namespace cnn::emulator {
namespace {

constexpr std::size_t kPage = 4096;
// Wide enough that an index wrong by a whole tile or plane still lands in it.
constexpr std::size_t kGuard = std::size_t(4) << 20;
constexpr std::size_t kAlignment = 16;

std::size_t round_up(std::size_t value, std::size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

bool all_poison(const unsigned char* begin, const unsigned char* end, unsigned char poison) {
  for (; end - begin >= 8; begin += 8) {
    std::uint64_t word;
    std::memcpy(&word, begin, 8);
    if (word != poison * 0x0101010101010101u) return false;
  }
  return std::all_of(begin, end, [=](unsigned char byte) { return byte == poison; });
}

}  // namespace

unsigned char* SharedMemory::Region::pages() const { return mapping + kGuard; }

SharedMemory::~SharedMemory() {
  for (const Region& region : regions_) munmap(region.mapping, region.pages_bytes + 2 * kGuard);
}

void SharedMemory::begin_block(GuardSide side, unsigned char poison) {
  for (const Array& array : arrays_) array.region->used = false;
  arrays_.clear();
  in_use_ = 0;
  side_ = side;
  poison_ = poison;
}

SharedMemory::Region* SharedMemory::take_region(std::size_t bytes) {
  const std::size_t pages_bytes = round_up(std::max<std::size_t>(bytes, 1), kPage);
  for (Region& region : regions_) {
    if (region.used || region.pages_bytes != pages_bytes) continue;
    region.used = true;
    return &region;
  }
  void* mapping = mmap(nullptr, pages_bytes + 2 * kGuard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  Region region{static_cast<unsigned char*>(mapping), pages_bytes, true};
  if (mprotect(region.pages(), pages_bytes, PROT_READ | PROT_WRITE) != 0) {
    munmap(mapping, pages_bytes + 2 * kGuard);
    throw std::bad_alloc();
  }
  regions_.push_back(region);
  return &regions_.back();
}

void* SharedMemory::array(const void* key, const char* name, std::size_t bytes) {
  for (const Array& array : arrays_)
    if (array.key == key) return array.data;
  Region* region = take_region(bytes);
  std::memset(region->pages(), poison_, region->pages_bytes);
  const std::size_t offset = side_ == GuardSide::kAfter ? region->pages_bytes - round_up(bytes, kAlignment) : 0;
  arrays_.push_back({key, name, bytes, region->pages() + offset, region});
  in_use_ += bytes;
  return arrays_.back().data;
}

bool SharedMemory::holds(const void* key) const {
  for (const Array& array : arrays_)
    if (array.key == key) return true;
  return false;
}

const char* SharedMemory::overwritten() const {
  for (const Array& array : arrays_) {
    const unsigned char* pages = array.region->pages();
    if (!all_poison(pages, array.data, poison_)) return array.name;
    if (!all_poison(array.data + array.bytes, pages + array.region->pages_bytes, poison_)) return array.name;
  }
  return nullptr;
}

std::string SharedMemory::describe(const void* address) const {
  const auto* byte = static_cast<const unsigned char*>(address);
  for (const Array& array : arrays_) {
    if (byte < array.region->mapping || byte >= array.region->pages() + array.region->pages_bytes + kGuard) continue;
    const bool below = byte < array.data;
    const std::ptrdiff_t distance = below ? array.data - byte : byte - (array.data + array.bytes);
    return "out-of-range shared memory access, " + std::to_string(distance) + " bytes " +
           (below ? "before the start of" : "past the end of") + " '" + array.name + "' (" + std::to_string(array.bytes) + " bytes)";
  }
  return {};
}

}  // namespace cnn::emulator
