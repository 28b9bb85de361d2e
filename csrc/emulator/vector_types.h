// CUDA's built-in vector types, with the sizes and alignments of the programming guide's table.
#pragma once

#include <cstddef>
#include <cstdint>

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

#if defined(CNN_EMULATOR_CHECKED)

// A GPU moves a vector in one access. The host compiler likes to take it apart, and writes float4{a, b, c, d} as four; in the checked
// build, which looks at accesses, vectors are therefore copied as one value of their size.
namespace cnn::emulator {
template <std::size_t bytes>
struct WholeValue;
template <>
struct WholeValue<2> {
  using type __attribute__((may_alias)) = std::uint16_t;
};
template <>
struct WholeValue<4> {
  using type __attribute__((may_alias)) = std::uint32_t;
};
template <>
struct WholeValue<8> {
  using type __attribute__((may_alias)) = std::uint64_t;
};
template <>
struct WholeValue<16> {
  using type __attribute__((may_alias, vector_size(16))) = std::uint64_t;
};

template <std::size_t bytes>
inline __attribute__((always_inline)) void copy_whole(void* to, const void* from) {
  if constexpr (bytes == 32) {  // two accesses on a GPU too
    copy_whole<16>(to, from);
    copy_whole<16>(static_cast<unsigned char*>(to) + 16, static_cast<const unsigned char*>(from) + 16);
  } else {
    using Whole = typename WholeValue<bytes>::type;
    *static_cast<Whole*>(to) = *static_cast<const Whole*>(from);
  }
}
}  // namespace cnn::emulator

#define CNN_EMULATOR_WHOLE_COPIES(name)                                                \
  name() = default;                                                                    \
  name(const name& other) { ::cnn::emulator::copy_whole<sizeof(name)>(this, &other); } \
  name& operator=(const name& other) {                                                 \
    ::cnn::emulator::copy_whole<sizeof(name)>(this, &other);                           \
    return *this;                                                                      \
  }
#define CNN_EMULATOR_COPIES_2(name, type)        \
  constexpr name(type x, type y) : x(x), y(y) {} \
  CNN_EMULATOR_WHOLE_COPIES(name)
#define CNN_EMULATOR_COPIES_4(name, type)                                              \
  constexpr name(type x, type y, type z = {}, type w = {}) : x(x), y(y), z(z), w(w) {} \
  CNN_EMULATOR_WHOLE_COPIES(name)

#else

#define CNN_EMULATOR_COPIES_2(name, type)
#define CNN_EMULATOR_COPIES_4(name, type)

#endif

#define CNN_EMULATOR_VECTORS(base, type, align2, align4)                      \
  struct base##1 { type x; };                                                 \
  struct alignas(align2) base##2 {                                            \
    type x, y;                                                                \
    CNN_EMULATOR_COPIES_2(base##2, type)                                      \
  };                                                                          \
  struct base##3 { type x, y, z; };                                           \
  struct alignas(align4) base##4 {                                            \
    type x, y, z, w;                                                          \
    CNN_EMULATOR_COPIES_4(base##4, type)                                      \
  };                                                                          \
  inline base##1 make_##base##1(type x) { return {x}; }                       \
  inline base##2 make_##base##2(type x, type y) { return {x, y}; }            \
  inline base##3 make_##base##3(type x, type y, type z) { return {x, y, z}; } \
  inline base##4 make_##base##4(type x, type y, type z, type w) { return {x, y, z, w}; }
CNN_EMULATOR_VECTORS(char, signed char, 2, 4)
CNN_EMULATOR_VECTORS(uchar, unsigned char, 2, 4)
CNN_EMULATOR_VECTORS(short, short, 4, 8)
CNN_EMULATOR_VECTORS(ushort, unsigned short, 4, 8)
CNN_EMULATOR_VECTORS(int, int, 8, 16)
CNN_EMULATOR_VECTORS(uint, unsigned, 8, 16)
CNN_EMULATOR_VECTORS(longlong, long long, 16, 16)
CNN_EMULATOR_VECTORS(ulonglong, unsigned long long, 16, 16)
CNN_EMULATOR_VECTORS(float, float, 8, 16)
CNN_EMULATOR_VECTORS(double, double, 16, 16)
#undef CNN_EMULATOR_VECTORS
