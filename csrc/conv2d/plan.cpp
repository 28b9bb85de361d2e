// The catalogue of convolution kernels, one line per family and element type, and the choice among them. See plan.h.
#include "conv2d/plan.h"

#include <algorithm>
#include <stdexcept>

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

Plan plan(const Problem& problem, const std::string& forced) {
  require_legal(problem);
  const Kernel& kernel = choose(catalogue(), problem, forced);
  return {&kernel, kernel.configure(kernel, problem)};
}

std::vector<Candidate<Kernel>> explain(const Problem& problem, const std::string& forced) {
  require_legal(problem);
  return explain_choice(catalogue(), problem, &choose(catalogue(), problem, forced), !forced.empty());
}

}  // namespace cnn::conv2d
