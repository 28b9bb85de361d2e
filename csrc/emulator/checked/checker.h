// Watches every access of every launch: holds it against the rules and counts it. Fed by hooks.cpp (accesses, from the compiler's
// instrumentation) and by the runtime (everything else, as its Observer). docs/emulator.md says what is found and how.
#pragma once

#include <array>
#include <string>
#include <unordered_map>
#include <vector>

#include "emulator/checked/counters.h"
#include "emulator/checked/memory.h"
#include "emulator/checked/ordering.h"
#include "emulator/checked/warps.h"
#include "emulator/observer.h"
#include "emulator/runtime.h"

namespace cnn::emulator {

class Checker final : public Observer {
 public:
  // From the instrumentation. `exact_width`: one access of that many bytes, not a range that the compiler may cut as it likes.
  void access(unsigned thread, const void* address, std::size_t size, bool write, bool exact_width, const void* site);
  void basic_block(unsigned thread, const void* site);
  void enters_function(unsigned thread);
  void leaves_function(unsigned thread);
  // From an instrumentation that only trials have: an address that is not aligned as its type asks for; an index beyond an array.
  void misaligned(unsigned thread, const void* address, std::size_t alignment, const void* site);
  void index_out_of_bounds(unsigned thread, long index, const char* array_type, const void* site);
  bool counts() const { return count_; }

  void launch_begins(Launch& launch) override;
  void launch_ends(Launch& launch) override;
  void block_begins(std::uint64_t index, uint3 block) override;
  void block_ends() override;
  void thread_ends(unsigned thread) override;
  void shared_array(const void* key, const char* name, unsigned char* data, std::size_t bytes) override;
  void barrier_arrives(unsigned thread, int id, bool whole_block, bool waits, const void* site) override;
  void barrier_completes(int id, bool whole_block, const std::vector<unsigned>& waiting) override;
  void exchange_arrives(unsigned thread, const char* operation, const void* site) override;
  void exchange_completes(unsigned warp, unsigned mask, const char* operation) override;
  void fence(unsigned thread) override;
  void fence_in_block(unsigned thread) override;
  void atomic(unsigned thread, const void* address, std::size_t size, const void* site) override;
  void async_copy_begins(unsigned thread, void* shared, const void* global, int bytes, int valid, const void* site) override;
  void async_copy_lands(unsigned thread, void* shared, int bytes) override;
  std::uint64_t declare(const Buffer& buffer) override { return memory_.declare(buffer); }
  void forget(std::uint64_t handle) override { memory_.forget(handle); }
  void require_written(std::uint64_t handle, const std::string& kernel) override;
  std::string at(const void* site) override;
  bool same_place(const void* site, const void* other) override;
  void begin_comparison(bool record) override;
  Report report(const Launch& launch, const Finding& finding) override;
  std::vector<LaunchCounters> take_counters() override;
  std::vector<Source> sources(const std::vector<const void*>& sites) override;

 private:
  // A store whose value is looked at when the thread does something else: the instrumentation comes before the store.
  struct Store {
    const unsigned char* address = nullptr;
    std::size_t size = 0;
    const void* site = nullptr;
    Region* region = nullptr;
  };
  struct Target {
    const unsigned char* address;
    std::size_t size;
    Region* region;
    const void* site;
  };

  // A store of a run, as another run that differs only in what unset memory holds should make it too.
  struct Record {
    std::size_t region = 0;  // a hash of its name
    std::size_t offset = 0, size = 0;
    std::array<unsigned char, 16> value{};
    bool operator==(const Record&) const = default;
    bool same_place(const Record& other) const { return region == other.region && offset == other.offset && size == other.size; }
  };

  // The region that the access lies in; null for the thread's own locals and the launch's arguments. Ends the launch where it lies in none.
  Region* locate(unsigned thread, const unsigned char* address, std::size_t size, std::size_t alignment, bool write, const void* site);
  void check(unsigned thread, const Target& target, bool write, Stamp::Kind kind);
  void check_one(unsigned thread, const Target& target, bool write, Stamp::Kind kind);
  void count(unsigned thread, const Target& target, Access access);
  void check_value(unsigned thread);
  void compare_store(unsigned thread, const Store& store);
  void report_difference(unsigned thread, const Store& store, bool elsewhere);
  void report_race(unsigned thread, const Target& target, bool write, Stamp::Kind kind, const Stamp& stamp, bool stamp_wrote);
  Cell& cell_at(Region& region, std::size_t index);

  Party party(unsigned thread, const void* site, const char* access) const;
  Party party_of(const Stamp& stamp, const char* access) const;
  // A finding that ends the launch, and one that does not.
  [[noreturn]] void stop(const Finding& finding);
  void note(const Finding& finding);
  void tidy_findings();
  Finding finding(unsigned thread, const char* kind, const Target& target, const char* access) const;

  Memory memory_;
  Ordering ordering_;
  Warps warps_;
  Counters counters_;
  LaunchCounters totals_;
  Launch* launch_ = nullptr;
  std::string last_kernel_;
  bool check_ = true, count_ = false;
  bool reads_huge_values_ = false;
  uint3 block_{};
  std::uint32_t block_serial_ = 0;  // counted from 1
  std::vector<uint3> blocks_;       // by serial - 1
  std::vector<Store> stores_;       // by thread
  std::vector<Target> partial_;     // by thread: its last read of something of which a part was never written
  std::size_t shared_bytes_ = 0;
  const unsigned char *host_stack_begin_ = nullptr, *host_stack_end_ = nullptr;
  std::vector<Finding> findings_;

  Comparison comparison_ = Comparison::kNone;
  std::vector<std::vector<Record>> recorded_;  // by launch
  std::size_t compared_launches_ = 0, compared_stores_ = 0;
  bool out_of_step_ = false;
  const void* difference_site_ = nullptr;  // of the first store that was not the same
};

// The one checker; it is the Observer from when the library is loaded.
Checker& checker();

}  // namespace cnn::emulator
