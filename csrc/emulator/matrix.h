// What the matrix instructions of a warp (common/matrix.h) do, on a host: the lanes' registers are put together to matrices, which are
// computed once, by the lane that comes last. Layouts: PTX ISA, "Warp Level Matrix Multiply-Accumulate Instructions".
#pragma once

#include <cstdint>

#pragma GCC visibility push(default)
namespace cnn::emulator {

// The registers of a lane.
struct MatrixRow {
  std::uint32_t row[4];  // 16 bytes that the lane has read: of lane 8 m + i, row i of matrix m
  std::uint32_t received[4];
};
struct Operands16816 {
  std::uint32_t a[4], b[2];  // two halves each
  float sum[4];
};
struct OperandsShort {  // 16x8x8 of halves
  std::uint32_t a[2], b;
  float sum[4];
};
struct Operands1688 {
  std::uint32_t a[4], b[2];  // bits of floats, of which the last 13 are not looked at
  float sum[4];
};
struct Operands884 {
  double a, b, sum[2];
};

// Each is called by all 32 lanes of a warp, and changes what the lane receives, or its sums.
void exchange_matrices(MatrixRow& lane, int matrices, bool transposed);
void multiply_float16(Operands16816& lane);
void multiply_bfloat16(Operands16816& lane);
void multiply_short_float16(OperandsShort& lane);
void multiply_short_bfloat16(OperandsShort& lane);
void multiply_tfloat32(Operands1688& lane);
void multiply_float64(Operands884& lane);

// What the instruction that a warp waits in computes; 0: it is none of these.
int multiply_adds_of(const char* operation);

}  // namespace cnn::emulator
#pragma GCC visibility pop
