// The CUDA execution model on a host, as a test instrument.
//
// A block's threads are fibers on one OS thread; blocks are spread over several OS threads. A fiber runs until it reaches a
// barrier or a warp-wide operation and then hands over to the next one in the schedule, so that within a launch every legal
// order can be provoked (forward, reverse, seeded random) and an illegal wait is seen instead of hanging.
// Each shared array lies against an inaccessible page and starts as NaN. What a kernel does wrong (a barrier that part of a
// block never reaches, an access outside shared memory, a fault, a bad warp mask, an illegal launch) becomes one KernelError
// that names kernel, block and thread. docs/architecture.md has the picture.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "emulator/observer.h"
#include "emulator/vector_types.h"

#pragma GCC visibility push(default)
namespace cnn::emulator {

constexpr int kWarpSize = 32;
// The limits of sm_90 (CUDA C++ programming guide, table "Technical Specifications per Compute Capability").
constexpr unsigned kMaxThreadsPerBlock = 1024;
constexpr unsigned kMaxGridYZ = 65535;
constexpr std::size_t kMaxStaticShared = 48 * 1024;
constexpr std::size_t kMaxShared = 227 * 1024;

class KernelError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

enum class Schedule { kForward, kReverse, kRandom };

// A kernel that uses what nobody has set gives other results when the bits that lie there are others. So trials run twice, compiled and
// filled with different bits, and the second run's stores are held against the first's.
enum class Comparison { kNone, kRecord, kCompare };

struct Config {
  int threads = 0;  // OS threads; 0: all cores, and one for launches too small to share. The checked build has one.
  Schedule schedule = Schedule::kForward;
  std::uint64_t seed = 0;
  // Of the checked build alone:
  bool check = true;   // hold every access against the rules
  bool count = false;  // record counters of each launch
  int sample = 1;      // run one block in so many: counters of large problems, with incomplete results
  Comparison comparison = Comparison::kNone;
};
Config config();
void configure(const Config&);

// What the launches since the last call reported; the newest kMaxReports. Clears.
constexpr std::size_t kMaxReports = 1000;
std::vector<Report> take_reports();

// What fills memory that holds nothing, four bytes again and again: a NaN as fp64, fp32 and, every other time, fp16 and bf16; in the
// second run of a comparison another number.
std::uint32_t poison();

// What a fiber's code sees as the built-in variables, and the scheduler's own view of it behind them.
struct ThreadView {
  uint3 thread_idx;
  uint3 block_idx;
  dim3 block_dim;
  dim3 grid_dim;
  unsigned linear;  // threadIdx flattened, x fastest
};
// initial-exec and constinit: one register-relative load instead of a call on every threadIdx; 8 bytes of static TLS.
extern constinit thread_local ThreadView* current __attribute__((tls_model("initial-exec")));
// The same by value, for code in which every memory access is instrumented.
__attribute__((const)) uint3 thread_index();
__attribute__((const)) uint3 block_index();
__attribute__((const)) uint3 block_dimensions();
__attribute__((const)) uint3 grid_dimensions();
__attribute__((const)) unsigned linear_thread();

// A kernel with its arguments bound; called once per thread.
struct Body {
  void (*call)(const void* closure);
  const void* closure;
};
// `function` is the kernel's address, by which the checked build finds its symbol.
void launch(const char* kernel, dim3 grid, dim3 block, std::size_t dynamic_shared_bytes, Body body, const void* function = nullptr);

template <class F>
void launch(const char* kernel, dim3 grid, dim3 block, std::size_t dynamic_shared_bytes, const F& body, const void* function = nullptr) {
  const auto call = [](const void* closure) { (*static_cast<const F*>(closure))(); };
  launch(kernel, grid, block, dynamic_shared_bytes, Body{call, &body}, function);
}

struct SharedSite {
  const char* name;
  std::size_t bytes;
};
void* static_shared(const SharedSite* site);
void* dynamic_shared();

// bar.sync id, count. count < 0: every thread of the block.
void barrier(int id, int count);
// bar.arrive id, count: counts towards the barrier without waiting.
void barrier_arrive(int id, int count);
// __syncthreads_count / _and / _or share one barrier: the number of threads whose predicate holds.
int barrier_count(bool predicate);

// A warp-wide exchange: gives `value` (up to 8 bytes) for this lane, waits until all lanes in `mask` that exist have given
// theirs, and returns the table of all 32 slots, valid until this lane's next exchange; behind them, in slot kGiven, a bit for each lane
// that has given. `operation` must be the same for all lanes.
constexpr unsigned kGiven = kWarpSize;
const std::uint64_t* warp_exchange(const char* operation, unsigned mask, std::uint64_t value);
// A slot of that table. In the checked build a call, because the table is no memory of the kernel's.
#if defined(CNN_EMULATOR_CHECKED)
std::uint64_t exchanged(const std::uint64_t* slots, unsigned lane);
#else
inline std::uint64_t exchanged(const std::uint64_t* slots, unsigned lane) { return slots[lane]; }
#endif

// __threadfence(), and __threadfence_block().
void fence();
void fence_in_block();
// An atomic operation is about to happen.
void note_atomic(const void* address, std::size_t size);

// cp.async: `bytes` to shared memory, of which the first `valid` come from global memory and the rest are zeros. The copy lands when
// the thread waits for its group, and never if it does not.
void copy_async(void* shared, const void* global, int bytes, int valid);
void commit_async();
// Waits until at most `groups` of the thread's newest groups are in flight.
void wait_async(int groups);

// Memory that kernels may touch, told to the checked build: which of its bytes are elements, and whether they hold values.
enum class Use { kInput, kOutput, kWorkspace };
enum class Values { kOther, kFloat64, kFloat32, kFloat16, kBFloat16 };
struct Buffer {
  const char* name = "";
  const void* data = nullptr;
  std::size_t item_bytes = 1;
  std::vector<std::int64_t> sizes, strides;  // strides in elements
  Use use = Use::kInput;
  Values values = Values::kOther;
  bool poisoned = false;  // filled with poison(): what is something else has been written by the host
};
// While it lives the buffer may be touched. Costs nothing in the fast build.
class Declared {
 public:
  explicit Declared(const Buffer& buffer);
  ~Declared();
  Declared(const Declared&) = delete;
  Declared& operator=(const Declared&) = delete;
  // Throws KernelError if the launches so far, `kernel` the last of them, have left an element unwritten.
  void require_written(const std::string& kernel) const;

 private:
  std::uint64_t handle_ = 0;
};

// End the launch with an error that names the running thread. Plain arguments: kernels make no strings.
[[noreturn]] void fail(const char* what);
[[noreturn]] void fail_outside_mask(const char* operation, unsigned lane);

}  // namespace cnn::emulator
#pragma GCC visibility pop
