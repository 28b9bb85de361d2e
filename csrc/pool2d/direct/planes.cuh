// Vectors of planes: a thread works on one pixel of N neighbouring planes at once, where a plane is one channel of one image and
// planes are numbered n * C + c. In channels_last such a vector is contiguous and moves as one access of up to 16 bytes; in NCHW
// it is N accesses, each coalesced over the threads of a warp, which lie along a row. Either way the window's bounds and
// addresses are worked out once for N results.
#pragma once

#include "common/fastdiv.h"
#include "common/types.h"
#include "common/vector.h"

namespace cnn::pool2d {

// Where a tensor's elements lie, in elements.
template <class Index>
struct Layout {
  Index n, c, h, w;
  Index next_image;  // from the last channel of an image to the first of the next: n - (C - 1) * c
  bool vector;       // a vector of several planes is contiguous and aligned
};

template <class Index>
struct Planes {
  FastDiv<Index> channels;
  Index count;  // N * C
};

// Offsets of N planes from `first` on. Planes behind the last one repeat it: they may be read, and are never written.
template <class Index, int N>
struct PlaneOffsets {
  Index at[N];

  __device__ __forceinline__ PlaneOffsets(const Layout<Index>& layout, const Planes<Index>& planes, Index first) {
    Index channel;
    const Index image = planes.channels.divmod(first, channel);
    at[0] = image * layout.n + channel * layout.c;
    CNN_UNROLL
    for (int i = 1; i < N; ++i) {
      const bool wraps = ++channel == planes.channels.divisor;
      if (wraps) channel = 0;
      at[i] = at[i - 1] + (first + i < planes.count ? (wraps ? layout.next_image : layout.c) : 0);
    }
  }
};

template <class T, class Index, int N>
__device__ __forceinline__ Vector<T, N> load(const T* tensor, const Layout<Index>& layout, const PlaneOffsets<Index, N>& planes, Index row,
                                             Index column) {
  const T* const pixel = tensor + row * layout.h + column * layout.w;
  Vector<T, N> result;
  if (layout.vector) {
    result = load_vector<N>(pixel + planes.at[0]);
  } else {
    CNN_UNROLL
    for (int i = 0; i < N; ++i) result.value[i] = __ldg(pixel + planes.at[i]);
  }
  return result;
}

template <class T, class Index, int N>
__device__ __forceinline__ void store(T* tensor, const Layout<Index>& layout, const Planes<Index>& planes, Index first, Index row,
                                      Index column, const Vector<T, N>& values) {
  const PlaneOffsets<Index, N> offsets(layout, planes, first);
  T* const pixel = tensor + row * layout.h + column * layout.w;
  if (layout.vector) {
    *reinterpret_cast<Vector<T, N>*>(pixel + offsets.at[0]) = values;
  } else {
    CNN_UNROLL
    for (int i = 0; i < N; ++i)
      if (first + i < planes.count) pixel[offsets.at[i]] = values.value[i];
  }
}

}  // namespace cnn::pool2d
