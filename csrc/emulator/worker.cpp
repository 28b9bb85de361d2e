// The scheduler of one block: fibers, barriers, warp exchanges, and what it says when a kernel does wrong. See worker.h.
#include "emulator/worker.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>

namespace cnn::emulator {

constinit thread_local ThreadView* current = nullptr;
thread_local Worker* active_worker = nullptr;

namespace {

constexpr std::size_t kStackBytes = 128 * 1024;
constexpr std::size_t kStackGuard = 64 * 1024;
// Stacks begin at different offsets within a page, or the tops of all of them would compete for the same few cache sets.
constexpr std::size_t kStackStagger = 5 * 64, kStackStaggerRange = 8192;

unsigned round_up_to_warp(unsigned threads) { return (threads + kWarpSize - 1) / kWarpSize * kWarpSize; }

// One block of every `sample`, at a place of its own in each run of them: tiles that repeat with the same period are all seen.
bool sampled(const Config& config, std::uint64_t index) {
  const auto every = std::uint64_t(config.sample);
  return every <= 1 || index % every == (index / every * 0x9e3779b97f4a7c15ull >> 32) % every;
}

std::string at(const void* site) { return observer ? observer->at(site) : std::string(); }

}  // namespace

std::string sentence(const Launch& launch, const Finding& finding) {
  std::string text = std::string("kernel '") + launch.kernel + "'";
  if (finding.whole_launch) return text + " " + finding.what;
  const uint3 b = finding.party.block, t = finding.party.thread;
  return text + ", block " + coordinates(b.x, b.y, b.z) + ", thread " + coordinates(t.x, t.y, t.z) + at(finding.party.site) + ": " +
         finding.what;
}

Worker::~Worker() {
  for (unsigned char* stack : stacks_) munmap(stack, kStackBytes + kStackGuard);
}

// A fiber lives as long as its worker: it runs the kernel once per block and parks in between.
void Worker::fiber_main(Fiber& fiber) {
  for (;;) {
    try {
      launch_->body.call(launch_->body.closure);
    } catch (const std::exception& error) {
      Finding finding;
      finding.what = error.what();
      finding.party = party(fiber);
      launch_->report(finding);
      stop_block();
    }
    fiber.state = State::kDone;
    idle_turns_ = 0;
    if (observer) observer->thread_ends(fiber.view.linear);
    advance();
  }
}

// makecontext gives the fiber its stack once; every later switch is a _setjmp/_longjmp pair, which saves no signal mask.
void Worker::create_context(Fiber& fiber) {
  const auto index = std::size_t(fiber.view.linear);
  ucontext_t context;
  static thread_local ucontext_t back;
  getcontext(&context);
  context.uc_stack.ss_sp = stacks_[index] + kStackGuard;
  context.uc_stack.ss_size = kStackBytes - index * kStackStagger % kStackStaggerRange;
  context.uc_link = nullptr;
  // The new stack's first act is to come back here, so that its context can be entered by _longjmp from then on.
  struct Start {
    Fiber* fiber;
    ucontext_t* self;
    ucontext_t* back;
  };
  static thread_local Start start;
  start = {&fiber, &context, &back};
  makecontext(&context, reinterpret_cast<void (*)()>(+[] {
    const Start mine = start;
    if (_setjmp(mine.fiber->context) == 0) swapcontext(mine.self, mine.back);
    mine.fiber->worker->fiber_main(*mine.fiber);
  }),
              0);
  swapcontext(&back, &context);
}

void Worker::reserve_fibers(unsigned count) {
  const bool recreate = contexts_lost_;
  contexts_lost_ = false;
  if (recreate)
    for (auto& fiber : fibers_) create_context(*fiber);
  while (fibers_.size() < count) {
    void* stack = mmap(nullptr, kStackBytes + kStackGuard, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) throw std::bad_alloc();
    mprotect(stack, kStackGuard, PROT_NONE);
    stacks_.push_back(static_cast<unsigned char*>(stack));
    fibers_.push_back(std::make_unique<Fiber>());
    fibers_.back()->worker = this;
    fibers_.back()->view.linear = unsigned(fibers_.size() - 1);
    create_context(*fibers_.back());
  }
}

void Worker::run(Launch& launch) {
  launch_ = &launch;
  try {
    reserve_fibers(launch.threads_per_block);
  } catch (const std::exception& error) {
    Finding finding;
    finding.what = "cannot be launched: no memory for its fibers";
    finding.whole_launch = true;
    launch.report(finding);
    return;
  }
  warps_.resize((launch.threads_per_block + kWarpSize - 1) / kWarpSize);
  order_.resize(launch.threads_per_block);
  const dim3 block = launch.block;
  for (unsigned i = 0; i < launch.threads_per_block; ++i) {
    order_[i] = launch.config.schedule == Schedule::kReverse ? launch.threads_per_block - 1 - i : i;
    ThreadView& view = fibers_[i]->view;
    view.thread_idx = {i % block.x, i / block.x % block.y, i / block.x / block.y};
    view.block_dim = block;
    view.grid_dim = launch.grid;
  }

  Worker* outer = active_worker;
  active_worker = this;
  while (!launch.failed.load(std::memory_order_relaxed)) {
    const std::uint64_t taken = launch.next_block.fetch_add(1, std::memory_order_relaxed);
    if (taken >= launch.blocks) break;
    std::uint64_t index = taken;
    if (launch.config.schedule == Schedule::kReverse) index = launch.blocks - 1 - taken;
    if (!launch.block_order.empty()) index = launch.block_order[taken];
    if (!sampled(launch.config, index)) continue;
    run_block(index);
  }
  active_worker = outer;
}

void Worker::run_block(std::uint64_t index) {
  const dim3 grid = launch_->grid;
  const bool random = launch_->config.schedule == Schedule::kRandom;
  const uint3 block_idx{unsigned(index % grid.x), unsigned(index / grid.x % grid.y), unsigned(index / grid.x / grid.y)};
  // By block, not by worker: the same seed gives the same order on any number of OS threads.
  if (random) random_.seed(launch_->config.seed ^ (index * 0x9e3779b97f4a7c15ull + 1));
  // An array can lie flush against one guard only: neighbouring blocks and opposite schedules take turns.
  const std::uint64_t turn = index + (random ? launch_->config.seed : launch_->config.schedule == Schedule::kReverse);
  shared_.begin_block(turn % 2 ? GuardSide::kBefore : GuardSide::kAfter, kSharedPoison[launch_->config.comparison == Comparison::kCompare]);
  barriers_.fill({});
  predicate_count_ = 0;
  idle_turns_ = 0;
  for (Warp& warp : warps_)
    for (Exchange& exchange : warp.exchanges) exchange.arrived = 0;
  for (unsigned i = 0; i < launch_->threads_per_block; ++i) {
    fibers_[i]->view.block_idx = block_idx;
    fibers_[i]->state = State::kReady;
    fibers_[i]->async_groups.clear();
    fibers_[i]->async_open.clear();
    fibers_[i]->polled = nullptr;
    fibers_[i]->polls = 0;
  }
  running_ = nullptr;
  if (observer) observer->block_begins(index, block_idx);
  if (_setjmp(scheduler_) == 0) {
    start_pass();
    advance();
  }
  current = nullptr;
  if (launch_->failed.load(std::memory_order_relaxed)) {
    contexts_lost_ = true;
    return;
  }
  if (observer) observer->block_ends();
  if (const char* name = shared_.overwritten()) {
    Finding finding;
    finding.kind = "out of bounds";
    finding.place = std::string("next to '") + name + "'";
    finding.what =
        "block " + coordinates(block_idx.x, block_idx.y, block_idx.z) + ": out-of-range shared memory write next to '" + name + "'";
    finding.party.block = block_idx;
    finding.whole_launch = true;
    launch_->report(finding);
  }
}

void Worker::start_pass() {
  position_ = 0;
  if (launch_->config.schedule == Schedule::kRandom) std::shuffle(order_.begin(), order_.end(), random_);
}

// Leaves the running fiber (if any) where it stands and continues the next ready one; returns when it is this one's turn.
void Worker::advance() {
  Fiber* next = nullptr;
  for (int pass = 0; pass < 2 && !next; ++pass) {
    while (position_ < order_.size() && !next) {
      Fiber& fiber = *fibers_[order_[position_++]];
      if (fiber.state == State::kReady) next = &fiber;
    }
    if (!next) start_pass();
  }
  if (!next) {
    const bool all_done = std::all_of(order_.begin(), order_.end(), [&](unsigned i) { return fibers_[i]->state == State::kDone; });
    if (!all_done) {
      launch_->report(describe_deadlock());
      stop_block();
    }
    // Park this fiber in its loop: the next block re-enters it here.
    if (_setjmp(running_->context) == 0) _longjmp(scheduler_, 1);
    return;
  }
  if (next == running_) return;
  Fiber* previous = running_;
  running_ = next;
  current = &next->view;
  if (!previous || _setjmp(previous->context) == 0) _longjmp(next->context, 1);
}

void Worker::stop_block() { _longjmp(scheduler_, 1); }

void Worker::yield() {
  // Still ready, but after everyone else of this pass.
  advance();
}

void Worker::poll(const void* address, const void* site) {
  constexpr unsigned kPolls = 64;           // a turn's
  constexpr unsigned kIdleTurns = 1 << 17;  // more than counters that all threads of a block update need
  Fiber& fiber = *running_;
  fiber.polls = fiber.polled == address ? fiber.polls + 1 : 0;
  fiber.polled = address;
  if (fiber.polls < kPolls) return;
  fiber.polls = 0;
  if (++idle_turns_ > kIdleTurns) {
    // Blocks of one OS thread run one after the other; on a GPU, too, only a cooperative launch has them all at once.
    abandon("other", "waits without end for another value at an address that no thread of its block changes", site);
  }
  yield();
}

const unsigned char* Worker::stack_begin(unsigned thread) const { return stacks_[thread] + kStackGuard; }
const unsigned char* Worker::stack_end(unsigned thread) const { return stacks_[thread] + kStackGuard + kStackBytes; }

Party Worker::party(const Fiber& fiber) const {
  Party party;
  party.block = fiber.view.block_idx;
  party.thread = fiber.view.thread_idx;
  party.site = fiber.site;
  return party;
}

void Worker::abandon(const Finding& finding) {
  launch_->report(finding);
  stop_block();
  __builtin_unreachable();
}

void Worker::abandon(const char* kind, const std::string& what, const void* site) {
  Finding finding;
  finding.kind = kind;
  finding.what = what;
  finding.party = party(*running_);
  finding.party.site = site;
  abandon(finding);
}

void Worker::abandon_after_fault(bool misaligned, const void* address, const void* site) {
  if (misaligned) abandon("misaligned access", "misaligned vector access, or an address that no memory has", site);
  const auto* byte = static_cast<const unsigned char*>(address);
  const unsigned char* stack = stacks_[running_->view.linear];
  if (byte >= stack && byte < stack + kStackGuard) abandon("other", "stack overflow", site);
  std::string what = shared_.describe(address);
  if (what.empty()) {
    char text[32];
    snprintf(text, sizeof text, "%p", address);
    what = std::string("invalid memory access at ") + text;
  }
  abandon("out of bounds", what, site);
}

Finding Worker::describe_deadlock() const {
  // A lane that waits for others of its warp says more than the barrier at which these wait.
  const Fiber* waiting = nullptr;
  for (State state : {State::kAtExchange, State::kAtBarrier})
    for (unsigned i = 0; i < launch_->threads_per_block && !waiting; ++i)
      if (fibers_[i]->state == state) waiting = fibers_[i].get();
  Finding finding;
  finding.party = party(*waiting);
  if (waiting->state == State::kAtBarrier) {
    const Barrier& barrier = barriers_[std::size_t(waiting->barrier)];
    finding.kind = "divergent barrier";
    finding.what = "divergent barrier: barrier " + std::to_string(waiting->barrier) + " was reached by " + std::to_string(barrier.arrived) +
                   " of " + std::to_string(barrier.expected) + " threads";
  } else {
    finding.kind = "warp operation";
    finding.what = std::string("divergent warp operation: ") + waiting->operation + " waits for lanes that never call it";
  }
  // The first thread that is not waiting at the same place says most about why.
  for (unsigned i = 0; i < launch_->threads_per_block; ++i) {
    const Fiber& other = *fibers_[i];
    const bool same_place =
        other.state == waiting->state &&
        (other.state == State::kAtBarrier ? other.barrier == waiting->barrier
                                          : other.mask == waiting->mask && i / kWarpSize == waiting->view.linear / kWarpSize);
    if (same_place) continue;
    if (waiting->state == State::kAtExchange && i / kWarpSize != waiting->view.linear / kWarpSize) continue;
    const uint3 t = other.view.thread_idx;
    finding.what += "; thread " + coordinates(t.x, t.y, t.z);
    if (other.state == State::kDone) finding.what += " has returned";
    if (other.state == State::kAtBarrier) finding.what += " waits at barrier " + std::to_string(other.barrier);
    if (other.state == State::kAtExchange) finding.what += std::string(" waits in ") + other.operation;
    if (other.state != State::kDone) {
      finding.what += at(other.site);
      finding.has_other = true;
      finding.other = party(other);
    }
    break;
  }
  return finding;
}

Barrier& Worker::arrive(int id, int count, const void* site) {
  const auto refuse = [&](const std::string& what) { abandon("divergent barrier", "barrier " + std::to_string(id) + what, site); };
  if (id < 0 || id >= kNamedBarriers) refuse(" does not exist: there are " + std::to_string(kNamedBarriers));
  const bool whole_block = count < 0;
  const int expected = whole_block ? int(launch_->threads_per_block) : count;
  if (!whole_block && (count == 0 || count % kWarpSize != 0 || unsigned(count) > round_up_to_warp(launch_->threads_per_block)))
    refuse(": a thread count of " + std::to_string(count) + " is not a multiple of the warp size within the block");
  Barrier& barrier = barriers_[std::size_t(id)];
  if (barrier.arrived > 0 && barrier.expected != expected)
    refuse(" is used with " + std::to_string(expected) + " threads while others wait at it for " + std::to_string(barrier.expected));
  // __syncthreads() in two branches may work on a GPU, but is undefined: all threads must meet at one.
  if (whole_block && barrier.arrived > 0 && barrier.site != site && observer && !observer->same_place(site, barrier.site)) {
    Finding finding;
    finding.kind = "divergent barrier";
    finding.what = "divergent barrier: a block's threads must all meet at the same __syncthreads(), and others wait" + at(barrier.site);
    finding.party = party(*running_);
    finding.party.site = site;
    finding.has_other = true;
    for (const auto& fiber : fibers_)
      if (fiber->state == State::kAtBarrier && fiber->site == barrier.site) finding.other = party(*fiber);
    abandon(finding);
  }
  barrier.expected = expected;
  barrier.site = site;
  ++barrier.arrived;
  return barrier;
}

void Worker::release_barrier(int id, bool whole_block) {
  if (observer) {
    std::vector<unsigned> waiting;
    for (unsigned i = 0; i < launch_->threads_per_block; ++i)
      if (fibers_[i]->state == State::kAtBarrier && fibers_[i]->barrier == id) waiting.push_back(i);
    observer->barrier_completes(id, whole_block, waiting);
  }
  barriers_[std::size_t(id)] = {};
  idle_turns_ = 0;
  for (unsigned i = 0; i < launch_->threads_per_block; ++i) {
    Fiber& fiber = *fibers_[i];
    if (fiber.state == State::kAtBarrier && fiber.barrier == id) fiber.state = State::kReady;
  }
  if (id == 0) {
    predicate_result_ = predicate_count_;
    predicate_count_ = 0;
  }
  start_pass();
}

// The last thread to arrive also goes back to the end of the queue, so that the order after a barrier is the schedule's.
void Worker::wait_at_barrier(int id, int count, const void* site) {
  const Barrier& barrier = arrive(id, count, site);
  running_->state = State::kAtBarrier;
  running_->barrier = id;
  running_->site = site;
  if (observer) observer->barrier_arrives(running_->view.linear, id, count < 0, true, site);
  if (barrier.arrived == barrier.expected) release_barrier(id, count < 0);
  advance();
}

void Worker::arrive_at_barrier(int id, int count, const void* site) {
  const Barrier& barrier = arrive(id, count, site);
  if (observer) observer->barrier_arrives(running_->view.linear, id, count < 0, false, site);
  if (barrier.arrived == barrier.expected) release_barrier(id, count < 0);
}

int Worker::count_at_barrier(bool predicate, const void* site) {
  predicate_count_ += predicate;
  wait_at_barrier(0, -1, site);
  return predicate_result_;
}

const std::uint64_t* Worker::exchange(const char* operation, unsigned mask, std::uint64_t value, const void* site, Compute compute) {
  Fiber& fiber = *running_;
  const unsigned lane = fiber.view.linear % kWarpSize;
  const unsigned warp_index = fiber.view.linear / kWarpSize;
  const auto refuse = [&](const std::string& what) { abandon("warp operation", operation + what, site); };
  if (!(mask >> lane & 1u)) refuse(": the calling lane " + std::to_string(lane) + " is not in its own mask");
  // The programming guide asks for the lanes that have not returned. But a lane that skips the operation and returns is the commonest way
  // to call it with a wrong mask, so one that is named has to be there.
  for (unsigned other = 0; other < kWarpSize; ++other)
    if ((mask & existing_lanes(warp_index)) >> other & 1u && fibers_[warp_index * kWarpSize + other]->state == State::kDone)
      refuse(": its mask names lane " + std::to_string(other) + ", which has returned");
  Exchange* exchange = nullptr;
  for (Exchange& other : warps_[warp_index].exchanges) {
    if (!other.arrived) {
      if (!exchange) exchange = &other;
    } else if (other.mask == mask && std::strcmp(other.operation, operation) == 0) {
      exchange = &other;
      break;
    } else if ((other.arrived & mask) && (other.mask >> lane & 1u)) {
      // They wait for this lane and it for them, elsewhere. Lanes of the mask that wait without it will come later.
      refuse(std::string(": mask does not agree with other lanes of the warp, which wait in ") + other.operation);
    }
  }
  if (!exchange->arrived) {
    exchange->mask = mask;
    exchange->operation = operation;
  }
  exchange->arrived |= 1u << lane;
  exchange->given[lane] = value;
  fiber.site = site;
  if (observer) observer->exchange_arrives(fiber.view.linear, operation, site);
  if (exchange->arrived != (mask & existing_lanes(warp_index))) {
    fiber.state = State::kAtExchange;
    fiber.operation = operation;
    fiber.mask = mask;
    advance();
  } else {
    release_exchange(warp_index, *exchange, compute);
  }
  return fiber.received.data();
}

void Worker::compute(const char* operation, void* registers, Compute compute, const void* site) {
  const unsigned warp = running_->view.linear / kWarpSize;
  if (existing_lanes(warp) != ~0u) abandon("warp operation", std::string(operation) + ": the warp has not 32 lanes", site);
  exchange(operation, ~0u, std::uint64_t(reinterpret_cast<std::uintptr_t>(registers)), site, compute);
}

// A warp of a block whose threads are no multiple of 32 has fewer.
unsigned Worker::existing_lanes(unsigned warp) const {
  const unsigned lanes = std::min<unsigned>(kWarpSize, launch_->threads_per_block - warp * kWarpSize);
  return ~0u >> (kWarpSize - lanes);
}

void Worker::release_exchange(unsigned warp, Exchange& exchange, Compute compute) {
  const unsigned arrived = exchange.arrived;
  if (compute) {
    std::array<void*, kWarpSize> lanes;
    for (unsigned lane = 0; lane < kWarpSize; ++lane) lanes[lane] = reinterpret_cast<void*>(std::uintptr_t(exchange.given[lane]));
    compute(lanes.data());
  }
  exchange.arrived = 0;
  idle_turns_ = 0;
  if (observer) observer->exchange_completes(warp, arrived, exchange.operation);
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if (!(arrived >> lane & 1u)) continue;
    Fiber& fiber = *fibers_[warp * kWarpSize + lane];
    std::copy(exchange.given.begin(), exchange.given.end(), fiber.received.begin());
    fiber.received[kGiven] = arrived;
    fiber.state = State::kReady;
  }
}

void* Worker::shared(const SharedSite* site) {
  auto* const data = static_cast<unsigned char*>(shared_.array(site, site->name, site->bytes));
  const std::size_t dynamic = launch_->dynamic_shared_bytes;
  const std::size_t fixed = shared_.bytes_in_use() - (shared_.holds(this) ? dynamic : 0);
  if (fixed > kMaxStaticShared) abandon("launch", "static shared memory over 48 KiB: " + std::to_string(fixed) + " bytes", nullptr);
  if (fixed + dynamic > kMaxShared)
    abandon("launch", "shared memory over 227 KiB: " + std::to_string(fixed) + " bytes beside " + std::to_string(dynamic) + " dynamic ones",
            nullptr);
  if (observer) observer->shared_array(site, site->name, data, site->bytes);
  return data;
}

void* Worker::dynamic_shared() {
  constexpr const char* kName = "dynamic shared memory";
  auto* const data = static_cast<unsigned char*>(shared_.array(this, kName, launch_->dynamic_shared_bytes));
  if (observer) observer->shared_array(this, kName, data, launch_->dynamic_shared_bytes);
  return data;
}

void Worker::copy_async(void* shared, const void* global, int bytes, int valid, const void* site) {
  if (valid < 0 || valid > bytes)
    abandon("async copy", "copy_async of " + std::to_string(valid) + " of " + std::to_string(bytes) + " bytes", site);
  if (observer) observer->async_copy_begins(running_->view.linear, shared, global, bytes, valid, site);
  running_->async_open.push_back({static_cast<unsigned char*>(shared), static_cast<const unsigned char*>(global), bytes, valid});
}

void Worker::commit_async() {
  running_->async_groups.push_back(std::move(running_->async_open));
  running_->async_open.clear();
}

void Worker::wait_async(int groups) {
  auto& pending = running_->async_groups;
  const std::size_t landing = pending.size() - std::min(pending.size(), std::size_t(groups));
  for (std::size_t i = 0; i < landing; ++i) {
    for (const AsyncCopy& copy : pending[i]) {
      std::memcpy(copy.shared, copy.global, std::size_t(copy.valid));
      std::memset(copy.shared + copy.valid, 0, std::size_t(copy.bytes - copy.valid));
      if (observer) observer->async_copy_lands(running_->view.linear, copy.shared, copy.bytes);
    }
  }
  pending.erase(pending.begin(), pending.begin() + std::ptrdiff_t(landing));
}

}  // namespace cnn::emulator
