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

// Whether it has so many bytes that a kernel may want it in batches. Packing makes of one channel a sector at most.
static bool may_need_batches(const Problem& problem) {
  constexpr double kLeast = double(1 << 24);
  return problem.tensor_bytes() >= kLeast || !fits_32_bits(problem);
}

// A filter's or bias's gradient is a sum over images.
static bool adds_images(Pass pass) { return pass == Pass::kWgrad || pass == Pass::kBiasGrad; }

static Problem batch_of(Problem problem, int64_t images) {
  problem.N = images, problem.in_batches = adds_images(problem.pass);
  return problem;
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
  std::array<int64_t, 33> problem;
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
                p.block_shared,
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

// Bytes of a gradient's sums over images.
static int64_t sum_bytes(const Problem& p) { return (p.pass == Pass::kBiasGrad ? p.K : p.filter_numel()) * accumulator_size(p.dtype); }

static Plan plan_in_batches(const Kernel& kernel, const Problem& problem, int64_t count) {
  if (count == 1) {
    const Configuration c = kernel.configure(kernel, problem);
    return {&kernel, c, 1, {}, c.workspace_bytes};
  }
  const Batches batches{problem.N, count};
  Plan plan{&kernel, kernel.configure(kernel, batch_of(problem, batches.most())), count, {}, 0};
  plan.smaller = batches.differ() ? kernel.configure(kernel, batch_of(problem, batches.most() - 1)) : plan.configuration;
  plan.workspace_bytes = std::max(plan.configuration.workspace_bytes, plan.smaller.workspace_bytes);
  if (adds_images(problem.pass)) plan.workspace_bytes += sum_bytes(problem);
  return plan;
}

// To compare the kernels works out the schedule and the cost of each, and networks ask for the same problems again and again. Answers are
// kept by each thread, until there are more than any network has layers.
Plan plan(const Problem& problem, const std::string& forced) {
  constexpr std::size_t kMostAnswers = 4096;
  thread_local std::unordered_map<Question, Plan, HashOfQuestion> answers;
  Question question(problem, forced);
  if (const auto found = answers.find(question); found != answers.end()) return found->second;
  require_legal(problem);
  const Choice<Kernel> choice = choose(catalogue(), problem, forced);
  if (answers.size() >= kMostAnswers) answers.clear();
  return answers.emplace(std::move(question), plan_in_batches(*choice.kernel, problem, choice.batches)).first->second;
}

std::vector<Candidate<Kernel>> explain(const Problem& problem, const std::string& forced) {
  require_legal(problem);
  return explain_choice(catalogue(), problem, choose(catalogue(), problem, forced), !forced.empty());
}

double microseconds_of(const Plan& plan, const Problem& problem) { return cost_in(plan.batches, *plan.kernel, problem); }

void run(const Plan& plan, const Problem& problem, const Arguments& arguments) {
  const Kernel& kernel = *plan.kernel;
  if (plan.batches == 1) return kernel.run(kernel, problem, plan.configuration, arguments);
  const Batches batches{problem.N, plan.batches};
  const bool sums = adds_images(problem.pass);
  Arguments a = arguments;
  if (sums) a.workspace = static_cast<char*>(a.workspace) + sum_bytes(problem);
  for (int64_t batch = 0; batch < batches.count; ++batch) {
    const int64_t images = batches.size(batch);
    a.batches_before = batch > 0, a.batches_after = batch + 1 < batches.count;
    kernel.run(kernel, batch_of(problem, images), images == batches.most() ? plan.configuration : plan.smaller, a);
    const int64_t bytes = images * size_of(problem.dtype);
    advance(a.x, bytes * problem.x.d0), advance(a.y, bytes * problem.y.d0);
    if (!sums) advance(a.out, bytes * (problem.pass == Pass::kFprop ? problem.y : problem.x).d0);
  }
}

}  // namespace cnn::conv2d
