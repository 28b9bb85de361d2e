// The weight gradient of few channels on tensor cores: groups of 8 to 32 channels, stacked, and first layers.
//
//   w[k, c, r, s] = sum over n, p, q of  y[n, k, p, q] * x[n, c, p * stride - pad + r * dilation, (alike)]
//
// A block has all the sums of one stack, 64 filters and the channels of their groups, in registers, while tiles of pixels of one slab pass
// through shared memory: y, and x with its halo, copied one tile ahead. What a tap is multiplied with is the same halo, read from another
// pixel on: ldmatrix takes the address of each row of a matrix from a lane, and turns it.
//
//                    8 filters                A band is 16 rows of sums:   groups of 16 and 32    16 channels of one tap
//                    +-------+                                             groups of 8, or 2 x 4   8 channels of two taps
//          16 pixels |   y   |                                             first layers            4 channels of four taps
//                    +-------+
//          16 pixels
//        +-----------+-------+                A warp has all bands of its groups: two groups of 8, one of 16, half of the channels of one
//        | x, turned | sums  | a band         of 32, or 16 filters of a first layer. Nothing is multiplied with another group's channels
//        +-----------+-------+                but in pairs of groups of 4, whose mixed sums are not written.
//
// Shared memory, in 16-byte chunks of 8 channels (resident_chunk):
//   x      [place][8], of first layers a strip of quads of channels: [place]     and eight places of zeros
//   y      [pixel][8], the pixels of the tile one after the other, so many that they are whole sixteens
//   rows   of first layers, what x is made of (gemm/strip.cuh)
// Two stages of what is copied: of first layers that is rows and y, of others x and y.
//
// Pixels that fill the last sixteen up are zeros in both operands: a NaN of x is none of theirs. Where rows of the halo follow each other
// at a pitch of the tile's pixels modulo 8, eight neighbouring pixels are in eight banks across the ends of rows too.
//
// FMAs per stack and pixel: 64 * taps * channels of a group. Bytes: x once but for the halos, y once, partial sums once. In flight: a tile.
#pragma once

#include "common/async_copy.h"
#include "common/matrix.h"
#include "conv2d/gemm/strip.cuh"
#include "conv2d/resident_wgrad/params.h"

namespace cnn::conv2d {

// What a block sums.
struct ResidentWgradItem {
  int stack, first_band, slab;

  __device__ __forceinline__ ResidentWgradItem(const ResidentWgradParams& p, int bands, int block) {
    first_band = block % p.band_groups * bands;
    stack = block / p.band_groups % p.stacks;
    slab = block / p.band_groups / p.stacks;
  }
};

// A tile of pixels of y.
struct ResidentWgradTile {
  int n, row, column, pixels;
  FastDiv<int32_t> across;

  __device__ __forceinline__ ResidentWgradTile(const ResidentWgradParams& p, int tile) {
    int tile_h, tile_w;
    n = p.tiles_h.divmod(p.tiles_w.divmod(tile, tile_w), tile_h);
    row = tile_h * p.tile_h, column = tile_w * p.tile_w.divisor;
    across = tile_w + 1 == p.tiles_w.divisor ? p.last_tile_w : p.tile_w;
    pixels = min(p.tile_h, p.P - row) * across.divisor;
  }
};

// A thread's chunk of all pixels that it copies: where it begins, counted from the first channel of a pixel, and how many bytes exist.
struct ChannelChunk {
  int first, valid;

  // Of groups side by side, each of which begins with a chunk of its own.
  __device__ static __forceinline__ ChannelChunk of_groups(int chunk, int group_chunks, int first_group, int groups, int channels) {
    const int group = first_group + chunk / group_chunks, in_group = chunk % group_chunks * 8;
    return {group * channels + in_group, group < groups ? max(0, min(kGemmChunkBytes, (channels - in_group) * 2)) : 0};
  }
};

// One row of a band of sums: a channel of a tap.
struct WgradRow {
  int tap_h, tap_w, channel;
  bool exists;
};

// Eight columns of sums: filters of one group.
struct WgradFilters {
  int of_group, count, first;  // the group's first filter, how many it has, and which of them is the first here
};

// Groups side by side.
template <class T, int kGroup>
struct StackWgrad {
  using Element = T;
  static constexpr int kLog = 3, kChunks = kGroup / 8, kGroups = kResidentWgradChannels / kGroup;
  static constexpr bool kTwoTaps = kGroup == 8;
  static constexpr int kSets = kTwoTaps ? 2 : 1;                       // groups of a warp
  static constexpr int kBands = kTwoTaps ? 5 : 9, kColumns = kChunks;  // fragments of filters, of a group
  static constexpr int kBlocks = kGroup == 32 ? 2 : 4;
  static constexpr bool kMakesX = false;  // x of each stage is what was copied

  __device__ static __forceinline__ int lane() { return int(threadIdx.x) % 32; }
  __device__ static __forceinline__ int warp() { return int(threadIdx.x) / 32; }
  __device__ static __forceinline__ int x_chunk() { return 2 * warp() + (kTwoTaps ? 0 : lane() / 8 % 2); }
  __device__ static __forceinline__ int y_chunk() { return warp() * 2 / kChunks * kChunks; }
  __device__ static __forceinline__ ChannelChunk y_channels(const ResidentWgradParams& p, int stack, int chunk) {
    return ChannelChunk::of_groups(chunk, kChunks, stack * kGroups, p.groups, p.filters);
  }

  // Row 8 * half + row of a band.
  __device__ static __forceinline__ WgradRow row(const ResidentWgradParams& p, int band, int half, int row) {
    WgradRow at;
    const int tap = kTwoTaps ? 2 * band + half : band;
    at.tap_h = p.S.divmod(tap, at.tap_w);
    at.channel = kTwoTaps ? row : warp() % (kChunks / 2) * 16 + 8 * half + row;
    at.exists = tap < p.taps && at.channel < p.channels;
    return at;
  }
  // Where a lane's row of the matrices of a band begins, under the first pixel.
  __device__ static __forceinline__ int place(const ResidentWgradParams& p, int band) {
    const WgradRow at = row(p, band, lane() / 8 % 2, 0);
    return at.exists ? p.place(at.tap_h * p.dilation_h, at.tap_w * p.dilation_w) : 0;
  }
  // The filters of a fragment of a set.
  __device__ static __forceinline__ WgradFilters filters(const ResidentWgradParams& p, int stack, int set, int column) {
    const int group = stack * kGroups + 2 * warp() / kChunks + set;
    return {group * p.filters, group < p.groups ? p.filters : 0, column * 8};
  }

  __device__ static __forceinline__ void load_x(const ResidentWgradParams& p, int stack, const ResidentWgradTile& tile, unsigned char* to) {
    const int chunk = int(threadIdx.x) % 8, first_h = tile.row * p.stride_h - p.pad_h, first_w = tile.column * p.stride_w - p.pad_w;
    const ChannelChunk channels = ChannelChunk::of_groups(chunk, kChunks, stack * kGroups, p.groups, p.channels);
    const T* const image = static_cast<const T*>(p.x) + tile.n * p.x_n + channels.first;
    const int pixels = p.halo.width_div.divisor * p.halo.height;
    CNN_NO_UNROLL
    for (int e = int(threadIdx.x) / 8; e < pixels; e += kResidentWgradThreads / 8) {
      int column;
      const int row = p.halo.width_div.divmod(e, column), h = first_h + row, w = first_w + column;
      const bool inside = unsigned(h) < unsigned(p.H) && unsigned(w) < unsigned(p.W);
      copy_chunk<false>(to + resident_chunk(p.place(row, column), chunk, kLog) * kGemmChunkBytes, image + h * p.x_h + w * p.x_w,
                        inside ? channels.valid : 0, p.x_unit);
    }
  }
};

// First layers: x is a strip of quads of channels, see gemm/strip.cuh.
template <class T>
struct StripWgrad {
  using Element = T;
  static constexpr int kLog = 0, kSets = 1, kBands = 14, kColumns = 2, kBlocks = 3, kQuad = 4;
  static constexpr bool kMakesX = true;

  __device__ static __forceinline__ int lane() { return int(threadIdx.x) % 32; }
  __device__ static __forceinline__ int warp() { return int(threadIdx.x) / 32; }
  __device__ static __forceinline__ int x_chunk() { return 0; }
  __device__ static __forceinline__ int y_chunk() { return 2 * warp(); }
  __device__ static __forceinline__ ChannelChunk y_channels(const ResidentWgradParams& p, int stack, int chunk) {
    const int first = stack * kResidentWgradChannels + chunk * 8;
    return {first, max(0, min(kGemmChunkBytes, (p.filters - first) * 2))};
  }
  __device__ static __forceinline__ WgradRow row(const ResidentWgradParams& p, int band, int half, int row) {
    WgradRow at;
    int turn;
    at.tap_h = p.turns.divmod(band, turn);
    at.tap_w = turn * kQuad + half * 2 + row / kQuad;
    at.channel = row % kQuad;
    at.exists = band < p.bands && at.tap_w < p.S.divisor && at.channel < p.channels;
    return at;
  }
  __device__ static __forceinline__ int place(const ResidentWgradParams& p, int band) {
    int turn;
    const int tap_h = p.turns.divmod(band, turn);
    return band < p.bands ? p.place(tap_h, (2 * turn + lane() / 8 % 2) * (2 / p.chunk_pixels)) : 0;
  }
  __device__ static __forceinline__ WgradFilters filters(const ResidentWgradParams& p, int stack, int, int column) {
    return {0, p.filters, stack * kResidentWgradChannels + (2 * warp() + column) * 8};
  }

  __device__ static __forceinline__ StripWindow window(const ResidentWgradParams& p, const ResidentWgradTile& tile) {
    return {p.rows, tile.n, tile.row * p.stride_h - p.pad_h, tile.column * p.stride_w - p.pad_w, p.pixels};
  }
  __device__ static __forceinline__ void load_x(const ResidentWgradParams& p, int, const ResidentWgradTile& tile, unsigned char* stage) {
    copy_strip<kResidentWgradThreads, T>(p.rows, p.x, window(p, tile), p.halo.height, stage);
  }
  __device__ static __forceinline__ void make_x(const ResidentWgradParams& p, const ResidentWgradTile& tile, const unsigned char* stage,
                                                unsigned char* x) {
    turn_strip<kResidentWgradThreads, T>(p.rows, window(p, tile), stage, p.halo, p.chunk_pixels,
                                         [&](int row, int chunk) { return x + p.place(row, chunk) * kGemmChunkBytes; });
    __syncthreads();
  }
};

template <class T>
__device__ __forceinline__ void load_wgrad_y(const ResidentWgradParams& p, const ChannelChunk& channels, const ResidentWgradTile& tile,
                                             unsigned char* to) {
  const int chunk = int(threadIdx.x) % 8;
  const T* const from = static_cast<const T*>(p.y) + tile.n * p.y_n + tile.row * p.y_h + tile.column * p.y_w + channels.first;
  CNN_NO_UNROLL
  for (int pixel = int(threadIdx.x) / 8; pixel < ((tile.pixels + 15) & ~15); pixel += kResidentWgradThreads / 8) {
    int column;
    const int row = tile.across.divmod(pixel, column);
    copy_chunk<false>(to + resident_chunk(pixel, chunk, 3) * kGemmChunkBytes, from + row * p.y_h + column * p.y_w,
                      pixel < tile.pixels ? channels.valid : 0, p.y_unit);
  }
}

template <class Operands>
struct ResidentWgradSums {
  using T = typename Operands::Element;
  static constexpr int kSets = Operands::kSets, kBands = Operands::kBands, kColumns = Operands::kColumns;
  float sum[kSets][kBands][kColumns][4];
  int shift[kBands];  // from the place under a pixel to that under a band's tap

  __device__ static __forceinline__ int lane() { return int(threadIdx.x) % 32; }

  __device__ __forceinline__ ResidentWgradSums(const ResidentWgradParams& p, int first_band) {
    CNN_UNROLL
    for (int band = 0; band < kBands; ++band) {
      shift[band] = Operands::place(p, first_band + band);
      CNN_UNROLL
      for (int set = 0; set < kSets; ++set) CNN_UNROLL
      for (int column = 0; column < kColumns; ++column) CNN_UNROLL
      for (int i = 0; i < 4; ++i) sum[set][band][column][i] = 0;
    }
  }

  // sum += x * y of one tile, where `bands` of the bands exist.
  __device__ __forceinline__ void multiply(const ResidentWgradParams& p, int bands, const ResidentWgradTile& tile, const unsigned char* x,
                                           const unsigned char* y) {
    // Without an exit after each of them the loads of the next bands go ahead of the products of this one.
    if (bands >= kBands) multiply_bands<true>(p, bands, tile, x, y);
    else multiply_bands<false>(p, bands, tile, x, y);
  }

  // Eight lanes write eight neighbouring channels; of first layers, which have no eight, four write pairs of eight neighbouring filters.
  __device__ __forceinline__ void store(const ResidentWgradParams& p, const ResidentWgradItem& item) const {
    CNN_UNROLL
    for (int band = 0; band < kBands; ++band) {
      CNN_UNROLL
      for (int half = 0; half < 2; ++half) {
        const WgradRow at = Operands::row(p, item.first_band + band, half, lane() / 4);
        if (!at.exists) continue;
        // Of two groups as one the channel's own.
        const int of_two = at.channel >= p.channels_of_filter, channel = at.channel - of_two * p.channels_of_filter;
        const int offset = item.slab * p.out_slab + at.tap_h * p.out_r + at.tap_w * p.out_s + channel * p.out_c;
        CNN_UNROLL
        for (int set = 0; set < kSets; ++set) {
          CNN_UNROLL
          for (int column = 0; column < kColumns; ++column) {
            const WgradFilters filters = Operands::filters(p, item.stack, set, column);
            const int filter = filters.first + lane() % 4 * 2, to = offset + (filters.of_group + filter) * p.out_k;
            const float* const pair = sum[set][band][column] + 2 * half;
            if (p.pairs) {
              if (filter < filters.count) *reinterpret_cast<float2*>(static_cast<float*>(p.out) + to) = {pair[0], pair[1]};
              continue;
            }
            CNN_UNROLL
            for (int i = 0; i < 2; ++i) {
              if (filter + i >= filters.count || (filter + i >= p.filters_of_group) != of_two) continue;
              if (p.partial) static_cast<float*>(p.out)[to + i * p.out_k] = pair[i];
              else static_cast<T*>(p.out)[to + i * p.out_k] = narrow<T>(pair[i]);
            }
          }
        }
      }
    }
  }

 private:
  template <bool kAll>
  __device__ __forceinline__ void multiply_bands(const ResidentWgradParams& p, int bands, const ResidentWgradTile& tile,
                                                 const unsigned char* x, const unsigned char* y) {
    CNN_NO_UNROLL
    for (int first = 0; first < tile.pixels; first += 16) {
      std::uint32_t b[kSets * kColumns][2];
      CNN_UNROLL
      for (int i = 0; i < kSets * kColumns; i += 2) {
        std::uint32_t two[4];
        ldmatrix<4, true>(two, y + resident_chunk(first + lane() % 16, Operands::y_chunk() + i + lane() / 16, 3) * kGemmChunkBytes);
        b[i][0] = two[0], b[i][1] = two[1], b[i + 1][0] = two[2], b[i + 1][1] = two[3];
      }
      const int pixel = first + lane() / 16 * 8 + lane() % 8;
      int column;
      const int row = tile.across.divmod(pixel, column), under = row * p.halo.pitch + column;
      // Of a pixel that does not exist a place of zeros, in the bank where its own would be.
      const bool exists = pixel < tile.pixels;
      const int keep = exists ? -1 : 7, zeros = exists ? 0 : p.zero_place;
      CNN_UNROLL
      for (int band = 0; band < kBands; ++band) {
        if (!kAll && band >= bands) break;
        const int place = ((under + shift[band]) & keep) | zeros;
        CNN_UNROLL
        for (int set = 0; set < kSets; ++set) {
          std::uint32_t a[4];
          ldmatrix<4, true>(a, x + resident_chunk(place, Operands::x_chunk() + set, Operands::kLog) * kGemmChunkBytes);
          CNN_UNROLL
          for (int i = 0; i < kColumns; ++i) mma<T>(sum[set][band][i], a, b[set * kColumns + i]);
        }
      }
    }
  }
};

template <class Operands>
__global__ void __launch_bounds__(kResidentWgradThreads, Operands::kBlocks)
    resident_wgrad_kernel(const __grid_constant__ ResidentWgradParams p) {
  using T = typename Operands::Element;
  CNN_DYNAMIC_SHARED(shared, unsigned char);
  const ResidentWgradItem item(p, Operands::kBands, int(blockIdx.x));
  const ChannelChunk channels = Operands::y_channels(p, item.stack, int(threadIdx.x) % 8);
  const auto load = [&](int index, int stage) {
    const ResidentWgradTile tile(p, index);
    unsigned char* const to = shared + p.stages_at + stage * p.stage_bytes;
    Operands::load_x(p, item.stack, tile, to);
    load_wgrad_y<T>(p, channels, tile, to + p.y_at);
  };

  constexpr int kZeros = 8 << Operands::kLog, kOfX = Operands::kMakesX ? 1 : 2;  // chunks
  for (int e = int(threadIdx.x); e < kOfX * kZeros; e += kResidentWgradThreads)
    *reinterpret_cast<uint4*>(shared + e / kZeros * p.stage_bytes + (p.zero_place << Operands::kLog) * kGemmChunkBytes +
                              e % kZeros * kGemmChunkBytes) = uint4{};
  ResidentWgradSums<Operands> sums(p, item.first_band);
  const int bands = p.bands - item.first_band, first = item.slab * p.tiles_per_slab, end = min(p.tiles, first + p.tiles_per_slab);

  load(first, 0);
  commit_async();
  CNN_NO_UNROLL
  for (int index = first; index < end; ++index) {
    const int stage = (index - first) % 2;
    if (index + 1 < end) load(index + 1, 1 - stage);
    commit_async();
    wait_async<1>();
    __syncthreads();
    const unsigned char* const from = shared + p.stages_at + stage * p.stage_bytes;
    if constexpr (Operands::kMakesX) Operands::make_x(p, ResidentWgradTile(p, index), from, shared);
    sums.multiply(p, bands, ResidentWgradTile(p, index), Operands::kMakesX ? shared : from, from + p.y_at);
    __syncthreads();  // this stage is the next one's
  }
  sums.store(p, item);
}

}  // namespace cnn::conv2d
