// Sums over slabs, in order.
//
//   out[i] = sum over slabs of partial[slab][i]
//
// A block has 256 threads, as `readers` rows of 256 / readers results. Consecutive threads read consecutive results of one slab; reader r
// adds slabs r, r + readers, ... in order, and a tree in shared memory adds the readers. The number of readers follows from the number
// of slabs alone, and with it the order of every addition.
// Bytes: partial once, out once. Additions: one per element of partial.
#pragma once

#include "common/fastdiv.h"
#include "common/integers.h"
#include "common/launch.h"
#include "common/types.h"
#include "conv2d/sum_slabs/sum_slabs.h"

namespace cnn::conv2d {

constexpr int kSumSlabsThreads = 256;

template <class Index>
struct SumSlabsParams {
  const void* partial;
  void* out;
  FastDiv<Index> extent1, extent2, extent3;
  Index stride0, stride1, stride2, stride3;
  Index slabs, results;
  int readers;
};

template <class T, class Index>
__global__ void __launch_bounds__(kSumSlabsThreads, 1) sum_slabs_kernel(const SumSlabsParams<Index> p) {
  using Acc = Accumulator<T>;
  CNN_SHARED(sums, Acc[kSumSlabsThreads]);  // [reader][result]
  const int thread = int(threadIdx.x), width = kSumSlabsThreads / p.readers;
  const int reader = thread / width, column = thread % width;
  const Index result = Index(blockIdx.x) * width + column;

  Acc sum = 0;
  if (result < p.results) {
    const Acc* const partial = static_cast<const Acc*>(p.partial) + result;
    for (Index slab = reader; slab < p.slabs; slab += p.readers) sum += partial[slab * p.results];
  }
  if (p.readers > 1) {
    sums[thread] = sum;
    for (int half = p.readers / 2; half > 0; half /= 2) {
      __syncthreads();
      if (reader < half) sums[thread] = sum += sums[thread + half * width];
    }
  }
  if (reader > 0 || result >= p.results) return;
  Index i1, i2, i3;
  const Index i0 = p.extent1.divmod(p.extent2.divmod(p.extent3.divmod(result, i3), i2), i1);
  static_cast<T*>(p.out)[i0 * p.stride0 + i1 * p.stride1 + i2 * p.stride2 + i3 * p.stride3] = narrow<T>(sum);
}

template <class T, class Index>
void launch_sum_slabs(const Slabs& s, cudaStream_t stream) {
  static const std::string name = std::string("conv2d_sum_slabs_") + short_name(TypeTraits<T>::kDType) + (sizeof(Index) == 8 ? "_i64" : "");
  constexpr int kMostReaders = 16, kSlabsPerReader = 4;
  SumSlabsParams<Index> q{};
  q.partial = s.partial, q.out = s.out;
  q.extent1 = FastDiv<Index>(s.extent[1]), q.extent2 = FastDiv<Index>(s.extent[2]), q.extent3 = FastDiv<Index>(s.extent[3]);
  q.stride0 = Index(s.stride[0]), q.stride1 = Index(s.stride[1]), q.stride2 = Index(s.stride[2]), q.stride3 = Index(s.stride[3]);
  q.slabs = Index(s.slabs);
  q.results = Index(s.extent[0] * s.extent[1] * s.extent[2] * s.extent[3]);
  q.readers = 1;
  while (q.readers < kMostReaders && int64_t(q.readers) * kSlabsPerReader < s.slabs) q.readers *= 2;
  const int64_t blocks = ceil_div(int64_t(q.results), kSumSlabsThreads / q.readers);
  launch(name.c_str(), {dim3(unsigned(blocks)), dim3(kSumSlabsThreads), 0, stream}, sum_slabs_kernel<T, Index>, q);
}

template <class T>
void sum_slabs(const Slabs& s, cudaStream_t stream) {
  int64_t numel = s.slabs, reach = 1;
  for (int i = 0; i < 4; ++i) numel *= s.extent[i], reach += (s.extent[i] - 1) * s.stride[i];
  if (numel == 0) return;
  if (std::max(numel, reach) < kIndexLimit) launch_sum_slabs<T, int32_t>(s, stream);
  else launch_sum_slabs<T, int64_t>(s, stream);
}

}  // namespace cnn::conv2d
