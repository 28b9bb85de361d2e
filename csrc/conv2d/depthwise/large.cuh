// The host side of the depthwise kernels for filters of any size: tiling, parameters, costs, and the rows of the catalogue. Included by
// instantiations/large_*.cu alone. Configuration::tile: planes of a block, rows of its results, rows of a stage.
#pragma once

#include <algorithm>
#include <bit>
#include <string>
#include <vector>

#include "common/cost.h"
#include "common/integers.h"
#include "conv2d/depthwise/depthwise.h"
#include "conv2d/depthwise/large_kernel.cuh"
#include "conv2d/depthwise/slabs.h"
#include "conv2d/eligibility.h"
#include "conv2d/plan.h"
#include "conv2d/sum_slabs/sum_slabs.h"

namespace cnn::conv2d {

// Which tensor is the image, which the filter and which the result (large_kernel.cuh).
struct LargeView {
  const Strides &image, &filter, &out;
  int64_t image_h, image_w, filter_h, filter_w, out_h, out_w, pad_h, pad_w;

  explicit LargeView(const Problem& p)
      : image(p.pass == Pass::kDgrad ? p.y : p.x),
        filter(p.pass == Pass::kWgrad ? p.y : p.w),
        out(p.pass == Pass::kWgrad   ? p.w
            : p.pass == Pass::kDgrad ? p.x
                                     : p.y),
        image_h(p.pass == Pass::kDgrad ? p.P : p.H),
        image_w(p.pass == Pass::kDgrad ? p.Q : p.W),
        filter_h(p.pass == Pass::kWgrad ? p.P : p.R),
        filter_w(p.pass == Pass::kWgrad ? p.Q : p.S),
        out_h(p.pass == Pass::kWgrad   ? p.R
              : p.pass == Pass::kDgrad ? p.H
                                       : p.P),
        out_w(p.pass == Pass::kWgrad   ? p.S
              : p.pass == Pass::kDgrad ? p.W
                                       : p.Q),
        pad_h(p.pass == Pass::kDgrad ? p.R - 1 - p.pad_h : p.pad_h),
        pad_w(p.pass == Pass::kDgrad ? p.S - 1 - p.pad_w : p.pad_w) {}
};

// How a problem is cut.
struct LargeTiling {
  int64_t images = 1, channels = 1;  // of a block
  int64_t strips = 0, groups = 0, group_blocks = 0;
  int64_t stage_rows = 0;  // of the image; wgrad: of dy
  int64_t image_rows = 0;  // of a stage
  int64_t bands = 1, units = 1, slab_units = 1, slabs = 1;
  int64_t blocks = 0;
  LargeTile image{}, filter{}, out{};
  int64_t out_left_out = 0;                                                            // words behind a plane of a run of results
  int64_t image_values = 0, filter_values = 0, image_landing = 0, filter_landing = 0;  // elements

  int64_t planes() const { return images * channels; }
  int64_t threads() const { return round_up(planes() * strips * groups, 32); }
  int64_t shared(int64_t element) const { return 4 * (image_values + filter_values) + element * (image_landing + filter_landing); }
};

inline int64_t power_of_two_floor(int64_t n) { return int64_t(std::bit_floor(std::uint64_t(std::max<int64_t>(1, n)))); }
inline int64_t power_of_two_ceil(int64_t n) { return int64_t(std::bit_ceil(std::uint64_t(std::max<int64_t>(1, n)))); }

// Places in shared memory, once it is known what a block has.
inline void lay_out_large(const Problem& p, bool nhwc, LargeTiling& t) {
  const LargeView v(p);
  const bool wgrad = p.pass == Pass::kWgrad;
  const int64_t filter_rows = wgrad ? t.stage_rows : v.filter_h, rows = std::min(v.out_h, t.groups * kLargeTile);
  const auto run = [](int64_t h, int64_t width) {
    return round_up(h * width + 8, 8);
  };  // up to 8 elements before it are of its first vector
  t.image_rows = std::min(v.image_h, wgrad ? t.stage_rows + rows - 1 : t.stage_rows);

  // Lanes are planes, then strips 7 words apart: with planes an odd multiple of 32 / planes words apart they are in 32 banks.
  t.image.first_column = kLargeMargin;
  t.image.row_pitch = FastDiv<int>(v.image_w + kLargeMargin);
  const int64_t step = std::max<int64_t>(1, 32 / t.planes());
  int64_t pitch = round_up(t.image_rows * t.image.row_pitch.divisor + kLargeMargin, step);
  if (pitch / step % 2 == 0) pitch += step;
  t.image.plane_pitch = FastDiv<int>(pitch);
  t.image.landing_plane = int(run(t.image_rows, v.image_w));
  // Taps are read in fours: an odd number of them from one channel to the next.
  t.filter.row_pitch = FastDiv<int>(round_up(v.filter_w, kLargeChunk));
  pitch = filter_rows * t.filter.row_pitch.divisor;
  if (pitch / 4 % 2 == 0) pitch += 4;
  t.filter.plane_pitch = FastDiv<int>(pitch);
  t.filter.landing_plane = int(run(filter_rows, v.filter_w));
  t.out.landing_plane = int(run(rows, v.out_w));

  // Results of a plane are written by lanes of their own: as the image's planes, an odd multiple of `step` words apart.
  t.out_left_out = 0;
  if (!nhwc && !wgrad && rows == v.out_h) {
    const int64_t plane = v.out_h * v.out_w, apart = round_up(plane, step);
    t.out_left_out = apart + (apart / step % 2 == 0 ? step : 0) - plane;
    t.out_left_out = t.out_left_out % 32;
  }
  const int64_t results = nhwc || wgrad
                              ? t.planes() * rows * v.out_w
                              : t.planes() * (t.out.landing_plane + std::max<int64_t>(kLargeRunGap, t.out_left_out)) + 8 * t.images;
  t.image_values = round_up(std::max(t.planes() * int64_t(t.image.plane_pitch.divisor), results), 4);
  t.filter_values = round_up(t.channels * t.filter.plane_pitch.divisor, 4);
  t.image_landing = nhwc ? round_up(t.planes() * t.image_rows * v.image_w, 16) : t.planes() * t.image.landing_plane;
  t.filter_landing = !wgrad ? 0 : nhwc ? round_up(t.channels * filter_rows * v.filter_w, 16) : t.channels * t.filter.landing_plane;
}

inline LargeTiling large_tiling(const Problem& p, bool nhwc) {
  constexpr int64_t kPlanes = 16, kMostPlanes = 64, kFewThreads = 128;
  constexpr int64_t kGoodSharedBytes = 100 * 1024;  // two blocks on a multiprocessor
  const LargeView v(p);
  const bool wgrad = p.pass == Pass::kWgrad;
  const int64_t size = size_of(p.dtype);
  LargeTiling t;
  t.strips = ceil_div(v.out_w, kLargeTile);
  const int64_t all_groups = ceil_div(v.out_h, kLargeTile);

  int64_t planes = std::min(kPlanes, power_of_two_floor(kLargeThreads / t.strips));
  while (planes < kMostPlanes && 2 * planes * t.strips * all_groups <= kFewThreads) planes *= 2;
  // Channels enough for whole sectors, or NCHW for a kilobyte of whole planes; the other planes are those of the same channels in
  // other images, whose lanes then read the same taps.
  const int64_t plane_bytes = v.image_h * v.image_w * size;
  const int64_t wanted = nhwc ? 32 / size : power_of_two_ceil(ceil_div(1024, plane_bytes));
  const int64_t least = std::min(planes, wanted);
  const auto choose_planes = [&](int64_t least_channels) {
    t.images = wgrad ? 1 : std::min(power_of_two_floor(p.N), planes / least_channels);
    t.channels = std::min(planes / t.images, power_of_two_ceil(p.C));
    const int64_t most = std::max<int64_t>(1, (wgrad ? kLargeThreads : kFewThreads) / (t.planes() * t.strips));
    t.group_blocks = ceil_div(all_groups, std::min(most, all_groups));
    t.groups = ceil_div(all_groups, t.group_blocks);
  };
  const auto fit = [&] {
    const int64_t most = wgrad ? v.filter_h : std::min(v.image_h, t.groups * kLargeTile + v.filter_h - 1);
    for (t.stage_rows = most;; t.stage_rows = t.stage_rows > 16 ? t.stage_rows / 2 : t.stage_rows - 1) {
      lay_out_large(p, nhwc, t);
      if (t.stage_rows == 1 || t.shared(size) <= kGoodSharedBytes) return;
    }
  };
  choose_planes(least);
  fit();
  // Too much for shared memory: fewer groups, then fewer planes.
  while (t.shared(size) > kGoodSharedBytes || (wgrad && t.stage_rows < std::min<int64_t>(kLargeTile, v.filter_h))) {
    if (t.groups > 1) {
      t.groups = ceil_div(t.groups, 2), t.group_blocks = ceil_div(all_groups, t.groups);
    } else if (planes > (nhwc ? 16 / size : 1)) {
      planes /= 2;
      choose_planes(std::min(planes, least));
    } else {
      break;
    }
    fit();
  }

  const int64_t channel_blocks = ceil_div(p.C, t.channels) * t.group_blocks;
  if (wgrad) {
    t.bands = ceil_div(v.filter_h, t.stage_rows);
    t.units = p.N * t.bands;
    t.slab_units = best_slab_units(p, t.units, channel_blocks, t.threads());
    t.slabs = ceil_div(t.units, t.slab_units);
    t.blocks = channel_blocks * t.slabs;
  } else {
    t.blocks = channel_blocks * ceil_div(p.N, t.images);
  }
  return t;
}

template <bool kNhwc>
std::string why_not_large(const Kernel&, const Problem& p) {
  const std::string why = why_not_tuned(p);
  if (!why.empty()) return why;
  if (!p.is_depthwise()) return "not depthwise: " + std::to_string(p.groups) + " groups of " + std::to_string(p.C) + " channels";
  if (p.K != p.C) return "built for one filter to a channel";
  if (p.stride_h != 1 || p.stride_w != 1) return "built for stride 1";
  if (p.dilation_h != 1 || p.dilation_w != 1) return "built for dilation 1";
  if (kNhwc && !(p.x_is_channels_last() && p.y_is_channels_last())) return "the channels are not dense";
  if (!kNhwc && !(p.x_is_planar() && p.y_is_planar())) return "the columns of a plane are not dense";
  const LargeView v(p);
  if (ceil_div(v.out_w, kLargeTile) > kLargeThreads) return "a row of " + std::to_string(v.out_w) + " results is too long for a block";
  if (large_tiling(p, kNhwc).shared(size_of(p.dtype)) > p.block_shared)
    return "a row of the image and a filter do not fit in shared memory";
  return {};
}

template <bool kNhwc>
Configuration configure_large(const Kernel&, const Problem& p) {
  const LargeTiling t = large_tiling(p, kNhwc);
  Configuration c;
  c.blocks = t.blocks;
  c.slabs = t.slabs;
  c.workspace_bytes = p.sums_in_workspace(t.slabs) ? t.slabs * p.filter_numel() * 4 : 0;
  c.threads = int(t.threads());
  c.shared_bytes = int(t.shared(size_of(p.dtype)));
  c.tile[0] = int(t.planes()), c.tile[1] = int(t.groups * kLargeTile), c.tile[2] = int(t.stage_rows);
  return c;
}

// Counted in large_kernel.cuh: a step of 4 taps is 28 FMAs, a read of taps and, where not all seven rows are there, two tests for each row
// of results; and 10 reads of the image and 6 of the loop for a row of the image. Besides, for each word of a plane or filter that is
// brought there: two divisions by multiplication, bounds, a read, a write and addresses (NHWC: for each element, by dividing); for each
// result an addition, two bounds, its address and a write, and for 16 bytes of them three divisions, reads, conversions and a store.
// 128 bytes of shared memory are read by a warp at a time, taps in four parts.
template <bool kNhwc>
double large_cost(const Kernel& kernel, const Problem& p) {
  constexpr double kStepRow = 30, kStep = 16, kSpread = kNhwc ? 30 : 22, kFilterWord = 22, kResult = 6, kStore = 60;
  const LargeView v(p);
  const LargeTiling t = large_tiling(p, kNhwc);
  const Configuration configuration = kernel.configure(kernel, p);
  const bool wgrad = p.pass == Pass::kWgrad;

  double steps = 0;  // of 4 taps, for all strips
  for (int64_t strip = 0; strip < t.strips; ++strip) {
    const int64_t left = v.pad_w - strip * kLargeTile;
    const int64_t first = std::max<int64_t>(0, ceil_div(left - kLargeMargin, kLargeChunk)), last = std::min(v.filter_w, left + v.image_w);
    steps += double(std::max<int64_t>(0, ceil_div(last, kLargeChunk) - first));
  }
  double rows = 0, pairs = 0;  // of the image; with a row of the filter; for all groups and, of wgrad, bands
  const int64_t band = wgrad ? t.stage_rows : v.filter_h;
  for (int64_t o = 0; o < v.out_h; o += kLargeTile) {
    for (int64_t f = 0; f < v.filter_h; f += band) {
      const int64_t end = std::min(v.filter_h, f + band);
      for (int64_t h = std::max<int64_t>(0, f + o - v.pad_h); h < std::min(v.image_h, end + o + kLargeTile - 1 - v.pad_h); ++h) {
        const int64_t tap = h + v.pad_h - o;  // meets the group's first row, tap - i its i-th
        pairs += double(std::max<int64_t>(0, std::min<int64_t>(kLargeTile - 1, tap - f) - std::max<int64_t>(0, tap - end + 1) + 1));
        ++rows;
      }
    }
  }
  const double planes = wgrad ? double(p.N) * double(ceil_div(p.C, t.channels) * t.channels)
                              : double(ceil_div(p.N, t.images) * ceil_div(p.C, t.channels)) * double(t.planes());
  const double image = double(p.N * p.C) * double(v.image_h * v.image_w);
  const double rereads =
      wgrad ? double(t.group_blocks) * double(t.image_rows) / double(std::min(t.stage_rows, v.filter_h))
            : double(t.group_blocks) * double(std::min(v.image_h, t.groups * kLargeTile + v.filter_h - 1)) / double(v.image_h);
  const double margins = kNhwc ? 1 : double(t.image.row_pitch.divisor) / double(v.image_w);
  const double filters = wgrad ? double(p.N * p.C) * double(v.filter_h * t.filter.row_pitch.divisor) * double(t.group_blocks)
                               : double(t.blocks * t.channels) * double(t.filter.plane_pitch.divisor);
  const double results = wgrad ? double(p.C * t.slabs) * double(v.out_h * v.out_w) : double(p.N * p.C) * double(v.out_h * v.out_w);
  Work work;
  work.instructions = planes * steps * (pairs * kStepRow + rows * kStep) + image * rereads * margins * kSpread + filters * kFilterWord +
                      results * (kResult + kStore * double(size_of(p.dtype)) / 16);
  work.dram_bytes = p.tensor_bytes() + 2 * double(configuration.workspace_bytes);
  work.l2_bytes = p.tensor_bytes() + image * (rereads - 1) * size_of(p.dtype) + 2 * double(configuration.workspace_bytes);
  work.l1_bytes = 4 * planes * steps * (pairs * 4 + rows * kLargeWindow) + 8 * results +
                  (image * rereads + filters) * (4 * margins + 2 * size_of(p.dtype));  // landing, read there, written
  work.blocks = double(configuration.blocks), work.threads = configuration.threads;
  work.launches = p.sums_in_workspace(configuration.slabs) ? 2 : 1;
  return microseconds(work);
}

inline bool aligned16(const void* address) { return reinterpret_cast<std::uintptr_t>(address) % 16 == 0; }

template <class T, bool kNhwc>
void run_large(const Kernel& kernel, const Problem& p, const Configuration& configuration, const Arguments& a) {
  const LargeView v(p);
  const LargeTiling t = large_tiling(p, kNhwc);
  const bool wgrad = p.pass == Pass::kWgrad;
  const auto tensor = [&](const Strides& s, int64_t height, int64_t width, const void* at) {
    const bool runs = s.d3 == 1 && (height == 1 || s.d2 == width) && s.d1 == height * width;
    constexpr int kVector = 16 / int(sizeof(T));  // a block's channels, too, begin at one where there are several blocks of them
    const bool vectors = kNhwc ? channels_in_vectors(s, p.C, kVector) && t.channels % kVector == 0 && aligned16(at) : runs;
    return LargeTensor{int(s.d0), int(s.d1), int(s.d2), int(s.d3), int(height), int(width), vectors};
  };
  const auto filters = [&](int64_t height, int64_t width) {
    return LargeTensor{0, int(p.w.d0), int(p.w.d2), int(p.w.d3), int(height), int(width), false};
  };
  LargeParams q{};
  q.image = p.pass == Pass::kDgrad ? a.y : a.x, q.filter = wgrad ? a.y : a.w, q.epilogue = a.epilogue, q.out = a.out;
  q.partial = p.sums_in_workspace(configuration.slabs) ? static_cast<float*>(a.workspace) : nullptr;
  q.image_tensor = tensor(v.image, v.image_h, v.image_w, q.image);
  q.filter_tensor = wgrad ? tensor(p.y, p.P, p.Q, a.y) : filters(p.R, p.S);
  q.out_tensor = wgrad ? filters(p.R, p.S) : tensor(v.out, v.out_h, v.out_w, a.out);
  q.image_tile = t.image, q.filter_tile = t.filter, q.out_tile = t.out;
  q.images = int(p.N), q.channels = int(p.C), q.block_images = int(t.images), q.block_channels = int(t.channels);
  q.group_blocks = int(t.group_blocks), q.groups = int(t.groups), q.strips = int(t.strips);
  q.pad_h = int(v.pad_h), q.pad_w = int(v.pad_w), q.flip = p.pass == Pass::kDgrad;
  q.stage_rows = int(t.stage_rows), q.units = int(t.units), q.slab_units = int(t.slab_units), q.bands = int(t.bands);
  q.image_values = int(t.image_values), q.filter_values = int(t.filter_values), q.image_landing = int(t.image_landing);
  const int64_t left_out = t.out_left_out, together = v.out_h * v.out_w | left_out;
  q.out_skew = {FastDiv<int>(v.out_w), FastDiv<int>(v.out_h), 0, int(left_out),
                left_out == 0       ? 0
                : together % 4 == 0 ? 4
                : together % 2 == 0 ? 2
                                    : 1};
  const bool filters_follow = p.w.d0 == p.R * p.S && p.w.d2 == p.S && p.w.d3 == 1;
  const int64_t room = t.image_values * 4 / int64_t(sizeof(T)) - run_elements(0);
  q.landing_filters = !wgrad && filters_follow ? int(std::min(t.channels, room / (p.R * p.S))) : 0;
  const LaunchShape shape{dim3(unsigned(configuration.blocks)), dim3(unsigned(configuration.threads)),
                          std::size_t(configuration.shared_bytes), a.stream};
  if (wgrad) launch(kernel.name.c_str(), shape, large_kernel<T, kNhwc, true>, q);
  else launch(kernel.name.c_str(), shape, large_kernel<T, kNhwc, false>, q);
  if (q.partial) add_slabs<T>({a.workspace, configuration.slabs, {p.K, 1, p.R, p.S}, a.out, {p.w.d0, p.w.d1, p.w.d2, p.w.d3}}, a);
}

template <class T, bool kNhwc>
void add_large(std::vector<Kernel>& catalogue) {
  const std::string layout = kNhwc ? "nhwc_" : "nchw_";
  Kernel row{};
  row.family = "depthwise";
  row.dtype = TypeTraits<T>::kDType;
  row.tm = row.tn = kLargeTile;
  row.threads = kLargeThreads;
  row.index_bits = 32;
  row.why_not = why_not_large<kNhwc>;
  row.cost = large_cost<kNhwc>, row.configure = configure_large<kNhwc>, row.run = run_large<T, kNhwc>;
  row.name = "conv2d_depthwise_large_gather_" + layout + short_name(row.dtype);
  row.passes = {Pass::kFprop, Pass::kDgrad};
  catalogue.push_back(row);
  row.name = "conv2d_depthwise_large_wgrad_" + layout + short_name(row.dtype);
  row.passes = {Pass::kWgrad};
  catalogue.push_back(row);
}

template <class T>
void add_depthwise_large_kernels(std::vector<Kernel>& catalogue) {
  add_large<T, false>(catalogue);
  add_large<T, true>(catalogue);
}

}  // namespace cnn::conv2d
