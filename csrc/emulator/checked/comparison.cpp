// The Checker's comparison of two runs that differ in what unset memory holds. See checker.h.
#include <algorithm>
#include <cstring>
#include <functional>

#include "emulator/checked/checker.h"
#include "emulator/worker.h"

namespace cnn::emulator {
namespace {

// Whether a byte that was one thing in the first run and another in this one lies in something that nobody has set: a local variable, whose
// bits are the compiler's (cnnkernels/testing/trials.py), shared memory or a tensor.
bool was_never_set(unsigned char before, unsigned char now) {
  if (before == 0xfe && (now == 0x7e || now == 0x3f)) return true;
  if (before == kSharedPoison[0] && now == kSharedPoison[1]) return true;
  for (unsigned shift = 0; shift < 32; shift += 8)
    if (before == (kTensorPoison[0] >> shift & 0xffu) && now == (kTensorPoison[1] >> shift & 0xffu)) return true;
  return false;
}

}  // namespace

void Checker::begin_comparison(bool record) {
  if (record) recorded_.clear();
  compared_launches_ = 0;
}

void Checker::compare_store(unsigned thread, const Store& store) {
  Region& region = *store.region;
  if (region.kind == Region::Kind::kModule) return;  // each of the libraries has its own, and what earlier runs have left there
  const auto first = std::size_t(store.address - region.base);
  bool different = false;
  bool made = false;  // something has been made of what was never set, and stored
  std::vector<std::size_t> never_set;
  for (std::size_t done = 0; done < store.size; done += sizeof(Record::value)) {
    Record record;
    record.region = std::hash<std::string>()(region.name);
    record.offset = first + done;
    record.size = std::min(store.size - done, sizeof record.value);
    std::memcpy(record.value.data(), store.address + done, record.size);
    if (comparison_ == Comparison::kRecord) {
      recorded_.back().push_back(record);
      continue;
    }
    if (out_of_step_) return;
    const std::vector<Record>& before = recorded_[compared_launches_];
    if (compared_stores_ == before.size() || !before[compared_stores_].same_place(record)) {
      out_of_step_ = true;
      return report_difference(thread, store, true);
    }
    const Record& other = before[compared_stores_++];
    for (std::size_t byte = 0; byte < record.size; ++byte) {
      if (other.value[byte] == record.value[byte]) continue;
      different = true;
      if (!was_never_set(other.value[byte], record.value[byte])) made = true;
      else never_set.push_back(record.offset + byte);
    }
  }
  if (!different) return;
  // Of a structure, padding and members that nobody has set may be stored along with the rest, as long as nobody uses them.
  const bool is_part = never_set.size() < store.size && !made;
  if (!is_part || region.cells.empty() || region.kind == Region::Kind::kOutput) return report_difference(thread, store, false);
  for (std::size_t byte : never_set) region.cells[byte / region.granule].written &= std::uint8_t(~(1u << byte % region.granule));
}

void Checker::report_difference(unsigned thread, const Store& store, bool elsewhere) {
  // What follows from the first is not said.
  if (difference_site_ && difference_site_ != store.site) return;
  difference_site_ = store.site;
  const Target written{store.address, store.size, store.region, store.site};
  Finding found = finding(thread, "uninitialised value", written, "write");
  const std::string deed =
      elsewhere ? "writes to " + found.place + " only because of " : "writes to " + found.place + " a value made from ";
  const Target& partial = partial_[thread];
  if (partial.region) {
    found = finding(thread, "uninitialised read", partial, "read");
    found.what = "uninitialised read: reads " + found.place + ", which nobody has written, and " + deed + "it" + at(store.site);
    found.has_other = true;
    found.other = party(thread, store.site, "write");
  } else {
    found.what = deed + "a local variable that was never set";
  }
  note(found);
}

}  // namespace cnn::emulator
