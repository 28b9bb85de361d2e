// See checker.h.
#include "emulator/checked/checker.h"

#include "emulator/matrix.h"

#include <pthread.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>

#include "emulator/checked/sources.h"
#include "emulator/checked/unset_values.h"
#include "emulator/worker.h"

namespace cnn::emulator {
namespace {

std::mutex counters_mutex;
std::vector<LaunchCounters>& finished_launches() {
  static auto* launches = new std::vector<LaunchCounters>();
  return *launches;
}

const char* verb(bool write, Stamp::Kind kind) { return kind == Stamp::kAtomic ? "updates atomically" : write ? "writes" : "reads"; }
const char* noun(bool write, Stamp::Kind kind) { return kind == Stamp::kAtomic ? "atomic" : write ? "write" : "read"; }

// Bytes of the lowest set bit: how the compiler may cut a structure of this size.
std::size_t piece_of(std::size_t size) { return std::min<std::size_t>(size & (~size + 1), 16); }

std::string off_a_multiple(const unsigned char* address, std::size_t size) {
  return ": the address is " + std::to_string(reinterpret_cast<std::uintptr_t>(address) % size) + " bytes off a multiple of " +
         std::to_string(size);
}

bool is_vector_size(std::size_t size) { return size == 1 || size == 2 || size == 4 || size == 8 || size == 16; }

}  // namespace

Checker& checker() {
  static auto* instance = new Checker();
  return *instance;
}

namespace {
// Whoever loads the library is watched.
const bool watching = (observer = &checker(), true);
}  // namespace

// --- Launches and blocks.

void Checker::launch_begins(Launch& launch) {
  launch_ = &launch;
  last_kernel_ = launch.kernel;
  check_ = launch.config.check;
  count_ = launch.config.count;
  findings_.clear();
  blocks_.clear();
  block_serial_ = 0;
  shared_bytes_ = 0;
  memory_.launch_begins(check_, count_);
  memory_.note_host_writes(poison());
  comparison_ = check_ ? launch.config.comparison : Comparison::kNone;
  if (comparison_ == Comparison::kRecord) recorded_.emplace_back();
  compared_stores_ = 0;
  difference_site_ = nullptr;
  out_of_step_ = comparison_ == Comparison::kCompare && compared_launches_ >= recorded_.size();
  ordering_.launch_begins();
  counters_ = {};
  warps_.launch_begins();
  reads_huge_values_ = memory_.reads_huge_values();
  pthread_attr_t attributes;
  pthread_getattr_np(pthread_self(), &attributes);
  void* stack = nullptr;
  std::size_t bytes = 0;
  pthread_attr_getstack(&attributes, &stack, &bytes);
  pthread_attr_destroy(&attributes);
  host_stack_begin_ = static_cast<const unsigned char*>(stack);
  host_stack_end_ = host_stack_begin_ + bytes;
}

void Checker::launch_ends(Launch& launch) {
  if (comparison_ == Comparison::kCompare) ++compared_launches_;
  tidy_findings();
  launch.findings.insert(launch.findings.begin(), findings_.begin(), findings_.end());  // the one that ended it comes last
  findings_.clear();
  if (count_ && launch.findings.empty()) {
    LaunchCounters totals = std::exchange(totals_, {});
    totals.kernel = launch.kernel;
    totals.symbol = symbol_of(launch.function);
    totals.grid = launch.grid;
    totals.block = launch.block;
    totals.blocks = launch.blocks;
    totals.blocks_run = block_serial_;
    totals.static_shared_bytes = shared_bytes_;
    totals.dynamic_shared_bytes = launch.dynamic_shared_bytes;
    counters_.finish(memory_, totals);
    std::lock_guard<std::mutex> lock(counters_mutex);
    finished_launches().push_back(std::move(totals));
  }
  totals_ = {};
  launch_ = nullptr;
}

void Checker::block_begins(std::uint64_t, uint3 block) {
  block_ = block;
  ++block_serial_;
  blocks_.push_back(block);
  memory_.block_begins();
  ordering_.block_begins(block_serial_, launch_->threads_per_block);
  stores_.assign(launch_->threads_per_block, {});
  partial_.assign(launch_->threads_per_block, {});
  if (!count_) return;
  counters_.block_begins();
  warps_.block_begins(launch_->threads_per_block);
}

void Checker::block_ends() {
  if (count_) warps_.merge_all(counters_);
  std::size_t bytes = 0;
  for (const auto& region : memory_.regions())
    if (region->is_shared() && region->name != "dynamic shared memory") bytes += region->bytes;
  shared_bytes_ = std::max(shared_bytes_, bytes);
}

void Checker::thread_ends(unsigned thread) {
  check_value(thread);
  if (count_) warps_.thread_ends(thread);
}

void Checker::shared_array(const void* key, const char* name, unsigned char* data, std::size_t bytes) {
  memory_.shared_array(key, name, data, bytes, check_);
}

// --- What orders accesses.

void Checker::barrier_arrives(unsigned thread, int id, bool whole_block, bool waits, const void*) {
  check_value(thread);
  ordering_.barrier_arrives(thread, id, whole_block);
  if (count_ && waits) warps_.thread_waits(thread, true);
}

void Checker::barrier_completes(int id, bool whole_block, const std::vector<unsigned>& waiting) {
  ordering_.barrier_completes(id, whole_block, waiting);
  if (!count_) return;
  ++totals_.block_barriers;
  warps_.merge_all(counters_);
  for (unsigned thread : waiting) warps_.thread_waits(thread, false);
}

void Checker::exchange_arrives(unsigned thread, const char*, const void*) {
  check_value(thread);
  if (count_) warps_.thread_waits(thread, true);
}

void Checker::exchange_completes(unsigned warp, unsigned mask, const char* operation) {
  const bool synchronises = std::strcmp(operation, "__syncwarp") == 0;
  if (synchronises) ordering_.warp_synchronises(warp * kWarpSize, mask);
  if (!count_) return;
  if (const int multiply_adds = multiply_adds_of(operation)) {
    ++totals_.matrix_products;
    totals_.matrix_multiply_adds += std::uint64_t(multiply_adds);
  } else if (std::strcmp(operation, "ldmatrix") != 0) {  // whose lanes' reads are accesses
    ++(synchronises ? totals_.warp_barriers : totals_.shuffles);
  }
  for (unsigned lane = 0; lane < unsigned(kWarpSize); ++lane)
    if (mask >> lane & 1u) warps_.thread_waits(warp * kWarpSize + lane, false);
}

void Checker::fence(unsigned thread) { ordering_.fence(thread); }
void Checker::fence_in_block(unsigned thread) { ordering_.fence_in_block(thread); }

// --- Accesses.

void Checker::access(unsigned thread, const void* address, std::size_t size, bool write, bool exact_width, const void* site) {
  const auto* at = static_cast<const unsigned char*>(address);
  if (at >= active_worker->stack_begin(thread) && at < active_worker->stack_end(thread)) return;
  // Structures of 16 bytes are copied in one access even if they need no more than 8 to be aligned to. Trials are compiled a second time
  // with an instrumentation that knows the types.
  const std::size_t alignment = !exact_width ? 1 : size == 16 && comparison_ != Comparison::kNone ? 8 : size;
  Region* region = locate(thread, at, size, alignment, write, site);
  if (!region) return;
  // Not at a read: of a structure's copy the compiler announces the write first, and then it has not happened yet.
  if (write) check_value(thread);
  const std::size_t piece = is_vector_size(size) ? size : piece_of(size);
  for (std::size_t done = 0; done < size; done += piece) {
    const Target target{at + done, piece, region, site};
    if (check_) check(thread, target, write, Stamp::kPlain);
    if (count_) count(thread, target, write ? Access::kStore : Access::kLoad);
  }
  if (check_ && write) stores_[thread] = {at, size, site, region};
}

void Checker::atomic(unsigned thread, const void* address, std::size_t size, const void* site) {
  const auto* at = static_cast<const unsigned char*>(address);
  if (at >= active_worker->stack_begin(thread) && at < active_worker->stack_end(thread)) return;
  Region* region = locate(thread, at, size, size, true, site);
  if (!region) return;
  check_value(thread);
  const Target target{at, size, region, site};
  ordering_.atomic(thread, address);
  if (check_) check(thread, target, true, Stamp::kAtomic);
  if (check_) stores_[thread] = {at, size, site, region};
  if (count_) count(thread, target, Access::kAtomic);
}

Region* Checker::locate(unsigned thread, const unsigned char* address, std::size_t size, std::size_t alignment, bool write,
                        const void* site) {
  const char* access = write ? "write" : "read";
  Region* region = memory_.find(address, size);
  if (!region) {
    const bool arguments = !write && address >= host_stack_begin_ && address < host_stack_end_;
    if (arguments) return nullptr;
    region = memory_.find_module_data(address, check_);
  }
  Finding wrong = finding(thread, "out of bounds", {address, size, nullptr, site}, access);
  if (!region) {
    wrong.what = std::string(access) + " of " + std::to_string(size) + " bytes out of bounds: ";
    const std::string beside = active_worker->describe_shared(address);
    wrong.what += beside.empty() ? memory_.describe_stray(address) : beside;
    for (unsigned other = 0; other < launch_->threads_per_block; ++other)
      if (address >= active_worker->stack_begin(other) && address < active_worker->stack_end(other))
        wrong.what = std::string(access) + " of another thread's local variable";
    wrong.place = beside.empty() ? memory_.describe_stray(address) : beside;
    stop(wrong);
  }
  wrong.place = region->place(address);
  if (address + size > region->base + region->bytes) {
    const auto beyond = std::size_t(address + size - (region->base + region->bytes));
    wrong.what = std::string(access) + " of " + std::to_string(size) + " bytes at " + wrong.place + " goes " + std::to_string(beyond) +
                 " bytes past the end of '" + region->name + "'";
    stop(wrong);
  }
  if (!region->has_elements(address, size)) {
    wrong.what = std::string(access) + " between the elements of '" + region->name + "', near " + wrong.place;
    stop(wrong);
  }
  if (reinterpret_cast<std::uintptr_t>(address) % alignment != 0) {
    wrong.kind = "misaligned access";
    wrong.what = "misaligned " + std::string(access) + " of " + std::to_string(size) + " bytes at " + wrong.place +
                 off_a_multiple(address, alignment);
    stop(wrong);
  }
  if (write && region->kind == Region::Kind::kInput) {
    wrong.kind = "write to input";
    wrong.what = "writes to the input " + wrong.place;
    stop(wrong);
  }
  return region;
}

void Checker::misaligned(unsigned thread, const void* address, std::size_t alignment, const void* site) {
  const auto* at = static_cast<const unsigned char*>(address);
  Region* region = memory_.find(at, 1);
  Finding wrong = finding(thread, "misaligned access", {at, 1, region, site}, "");
  if (!region) wrong.place = "an address in no tensor or shared array";
  wrong.what = "misaligned access at " + wrong.place + off_a_multiple(at, alignment);
  stop(wrong);
}

void Checker::index_out_of_bounds(unsigned thread, long index, const char* array_type, const void* site) {
  Finding wrong = finding(thread, "out of bounds", {nullptr, 0, nullptr, site}, "");
  wrong.place = "index " + std::to_string(index) + " of an array " + array_type;
  wrong.what = wrong.place + " is out of bounds";
  stop(wrong);
}

Cell& Checker::cell_at(Region& region, std::size_t index) {
  Cell& cell = region.cells[index];
  if (region.is_shared() && cell.block != block_serial_) {
    cell = {};
    cell.block = block_serial_;
  }
  return cell;
}

void Checker::check(unsigned thread, const Target& target, bool write, Stamp::Kind kind) {
  if (target.region->cells.empty()) return;
  target.region->refine(target.address, target.size);
  check_one(thread, target, write, kind);
}

namespace {
// Keeps a stamp among those that are not ordered with it; of too many, those of different warps.
template <std::size_t count>
void remember(Stamp (&stamps)[count], const Stamp& now, const Ordering& ordering) {
  Stamp* slot = nullptr;
  for (Stamp& stamp : stamps)
    if (stamp.kind == Stamp::kNone || ordering.before(stamp, now.thread))
      if (!slot || (stamp.kind != Stamp::kNone && stamp.thread == now.thread && stamp.block == now.block)) slot = &stamp;
  for (std::size_t a = 0; a < count && !slot; ++a)
    for (std::size_t b = a + 1; b < count && !slot; ++b)
      if (stamps[a].thread / kWarpSize == stamps[b].thread / kWarpSize && stamps[a].block == stamps[b].block) slot = &stamps[a];
  if (slot) *slot = now;
}
}  // namespace

void Checker::check_one(unsigned thread, const Target& target, bool write, Stamp::Kind kind) {
  Region& region = *target.region;
  const std::size_t granule = region.granule;
  const auto all_bytes = std::uint8_t((1u << granule) - 1);
  const auto first = std::size_t(target.address - region.base) / granule, end = first + target.size / granule;
  const bool atomic = kind == Stamp::kAtomic, reads = !write || atomic;
  bool any_written = false;
  if (reads && comparison_ != Comparison::kNone)
    for (std::size_t i = first; i < end; ++i) any_written = any_written || cell_at(region, i).written;
  for (std::size_t i = first; i < end; ++i) {
    Cell& cell = cell_at(region, i);
    const Target here{region.base + i * granule, granule, &region, target.site};
    if (cell.in_flight) {
      Finding early = finding(thread, "async copy", here, noun(write, kind));
      early.what = std::string(verb(write, kind)) + " " + early.place + " before the wait of the asynchronous copy";
      early.what += at(cell.writer.site) + " that fills it";
      early.has_other = true;
      early.other = party_of(cell.writer, "write");
      note(early);
      continue;
    }
    if (reads && (cell.written & all_bytes) != all_bytes) {
      if (any_written) {
        // A whole structure, of which padding or a member was never written: the comparison tells whether that matters.
        partial_[thread] = here;
      } else {
        Finding unset = finding(thread, "uninitialised read", here, noun(write, kind));
        unset.what = "uninitialised read: " + std::string(verb(write, kind)) + " " + unset.place + ", which nobody has written";
        note(unset);
        cell.written = all_bytes;  // once is enough
      }
    }
    if (cell.writer.kind != Stamp::kNone && !ordering_.before(cell.writer, thread))
      report_race(thread, here, write, kind, cell.writer, true);
    for (const Stamp& other : cell.atomics)
      if (!atomic && other.kind != Stamp::kNone && !ordering_.before(other, thread)) report_race(thread, here, write, kind, other, true);
    const Stamp now = ordering_.now(thread, kind, target.site);
    if (!write) {
      remember(cell.readers, now, ordering_);
      continue;
    }
    for (Stamp& reader : cell.readers) {
      if (reader.kind != Stamp::kNone && !ordering_.before(reader, thread)) report_race(thread, here, write, kind, reader, false);
      reader = {};
    }
    if (atomic) {
      remember(cell.atomics, now, ordering_);
    } else {
      cell.writer = now;
      for (Stamp& other : cell.atomics) other = {};
    }
    cell.written = all_bytes;
  }
}

void Checker::report_race(unsigned thread, const Target& target, bool write, Stamp::Kind kind, const Stamp& stamp, bool stamp_wrote) {
  Finding race = finding(thread, "race", target, noun(write, kind));
  race.has_other = true;
  race.other = party_of(stamp, noun(stamp_wrote, stamp.kind));
  const uint3 b = race.other.block, t = race.other.thread;
  race.what = "race on " + race.place + ": " + verb(write, kind) + " what ";
  if (stamp.block != block_serial_) race.what += "block " + coordinates(b.x, b.y, b.z) + ", ";
  race.what += "thread " + coordinates(t.x, t.y, t.z) + " " + verb(stamp_wrote, stamp.kind) + at(stamp.site);
  race.what += stamp.block != block_serial_ ? " in the same launch" : ", with no barrier in between";
  note(race);
}

// The instrumentation comes before the store: by now it has happened.
void Checker::check_value(unsigned thread) {
  if (!check_) return;
  Store& store = stores_[thread];
  if (!store.region) return;
  const Store done = std::exchange(store, {});
  // Another thread may have written since, and shared arrays of the last block are gone.
  if (!done.region->contains(done.address)) return;
  if (comparison_ != Comparison::kNone) return compare_store(thread, done);
  if (!holds_unset_value(done.address, done.size, done.region->values, !reads_huge_values_)) return;
  Finding unset = finding(thread, "uninitialised value", {done.address, done.size, done.region, done.site}, "write");
  unset.what = "writes to " + unset.place + " what looks like a value made from a local variable that was never set";
  note(unset);
}

// --- Asynchronous copies.

void Checker::async_copy_begins(unsigned thread, void* shared, const void* global, int bytes, int valid, const void* site) {
  check_value(thread);
  auto* to = static_cast<unsigned char*>(shared);
  const auto* from = static_cast<const unsigned char*>(global);
  const auto width = std::size_t(bytes);
  Region* target_region = locate(thread, to, width, width, true, site);
  const Target target{to, width, target_region, site};
  if (!target_region || !target_region->is_shared()) {
    Finding wrong = finding(thread, "async copy", target, "write");
    wrong.what = "asynchronous copy to memory that is not shared";
    stop(wrong);
  }
  if (valid > 0) {
    if (Region* source_region = locate(thread, from, std::size_t(valid), width, false, site)) {
      const std::size_t piece = is_vector_size(std::size_t(valid)) ? std::size_t(valid) : piece_of(std::size_t(valid));
      for (std::size_t done = 0; check_ && done < std::size_t(valid); done += piece)
        check(thread, {from + done, piece, source_region, site}, false, Stamp::kPlain);
      if (count_) count(thread, {from, std::size_t(valid), source_region, site}, Access::kAsyncCopy);
    }
  }
  if (count_) count(thread, target, Access::kAsyncCopy);
  if (!check_) return;
  check(thread, target, true, Stamp::kPlain);
  const std::size_t granule = target_region->granule;
  const auto first = std::size_t(to - target_region->base) / granule;
  for (std::size_t i = first; i < first + width / granule; ++i) cell_at(*target_region, i).in_flight = true;
}

void Checker::async_copy_lands(unsigned thread, void* shared, int bytes) {
  if (!check_) return;
  const auto* to = static_cast<const unsigned char*>(shared);
  Region* region = memory_.find(to, std::size_t(bytes));
  if (!region) return;
  for (auto i = std::size_t(to - region->base) / region->granule; i < std::size_t(to - region->base + bytes) / region->granule; ++i) {
    Cell& cell = cell_at(*region, i);
    cell.in_flight = false;
    cell.writer = ordering_.now(thread, Stamp::kPlain, cell.writer.site);
  }
}

// --- Counting.

void Checker::basic_block(unsigned thread, const void* site) {
  Event event;
  event.kind = Event::kCode;
  event.site = site;
  warps_.add(thread, event);
}

void Checker::enters_function(unsigned thread) { warps_.enter(thread); }
void Checker::leaves_function(unsigned thread) { warps_.leave(thread); }

void Checker::count(unsigned thread, const Target& target, Access access) {
  Event event;
  event.kind = Event::kAccess;
  event.site = target.site;
  event.address = target.address;
  event.region = target.region;
  event.width = std::uint16_t(target.size);
  event.access = access;
  if (!warps_.add(thread, event)) return;
  // The others of the warp catch up; if that does not help, because they wait for this one, it goes on.
  warps_.merge_warp(thread, counters_);
  active_worker->yield();
  warps_.merge_warp(thread, counters_);
  warps_.allow_more(thread);
}

std::vector<LaunchCounters> Checker::take_counters() {
  std::lock_guard<std::mutex> lock(counters_mutex);
  return std::exchange(finished_launches(), {});
}

}  // namespace cnn::emulator
