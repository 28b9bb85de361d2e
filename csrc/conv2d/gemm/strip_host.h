// The host side of strip.cuh: what it refuses, how the work is cut, its cost, and the row of the catalogue.
#pragma once

#include <bit>

#include "conv2d/gemm/resident_host.h"

namespace cnn::conv2d {

using StripPlan = ResidentPlan<StripParams>;

// The rows of x under tiles of so many pixels across, which become so many chunks, each `chunk_pixels` further on than the one before.
inline StripRows strip_rows(const Problem& p, int64_t pixels, int64_t chunks_across, int64_t chunk_pixels) {
  StripRows s{};
  s.channels = int(p.C), s.height = int(p.H), s.width = int(p.W);
  s.n = int(p.x.d0), s.c = int(p.x.d1), s.h = int(p.x.d2), s.w = int(p.x.d3);
  s.channels_inside = p.x.d1 == 1 && p.C > 1;
  s.runs = FastDiv<int32_t>(s.channels_inside ? 1 : p.C);
  s.of_pixel = FastDiv<int32_t>(s.channels_inside ? p.C : 1);
  s.values = FastDiv<int32_t>(pixels * s.of_pixel.divisor);
  const int of_chunk = int(kGemmChunkBytes / size_of(p.dtype));
  s.chunks = FastDiv<int32_t>(ceil_div(s.values.divisor + of_chunk - 1, of_chunk));
  // Threads side by side read what becomes chunks side by side, and go on in the next row: in the banks where this one ends.
  const int64_t read = chunks_across * chunk_pixels * s.of_pixel.divisor;
  s.row_chunks = s.runs.divisor * s.chunks.divisor;
  while (s.row_chunks % 8 != ceil_div(read, of_chunk) % 8) ++s.row_chunks;
  return s;
}
inline int strip_rows_bytes(const StripRows& s, int64_t height) { return (int(height) * s.row_chunks + 1) * kGemmChunkBytes; }

// Whether a dimension lies as it would in a tensor that is dense in some order; one of a single element does.
inline bool lies_densely(int64_t size, int64_t stride, int64_t dense) { return size == 1 || stride == dense; }

// By chunks where x begins with one and has all of its memory: a chunk that begins before a run is x's too.
inline void copy_by_chunks(StripRows& s, const Problem& p, const void* x) {
  const Strides dense = s.channels_inside ? Strides{p.H * p.W * p.C, 1, p.W * p.C, p.C} : Strides{p.C * p.H * p.W, p.H * p.W, p.W, 1};
  const bool is_dense = lies_densely(p.N, p.x.d0, dense.d0) && lies_densely(p.C, p.x.d1, dense.d1) && lies_densely(p.H, p.x.d2, dense.d2) &&
                        lies_densely(p.W, p.x.d3, dense.d3);
  if (is_dense && reinterpret_cast<std::uintptr_t>(x) % kGemmChunkBytes == 0) s.chunk_mask = int(kGemmChunkBytes / size_of(p.dtype)) - 1;
}

// What a strip's rows ask of memory: runs begin and end within sectors, half a sector in on average.
inline double strip_bytes(const StripRows& s, int64_t height) {
  constexpr double kSector = 32;
  return double(height) * s.runs.divisor * (s.values.divisor * 2.0 + kSector);
}

// Instructions of a strip's loads: of a chunk's copy, and `turned` of a chunk of the strip, counted in the machine code.
constexpr double kStripTurned = 96;
inline double strip_instructions(const StripRows& s, const Halo& halo, double turned) {
  constexpr double kCopy = 48;
  return double(halo.height) * (double(s.runs.divisor) * s.chunks.divisor * kCopy + double(halo.width) * turned);
}

// Filters are dense in either order of their values; what is neither is put into the one of planes. Their columns pass through the room
// behind the turned ones, of `room` bytes or more: eight at once at least, which are whole chunks.
inline void set_filter(StripParams& r, const Problem& p, int room) {
  const GemmParams& q = r.gemm;
  const int values = int(p.C * p.R * p.S);
  r.channels = FastDiv<int32_t>(p.C), r.filter_taps = FastDiv<int32_t>(p.R * p.S), r.filter_taps_w = FastDiv<int32_t>(p.S);
  const bool inside = q.filter_k == 1 && q.filter_s == p.C && q.filter_r == p.S * p.C;
  r.filter_k = inside ? 1 : int(p.R * p.S), r.filter_s = inside ? int(p.C) : 1, r.filter_r = int(p.S) * r.filter_s;
  r.filter_by_chunks = lies_densely(p.C, q.filter_k, r.filter_k) && lies_densely(p.S, q.filter_s, r.filter_s) &&
                       lies_densely(p.R, q.filter_r, r.filter_r) && lies_densely(p.K, q.filter_n, values);
  // A warp has columns from their first chunk on: neither reads nor writes of a column meet in a bank.
  constexpr int kWarp = 32;
  const int chunks = r.taps_h * r.turns * 2;
  r.filter_row_chunks = FastDiv<int32_t>(r.turns * 2);
  r.filter_chunks = FastDiv<int32_t>(chunks > kWarp / 2 ? round_up(chunks, kWarp) : int64_t(std::bit_ceil(unsigned(chunks))));
  r.filter_columns = std::clamp(room / int(size_of(p.dtype)) / values / 8 * 8, 8, 64);
}

inline StripPlan plan_strip(const Problem& p, int tile_w) {
  constexpr int kTapsOfTurn = 4;
  const int size = size_of(p.dtype);
  StripPlan plan;
  plan.plan = plan_gemm(p, kResidentName, kResidentOptions);
  StripParams& r = plan.params;
  r.gemm = plan.plan.params;
  GemmParams& q = r.gemm;
  cut_rows(q, tile_w);
  r.taps_h = int(p.R), r.taps_w = int(p.S);
  r.turns = int(ceil_div(p.S, kTapsOfTurn));
  r.chunk_pixels = p.stride_w % 2 == 0 ? 2 : 1;
  r.pixels = (q.tile_w - 1) * q.w.in_per_out + kTapsOfTurn * r.turns;
  set_places(r.halo, (q.tile_h - 1) * q.h.in_per_out + r.taps_h, r.chunk_pixels == 2 ? r.pixels / 2 : r.pixels - 1,
             q.w.in_per_out / r.chunk_pixels, 8);
  r.halo.origin_h = q.h.classes[0].first_in, r.halo.origin_w = q.w.classes[0].first_in;
  r.rows = strip_rows(p, r.pixels, r.halo.width, r.chunk_pixels);
  r.rows_at = r.taps_h * r.turns * kStripTurnBytes;
  r.filter_bytes = r.rows_at + strip_rows_bytes(r.rows, r.halo.height);
  const int rows_bytes = strip_rows_bytes(r.rows, r.halo.height), halo_bytes = r.halo.height * r.halo.pitch * kGemmChunkBytes;
  set_filter(r, p, rows_bytes + std::max(halo_bytes, staging_bytes(kResidentTile, q.out_planar, q.parts, size)));
  set_blocks(plan, q, std::max(halo_bytes, r.filter_columns * int(p.C * p.R * p.S) * size - rows_bytes), size);

  // A chunk of the filter is turned once by each block: counted in the machine code.
  constexpr double kFilterChunk = 96;
  const ResidentTurn turn{2 + 4, 2 * 8, kMatrixClocks, 57};
  const double filter_values = double(plan.blocks) * std::min<int64_t>(p.K, kResidentTile.bn) * double(p.C * p.R * p.S);
  const double copied = double(q.items) * strip_bytes(r.rows, r.halo.height) + filter_values * size;
  plan.work = resident_work(p, q, plan.blocks, double(q.items) * r.taps_h * r.turns, turn,
                            double(q.items) * strip_instructions(r.rows, r.halo, kStripTurned) +
                                double(plan.blocks) * r.filter_chunks.divisor * kResidentTile.bn * kFilterChunk,
                            copied);
  return plan;
}

inline StripPlan plan_strip(const Problem& p) {
  return plan_resident(p, [&](int tile_w) { return plan_strip(p, tile_w); });
}

// What has no strip.
inline std::string why_not_strip(const Problem& p) {
  constexpr int64_t kMostChannels = 4;
  if (p.groups != 1) return "grouped";
  if (p.C > kMostChannels) return std::to_string(p.C) + " channels: built for up to " + std::to_string(kMostChannels);
  if (p.R * p.S == 1) return "1x1 filter";
  if (p.dilation_h * p.dilation_w != 1) return "a dilation: neighbouring taps are neighbouring pixels";
  return {};
}

struct StripRow {
  static std::string why_not(const Kernel&, const Problem& p) {
    if (std::string why = why_not_resident(p); !why.empty()) return why;
    if (std::string why = why_not_strip(p); !why.empty()) return why;
    if (plan_strip(p).shared_bytes > resident_shared(p)) return "filter and halo do not fit into shared memory";
    return {};
  }
  static double cost(const Kernel&, const Problem& p) { return microseconds(plan_strip(p).work); }
  static Configuration configure(const Kernel&, const Problem& p) {
    const StripPlan plan = plan_strip(p);
    Configuration c;
    c.blocks = plan.blocks;
    c.shared_bytes = plan.shared_bytes;
    set_tile(c, plan.params.gemm);
    return c;
  }
  template <class T>
  static void run(const Kernel& kernel, const Problem& p, const Configuration& configuration, const Arguments& a) {
    StripPlan plan = plan_strip(p, tile_columns(configuration));
    GemmParams& q = plan.params.gemm;
    q.in = a.x, q.filter = a.w, q.epilogue = a.epilogue, q.out = a.out;
    set_stores(q, kResidentTile, a.out, int(sizeof(T)));
    copy_by_chunks(plan.params.rows, p, a.x);
    plan.params.filter_by_chunks = plan.params.filter_by_chunks && reinterpret_cast<std::uintptr_t>(a.w) % kGemmChunkBytes == 0;
    launch_strip<T>(kernel.name.c_str(), plan.params, plan.blocks, plan.shared_bytes, a.stream);
  }
};

template <class T>
void add_strip_row(std::vector<Kernel>& catalogue) {
  if constexpr (sizeof(T) == 2) {
    Kernel row = resident_row<T>("first_layer", "first_layer_tensor", {Pass::kFprop});
    row.why_not = StripRow::why_not, row.cost = StripRow::cost, row.configure = StripRow::configure, row.run = StripRow::run<T>;
    catalogue.push_back(row);
  }
}

}  // namespace cnn::conv2d
