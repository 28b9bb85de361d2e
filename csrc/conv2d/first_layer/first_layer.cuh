// First layers: images of 1 to 4 channels, fprop and wgrad. Included by instantiations/*.cu alone, one file per element type.
//
// The kernels are those of the grouped family (conv2d/grouped): there a tile is quads of channels, here it is one quad per pixel, read as
// runs of rows whichever way the image lies (grouped::Few). Of an image with a single channel the quad is a pixel and its neighbours, and
// the taps of a filter row are taken for channels, three or four at a time.
//
// fprop: a block has the halo of a tile of pixels and computes all filters from it, up to 96 at a time, 7 pixels x 8 filters per thread:
// for each tap 2 * channels + 7 reads of 16 bytes and 56 * channels FMAs.
// wgrad: a block has all elements of up to 64 filters, 8 filters x 3 taps x the channels per thread, and a slab of pixels.
// dgrad is not here: who asks for the gradient by an image gets the direct kernels.
#pragma once

#include <algorithm>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "conv2d/eligibility.h"
#include "conv2d/first_layer/first_layer.h"
#include "conv2d/gemm/strip_host.h"
#include "conv2d/grouped/gather_shape.h"
#include "conv2d/grouped/wgrad_shape.h"
#include "conv2d/plan.h"
#include "conv2d/resident_wgrad/host.h"

namespace cnn::conv2d {
namespace first_layer {

constexpr int kResults = 8, kPixels = 7, kTaps = 3;
constexpr int64_t kMostChannels = 4, kMostFilters = 96, kMostFilterBytes = 56 << 10;

// Channels of a quad: the image's, with 2 filled up to 3, or of a single one the taps of a row, 3 or 4 of them, whichever fill up less.
inline int64_t quad_channels(const Problem& p) {
  if (p.C > 1) return std::max<int64_t>(p.C, 3);
  return round_up(p.S, 3) < round_up(p.S, 4) ? 3 : 4;
}

inline std::string why_not_first_layer(const Kernel& kernel, const Problem& p) {
  const std::string why = why_not_tuned(p);
  if (!why.empty()) return why;
  if (p.groups != 1) return "grouped";
  if (p.C > kMostChannels) return std::to_string(p.C) + " channels: built for up to 4";
  if (p.R * p.S == 1) return "1x1 filter";
  if (quad_channels(p) != kernel.bk) return "built for quads of " + std::to_string(kernel.bk) + " channels";
  if (p.x_is_channels_last() ? p.x.d3 != p.C : !p.x_is_planar()) return "the pixels of the image have gaps between them";
  if (!p.y_is_channels_last() && !p.y_is_planar()) return "neither the channels nor the columns of the output are dense";
  return {};
}

// The filter as the kernels see it: its channels are those of a quad.
struct Filter {
  int64_t channels, taps_w, dilation_w;
  Strides strides;

  explicit Filter(const Problem& p) : channels(p.C), taps_w(p.S), dilation_w(p.dilation_w), strides(p.w) {
    if (p.C > 1) return;
    channels = quad_channels(p), taps_w = ceil_div(p.S, channels), dilation_w = p.dilation_w * channels;
    strides = {p.w.d0, p.w.d3, p.w.d2, p.w.d3 * channels};
  }
};

inline grouped::View view_of(const Problem& p) {
  const Filter filter(p);
  grouped::View view(p, true);
  view.in_group = view.in_channels = quad_channels(p);
  view.taps_w = filter.taps_w, view.dilation_w = filter.dilation_w;
  view.in_planar = true, view.out_planar = !p.y_is_channels_last();
  view.few = filter.channels, view.few_columns = p.C == 1 ? p.dilation_w : 0;
  return view;
}

inline grouped::GatherShape slab_of(const grouped::View& view, int64_t filters) {
  grouped::GatherShape s{};
  s.results = kResults, s.pixels_of_thread = kPixels;
  s.filters = filters, s.slabs = ceil_div(view.out_channels, filters);
  s.groups = 1, s.in_channels = s.slice = view.in_group, s.slices = 1;
  complete_slab(s, view);
  return s;
}

// Slabs of filters, from the largest that fits; a smaller one takes more pixels at a time.
inline std::vector<grouped::GatherShape> slabs_of(const grouped::View& view) {
  std::vector<grouped::GatherShape> slabs;
  int64_t last = 0;
  for (int64_t parts = 1; parts <= 16; ++parts) {
    const int64_t filters = round_up(ceil_div(view.out_channels, parts), kResults);
    if (filters > kMostFilters || filters == last) continue;
    last = filters;
    if (filters > kResults && grouped::filter_bytes(view, view.in_group, filters) > kMostFilterBytes) continue;
    // Where channels are innermost, pairs of chunks, which make 16-byte stores and whole sectors of them.
    if (parts > 1 && !view.out_planar && filters % 16 != 0) continue;
    slabs.push_back(slab_of(view, filters));
  }
  if (slabs.empty()) slabs.push_back(slab_of(view, kResults));
  return slabs;
}

inline grouped::GatherShape shape_of(const grouped::View& view, double* cost = nullptr) {
  const std::vector<grouped::GatherShape> slabs = slabs_of(view);
  return grouped::gather_shape(std::span<const grouped::GatherShape>(slabs), view, cost);
}

// The shape that a configuration is of: that of the slab which makes its tile as large in shared memory.
inline grouped::GatherShape shape_of(const grouped::View& view, const Configuration& configuration) {
  for (grouped::GatherShape& s : slabs_of(view)) {
    gather_tile(s, view, configuration.tile[2], configuration.tile[0], configuration.tile[1]);
    if (s.shared == configuration.shared_bytes && s.blocks == configuration.blocks && s.threads == configuration.threads) return s;
  }
  throw std::logic_error("a configuration of another problem");
}

inline std::string why_not_fprop(const Kernel& kernel, const Problem& p) {
  const std::string why = why_not_first_layer(kernel, p);
  if (!why.empty()) return why;
  if (std::max(p.stride_h, p.stride_w) > grouped::kMostStride) return "stride above 4";
  const grouped::View view = view_of(p);
  if (shape_of(view).shared > grouped::kMostShared) return "no tile with its halo fits in shared memory";
  return {};
}

inline double fprop_cost(const Kernel&, const Problem& p) {
  const grouped::View view = view_of(p);
  double cost = 0;
  shape_of(view, &cost);
  return cost;
}

inline Configuration configure_fprop(const Kernel&, const Problem& p) {
  const grouped::View view = view_of(p);
  return gather_configuration(shape_of(view));
}

template <class T, int kChannels>
void run_fprop(const Kernel& kernel, const Problem& p, const Configuration& configuration, const Arguments& a) {
  const grouped::View view = view_of(p);
  const grouped::GatherShape s = shape_of(view, configuration);
  grouped::GatherParams q = grouped::gather_params<T>(s, view, a);
  q.walk = few_filter_walk(view, a.w, s.filters, s.shared - s.raw_at, Filter(p).strides);
  const LaunchShape shape{dim3(unsigned(s.blocks)), dim3(unsigned(s.threads)), std::size_t(s.shared), a.stream};
  launch(kernel.name.c_str(), shape, grouped::gather_kernel<T, kResults, kPixels, kChannels, true>, q);
}

inline grouped::WgradView wgrad_view_of(const Kernel& kernel, const Problem& p) {
  const Filter filter(p);
  grouped::WgradView view(kernel, p);
  view.channels = filter.channels, view.taps_w = filter.taps_w, view.dilation_w = filter.dilation_w;
  view.x_planar = true, view.y_planar = !p.y_is_channels_last();
  view.channel_innermost = p.C == 1 || p.w.d1 == 1;
  view.few = filter.channels, view.few_columns = p.C == 1 ? p.dilation_w : 0;
  return view;
}

inline grouped::WgradShape wgrad_slab_of(const grouped::WgradView& view) {
  grouped::WgradShape s{};
  s.groups = s.parts = 1, s.channels = view.channels;
  do {
    ++s.filter_slabs;
    s.filters = round_up(ceil_div(view.problem.K, s.filter_slabs), kResults);
    complete_slab(s, view);
  } while (s.filters > kResults && (s.filters > kMostFilters || s.units > grouped::kMostWgradThreads));
  s.filter_slabs = ceil_div(view.problem.K, s.filters);
  return s;
}

inline std::string why_not_wgrad(const Kernel& kernel, const Problem& p) {
  const std::string why = why_not_first_layer(kernel, p);
  if (!why.empty()) return why;
  const grouped::WgradView view = wgrad_view_of(kernel, p);
  const grouped::WgradShape slab = wgrad_slab_of(view);
  if (slab.units > grouped::kMostWgradThreads) return "the filter has more taps than the threads of a block hold";
  if (wgrad_shape(slab, view).shared > grouped::kMostShared) return "no tile with its halo fits in shared memory";
  return {};
}

inline double wgrad_cost(const Kernel& kernel, const Problem& p) {
  const grouped::WgradView view = wgrad_view_of(kernel, p);
  double cost = 0;
  wgrad_shape(wgrad_slab_of(view), view, &cost);
  return cost;
}

inline Configuration configure_wgrad(const Kernel& kernel, const Problem& p) {
  const grouped::WgradView view = wgrad_view_of(kernel, p);
  return wgrad_configuration(wgrad_shape(wgrad_slab_of(view), view), p);
}

template <class T, int kChannels>
void run_wgrad(const Kernel& kernel, const Problem& p, const Configuration& configuration, const Arguments& a) {
  const grouped::WgradView view = wgrad_view_of(kernel, p);
  grouped::WgradShape s = wgrad_slab_of(view);
  wgrad_tile(s, view, configuration.tile[2], configuration.tile[0], configuration.tile[1]);
  const LaunchShape shape{dim3(unsigned(configuration.blocks)), dim3(unsigned(s.threads)), std::size_t(s.shared), a.stream};
  launch(kernel.name.c_str(), shape, grouped::wgrad_kernel<T, kResults, kTaps, kChannels, true>, grouped::wgrad_params<T>(s, view, a));
  sum_wgrad_slabs<T>(s, view, a);
}

template <class T, int kChannels>
Kernel row(const char* what, int tm, int tn) {
  Kernel r{};
  r.name = std::string("conv2d_first_layer_") + what + "_c" + std::to_string(kChannels) + "_" + short_name(TypeTraits<T>::kDType);
  r.family = "first_layer";
  r.dtype = TypeTraits<T>::kDType;
  r.bk = kChannels;
  r.tm = tm, r.tn = tn;
  r.index_bits = 32;
  return r;
}

template <class T, int kChannels>
void add(std::vector<Kernel>& catalogue) {
  Kernel fprop = row<T, kChannels>("fprop", kPixels, kResults);
  fprop.passes = {Pass::kFprop};
  fprop.why_not = why_not_fprop, fprop.cost = fprop_cost, fprop.configure = configure_fprop, fprop.run = run_fprop<T, kChannels>;
  catalogue.push_back(fprop);
  Kernel wgrad = row<T, kChannels>("wgrad", kResults, kTaps);
  wgrad.passes = {Pass::kWgrad};
  wgrad.why_not = why_not_wgrad, wgrad.cost = wgrad_cost, wgrad.configure = configure_wgrad, wgrad.run = run_wgrad<T, kChannels>;
  catalogue.push_back(wgrad);
}

}  // namespace first_layer

template <class T>
void add_first_layer_kernels(std::vector<Kernel>& catalogue) {
  first_layer::add<T, 3>(catalogue);
  if constexpr (sizeof(T) == 4) first_layer::add<T, 4>(catalogue);  // halves of four channels: tensor cores
  add_strip_row<T>(catalogue);
  add_resident_wgrad_rows<T, StripWgradRow>(catalogue, "first_layer", "first_layer_wgrad_", "tensor");
}

}  // namespace cnn::conv2d
