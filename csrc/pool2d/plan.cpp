// The catalogue of pooling kernels, one line per family and element type, and the choice among them. See plan.h.
#include "pool2d/plan.h"

#include <stdexcept>

#include "pool2d/adaptive/adaptive.h"
#include "pool2d/direct/direct.h"
#include "pool2d/windows/windows.h"

namespace cnn::pool2d {

static bool is_candidate(const Kernel& kernel, const Problem& problem) { return kernel.dtype == problem.dtype && kernel.op == problem.op; }

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
  const Kernel& kernel = choose(catalogue(), problem, forced);
  return {&kernel, kernel.configure(kernel, problem)};
}

bool has_plan(const Problem& problem) { return cheapest(catalogue(), problem) != nullptr; }

std::vector<Candidate<Kernel>> explain(const Problem& problem, const std::string& forced) {
  require_legal(problem);
  return explain_choice(catalogue(), problem, &choose(catalogue(), problem, forced), !forced.empty());
}

}  // namespace cnn::pool2d
