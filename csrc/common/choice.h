// The choice among a catalogue's kernels, the same for every operation: the cheapest that can run the problem, or the one asked for; and in
// how many batches.
//
// Found beside the operation's types: is_candidate(kernel, problem), task(problem) ("fprop in f32"), to_string(problem), and what batches.h
// asks for.
#pragma once

#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/batches.h"

namespace cnn {

template <class Kernel>
struct Candidate {
  const Kernel* kernel;
  bool taken;
  std::string reason;  // why it was taken, or why not
};

// What runs, and in how many batches.
template <class Kernel>
struct Choice {
  const Kernel* kernel = nullptr;
  int64_t batches = 0;
};

template <class Kernel, class Problem>
Choice<Kernel> cheapest(const std::vector<Kernel>& catalogue, const Problem& problem) {
  Choice<Kernel> chosen;
  double lowest = 0;
  for (const Kernel& kernel : catalogue) {
    if (!is_candidate(kernel, problem)) continue;
    const Verdict verdict = judge(kernel, problem);
    if (verdict.batches == 0) continue;
    const double cost = cost_in(verdict.batches, kernel, problem);
    if (chosen.kernel && cost >= lowest) continue;
    chosen = {&kernel, verdict.batches};
    lowest = cost;
  }
  return chosen;
}

template <class Kernel, class Problem>
Choice<Kernel> named(const std::vector<Kernel>& catalogue, const Problem& problem, const std::string& name) {
  for (const Kernel& kernel : catalogue) {
    if (kernel.name != name) continue;
    if (!is_candidate(kernel, problem)) throw std::runtime_error("kernel '" + name + "' does not compute " + task(problem));
    const Verdict verdict = judge(kernel, problem);
    if (verdict.batches == 0) throw std::runtime_error("kernel '" + name + "' cannot run " + to_string(problem) + ": " + verdict.why_not);
    return {&kernel, verdict.batches};
  }
  throw std::runtime_error("no kernel is named '" + name + "'");
}

// Every kernel for the problem's task, with the reason for or against it. `chosen.kernel` null: none can run it.
template <class Kernel, class Problem>
std::vector<Candidate<Kernel>> explain_choice(const std::vector<Kernel>& catalogue, const Problem& problem, const Choice<Kernel>& chosen,
                                              bool forced) {
  const auto cost_of = [&](const Kernel& kernel, int64_t batches) {
    char text[32];
    std::snprintf(text, sizeof text, "%.4g us", cost_in(batches, kernel, problem));
    return std::string(text) + (batches > 1 ? " in " + std::to_string(batches) + " batches" : "");
  };
  std::vector<Candidate<Kernel>> all;
  for (const Kernel& kernel : catalogue) {
    if (!is_candidate(kernel, problem)) continue;
    const bool taken = &kernel == chosen.kernel;
    const Verdict verdict = judge(kernel, problem);
    std::string reason = verdict.why_not;
    if (verdict.batches > 0) {
      reason = "modelled at " + cost_of(kernel, verdict.batches);
      if (taken) reason += forced ? ", asked for by name" : ", the least";
      else reason += ", against " + cost_of(*chosen.kernel, chosen.batches) + " of " + chosen.kernel->name;
    }
    all.push_back({&kernel, taken, reason});
  }
  return all;
}

// The kernel for the problem, or std::runtime_error with every candidate's reason. `forced`: empty, or the only one that may be taken.
template <class Kernel, class Problem>
Choice<Kernel> choose(const std::vector<Kernel>& catalogue, const Problem& problem, const std::string& forced) {
  const Choice<Kernel> choice = forced.empty() ? cheapest(catalogue, problem) : named(catalogue, problem, forced);
  if (choice.kernel) return choice;
  std::string text = "no kernel can run " + to_string(problem);
  for (const Candidate<Kernel>& candidate : explain_choice(catalogue, problem, choice, false))
    text += "\n  " + candidate.kernel->name + ": " + candidate.reason;
  throw std::runtime_error(text);
}

}  // namespace cnn
