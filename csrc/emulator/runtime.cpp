// Launches: the checks before one, the workers that share its blocks, and the signals that a faulty kernel raises.
#include "emulator/runtime.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "emulator/worker.h"

namespace cnn::emulator {
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
  if (active_worker && current) active_worker->abandon_after_fault(info->si_addr);
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

// A child of fork() has only the forking thread: the locks must be free in it.
const int fork_handlers = pthread_atfork(
    [] {
      config_mutex.lock();
      workers_mutex.lock();
      handlers_mutex.lock();
    },
    [] {
      handlers_mutex.unlock();
      workers_mutex.unlock();
      config_mutex.unlock();
    },
    [] {
      handlers_mutex.unlock();
      workers_mutex.unlock();
      config_mutex.unlock();
    });

void check_launch(const Launch& launch) {
  const auto refuse = [&](const std::string& why) {
    throw KernelError(std::string("kernel '") + launch.kernel + "' cannot be launched: " + why);
  };
  if (launch.blocks == 0 || launch.threads_per_block == 0) refuse("empty grid or block");
  if (launch.threads_per_block > kMaxThreadsPerBlock || launch.block.z > 64)
    refuse("block " + coordinates(launch.block.x, launch.block.y, launch.block.z) + " is over 1024 threads or 64 in z");
  if (launch.grid.x > 0x7fffffffu || launch.grid.y > kMaxGridYZ || launch.grid.z > kMaxGridYZ)
    refuse("grid " + coordinates(launch.grid.x, launch.grid.y, launch.grid.z) + " is over (2147483647,65535,65535)");
  if (launch.dynamic_shared_bytes > kMaxShared) refuse("dynamic shared memory over 227 KiB");
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

void launch(const char* kernel, dim3 grid, dim3 block, std::size_t dynamic_shared_bytes, Body body) {
  if (active_worker) throw KernelError("a kernel cannot launch a kernel here");
  Launch launch;
  launch.kernel = kernel;
  launch.grid = grid;
  launch.block = block;
  launch.dynamic_shared_bytes = dynamic_shared_bytes;
  launch.body = body;
  launch.config = config();
  launch.threads_per_block = block.x * block.y * block.z;
  launch.blocks = std::uint64_t(grid.x) * grid.y * grid.z;
  check_launch(launch);
  if (launch.config.schedule == Schedule::kRandom) {
    launch.block_order.resize(launch.blocks);
    for (std::uint64_t i = 0; i < launch.blocks; ++i) launch.block_order[i] = i;
    std::shuffle(launch.block_order.begin(), launch.block_order.end(), std::mt19937_64(launch.config.seed));
  }
  unsigned os_threads = unsigned(std::max(launch.config.threads, 0));
  if (os_threads == 0)
    os_threads = launch.blocks * launch.threads_per_block < kSmallLaunch ? 1 : std::max(1u, std::thread::hardware_concurrency());
  os_threads = unsigned(std::min<std::uint64_t>(os_threads, launch.blocks));

  FaultHandlers handlers;
  std::vector<std::thread> helpers;
  for (unsigned i = 1; i < os_threads; ++i) helpers.emplace_back([&launch] { run_worker(launch); });
  run_worker(launch);
  for (std::thread& helper : helpers) helper.join();
  if (launch.failed) throw KernelError(launch.error);
}

void* static_shared(const SharedSite* site) { return active_worker->shared(site); }
void* dynamic_shared() { return active_worker->dynamic_shared(); }
void barrier(int id, int count) { active_worker->wait_at_barrier(id, count); }
void barrier_arrive(int id, int count) { active_worker->arrive_at_barrier(id, count); }
int barrier_count(bool predicate) { return active_worker->count_at_barrier(predicate); }
const std::uint64_t* warp_exchange(const char* operation, unsigned mask, std::uint64_t value) {
  return active_worker->exchange(operation, mask, value);
}
void fail(const std::string& what) { active_worker->abandon(what); }

}  // namespace cnn::emulator
