// The grouped family's host side: what it can run, tiles and their costs, and the rows of the catalogue. Included by instantiations/*.cu
// alone, one file per element type.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "conv2d/eligibility.h"
#include "conv2d/gemm/stack_host.h"
#include "conv2d/grouped/gather_shape.h"
#include "conv2d/grouped/grouped.h"
#include "conv2d/grouped/wgrad_shape.h"
#include "conv2d/resident_wgrad/host.h"

namespace cnn::conv2d {
namespace grouped {

constexpr int64_t kMostGroupWidth = 64;  // channels or filters: wider groups fill the tiles of a dense convolution
inline std::string why_not_grouped(const Problem& p) {
  const std::string why = why_not_tuned(p);
  if (!why.empty()) return why;
  if (p.groups == 1) return "not grouped";
  if (p.R * p.S == 1) return "1x1 filter: the pointwise kernels have it";
  const int64_t cg = p.channels_per_group(), kg = p.filters_per_group();
  if (cg % 4 != 0 || kg % 4 != 0)
    return "groups of " + std::to_string(cg) + " channels and " + std::to_string(kg) + " filters: built for multiples of 4";
  if (cg > kMostGroupWidth || kg > kMostGroupWidth)
    return "groups of " + std::to_string(cg) + " channels and " + std::to_string(kg) + " filters: built for up to 64";
  if (std::max(p.stride_h, p.stride_w) > kMostStride) return "stride above 4";
  if (planar(p) && !(p.x_is_planar() && p.y_is_planar())) return "neither the channels nor the columns of both images are dense";
  return {};
}

// --- fprop and dgrad

inline std::string why_not_gather(const Kernel& kernel, const Problem& p) {
  const std::string why = why_not_grouped(p);
  if (!why.empty()) return why;
  const View view(p);
  if (view.out_group % kernel.tn != 0)
    return "groups of " + std::to_string(view.out_group) + " results: this one computes " + std::to_string(kernel.tn) + " at a time";
  if (gather_shape(gather_slab(kernel.tm, kernel.tn, view), view).shared > kMostShared)
    return "no tile with its halo fits in shared memory";
  return {};
}

inline double gather_cost(const Kernel& kernel, const Problem& p) {
  const View view(p);
  double cost = 0;
  gather_shape(gather_slab(kernel.tm, kernel.tn, view), view, &cost);
  return cost;
}

inline Configuration configure_gather(const Kernel& kernel, const Problem& p) {
  const View view(p);
  return gather_configuration(gather_shape(gather_slab(kernel.tm, kernel.tn, view), view));
}

template <class T, int kResults, int kPixels>
void run_gather(const Kernel& kernel, const Problem& p, const Configuration& configuration, const Arguments& a) {
  const View view(p);
  GatherShape s = gather_slab(kPixels, kResults, view);
  gather_tile(s, view, configuration.tile[2], configuration.tile[0], configuration.tile[1]);
  GatherParams q = gather_params<T>(s, view, a);
  q.walk = view.fprop ? filter_walk(view, a.w, s.filters, s.slice, s.slice, p.w)
                      : filter_walk(view, a.w, s.groups * s.slice, view.out_group, s.slice, p.w);
  const LaunchShape shape{dim3(unsigned(s.blocks)), dim3(unsigned(s.threads)), std::size_t(s.shared), a.stream};
  launch(kernel.name.c_str(), shape, gather_kernel<T, kResults, kPixels, 4, false>, q);
}

// --- wgrad

inline std::string why_not_wgrad(const Kernel& kernel, const Problem& p) {
  const std::string why = why_not_grouped(p);
  if (!why.empty()) return why;
  if (p.filters_per_group() % kernel.tm != 0)
    return "groups of " + std::to_string(p.filters_per_group()) + " filters: this one takes " + std::to_string(kernel.tm) + " at a time";
  const WgradView view(kernel, p);
  const WgradShape slab = wgrad_slab(view);
  if (slab.units > kMostWgradThreads) return "the elements of a group's filters need more threads than a block has";
  if (wgrad_shape(slab, view).shared > kMostShared) return "no tile with its halo fits in shared memory";
  return {};
}

inline double wgrad_cost(const Kernel& kernel, const Problem& p) {
  const WgradView view(kernel, p);
  double cost = 0;
  wgrad_shape(wgrad_slab(view), view, &cost);
  return cost;
}

inline Configuration configure_wgrad(const Kernel& kernel, const Problem& p) {
  const WgradView view(kernel, p);
  return wgrad_configuration(wgrad_shape(wgrad_slab(view), view), p);
}

template <class T, int kFilters, int kTaps>
void run_wgrad(const Kernel& kernel, const Problem& p, const Configuration& configuration, const Arguments& a) {
  const WgradView view(kernel, p);
  WgradShape s = wgrad_slab(view);
  wgrad_tile(s, view, configuration.tile[2], configuration.tile[0], configuration.tile[1]);
  const LaunchShape shape{dim3(unsigned(configuration.blocks)), dim3(unsigned(s.threads)), std::size_t(s.shared), a.stream};
  launch(kernel.name.c_str(), shape, wgrad_kernel<T, kFilters, kTaps, 4, false>, wgrad_params<T>(s, view, a));
  sum_wgrad_slabs<T>(s, view, a);
}

template <class T>
Kernel row(const char* family, const char* what, int tm, int tn) {
  Kernel r{};
  r.name = std::string("conv2d_") + family + "_" + what + "_" + std::to_string(tm) + "x" + std::to_string(tn) + "_" +
           short_name(TypeTraits<T>::kDType);
  r.family = family;
  r.dtype = TypeTraits<T>::kDType;
  r.tm = tm, r.tn = tn;
  r.index_bits = 32;
  return r;
}

template <class T, int kResults, int kPixels>
void add_gather(std::vector<Kernel>& catalogue) {
  Kernel r = row<T>("grouped", "gather", kPixels, kResults);
  r.passes = {Pass::kFprop, Pass::kDgrad};
  r.why_not = why_not_gather, r.cost = gather_cost, r.configure = configure_gather, r.run = run_gather<T, kResults, kPixels>;
  catalogue.push_back(r);
}

template <class T, int kFilters, int kTaps>
void add_wgrad(std::vector<Kernel>& catalogue) {
  Kernel r = row<T>("grouped", "wgrad", kFilters, kTaps);
  r.passes = {Pass::kWgrad};
  r.why_not = why_not_wgrad, r.cost = wgrad_cost, r.configure = configure_wgrad, r.run = run_wgrad<T, kFilters, kTaps>;
  catalogue.push_back(r);
}

}  // namespace grouped

// By the results of a thread: 8 where a group has a multiple of 8, else 4. With 16 sums instead of 56 for layers of few pixels, which leave
// most of the machine without a block otherwise.
template <class T>
void add_grouped_kernels(std::vector<Kernel>& catalogue) {
  grouped::add_gather<T, 8, 7>(catalogue);
  grouped::add_gather<T, 4, 14>(catalogue);
  grouped::add_gather<T, 8, 2>(catalogue);
  grouped::add_gather<T, 4, 4>(catalogue);
  grouped::add_wgrad<T, 8, 3>(catalogue);
  grouped::add_wgrad<T, 4, 3>(catalogue);
  add_stack_rows<T, ResidentGrouped>(catalogue);
  add_resident_wgrad_rows<T, StackWgradRow>(catalogue, "grouped", "grouped_wgrad_", "resident");
}

}  // namespace cnn::conv2d
