// The catalogue of convolution kernels, one line per family and element type, and the choice among them. See plan.h.
#include "conv2d/plan.h"

#include <algorithm>
#include <array>
#include <functional>
#include <stdexcept>
#include <unordered_map>
#include <utility>

#include "conv2d/dense/dense.h"
#include "conv2d/depthwise/depthwise.h"
#include "conv2d/dilated/dilated.h"
#include "conv2d/direct/direct.h"
#include "conv2d/first_layer/first_layer.h"
#include "conv2d/grouped/grouped.h"
#include "conv2d/pointwise/pointwise.h"
#include "conv2d/tiled_wgrad/tiled_wgrad.h"
#include "conv2d/transposed/transposed.h"

namespace cnn::conv2d {

static bool is_candidate(const Kernel& kernel, const Problem& problem) {
  return kernel.dtype == problem.dtype && std::find(kernel.passes.begin(), kernel.passes.end(), problem.pass) != kernel.passes.end();
}

static std::string task(const Problem& problem) { return std::string(name_of(problem.pass)) + " in " + short_name(problem.dtype); }

// The families that are tuned for what they do; fp64 has the direct ones alone.
template <class T>
static void add_tuned_kernels(std::vector<Kernel>& all) {
  add_depthwise_channels_last_kernels<T>(all);
  add_depthwise_planar_kernels<T>(all);
  add_depthwise_large_kernels<T>(all);
  add_pointwise_kernels<T>(all);
  add_grouped_kernels<T>(all);
  add_dense_kernels<T>(all);
  add_dilated_kernels<T>(all);
  add_transposed_kernels<T>(all);
  add_first_layer_kernels<T>(all);
  add_tiled_wgrad_kernels<T>(all);
}

const std::vector<Kernel>& catalogue() {
  static const std::vector<Kernel> kernels = [] {
    std::vector<Kernel> all;
    add_direct_kernels<double>(all);
    add_direct_kernels<float>(all);
    add_direct_kernels<__half>(all);
    add_direct_kernels<__nv_bfloat16>(all);
    add_tuned_kernels<float>(all);
    add_tuned_kernels<__half>(all);
    add_tuned_kernels<__nv_bfloat16>(all);
    return all;
  }();
  return kernels;
}

static void require_legal(const Problem& problem) {
  const std::string illegal = why_illegal(problem);
  if (!illegal.empty()) throw std::runtime_error("illegal convolution, " + illegal + ": " + to_string(problem));
}

// All that a plan looks at.
struct Question {
  std::array<int64_t, 32> problem;
  std::string forced;

  Question(const Problem& p, const std::string& name)
      : problem{int64_t(p.pass),
                int64_t(p.dtype),
                p.N,
                p.C,
                p.H,
                p.W,
                p.K,
                p.R,
                p.S,
                p.P,
                p.Q,
                p.stride_h,
                p.stride_w,
                p.pad_h,
                p.pad_w,
                p.dilation_h,
                p.dilation_w,
                p.groups,
                int64_t(p.padding_mode),
                p.allow_tf32,
                p.x.d0,
                p.x.d1,
                p.x.d2,
                p.x.d3,
                p.w.d0,
                p.w.d1,
                p.w.d2,
                p.w.d3,
                p.y.d0,
                p.y.d1,
                p.y.d2,
                p.y.d3},
        forced(name) {}
  bool operator==(const Question&) const = default;
};
struct HashOfQuestion {
  std::size_t operator()(const Question& question) const {
    std::size_t hash = std::hash<std::string>()(question.forced);
    for (int64_t value : question.problem) hash = (hash ^ std::size_t(value)) * 0x100000001b3u;  // FNV-1a, word by word
    return hash;
  }
};

// To compare the kernels works out the schedule and the cost of each, and networks ask for the same problems again and again. Answers are
// kept by each thread, until there are more than any network has layers.
Plan plan(const Problem& problem, const std::string& forced) {
  constexpr std::size_t kMostAnswers = 4096;
  thread_local std::unordered_map<Question, Plan, HashOfQuestion> answers;
  Question question(problem, forced);
  if (const auto found = answers.find(question); found != answers.end()) return found->second;
  require_legal(problem);
  const Kernel& kernel = choose(catalogue(), problem, forced);
  if (answers.size() >= kMostAnswers) answers.clear();
  return answers.emplace(std::move(question), Plan{&kernel, kernel.configure(kernel, problem)}).first->second;
}

std::vector<Candidate<Kernel>> explain(const Problem& problem, const std::string& forced) {
  require_legal(problem);
  return explain_choice(catalogue(), problem, &choose(catalogue(), problem, forced), !forced.empty());
}

}  // namespace cnn::conv2d
