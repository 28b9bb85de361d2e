// Kernels that read channels_last images, for images of planes: a first launch packs these, in the workspace.
//
// A convolution reads a pixel once for every tap and tile of filters, and in a plane the pixels under a tap begin anywhere: they move in
// units of one element. Of a channels_last image they move in 16 bytes, so that packing pays for itself where these are many (Packed::cost
// says what it takes): nearly always with several taps, and with one where planes are small and channels many.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "common/cost.h"
#include "common/integers.h"
#include "conv2d/eligibility.h"
#include "conv2d/plan.h"

namespace cnn::conv2d {

struct PackImagesParams {
  const void* in;
  void* out;
  int in_n, in_c;  // element strides; pixels are neighbours
  int batch, channels, pixels;
  int pitch;                       // elements from one packed pixel to the next
  int pixel_tiles, channel_tiles;  // the launch sets them
};

template <class T>
void launch_pack_images(PackImagesParams params, cudaStream_t stream);

// The packed images of a problem, and the problem that is left: x, y or both are channels_last.
struct Packed {
  Problem problem;
  int64_t x_bytes = 0, y_bytes = 0;  // 0: not read by the pass, or not packed

  Packed(const Problem& p, bool packs_x) : problem(p) {
    if (p.pass != Pass::kDgrad && packs_x) x_bytes = pack(p, p.C, p.H, p.W, problem.x);
    if (p.pass != Pass::kFprop) y_bytes = pack(p, p.K, p.P, p.Q, problem.y);
  }
  int64_t bytes() const { return x_bytes + y_bytes; }

  // Microseconds: as much is written as is read. Per element, estimated from the source, 3 instructions each for the load, the store, the
  // load and the half of a store.
  double cost() const {
    constexpr double kInstructions = 12;
    Work work;
    work.dram_bytes = work.l2_bytes = 2 * double(bytes());
    work.l1_bytes = 4 * double(bytes());
    work.instructions = kInstructions * double(bytes()) / size_of(problem.dtype);
    work.blocks = std::max(1.0, double(bytes()) / (16 * 1024));
    work.launches = (x_bytes > 0) + (y_bytes > 0);
    return microseconds(work);
  }

 private:
  // Pixels begin with a sector.
  static int64_t pack(const Problem& p, int64_t channels, int64_t h, int64_t w, Strides& strides) {
    const int64_t size = size_of(p.dtype), pitch = round_up(channels, 32 / size);
    strides = {h * w * pitch, 1, w * pitch, pitch};
    return p.N * h * w * pitch * size;
  }
};

inline std::string why_not_packed(const Problem& p, bool packs_x) {
  constexpr int64_t kMost = int64_t(512) << 20;
  const auto is_planes = [](const Strides& s, int64_t channels, int64_t h, int64_t w) {
    return channels > 1 && h * w > 1 && (s.d3 == 1 || w == 1) && (s.d2 == w || h == 1) && !(s.d1 == 1 && channels > 1);
  };
  if (p.pass != Pass::kDgrad && packs_x && !is_planes(p.x, p.C, p.H, p.W)) return "x is not of dense planes: nothing to pack";
  if (p.pass != Pass::kFprop && !is_planes(p.y, p.K, p.P, p.Q)) return "y is not of dense planes: nothing to pack";
  if (const int64_t bytes = Packed(p, packs_x).bytes(); bytes > kMost)
    return "packed images would take " + std::to_string(bytes >> 20) + " MB: built for up to " + std::to_string(kMost >> 20);
  return {};
}

// A row of the catalogue that packs, made from one that reads channels_last images: `Row` has its four functions as static members. One
// that reads an x of planes as it lies has only y packed.
template <class T, class Row, bool kPacksX = true>
struct PackedRow {
  static constexpr int64_t kAlignment = 256;
  static std::string why_not(const Kernel& kernel, const Problem& p) {
    if (std::string why = why_not_tuned(p); !why.empty()) return why;
    if (std::string why = why_not_packed(p, kPacksX); !why.empty()) return why;
    return Row::why_not(kernel, Packed(p, kPacksX).problem);
  }
  static double cost(const Kernel& kernel, const Problem& p) {
    const Packed packed(p, kPacksX);
    return packed.cost() + Row::cost(kernel, packed.problem);
  }
  static Configuration configure(const Kernel& kernel, const Problem& p) {
    const Packed packed(p, kPacksX);
    Configuration c = Row::configure(kernel, packed.problem);
    c.workspace_bytes += (c.workspace_bytes > 0 ? kAlignment : 0) + packed.bytes();
    return c;
  }
  static void run(const Kernel& kernel, const Problem& p, const Configuration& configuration, const Arguments& a) {
    const Packed packed(p, kPacksX);
    Arguments rest = a;
    Configuration left = configuration;
    left.workspace_bytes -= packed.bytes();
    if (left.workspace_bytes > 0) left.workspace_bytes -= kAlignment;
    // Behind what the row has there.
    auto next = static_cast<unsigned char*>(a.workspace) + left.workspace_bytes;
    if (left.workspace_bytes > 0) next += -reinterpret_cast<std::uintptr_t>(next) % kAlignment;
    const auto pack = [&](const void* in, const Strides& from, int64_t channels, int64_t pixels, const Strides& to) {
      void* const out = next;
      launch_pack_images<T>({in, out, int(from.d0), int(from.d1), int(p.N), int(channels), int(pixels), int(to.d3), 0, 0}, a.stream);
      next += p.N * to.d0 * int64_t(sizeof(T));
      return out;
    };
    if (packed.x_bytes > 0) rest.x = pack(a.x, p.x, p.C, p.H * p.W, packed.problem.x);
    if (packed.y_bytes > 0) rest.y = pack(a.y, p.y, p.K, p.P * p.Q, packed.problem.y);
    Row::run(kernel, packed.problem, left, rest);
  }
};

template <class Row>
void use_functions(Kernel& kernel) {
  kernel.why_not = Row::why_not, kernel.cost = Row::cost, kernel.configure = Row::configure, kernel.run = Row::run;
}

}  // namespace cnn::conv2d
