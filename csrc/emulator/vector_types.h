// CUDA's built-in vector types, with the sizes and alignments of the programming guide's table.
#pragma once

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

#define CNN_EMULATOR_VECTORS(base, type, align2, align4)                      \
  struct base##1 { type x; };                                                 \
  struct alignas(align2) base##2 { type x, y; };                              \
  struct base##3 { type x, y, z; };                                           \
  struct alignas(align4) base##4 { type x, y, z, w; };                        \
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
