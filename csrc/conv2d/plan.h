// Which kernel runs a problem, and how: a pure function over the catalogue of compiled kernels. It looks at nothing but the problem,
// so the same problem gets the same kernel, the same split and the same bits on every machine whose blocks may have as much shared memory.
#pragma once

#include <string>
#include <vector>

#include "common/choice.h"
#include "common/platform.h"
#include "conv2d/epilogue.h"
#include "conv2d/problem.h"

#pragma GCC visibility push(default)  // cnnkernels._C asks too
namespace cnn::conv2d {

// What the chosen kernel needs beyond the problem.
struct Configuration {
  int64_t blocks = 0;
  int64_t slabs = 1;            // parts of the reduction summed apart and added in order
  int64_t workspace_bytes = 0;  // slabs, and behind them what else there is
  int threads = 0;              // of a block, where the kernel leaves it open
  int shared_bytes = 0;         // dynamic shared memory
  int tile[3] = {0, 0, 0};      // what a block computes, where the kernel leaves it open: the family's header says of what
};

struct Arguments {
  const void* x = nullptr;  // fprop, wgrad
  const void* w = nullptr;  // fprop, dgrad, activation_grad
  const void* y = nullptr;  // all but fprop
  Epilogue epilogue{};      // fprop, dgrad; only the first, of conv2d_fused, has more than a bias. Of activation_grad the activation
  void* out = nullptr;
  void* workspace = nullptr;
  bool batches_before = false, batches_after = false;  // wgrad, bias_grad in batches: whether this one is not the first, not the last
  cudaStream_t stream = nullptr;
};

// One compiled kernel.
struct Kernel {
  std::string name;
  const char* family;
  DType dtype;
  std::vector<Pass> passes;
  int bm, bn, bk;  // block tile: rows, columns, depth of one step
  int tm, tn;      // results per thread
  int threads;
  int shared_bytes;
  int index_bits;
  bool tf32 = false;  // fp32 is multiplied as tf32
  int stages = 0;     // steps of the reduction that are in shared memory at once; 0: the kernel has no pipeline, or its problem makes it
  std::string (*why_not)(const Kernel&, const Problem&);  // empty: it can
  double (*cost)(const Kernel&, const Problem&);          // microseconds of common/cost.h; the plan takes the smallest
  Configuration (*configure)(const Kernel&, const Problem&);
  void (*run)(const Kernel&, const Problem&, const Configuration&, const Arguments&);
};
const std::vector<Kernel>& catalogue();
// By what it multiplies, as its name ends: its dtype's, or tf32.
inline const char* arithmetic_of(const Kernel& kernel) { return kernel.tf32 ? "tf32" : short_name(kernel.dtype); }

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

// Every kernel of the problem's pass and dtype.
std::vector<Candidate<Kernel>> explain(const Problem& problem, const std::string& forced);

}  // namespace cnn::conv2d
#pragma GCC visibility pop
