// The catalogue of pooling kernels, one line per family and element type, and the choice among them. See plan.h.
#include "pool2d/plan.h"

#include <algorithm>
#include <stdexcept>

#include "pool2d/adaptive/adaptive.h"
#include "pool2d/direct/direct.h"
#include "pool2d/windows/windows.h"

namespace cnn::pool2d {

static bool is_candidate(const Kernel& kernel, const Problem& problem) { return kernel.dtype == problem.dtype && kernel.op == problem.op; }

// Only offsets are ever too large here.
static bool may_need_batches(const Problem& problem) { return !fits_32_bits(problem); }

static Problem batch_of(Problem problem, int64_t images) {
  problem.N = images;
  return problem;
}

static std::string task(const Problem& problem) { return std::string(name_of(problem.op)) + " in " + short_name(problem.dtype); }

const std::vector<Kernel>& catalogue() {
  static const std::vector<Kernel> kernels = [] {
    std::vector<Kernel> all;
    add_direct_kernels<double>(all);
    add_direct_kernels<float>(all);
    add_direct_kernels<__half>(all);
    add_direct_kernels<__nv_bfloat16>(all);
    add_windows_kernels<float>(all);
    add_windows_kernels<__half>(all);
    add_windows_kernels<__nv_bfloat16>(all);
    add_adaptive_kernels<double>(all);
    add_adaptive_kernels<float>(all);
    add_adaptive_kernels<__half>(all);
    add_adaptive_kernels<__nv_bfloat16>(all);
    return all;
  }();
  return kernels;
}

static void require_legal(const Problem& problem) {
  const std::string illegal = why_illegal(problem);
  if (!illegal.empty()) throw std::runtime_error("illegal pooling, " + illegal + ": " + to_string(problem));
}

Plan plan(const Problem& problem, const std::string& forced) {
  require_legal(problem);
  const Choice<Kernel> choice = choose(catalogue(), problem, forced);
  const Kernel& kernel = *choice.kernel;
  const Batches batches{problem.N, choice.batches};
  Plan plan{&kernel, kernel.configure(kernel, batch_of(problem, batches.most())), batches.count, {}, 0};
  plan.smaller = batches.differ() ? kernel.configure(kernel, batch_of(problem, batches.most() - 1)) : plan.configuration;
  plan.workspace_bytes = std::max(plan.configuration.workspace_bytes, plan.smaller.workspace_bytes);
  return plan;
}

double microseconds_of(const Plan& plan, const Problem& problem) { return cost_in(plan.batches, *plan.kernel, problem); }

void run(const Plan& plan, const Problem& problem, const Arguments& arguments) {
  const Kernel& kernel = *plan.kernel;
  const Batches batches{problem.N, plan.batches};
  Arguments a = arguments;
  for (int64_t batch = 0; batch < batches.count; ++batch) {
    const int64_t images = batches.size(batch), bytes = images * size_of(problem.dtype);
    kernel.run(kernel, batch_of(problem, images), images == batches.most() ? plan.configuration : plan.smaller, a);
    advance(a.x, bytes * problem.x.d0), advance(a.y, bytes * problem.y.d0);
    advance(a.out, bytes * problem.target().d0);
    for (void*& next : a.next_out) advance(next, bytes * problem.y.d0);
    const int64_t index_bytes = images * problem.index.d0 * bytes_of(problem.index_form);
    advance(a.index, index_bytes), advance(a.index_out, index_bytes);
  }
}

bool has_plan(const Problem& problem) { return cheapest(catalogue(), problem).kernel != nullptr; }

std::vector<Candidate<Kernel>> explain(const Problem& problem, const std::string& forced) {
  require_legal(problem);
  return explain_choice(catalogue(), problem, choose(catalogue(), problem, forced), !forced.empty());
}

}  // namespace cnn::pool2d
