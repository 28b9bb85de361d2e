// The direct family's host side: parameters from the problem, costs, and the rows of the catalogue. Included by
// instantiations/*.cu alone, one file per element type.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "common/cost.h"
#include "conv2d/direct/activation_grad.cuh"
#include "conv2d/direct/bias_grad.cuh"
#include "conv2d/direct/gather.cuh"
#include "conv2d/direct/wgrad.cuh"
#include "conv2d/plan.h"
#include "conv2d/sum_slabs/sum_slabs.h"

namespace cnn::conv2d {

constexpr int64_t kMaxWorkspaceBytes = int64_t(256) << 20;

// Instructions per result element of one reduction step: one FMA, (TM + TN) / (TM * TN) / 4 vector reads of shared memory worth four FMA
// slots each, and those of the elements that are brought from global memory, shared by the results that use them. Per element, counted
// from one LDG to the next in the machine code (sm_90a, fp32, the path of zero padding), with its STS: two divisions by multiplication,
// bounds, an address of four terms, a branch around the read.
struct LoadCosts {
  double row, column;  // of the tile: BM and BN
};
constexpr LoadCosts kGatherLoads{64, 40};  // a pixel of the image, an element of the filter
constexpr LoadCosts kWgradLoads{33, 63};   // a pixel of y, one of x
// And per result: 17 from one to the next in the code that stores them (bounds, bias, address), the write to shared memory and the read
// back.
constexpr double kPerResult = 19;
// 64-bit index arithmetic takes two to four instructions where 32-bit takes one.
constexpr double kWideIndexFactor = 3;

inline double tile_cost(const Kernel& kernel, const Problem& p, const LoadCosts& loads_of, int64_t rows, int64_t columns, int64_t depth,
                        int64_t batches) {
  const double padded = double(round_up(rows, kernel.bm)) * double(round_up(columns, kernel.bn)) * double(depth) * double(batches);
  const double shared_reads = double(kernel.tm + kernel.tn) / (kernel.tm * kernel.tn);
  const double loads = loads_of.row / kernel.bn + loads_of.column / kernel.bm;
  const Configuration configuration = kernel.configure(kernel, p);
  const double results = padded / double(std::max<int64_t>(1, depth)) * double(configuration.slabs);
  Work work;
  work.instructions = (padded * (1 + shared_reads + loads) + results * kPerResult) * (kernel.index_bits == 64 ? kWideIndexFactor : 1);
  work.dram_bytes = p.tensor_bytes() + 2 * double(configuration.workspace_bytes);
  work.l2_bytes = padded * (1.0 / kernel.bm + 1.0 / kernel.bn) * size_of(p.dtype);
  work.l1_bytes = padded * shared_reads * accumulator_size(p.dtype);
  work.blocks = double(configuration.blocks);
  work.threads = kernel.threads;
  work.launches = configuration.slabs > 1 ? 2 : 1;
  return microseconds(work);
}

inline std::string why_not_direct(const Kernel& kernel, const Problem& problem) {
  if (kernel.index_bits == 32 && !fits_32_bits(problem)) return "an index or offset does not fit in 31 bits";
  return {};
}

// fprop and dgrad seen as a gather: which tensor is read, which is written.
struct GatherView {
  const Strides &in, &out;
  int64_t in_channels, out_channels;  // per group
  int64_t out_h, out_w;

  explicit GatherView(const Problem& p)
      : in(p.pass == Pass::kFprop ? p.x : p.y),
        out(p.pass == Pass::kFprop ? p.y : p.x),
        in_channels(p.pass == Pass::kFprop ? p.channels_per_group() : p.filters_per_group()),
        out_channels(p.pass == Pass::kFprop ? p.filters_per_group() : p.channels_per_group()),
        out_h(p.pass == Pass::kFprop ? p.P : p.H),
        out_w(p.pass == Pass::kFprop ? p.Q : p.W) {}
};

// A padding mode that folds several positions into one pixel takes all pixels as one class.
inline int64_t residue_classes(const Problem& p, int64_t stride, int64_t out_extent) {
  return p.pass == Pass::kFprop || p.padding_mode != PaddingMode::kZeros ? 1 : std::min(stride, out_extent);
}

inline double gather_cost(const Kernel& kernel, const Problem& p) {
  const GatherView view(p);
  const int64_t classes = residue_classes(p, p.stride_h, view.out_h) * residue_classes(p, p.stride_w, view.out_w);
  if (classes == 0) return 0;
  return tile_cost(kernel, p, kGatherLoads, ceil_div(p.N * view.out_h * view.out_w, classes), view.out_channels,
                   view.in_channels * p.R * p.S, p.groups);
}

inline Configuration configure_gather(const Kernel& kernel, const Problem& p) {
  const GatherView view(p);
  const int64_t classes_h = residue_classes(p, p.stride_h, view.out_h), classes_w = residue_classes(p, p.stride_w, view.out_w);
  if (p.N * view.out_h * view.out_w * view.out_channels == 0) return {};
  const int64_t rows = p.N * ceil_div(view.out_h, classes_h) * ceil_div(view.out_w, classes_w);
  return {ceil_div(rows, kernel.bm) * classes_h * classes_w * p.groups * ceil_div(view.out_channels, kernel.bn), 1, 0};
}

template <class Index>
GatherAxis<Index> gather_axis(const Problem& p, int64_t out, int64_t in, int64_t taps, int64_t stride, int64_t pad, int64_t dilation) {
  const int64_t image = p.pass == Pass::kFprop ? in : out, outputs = p.pass == Pass::kFprop ? out : in;
  const int64_t after = std::max<int64_t>(0, last_position(outputs, stride, pad, taps, dilation) - (image - 1));
  const int64_t tap_step = p.pass == Pass::kFprop ? 1 : stride / std::gcd(stride, dilation);
  return {Index(out),
          Index(in),
          Index(taps),
          Index(stride),
          Index(pad),
          Index(dilation),
          Index(residue_classes(p, stride, out)),
          Index(tap_step),
          Index(after),
          Index(fold_count(p.padding_mode, pad, after)),
          FastDiv<Index>(stride)};
}

template <class T, class Tile, class Index>
void run_gather(const Kernel& kernel, const Problem& p, const Configuration& configuration, const Arguments& a) {
  if (configuration.blocks == 0) return;
  const bool fprop = p.pass == Pass::kFprop;
  const GatherView view(p);
  GatherParams<Index> q{};
  q.in = fprop ? a.x : a.y;
  q.filter = a.w;
  q.epilogue = a.epilogue;
  q.out = a.out;
  q.in_n = Index(view.in.d0), q.in_c = Index(view.in.d1), q.in_h = Index(view.in.d2), q.in_w = Index(view.in.d3);
  q.out_n = Index(view.out.d0), q.out_c = Index(view.out.d1), q.out_h = Index(view.out.d2), q.out_w = Index(view.out.d3);
  q.filter_group = Index(p.filters_per_group() * p.w.d0);
  q.filter_out = Index(fprop ? p.w.d0 : p.w.d1), q.filter_in = Index(fprop ? p.w.d1 : p.w.d0);
  q.filter_r = Index(p.w.d2), q.filter_s = Index(p.w.d3);
  q.batch = Index(p.N), q.groups = Index(p.groups);
  q.in_channels = Index(view.in_channels), q.out_channels = Index(view.out_channels);
  q.h = gather_axis<Index>(p, view.out_h, fprop ? p.H : p.P, p.R, p.stride_h, p.pad_h, p.dilation_h);
  q.w = gather_axis<Index>(p, view.out_w, fprop ? p.W : p.Q, p.S, p.stride_w, p.pad_w, p.dilation_w);
  q.n_tiles = Index(ceil_div(view.out_channels, Tile::BN));
  q.dgrad = !fprop;
  q.padding_mode = p.padding_mode;
  q.channel_innermost = fprop ? p.x_is_channels_last() : p.y_is_channels_last();
  q.in_k_dense = q.channel_innermost;
  q.filter_k_dense = q.filter_out != 1;
  q.out_n_dense = view.out.d1 == 1 && view.out_channels > 1;
  const LaunchShape shape{dim3(unsigned(configuration.blocks)), dim3(Tile::kThreads), 0, a.stream};
  launch(kernel.name.c_str(), shape, gather_kernel<T, Tile, Index>, q);
}

inline double wgrad_cost(const Kernel& kernel, const Problem& p) {
  return tile_cost(kernel, p, kWgradLoads, p.filters_per_group(), p.channels_per_group() * p.R * p.S, p.output_pixels(), p.groups);
}

// Splits `pixels` into at most `wanted` slabs of whole multiples of `step`, none of them under `least`.
inline int64_t pixels_per_slab(int64_t pixels, int64_t wanted, int64_t least, int64_t step) {
  const int64_t slabs = std::max<int64_t>(1, std::min(wanted, pixels / least));
  return std::max(step, round_up(ceil_div(pixels, slabs), step));
}

inline int64_t wgrad_slab_pixels(const Kernel& kernel, const Problem& p) {
  constexpr int64_t kLeastSteps = 16;  // a slab's partial sums are written and read once: at least so many steps must pay for it
  const int64_t tiles = ceil_div(p.filters_per_group(), kernel.bm) * ceil_div(p.channels_per_group() * p.R * p.S, kernel.bn) * p.groups;
  const int64_t bytes = std::max<int64_t>(1, p.filter_numel() * accumulator_size(p.dtype));
  const int64_t wanted = std::min(ceil_div(kTargetBlocks, std::max<int64_t>(1, tiles)), kMaxWorkspaceBytes / bytes);
  return pixels_per_slab(p.output_pixels(), std::max<int64_t>(1, wanted), kLeastSteps * kernel.bk, kernel.bk);
}

inline Configuration configure_wgrad(const Kernel& kernel, const Problem& p) {
  if (p.filter_numel() == 0) return {};
  const int64_t tiles = ceil_div(p.filters_per_group(), kernel.bm) * ceil_div(p.channels_per_group() * p.R * p.S, kernel.bn) * p.groups;
  const int64_t slabs = std::max<int64_t>(1, ceil_div(p.output_pixels(), wgrad_slab_pixels(kernel, p)));
  return {tiles * slabs, slabs, p.sums_in_workspace(slabs) ? slabs * p.filter_numel() * accumulator_size(p.dtype) : 0};
}

template <class T, class Tile, class Index>
void run_wgrad(const Kernel& kernel, const Problem& p, const Configuration& configuration, const Arguments& a) {
  if (configuration.blocks == 0) return;
  WgradParams<Index> q{};
  q.x = a.x, q.y = a.y, q.w = a.out;
  q.partial = p.sums_in_workspace(configuration.slabs) ? a.workspace : nullptr;
  q.x_n = Index(p.x.d0), q.x_c = Index(p.x.d1), q.x_h = Index(p.x.d2), q.x_w = Index(p.x.d3);
  q.y_n = Index(p.y.d0), q.y_c = Index(p.y.d1), q.y_h = Index(p.y.d2), q.y_w = Index(p.y.d3);
  q.channels = Index(p.channels_per_group()), q.filters = Index(p.filters_per_group());
  q.elements = q.channels * Index(p.R * p.S);
  q.filter.channel_innermost = p.x_is_channels_last();
  q.filter.inner = FastDiv<Index>(q.filter.channel_innermost ? q.channels : Index(p.R * p.S));
  q.filter.width = FastDiv<Index>(p.S);
  q.filter.k = Index(p.w.d0), q.filter.c = Index(p.w.d1), q.filter.r = Index(p.w.d2), q.filter.s = Index(p.w.d3);
  q.groups = Index(p.groups);
  q.height = Index(p.H), q.width = Index(p.W);
  q.padding_mode = p.padding_mode;
  q.stride_h = Index(p.stride_h), q.stride_w = Index(p.stride_w), q.pad_h = Index(p.pad_h), q.pad_w = Index(p.pad_w);
  q.dilation_h = Index(p.dilation_h), q.dilation_w = Index(p.dilation_w);
  q.q = FastDiv<Index>(p.Q), q.pq = FastDiv<Index>(p.P * p.Q);
  q.pixels = Index(p.output_pixels());
  q.slab_pixels = Index(wgrad_slab_pixels(kernel, p));
  q.m_tiles = Index(ceil_div(q.filters, Tile::BM)), q.n_tiles = Index(ceil_div(q.elements, Tile::BN));
  q.y_k_dense = !p.y_is_channels_last();
  q.x_k_dense = !q.filter.channel_innermost;
  const LaunchShape shape{dim3(unsigned(configuration.blocks)), dim3(Tile::kThreads), 0, a.stream};
  launch(kernel.name.c_str(), shape, wgrad_kernel<T, Tile, Index>, q);
  if (!q.partial) return;
  const int64_t channels = p.channels_per_group();
  if (q.filter.channel_innermost)
    add_slabs<T>({a.workspace, configuration.slabs, {p.K, p.R, p.S, channels}, a.out, {p.w.d0, p.w.d2, p.w.d3, p.w.d1}}, a);
  else add_slabs<T>({a.workspace, configuration.slabs, {p.K, channels, p.R, p.S}, a.out, {p.w.d0, p.w.d1, p.w.d2, p.w.d3}}, a);
}

inline double bias_grad_cost(const Kernel& kernel, const Problem& p) {
  constexpr double kInstructions = 12;  // per element: two divisions by multiplication, the address, the read, the addition
  const Configuration configuration = kernel.configure(kernel, p);
  Work work;
  work.instructions = double(p.K) * double(p.output_pixels()) * kInstructions * (kernel.index_bits == 64 ? kWideIndexFactor : 1);
  work.dram_bytes = work.l2_bytes = work.l1_bytes = double(p.K) * double(p.output_pixels()) * size_of(p.dtype);
  work.blocks = double(configuration.blocks), work.threads = kernel.threads, work.launches = 2;
  return microseconds(work);
}

inline int64_t bias_grad_channels_per_block(const Problem& p) { return p.y_is_channels_last() ? 32 : kBiasGradThreads / 32; }

inline int64_t bias_grad_slab_pixels(const Problem& p) {
  constexpr int64_t kLeastPixels = 1024;
  const int64_t tiles = std::max<int64_t>(1, ceil_div(p.K, bias_grad_channels_per_block(p)));
  return pixels_per_slab(p.output_pixels(), ceil_div(kTargetBlocks, tiles), kLeastPixels, 32);
}

inline Configuration configure_bias_grad(const Kernel&, const Problem& p) {
  if (p.K == 0) return {};
  const int64_t slabs = std::max<int64_t>(1, ceil_div(p.output_pixels(), bias_grad_slab_pixels(p)));
  return {ceil_div(p.K, bias_grad_channels_per_block(p)) * slabs, slabs, slabs * p.K * accumulator_size(p.dtype)};
}

template <class T, class Index>
void run_bias_grad(const Kernel& kernel, const Problem& p, const Configuration& configuration, const Arguments& a) {
  if (configuration.blocks == 0) return;
  BiasGradParams<Index> q{};
  q.y = a.y, q.partial = a.workspace;
  q.y_n = Index(p.y.d0), q.y_c = Index(p.y.d1), q.y_h = Index(p.y.d2), q.y_w = Index(p.y.d3);
  q.channels = Index(p.K);
  q.q = FastDiv<Index>(p.Q), q.pq = FastDiv<Index>(p.P * p.Q);
  q.pixels = Index(p.output_pixels()), q.slab_pixels = Index(bias_grad_slab_pixels(p));
  q.channels_dense = p.y_is_channels_last();
  q.channel_tiles = Index(ceil_div(p.K, bias_grad_channels_per_block(p)));
  launch(kernel.name.c_str(), {dim3(unsigned(configuration.blocks)), dim3(kBiasGradThreads), 0, a.stream}, bias_grad_kernel<T, Index>, q);
  add_slabs<T>({a.workspace, configuration.slabs, {1, 1, 1, p.K}, a.out, {0, 0, 0, 1}}, a);
}

inline double activation_grad_cost(const Kernel& kernel, const Problem& p) {
  constexpr double kInstructions = 4;  // per element, estimated from the source: compare, select, and its part of the addresses
  const double elements = double(p.K) * double(p.output_pixels());
  Work work;
  work.instructions = elements * kInstructions;
  work.dram_bytes = work.l2_bytes = work.l1_bytes = 3 * elements * size_of(p.dtype);
  work.blocks = double(kernel.configure(kernel, p).blocks), work.threads = kernel.threads;
  return microseconds(work);
}

// Whether what the activation gave, its gradient and the result, which begin at these addresses, lie alike and in whole vectors.
inline bool activation_grad_alike(const Problem& p, std::initializer_list<const void*> addresses) {
  constexpr int kVectorBytes = 16;
  const bool last = p.x_is_channels_last();
  const int64_t pixel = last ? p.K : 1, channel = last ? 1 : p.P * p.Q;
  const auto dense = [&](const Strides& s) {
    return (p.N == 1 || s.d0 == p.K * p.P * p.Q) && (p.K == 1 || s.d1 == channel) && (p.P == 1 || s.d2 == p.Q * pixel) &&
           (p.Q == 1 || s.d3 == pixel);
  };
  return p.K * p.output_pixels() * size_of(p.dtype) % kVectorBytes == 0 && dense(p.x) && dense(p.w) && dense(p.y) &&
         std::all_of(addresses.begin(), addresses.end(),
                     [](const void* at) { return reinterpret_cast<std::uintptr_t>(at) % kVectorBytes == 0; });
}

inline int64_t activation_grad_blocks(const Problem& p, bool alike) {
  return ceil_div(p.K * p.output_pixels(), int64_t(kActivationGradThreads) * (alike ? 16 / size_of(p.dtype) : 1));
}

inline Configuration configure_activation_grad(const Kernel&, const Problem& p) {
  Configuration c;
  c.blocks = activation_grad_blocks(p, activation_grad_alike(p, {}));
  return c;
}

template <class T>
void run_activation_grad(const Kernel& kernel, const Problem& p, const Configuration&, const Arguments& a) {
  ActivationGradParams q{};
  q.y = a.w, q.dy = a.y, q.dz = a.out;
  q.elements = p.K * p.output_pixels(), q.slope = a.epilogue.slope;
  q.most = std::isinf(a.epilogue.most) ? std::numeric_limits<double>::quiet_NaN() : a.epilogue.most;
  if (q.elements == 0) return;
  q.alike = activation_grad_alike(p, {a.w, a.y, a.out});
  const bool last = p.x_is_channels_last();
  const auto in_order = [&](const Strides& s, int64_t (&to)[4]) {
    const int64_t of[4] = {s.d0, last ? s.d2 : s.d1, last ? s.d3 : s.d2, last ? s.d1 : s.d3};
    std::copy(of, of + 4, to);
  };
  const int64_t extents[3] = {last ? p.P : p.K, last ? p.Q : p.P, last ? p.K : p.Q};
  std::copy(extents, extents + 3, q.extents);
  in_order(p.w, q.y_strides), in_order(p.y, q.dy_strides);
  const LaunchShape shape{dim3(unsigned(activation_grad_blocks(p, q.alike))), dim3(kActivationGradThreads), 0, a.stream};
  launch(kernel.name.c_str(), shape, activation_grad_kernel<T>, q);
}

template <class T, class Tile, class Index>
Kernel direct_row(const char* what, std::vector<Pass> passes) {
  Kernel row{};
  row.name = std::string("conv2d_") + what + "_" + std::to_string(Tile::BM) + "x" + std::to_string(Tile::BN) + "x" +
             std::to_string(Tile::BK) + "_" + short_name(TypeTraits<T>::kDType) + (sizeof(Index) == 8 ? "_i64" : "");
  row.family = "direct";
  row.dtype = TypeTraits<T>::kDType;
  row.passes = std::move(passes);
  row.bm = Tile::BM, row.bn = Tile::BN, row.bk = Tile::BK, row.tm = Tile::TM, row.tn = Tile::TN;
  row.threads = Tile::kThreads;
  row.index_bits = int(sizeof(Index)) * 8;
  row.why_not = why_not_direct;
  return row;
}

template <class T, class Tile, class Index>
void add_gather(std::vector<Kernel>& catalogue) {
  Kernel row = direct_row<T, Tile, Index>("gather", {Pass::kFprop, Pass::kDgrad});
  row.shared_bytes = int(sizeof(TileStages<Tile, Accumulator<T>>) + sizeof(GatherBlock<Index>) + 4 * Tile::BM * sizeof(Index));
  row.cost = gather_cost;
  row.configure = configure_gather;
  row.run = run_gather<T, Tile, Index>;
  catalogue.push_back(row);
}

template <class T, class Tile, class Index>
void add_wgrad(std::vector<Kernel>& catalogue) {
  Kernel row = direct_row<T, Tile, Index>("wgrad", {Pass::kWgrad});
  row.shared_bytes = int(sizeof(TileStages<Tile, Accumulator<T>>) + 3 * Tile::BN * sizeof(Index));
  row.cost = wgrad_cost;
  row.configure = configure_wgrad;
  row.run = run_wgrad<T, Tile, Index>;
  catalogue.push_back(row);
}

template <class T, class Index>
void add_bias_grad(std::vector<Kernel>& catalogue) {
  Kernel row{};
  row.name = std::string("conv2d_bias_grad_") + short_name(TypeTraits<T>::kDType) + (sizeof(Index) == 8 ? "_i64" : "");
  row.family = "direct";
  row.dtype = TypeTraits<T>::kDType;
  row.passes = {Pass::kBiasGrad};
  row.threads = kBiasGradThreads;
  row.shared_bytes = int(kBiasGradThreads * sizeof(Accumulator<T>));
  row.index_bits = int(sizeof(Index)) * 8;
  row.why_not = why_not_direct;
  row.cost = bias_grad_cost;
  row.configure = configure_bias_grad;
  row.run = run_bias_grad<T, Index>;
  catalogue.push_back(row);
}

template <class T>
void add_activation_grad(std::vector<Kernel>& catalogue) {
  Kernel row{};
  row.name = std::string("conv2d_activation_grad_") + short_name(TypeTraits<T>::kDType);
  row.family = "direct";
  row.dtype = TypeTraits<T>::kDType;
  row.passes = {Pass::kActivationGrad};
  row.threads = kActivationGradThreads;
  row.index_bits = 64;
  row.why_not = why_not_direct;
  row.cost = activation_grad_cost;
  row.configure = configure_activation_grad;
  row.run = run_activation_grad<T>;
  catalogue.push_back(row);
}

// Wide tiles for many channels, narrow ones for few; one of each kind with 64-bit indices, for tensors beyond 2^31 elements.
template <class T>
void add_direct_kernels(std::vector<Kernel>& catalogue) {
  add_gather<T, Tile<128, 64, 8, 8, 8>, int32_t>(catalogue);
  add_gather<T, Tile<128, 16, 16, 4, 4>, int32_t>(catalogue);
  add_gather<T, Tile<128, 8, 16, 4, 2>, int32_t>(catalogue);
  add_gather<T, Tile<64, 64, 8, 4, 8>, int64_t>(catalogue);
  add_wgrad<T, Tile<64, 64, 8, 8, 4>, int32_t>(catalogue);
  add_wgrad<T, Tile<16, 64, 16, 4, 2>, int32_t>(catalogue);
  add_wgrad<T, Tile<8, 32, 32, 2, 1>, int32_t>(catalogue);
  add_wgrad<T, Tile<64, 64, 8, 8, 4>, int64_t>(catalogue);
  add_bias_grad<T, int32_t>(catalogue);
  add_bias_grad<T, int64_t>(catalogue);
  add_activation_grad<T>(catalogue);
}

}  // namespace cnn::conv2d
