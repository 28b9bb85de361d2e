// Which kernel runs a problem, and how: a pure function over the catalogue of compiled kernels. It looks at nothing but the
// problem, so the same problem gets the same kernel and tile on every machine whose blocks may have as much shared memory. (The bits do not
// depend on either: every kernel walks a window in the same order; the adaptive ones, in an order that follows from the problem.)
#pragma once

#include <string>
#include <vector>

#include "common/choice.h"
#include "common/platform.h"
#include "pool2d/problem.h"

#pragma GCC visibility push(default)  // cnnkernels._C asks too
namespace cnn::pool2d {

// What the chosen kernel needs beyond the problem.
struct Configuration {
  int64_t blocks = 0;
  int threads = 0;                                       // per block
  int tile_planes = 0, tile_rows = 0, tile_columns = 0;  // results of a block; a plane is one channel of one image
  int chunk_rows = 0, chunk_columns = 0;                 // of the source, staged in shared memory at a time
  int shared_bytes = 0;
  int readers = 1;  // adaptive: threads that share a window
  int parts = 1;    // adaptive: of each window, for different blocks
  int64_t workspace_bytes = 0;
};

struct Arguments {
  const void* x = nullptr;      // max, max_gather, avg
  const void* y = nullptr;      // max_backward, avg_backward
  const void* index = nullptr;  // max_backward, max_gather; bytes or int64 as Problem::index_form says
  void* out = nullptr;
  void* next_out[kMostLevels - 1] = {};  // of a chain
  void* index_out = nullptr;             // max, unless the form is kNone
  void* workspace = nullptr;             // adaptive
  cudaStream_t stream = nullptr;
};

// One compiled kernel.
struct Kernel {
  std::string name;
  const char* family;
  DType dtype;
  Op op;
  int planes;        // results per thread: one pixel of so many neighbouring planes
  int threads;       // of a block, at most
  int slot_bytes;    // shared memory per staged pixel of `planes` planes
  int shared_bytes;  // at most
  int index_bits;
  std::string (*why_not)(const Kernel&, const Problem&);  // empty: it can
  double (*cost)(const Kernel&, const Problem&);          // microseconds of common/cost.h; the plan takes the smallest
  Configuration (*configure)(const Kernel&, const Problem&);
  void (*run)(const Kernel&, const Problem&, const Configuration&, const Arguments&);
};
const std::vector<Kernel>& catalogue();

struct Plan {
  const Kernel* kernel = nullptr;
  Configuration configuration;  // of the only batch, or of each
  int64_t batches = 1;          // the images run in so many, one after another
  Configuration smaller;        // of the batches that have an image less than the first
  int64_t workspace_bytes = 0;
};
// `forced`: empty, or the only kernel that may be taken. Throws std::runtime_error with every candidate's reason if none can.
Plan plan(const Problem& problem, const std::string& forced);

// By the cost model of common/cost.h.
double microseconds_of(const Plan& plan, const Problem& problem);

// Launches what was planned, in the order of the images. Only `arguments.workspace` is for it alone: plan.workspace_bytes of it.
void run(const Plan& plan, const Problem& problem, const Arguments& arguments);

// Whether some kernel can run the problem.
bool has_plan(const Problem& problem);

// Every kernel of the problem's op and dtype.
std::vector<Candidate<Kernel>> explain(const Problem& problem, const std::string& forced);

}  // namespace cnn::pool2d
#pragma GCC visibility pop
