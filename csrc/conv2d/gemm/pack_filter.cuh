// Filters that are dense along neither the reduction nor the result's channels ([K, C, R, S] with more than one tap), in the order in which
// the implicit GEMM reads them:
//
//   packed[group][tap][k][n] = filter[group, k, n, tap]
//
// A block turns 8 x 32 channels of up to 32 taps round in shared memory: it reads them in the order of the filter's memory, taps first, and
// writes them along n. Lanes that write read `kPitch` elements apart, which is odd.
// Bytes: the filter twice.
#pragma once

#include "common/launch.h"
#include "conv2d/gemm/gemm.h"

namespace cnn::conv2d {

constexpr int kPackThreads = 256, kPackK = 8, kPackN = 32, kPackTaps = 32;

template <class T>
__global__ void __launch_bounds__(kPackThreads, 2) pack_filter_kernel(const __grid_constant__ PackFilterParams p) {
  constexpr int kPitch = kPackTaps + 1;
  CNN_SHARED(tile, T[kPackK * kPackN * kPitch]);  // [k][n][tap]
  const int tap_tiles = (p.taps + kPackTaps - 1) / kPackTaps, n_tiles = (p.n + kPackN - 1) / kPackN, k_tiles = (p.k + kPackK - 1) / kPackK;
  int index = int(blockIdx.x);
  const int tap0 = index % tap_tiles * kPackTaps;
  index /= tap_tiles;
  const int n0 = index % n_tiles * kPackN;
  index /= n_tiles;
  const int k0 = index % k_tiles * kPackK, group = index / k_tiles;
  const int taps = min(kPackTaps, p.taps - tap0), ns = min(kPackN, p.n - n0), ks = min(kPackK, p.k - k0);

  const T* const filter = static_cast<const T*>(p.filter) + group * p.filter_group;
  const int inner = p.n_before_k ? ks : ns;
  for (int e = int(threadIdx.x); e < taps * ns * ks; e += kPackThreads) {
    const int tap = e % taps, rest = e / taps;
    const int k = p.n_before_k ? rest % inner : rest / inner, n = p.n_before_k ? rest / inner : rest % inner;
    int s;
    const int r = p.width.divmod(tap0 + tap, s);
    tile[(k * kPackN + n) * kPitch + tap] = filter[(k0 + k) * p.filter_k + (n0 + n) * p.filter_n + r * p.filter_r + s * p.filter_s];
  }
  __syncthreads();
  T* const packed = static_cast<T*>(p.packed);
  for (int e = int(threadIdx.x); e < taps * ks * kPackN; e += kPackThreads) {
    const int n = e % kPackN, rest = e / kPackN, k = rest % ks, tap = rest / ks;
    if (n < ns) packed[((group * p.taps + tap0 + tap) * p.k + k0 + k) * p.pitch + n0 + n] = tile[(k * kPackN + n) * kPitch + tap];
  }
}

}  // namespace cnn::conv2d
