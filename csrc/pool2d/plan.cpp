#include "pool2d/plan.h"

#include <cstdio>
#include <stdexcept>

#include "pool2d/direct/direct.h"

namespace cnn::pool2d {
namespace {

bool is_candidate(const Kernel& kernel, const Problem& problem) { return kernel.dtype == problem.dtype && kernel.op == problem.op; }

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

const Kernel* best(const Problem& problem) {
  const Kernel* chosen = nullptr;
  double lowest = 0;
  for (const Kernel& kernel : catalogue()) {
    if (!is_candidate(kernel, problem) || !kernel.why_not(kernel, problem).empty()) continue;
    const double cost = kernel.cost(kernel, problem);
    if (chosen && cost >= lowest) continue;
    chosen = &kernel;
    lowest = cost;
  }
  return chosen;
}

const Kernel* named(const Problem& problem, const std::string& name) {
  for (const Kernel& kernel : catalogue()) {
    if (kernel.name != name) continue;
    if (!is_candidate(kernel, problem))
      throw std::runtime_error("kernel '" + name + "' does not compute " + name_of(problem.op) + " in " + short_name(problem.dtype));
    const std::string why = kernel.why_not(kernel, problem);
    if (!why.empty()) throw std::runtime_error("kernel '" + name + "' cannot run " + to_string(problem) + ": " + why);
    return &kernel;
  }
  throw std::runtime_error("no kernel is named '" + name + "'");
}

}  // namespace

const std::vector<Kernel>& catalogue() {
  static const std::vector<Kernel> kernels = [] {
    std::vector<Kernel> all;
    add_direct_kernels<double>(all);
    add_direct_kernels<float>(all);
    add_direct_kernels<__half>(all);
    add_direct_kernels<__nv_bfloat16>(all);
    return all;
  }();
  return kernels;
}

Plan plan(const Problem& problem, const std::string& forced) {
  const std::string illegal = why_illegal(problem);
  if (!illegal.empty()) throw std::runtime_error("illegal pooling, " + illegal + ": " + to_string(problem));
  const Kernel* kernel = forced.empty() ? best(problem) : named(problem, forced);
  if (!kernel) {
    std::string text = "no kernel can run " + to_string(problem);
    for (const Candidate& candidate : explain(problem, forced)) text += "\n  " + candidate.kernel->name + ": " + candidate.reason;
    throw std::runtime_error(text);
  }
  return {kernel, kernel->configure(*kernel, problem)};
}

std::vector<Candidate> explain(const Problem& problem, const std::string& forced) {
  const Kernel* chosen = forced.empty() ? best(problem) : named(problem, forced);
  std::vector<Candidate> all;
  for (const Kernel& kernel : catalogue()) {
    if (!is_candidate(kernel, problem)) continue;
    std::string reason = kernel.why_not(kernel, problem);
    const bool taken = &kernel == chosen;
    if (reason.empty()) {
      reason = "estimated cost " + number(kernel.cost(kernel, problem));
      if (taken) reason += forced.empty() ? ", the lowest" : ", forced";
      else reason += " is over " + chosen->name + "'s " + number(chosen->cost(*chosen, problem));
    }
    all.push_back({&kernel, taken, reason});
  }
  return all;
}

}  // namespace cnn::pool2d
