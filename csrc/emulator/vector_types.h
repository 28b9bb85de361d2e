// CUDA's built-in vector types, with the sizes and alignments of the programming guide's table. As there they are trivial aggregates: they
// can be made of braces, with or without names, lie in unions and be copied as bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

// A GPU stores a vector in one access, and so does the host's compiler when it copies a variable. But a value that is made where it is
// stored (`y[i] = {a, b, c, d}`, `y[i] = float4{a}`) it stores component by component, and what a call returns into memory it does not
// show to the checked build. There such values go through a variable. A template is never the copy assignment: the types stay trivial.
#if defined(CNN_EMULATOR_CHECKED)
#define CNN_EMULATOR_WHOLE_STORES(name)                                     \
  constexpr name& operator=(const name&) = default;                         \
  template <class Value = name>                                             \
    requires std::is_same_v<Value, name>                                    \
  __attribute__((always_inline)) constexpr name& operator=(Value&& value) { \
    return *this = static_cast<const name&>(value);                         \
  }
#else
#define CNN_EMULATOR_WHOLE_STORES(name)
#endif

#define CNN_EMULATOR_VECTORS(base, type, align2, align4)                      \
  struct base##1 { type x; };                                                 \
  struct alignas(align2) base##2 {                                            \
    type x, y;                                                                \
    CNN_EMULATOR_WHOLE_STORES(base##2)                                        \
  };                                                                          \
  struct base##3 { type x, y, z; };                                           \
  struct alignas(align4) base##4 {                                            \
    type x, y, z, w;                                                          \
    CNN_EMULATOR_WHOLE_STORES(base##4)                                        \
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
CNN_EMULATOR_VECTORS(long, long, 16, 16)
CNN_EMULATOR_VECTORS(ulong, unsigned long, 16, 16)
CNN_EMULATOR_VECTORS(longlong, long long, 16, 16)
CNN_EMULATOR_VECTORS(ulonglong, unsigned long long, 16, 16)
CNN_EMULATOR_VECTORS(float, float, 8, 16)
CNN_EMULATOR_VECTORS(double, double, 16, 16)
#undef CNN_EMULATOR_VECTORS
#undef CNN_EMULATOR_WHOLE_STORES

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};
