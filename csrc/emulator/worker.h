// One OS thread's share of a launch: the fibers of one block at a time, and the scheduler that runs them.
//
// Control flow. run_block() switches to the first fiber of the schedule; every fiber that must wait (or has finished) calls
// Worker::advance(), which switches straight to the next ready fiber, and back to run_block() when all have finished or
// none can go on. The scheduler is never preempted, so nothing inside a block needs a lock.
#pragma once

#include <setjmp.h>

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "emulator/runtime.h"
#include "emulator/shared_memory.h"

namespace cnn::emulator {

constexpr int kNamedBarriers = 16;  // PTX: 16 barrier resources per block

// What memory holds that nobody has written, in the first run of a comparison (and wherever nothing is compared) and in the second:
// every byte of shared memory, and every four bytes of a trial's tensors (poison()).
constexpr unsigned char kSharedPoison[2] = {0xff, 0x3c};
constexpr std::uint32_t kTensorPoison[2] = {0xfff5d1a7u, 0x3fa9d1a7u};

inline std::string coordinates(unsigned x, unsigned y, unsigned z) {
  return "(" + std::to_string(x) + "," + std::to_string(y) + "," + std::to_string(z) + ")";
}

// What the workers of a launch share.
struct Launch {
  const char* kernel = nullptr;
  dim3 grid, block;
  std::size_t dynamic_shared_bytes = 0;
  Body body{};
  const void* function = nullptr;  // the kernel's
  Config config;
  unsigned threads_per_block = 0;
  std::uint64_t blocks = 0;
  std::vector<std::uint64_t> block_order;  // empty: in order
  std::atomic<std::uint64_t> next_block{0};
  std::atomic<bool> failed{false};  // no further block is begun
  std::mutex findings_mutex;
  std::vector<Finding> findings;

  // Ends the launch; the first to say so is heard.
  void report(const Finding& finding) {
    std::lock_guard<std::mutex> lock(findings_mutex);
    if (!failed.exchange(true)) findings.push_back(finding);
  }
};

// Keeps the findings for take_reports() and throws them as one error.
[[noreturn]] void fail_launch(const Launch& launch);

// "kernel 'k', block (0,0,0), thread (3,0,0) at gather.cuh:120: what it did".
std::string sentence(const Launch& launch, const Finding& finding);

// A copy to shared memory that is on its way.
struct AsyncCopy {
  unsigned char* shared;
  const unsigned char* global;
  int bytes, valid;
};

enum class State { kReady, kAtBarrier, kAtExchange, kDone };

class Worker;

struct Fiber {
  ThreadView view;  // first member: `current` points here
  State state = State::kDone;
  int barrier = 0;
  const char* operation = "";  // of the warp exchange it waits at
  unsigned mask = 0;
  const void* site = nullptr;  // where it waits
  std::array<std::uint64_t, kWarpSize + 1> received;
  std::vector<std::vector<AsyncCopy>> async_groups;  // oldest first
  std::vector<AsyncCopy> async_open;                 // not committed yet
  const void* polled = nullptr;
  unsigned polls = 0;  // of the same address, one after the other
  jmp_buf context;
  Worker* worker = nullptr;
};

struct Barrier {
  int arrived = 0;
  int expected = 0;
  const void* site = nullptr;  // of the first to arrive
};

// Lanes that wait for one another.
struct Exchange {
  unsigned mask = 0;
  unsigned arrived = 0;
  const char* operation = nullptr;
  std::array<std::uint64_t, kWarpSize> given;
};
struct Warp {
  std::array<Exchange, kWarpSize> exchanges;
};

// What a warp computes together, given the registers of its 32 lanes.
using Compute = void (*)(void* const* lanes);

class Worker {
 public:
  ~Worker();
  void run(Launch& launch);

  void wait_at_barrier(int id, int count, const void* site);
  void arrive_at_barrier(int id, int count, const void* site);
  int count_at_barrier(bool predicate, const void* site);
  const std::uint64_t* exchange(const char* operation, unsigned mask, std::uint64_t value, const void* site, Compute compute = nullptr);
  // The lanes of a whole warp give their registers, and the last of them computes what becomes of all.
  void compute(const char* operation, void* registers, Compute compute, const void* site);
  void* shared(const SharedSite* site);
  void* dynamic_shared();
  void copy_async(void* shared, const void* global, int bytes, int valid, const void* site);
  void commit_async();
  void wait_async(int groups);
  // Lets the other threads go first.
  void yield();
  // The running thread asks what is at `address`. If it does so again and again it waits for another thread: then that one may run.
  void poll(const void* address, const void* site);
  [[noreturn]] void abandon(const char* kind, const std::string& what, const void* site);
  [[noreturn]] void abandon(const Finding& finding);
  [[noreturn]] void abandon_after_fault(bool misaligned, const void* address, const void* site);

  // The memory of a thread's own stack; what lies outside it is not the thread's.
  const unsigned char* stack_begin(unsigned thread) const;
  const unsigned char* stack_end(unsigned thread) const;
  uint3 thread_index(unsigned thread) const { return fibers_[thread]->view.thread_idx; }
  // A sentence about an address next to a shared array, or nothing.
  std::string describe_shared(const void* address) const { return shared_.describe(address); }

 private:
  void fiber_main(Fiber& fiber);
  void reserve_fibers(unsigned count);
  void create_context(Fiber& fiber);
  void run_block(std::uint64_t index);
  void start_pass();
  void advance();
  void stop_block();
  void release_barrier(int id, bool whole_block);
  unsigned existing_lanes(unsigned warp) const;
  void release_exchange(unsigned warp, Exchange& exchange, Compute compute);
  Barrier& arrive(int id, int count, const void* site);
  Party party(const Fiber& fiber) const;
  Finding describe_deadlock() const;

  Launch* launch_ = nullptr;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<unsigned char*> stacks_;  // kStackGuard inaccessible bytes, then kStackBytes
  std::vector<unsigned> order_;
  std::size_t position_ = 0;
  Fiber* running_ = nullptr;
  std::array<Barrier, kNamedBarriers> barriers_;
  int predicate_count_ = 0, predicate_result_ = 0;
  unsigned idle_turns_ = 0;  // given up by polling threads since any thread got anywhere
  std::vector<Warp> warps_;
  SharedMemory shared_;
  std::mt19937_64 random_;
  jmp_buf scheduler_;
  bool contexts_lost_ = false;  // a block was abandoned: its fibers stand in the middle of the kernel
};

// The worker that runs on this OS thread; null outside kernels.
extern thread_local Worker* active_worker;

}  // namespace cnn::emulator
