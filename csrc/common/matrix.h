// The matrix instructions of a warp: every lane calls them, with registers that together are a matrix. sm_80 and newer.
//
//   ldmatrix<4>(a, row)              four 8x8 matrices of two-byte elements from shared memory; lane 8 m + i gives the address of row i of
//                                    matrix m, 16 bytes, and lane 4 g + t receives elements 2 t, 2 t + 1 of row g (Transposed: of column g)
//   mma<__half>(sum, a, b)           16x8 sums += 16x16 a * 16x8 b, halves or bfloat16, summed in float
//   mma<float>(sum, a, b)            16x8 sums += 16x8 a * 8x8 b, floats of which the first 10 bits after the point count (tf32)
//   mma<double>(sum, a, b)           8x8 sums += 8x4 a * 4x8 b
//
// With g = lane / 4, t = lane % 4 a lane holds (PTX ISA, "Matrix fragments for mma"):
//
//             rows of a     its columns                  rows of b           its column   sums
//   halves    g, g + 8      2 t, 2 t + 1 and 8 further   as a's columns      g            rows g, g + 8, columns 2 t, 2 t + 1
//   tf32      g, g + 8      t and t + 4                  as a's columns      g            the same
//   double    g             t                            t                   g            row g, columns 2 t, 2 t + 1
//
// A register has the rows first: a[0] row g, a[1] row g + 8, a[2] and a[3] the same of the further columns. So ldmatrix<4> of the four
// quarters of a in this order loads it, of tf32 too (a row of a matrix is 16 bytes of either). b is loaded as its transpose is: rows are
// columns of b.
#pragma once

#include <cstdint>

#include "common/platform.h"
#include "common/types.h"

#if !defined(__CUDACC__) && !defined(CNN_TARGET_CUDA)
#include <type_traits>

#include "emulator/matrix.h"
#endif

namespace cnn {

template <int Matrices, bool Transposed = false>
__device__ __forceinline__ void ldmatrix(std::uint32_t (&to)[Matrices], const void* row) {
  static_assert(Matrices == 1 || Matrices == 2 || Matrices == 4, "ldmatrix loads 1, 2 or 4 matrices");
#if defined(__CUDACC__)
  const unsigned address = unsigned(__cvta_generic_to_shared(row));
  if constexpr (Matrices == 4) {
    if constexpr (Transposed)
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                   : "r"(address)
                   : "memory");
    else
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                   : "r"(address)
                   : "memory");
  } else if constexpr (Matrices == 2) {
    if constexpr (Transposed)
      asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(to[0]), "=r"(to[1]) : "r"(address) : "memory");
    else asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(to[0]), "=r"(to[1]) : "r"(address) : "memory");
  } else {
    if constexpr (Transposed)
      asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(to[0]) : "r"(address) : "memory");
    else asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(to[0]) : "r"(address) : "memory");
  }
#else
  emulator::MatrixRow lane{};
  if (int(emulator::lane_id()) < 8 * Matrices) {
    const uint4 read = *static_cast<const uint4*>(row);  // an access like a vector load's: eight lanes at a time
    lane.row[0] = read.x, lane.row[1] = read.y, lane.row[2] = read.z, lane.row[3] = read.w;
  }
  emulator::exchange_matrices(lane, Matrices, Transposed);
  for (int i = 0; i < Matrices; ++i) to[i] = lane.received[i];
#endif
}

// The types that convolutions are multiplied by it in. Of fp32 it is tf32, which a problem has to allow.
template <class T>
constexpr bool tensor_cores_have = sizeof(T) <= 4;

// The shape of a type's instruction, and a lane's registers of it.
template <class T>
struct MatrixShape {
  static constexpr int kRows = 16, kColumns = 8, kDepth = sizeof(T) == 2 ? 16 : 8;
  using Operand = std::uint32_t;
  using Sum = float;
  static constexpr int kA = 4, kB = 2, kSums = 4;
};
template <>
struct MatrixShape<double> {
  static constexpr int kRows = 8, kColumns = 8, kDepth = 4;
  using Operand = double;
  using Sum = double;
  static constexpr int kA = 1, kB = 1, kSums = 2;
};

#if defined(__CUDACC__)
#define CNN_MMA(instruction)                                                                                      \
  asm volatile("mma.sync.aligned." instruction " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])                                           \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#endif

template <class T>
__device__ __forceinline__ void mma(typename MatrixShape<T>::Sum (&sum)[MatrixShape<T>::kSums],
                                    const typename MatrixShape<T>::Operand (&a)[MatrixShape<T>::kA],
                                    const typename MatrixShape<T>::Operand (&b)[MatrixShape<T>::kB]) {
#if defined(__CUDACC__)
  if constexpr (sizeof(T) == 8)
    asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
                 : "+d"(sum[0]), "+d"(sum[1])
                 : "d"(a[0]), "d"(b[0]));
  else if constexpr (sizeof(T) == 4) CNN_MMA("m16n8k8.row.col.f32.tf32.tf32.f32");
  else if constexpr (TypeTraits<T>::kDType == DType::kFloat16) CNN_MMA("m16n8k16.row.col.f32.f16.f16.f32");
  else CNN_MMA("m16n8k16.row.col.f32.bf16.bf16.f32");
#else
  if constexpr (sizeof(T) == 8) {
    emulator::Operands884 lane{a[0], b[0], {sum[0], sum[1]}};
    emulator::multiply_float64(lane);
    for (int i = 0; i < 2; ++i) sum[i] = lane.sum[i];
  } else {
    using Lane = std::conditional_t<sizeof(T) == 4, emulator::Operands1688, emulator::Operands16816>;
    Lane lane{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {sum[0], sum[1], sum[2], sum[3]}};
    if constexpr (sizeof(T) == 4) emulator::multiply_tfloat32(lane);
    else if constexpr (TypeTraits<T>::kDType == DType::kFloat16) emulator::multiply_float16(lane);
    else emulator::multiply_bfloat16(lane);
    for (int i = 0; i < 4; ++i) sum[i] = lane.sum[i];
  }
#endif
}
#if defined(__CUDACC__)
#undef CNN_MMA
#endif

// The same of halves with half the depth, m16n8k8: the first half of a's registers and of b's.
template <class T>
__device__ __forceinline__ void mma_short(float (&sum)[4], const std::uint32_t (&a)[2], const std::uint32_t (&b)[1]) {
  static_assert(sizeof(T) == 2, "of halves");
#if defined(__CUDACC__)
#define CNN_MMA(instruction)                                                                          \
  asm volatile("mma.sync.aligned." instruction " {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};" \
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])                               \
               : "r"(a[0]), "r"(a[1]), "r"(b[0]))
  if constexpr (TypeTraits<T>::kDType == DType::kFloat16) CNN_MMA("m16n8k8.row.col.f32.f16.f16.f32");
  else CNN_MMA("m16n8k8.row.col.f32.bf16.bf16.f32");
#undef CNN_MMA
#else
  emulator::OperandsShort lane{{a[0], a[1]}, b[0], {sum[0], sum[1], sum[2], sum[3]}};
  if constexpr (TypeTraits<T>::kDType == DType::kFloat16) emulator::multiply_short_float16(lane);
  else emulator::multiply_short_bfloat16(lane);
  for (int i = 0; i < 4; ++i) sum[i] = lane.sum[i];
#endif
}

// A float as mma<float> takes it: rounded to nearest, half away from zero, where the instruction itself would cut.
__device__ __forceinline__ std::uint32_t to_tfloat32(std::uint32_t bits) {
#if defined(__CUDACC__)
  std::uint32_t rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(__uint_as_float(bits)));
  return rounded;
#else
  return (bits & 0x7f800000u) == 0x7f800000u ? bits : bits + 0x1000u;  // infinities and NaNs stay
#endif
}

}  // namespace cnn
