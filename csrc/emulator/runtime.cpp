// Launches: the checks before one, the workers that share its blocks, and the signals that a faulty kernel raises.
#include "emulator/runtime.h"

#include <pthread.h>
#include <signal.h>
#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "emulator/worker.h"

namespace cnn::emulator {

Observer* observer = nullptr;

namespace {

// Threads in the whole grid below which one OS thread runs them all. Measured on two cores: starting and joining another costs some
// 0.06 ms, 4096 emulated threads with one barrier 0.27 ms.
constexpr unsigned kSmallLaunch = 4096;

// Faults in kernel code. The handlers are installed while at least one launch runs, and pass everything else on.
struct sigaction outer_handlers[2];
const int kFaultSignals[2] = {SIGSEGV, SIGBUS};
std::mutex handlers_mutex;
int handlers_users = 0;

void on_fault(int signal, siginfo_t* info, void* context) {
  if (active_worker && current) {
    const auto* machine = static_cast<const ucontext_t*>(context);
#if defined(__x86_64__)
    const auto at = std::uintptr_t(machine->uc_mcontext.gregs[REG_RIP]) + 1;  // sites are return addresses: one past
#else
    const std::uintptr_t at = 0;
    (void)machine;
#endif
    // The processor does not tell the address of an aligned move that is not.
    const bool misaligned = signal == SIGBUS ? info->si_code == BUS_ADRALN : info->si_code == SI_KERNEL;
    active_worker->abandon_after_fault(misaligned, info->si_addr, reinterpret_cast<const void*>(at));
  }
  const struct sigaction& outer = outer_handlers[signal == SIGBUS];
  if (outer.sa_flags & SA_SIGINFO) {
    outer.sa_sigaction(signal, info, context);
  } else if (outer.sa_handler != SIG_DFL && outer.sa_handler != SIG_IGN) {
    outer.sa_handler(signal);
  } else {
    ::signal(signal, SIG_DFL);  // returning re-executes the faulting instruction under the default action
  }
}

class FaultHandlers {
 public:
  FaultHandlers() {
    std::lock_guard<std::mutex> lock(handlers_mutex);
    if (handlers_users++ > 0) return;
    struct sigaction action{};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (int i = 0; i < 2; ++i) sigaction(kFaultSignals[i], &action, &outer_handlers[i]);
  }
  ~FaultHandlers() {
    std::lock_guard<std::mutex> lock(handlers_mutex);
    if (--handlers_users > 0) return;
    for (int i = 0; i < 2; ++i) sigaction(kFaultSignals[i], &outer_handlers[i], nullptr);
  }
};

// The handler needs a stack of its own: the fault may be the overflow of the fiber's.
class SignalStack {
 public:
  SignalStack() {
    stack_t mine{};
    mine.ss_sp = memory_;
    mine.ss_size = sizeof memory_;
    sigaltstack(&mine, &outer_);
  }
  ~SignalStack() { sigaltstack(&outer_, nullptr); }

 private:
  stack_t outer_{};
  alignas(16) unsigned char memory_[64 * 1024];
};

// Workers outlive launches, so that a launch finds its fibers' stacks made.
std::mutex workers_mutex;
std::vector<std::unique_ptr<Worker>>& idle_workers() {
  static auto* workers = new std::vector<std::unique_ptr<Worker>>();  // never destroyed: threads may outlive static objects
  return *workers;
}

void run_worker(Launch& launch) {
  std::unique_ptr<Worker> worker;
  {
    std::lock_guard<std::mutex> lock(workers_mutex);
    if (!idle_workers().empty()) {
      worker = std::move(idle_workers().back());
      idle_workers().pop_back();
    }
  }
  if (!worker) worker = std::make_unique<Worker>();
  {
    SignalStack stack;
    worker->run(launch);
  }
  std::lock_guard<std::mutex> lock(workers_mutex);
  idle_workers().push_back(std::move(worker));
}

std::mutex config_mutex;
Config global_config;

// What launches have reported, for whoever asks.
std::mutex reports_mutex;
std::vector<Report> reports;

// A child of fork() has only the forking thread: the locks must be free in it.
const int fork_handlers = pthread_atfork(
    [] {
      reports_mutex.lock();
      config_mutex.lock();
      workers_mutex.lock();
      handlers_mutex.lock();
    },
    [] {
      handlers_mutex.unlock();
      workers_mutex.unlock();
      config_mutex.unlock();
      reports_mutex.unlock();
    },
    [] {
      handlers_mutex.unlock();
      workers_mutex.unlock();
      config_mutex.unlock();
      reports_mutex.unlock();
    });

// Why the launch is illegal, or nothing.
std::string why_illegal(const Launch& launch) {
  if (launch.blocks == 0 || launch.threads_per_block == 0) return "empty grid or block";
  if (launch.threads_per_block > kMaxThreadsPerBlock || launch.block.z > 64)
    return "block " + coordinates(launch.block.x, launch.block.y, launch.block.z) + " is over 1024 threads or 64 in z";
  if (launch.grid.x > 0x7fffffffu || launch.grid.y > kMaxGridYZ || launch.grid.z > kMaxGridYZ)
    return "grid " + coordinates(launch.grid.x, launch.grid.y, launch.grid.z) + " is over (2147483647,65535,65535)";
  if (launch.dynamic_shared_bytes > kMaxShared) return "dynamic shared memory over 227 KiB";
  return {};
}

}  // namespace

Config config() {
  std::lock_guard<std::mutex> lock(config_mutex);
  return global_config;
}

void configure(const Config& config) {
  std::lock_guard<std::mutex> lock(config_mutex);
  global_config = config;
}

void fail_launch(const Launch& launch) {
  std::string text;
  std::lock_guard<std::mutex> lock(reports_mutex);
  for (const Finding& finding : launch.findings) {
    Report report;
    if (observer) report = observer->report(launch, finding);
    else report.finding = finding, report.kernel = launch.kernel, report.text = sentence(launch, finding);
    if (text.empty()) text = report.text;
    if (reports.size() == kMaxReports) reports.erase(reports.begin());
    reports.push_back(report);
  }
  if (launch.findings.size() > 1) text += "; and " + std::to_string(launch.findings.size() - 1) + " more";
  throw KernelError(text);
}

std::vector<Report> take_reports() {
  std::lock_guard<std::mutex> lock(reports_mutex);
  return std::exchange(reports, {});
}

void launch(const char* kernel, dim3 grid, dim3 block, std::size_t dynamic_shared_bytes, Body body, const void* function) {
  if (active_worker) throw KernelError("a kernel cannot launch a kernel here");
  Launch launch;
  launch.kernel = kernel;
  launch.grid = grid;
  launch.block = block;
  launch.dynamic_shared_bytes = dynamic_shared_bytes;
  launch.body = body;
  launch.function = function;
  launch.config = config();
  launch.threads_per_block = block.x * block.y * block.z;
  launch.blocks = std::uint64_t(grid.x) * grid.y * grid.z;
  if (const std::string why = why_illegal(launch); !why.empty()) {
    Finding finding;
    finding.kind = "launch";
    finding.what = "cannot be launched: " + why;
    finding.whole_launch = true;
    launch.report(finding);
    fail_launch(launch);
  }
  if (launch.config.schedule == Schedule::kRandom) {
    launch.block_order.resize(launch.blocks);
    for (std::uint64_t i = 0; i < launch.blocks; ++i) launch.block_order[i] = i;
    std::shuffle(launch.block_order.begin(), launch.block_order.end(), std::mt19937_64(launch.config.seed));
  }
  unsigned os_threads = unsigned(std::max(launch.config.threads, 0));
  if (os_threads == 0)
    os_threads = launch.blocks * launch.threads_per_block < kSmallLaunch ? 1 : std::max(1u, std::thread::hardware_concurrency());
  os_threads = unsigned(std::min<std::uint64_t>(os_threads, launch.blocks));
  if (observer) os_threads = 1;  // what is watched is one sequence of events

  {
    FaultHandlers handlers;
    std::vector<std::thread> helpers;
    if (observer) observer->launch_begins(launch);
    for (unsigned i = 1; i < os_threads; ++i) helpers.emplace_back([&launch] { run_worker(launch); });
    run_worker(launch);
    for (std::thread& helper : helpers) helper.join();
    if (observer) observer->launch_ends(launch);
  }
  if (!launch.findings.empty()) fail_launch(launch);
}

void* static_shared(const SharedSite* site) { return active_worker->shared(site); }
void* dynamic_shared() { return active_worker->dynamic_shared(); }
// Called from kernel code only, so the return address says where.
#define CNN_SITE __builtin_return_address(0)
void barrier(int id, int count) { active_worker->wait_at_barrier(id, count, CNN_SITE); }
void barrier_arrive(int id, int count) { active_worker->arrive_at_barrier(id, count, CNN_SITE); }
int barrier_count(bool predicate) { return active_worker->count_at_barrier(predicate, CNN_SITE); }
const std::uint64_t* warp_exchange(const char* operation, unsigned mask, std::uint64_t value) {
  return active_worker->exchange(operation, mask, value, CNN_SITE);
}
void copy_async(void* shared, const void* global, int bytes, int valid) {
  active_worker->copy_async(shared, global, bytes, valid, CNN_SITE);
}
void commit_async() { active_worker->commit_async(); }
void wait_async(int groups) { active_worker->wait_async(groups); }
std::uint32_t poison() { return kTensorPoison[config().comparison == Comparison::kCompare]; }
void fence_in_block() {
  if (observer) observer->fence_in_block(current->linear);
}
void fence() {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (observer) observer->fence(current->linear);
}
void note_atomic(const void* address, std::size_t size) {
  active_worker->poll(address, CNN_SITE);
  if (observer) observer->atomic(current->linear, address, size, CNN_SITE);
}
void fail(const char* what) { active_worker->abandon("other", what, CNN_SITE); }
void fail_outside_mask(const char* operation, unsigned lane) {
  active_worker->abandon("warp operation",
                         std::string(operation) + " reads lane " + std::to_string(lane) + ", which is not in its mask or does not exist",
                         CNN_SITE);
}
#undef CNN_SITE

uint3 thread_index() { return current->thread_idx; }
uint3 block_index() { return current->block_idx; }
uint3 block_dimensions() { return {current->block_dim.x, current->block_dim.y, current->block_dim.z}; }
uint3 grid_dimensions() { return {current->grid_dim.x, current->grid_dim.y, current->grid_dim.z}; }
unsigned linear_thread() { return current->linear; }
#if defined(CNN_EMULATOR_CHECKED)
std::uint64_t exchanged(const std::uint64_t* slots, unsigned lane) { return slots[lane]; }
#endif

Declared::Declared(const Buffer& buffer) {
  if (observer) handle_ = observer->declare(buffer);
}
Declared::~Declared() {
  if (observer) observer->forget(handle_);
}
void Declared::require_written(const std::string& kernel) const {
  if (observer) observer->require_written(handle_, kernel);
}

}  // namespace cnn::emulator
