// The choice among a catalogue's kernels, the same for every operation: the cheapest that can run the problem, or the one asked for.
//
// Found beside the operation's types: is_candidate(kernel, problem), task(problem) ("fprop in f32"), to_string(problem).
#pragma once

#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

namespace cnn {

template <class Kernel>
struct Candidate {
  const Kernel* kernel;
  bool taken;
  std::string reason;  // why it was taken, or why not
};

template <class Kernel, class Problem>
const Kernel* cheapest(const std::vector<Kernel>& catalogue, const Problem& problem) {
  const Kernel* chosen = nullptr;
  double lowest = 0;
  for (const Kernel& kernel : catalogue) {
    if (!is_candidate(kernel, problem) || !kernel.why_not(kernel, problem).empty()) continue;
    const double cost = kernel.cost(kernel, problem);
    if (chosen && cost >= lowest) continue;
    chosen = &kernel;
    lowest = cost;
  }
  return chosen;
}

template <class Kernel, class Problem>
const Kernel* named(const std::vector<Kernel>& catalogue, const Problem& problem, const std::string& name) {
  for (const Kernel& kernel : catalogue) {
    if (kernel.name != name) continue;
    if (!is_candidate(kernel, problem)) throw std::runtime_error("kernel '" + name + "' does not compute " + task(problem));
    const std::string why = kernel.why_not(kernel, problem);
    if (!why.empty()) throw std::runtime_error("kernel '" + name + "' cannot run " + to_string(problem) + ": " + why);
    return &kernel;
  }
  throw std::runtime_error("no kernel is named '" + name + "'");
}

// Every kernel for the problem's task, with the reason for or against it. Null `chosen`: none can run it.
template <class Kernel, class Problem>
std::vector<Candidate<Kernel>> explain_choice(const std::vector<Kernel>& catalogue, const Problem& problem, const Kernel* chosen,
                                              bool forced) {
  const auto cost_of = [&](const Kernel& kernel) {
    char text[32];
    std::snprintf(text, sizeof text, "%.4g us", kernel.cost(kernel, problem));
    return std::string(text);
  };
  std::vector<Candidate<Kernel>> all;
  for (const Kernel& kernel : catalogue) {
    if (!is_candidate(kernel, problem)) continue;
    const bool taken = &kernel == chosen;
    std::string reason = kernel.why_not(kernel, problem);
    if (reason.empty() && taken) reason = "modelled at " + cost_of(kernel) + (forced ? ", asked for by name" : ", the least");
    else if (reason.empty()) reason = "modelled at " + cost_of(kernel) + ", against " + cost_of(*chosen) + " of " + chosen->name;
    all.push_back({&kernel, taken, reason});
  }
  return all;
}

// The kernel for the problem, or std::runtime_error with every candidate's reason. `forced`: empty, or the only one that may be taken.
template <class Kernel, class Problem>
const Kernel& choose(const std::vector<Kernel>& catalogue, const Problem& problem, const std::string& forced) {
  const Kernel* kernel = forced.empty() ? cheapest(catalogue, problem) : named(catalogue, problem, forced);
  if (kernel) return *kernel;
  std::string text = "no kernel can run " + to_string(problem);
  for (const Candidate<Kernel>& candidate : explain_choice(catalogue, problem, kernel, false))
    text += "\n  " + candidate.kernel->name + ": " + candidate.reason;
  throw std::runtime_error(text);
}

}  // namespace cnn
