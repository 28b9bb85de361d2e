// See matrix.h. In each function g = lane / 4 and t = lane % 4, the "groupID" and "threadID_in_group" of the PTX ISA.
//
// Products of halves are exact in a float; sums run over k in order and round to nearest each time. A GPU adds several products at once,
// and cuts what does not fit: the same for integers that floats hold, else within the error that a sum in any order has.
#include "emulator/matrix.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "emulator/half.h"
#include "emulator/worker.h"

namespace cnn::emulator {
namespace {

// sum[M][N] += a[M][K] * b[K][N]; rows of b and sums are vectors.
template <int M, int N, int K, class Float>
struct Product {
  std::array<std::array<Float, K>, M> a;
  std::array<std::array<Float, N>, K> b;
  std::array<std::array<Float, N>, M> sum;

  void multiply() {
    for (int m = 0; m < M; ++m)
      for (int k = 0; k < K; ++k)
        for (int n = 0; n < N; ++n) sum[m][n] = std::fma(a[m][k], b[k][n], sum[m][n]);
  }
};

// Rows g and g + 8, columns 2 t and 2 t + 1: the sums of all instructions with 16 rows.
template <class Lane, class Matrices>
void take_sums(Lane& lane, int g, int t, Matrices& of) {
  for (int i = 0; i < 4; ++i) of.sum[g + i / 2 * 8][2 * t + i % 2] = lane.sum[i];
}
template <class Lane, class Matrices>
void give_sums(Lane& lane, int g, int t, const Matrices& of) {
  for (int i = 0; i < 4; ++i) lane.sum[i] = of.sum[g + i / 2 * 8][2 * t + i % 2];
}

template <float (*kToFloat)(std::uint16_t)>
void multiply_16816(void* const* lanes) {
  Product<16, 8, 16, float> product;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    auto& of = *static_cast<Operands16816*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int half = 0; half < 2; ++half) {
      const auto value = [&](std::uint32_t two) { return kToFloat(std::uint16_t(two >> 16 * half)); };
      for (int i = 0; i < 4; ++i) product.a[g + i % 2 * 8][2 * t + half + i / 2 * 8] = value(of.a[i]);
      for (int i = 0; i < 2; ++i) product.b[2 * t + half + i * 8][g] = value(of.b[i]);
    }
    take_sums(of, g, t, product);
  }
  product.multiply();
  for (int lane = 0; lane < kWarpSize; ++lane) give_sums(*static_cast<Operands16816*>(lanes[lane]), lane / 4, lane % 4, product);
}

template <float (*kToFloat)(std::uint16_t)>
void multiply_short(void* const* lanes) {
  Product<16, 8, 8, float> product;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    auto& of = *static_cast<OperandsShort*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int half = 0; half < 2; ++half) {
      const auto value = [&](std::uint32_t two) { return kToFloat(std::uint16_t(two >> 16 * half)); };
      for (int i = 0; i < 2; ++i) product.a[g + i * 8][2 * t + half] = value(of.a[i]);
      product.b[2 * t + half][g] = value(of.b);
    }
    take_sums(of, g, t, product);
  }
  product.multiply();
  for (int lane = 0; lane < kWarpSize; ++lane) give_sums(*static_cast<OperandsShort*>(lanes[lane]), lane / 4, lane % 4, product);
}

void multiply_1688(void* const* lanes) {
  Product<16, 8, 8, float> product;
  const auto value = [](std::uint32_t bits) { return std::bit_cast<float>(bits & ~0x1fffu); };
  for (int lane = 0; lane < kWarpSize; ++lane) {
    auto& of = *static_cast<Operands1688*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) product.a[g + i % 2 * 8][t + i / 2 * 4] = value(of.a[i]);
    for (int i = 0; i < 2; ++i) product.b[t + i * 4][g] = value(of.b[i]);
    take_sums(of, g, t, product);
  }
  product.multiply();
  for (int lane = 0; lane < kWarpSize; ++lane) give_sums(*static_cast<Operands1688*>(lanes[lane]), lane / 4, lane % 4, product);
}

void multiply_884(void* const* lanes) {
  Product<8, 8, 4, double> product;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    auto& of = *static_cast<Operands884*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    product.a[g][t] = of.a, product.b[t][g] = of.b;
    for (int i = 0; i < 2; ++i) product.sum[g][2 * t + i] = of.sum[i];
  }
  product.multiply();
  for (int lane = 0; lane < kWarpSize; ++lane)
    for (int i = 0; i < 2; ++i) static_cast<Operands884*>(lanes[lane])->sum[i] = product.sum[lane / 4][2 * (lane % 4) + i];
}

// Lane 4 g + t receives elements 2 t and 2 t + 1 of row g of each matrix; transposed, of column g.
template <int kMatrices, bool kTransposed>
void exchange_rows(void* const* lanes) {
  const auto element = [&](int matrix, int row, int column) {
    return static_cast<MatrixRow*>(lanes[8 * matrix + row])->row[column / 2] >> 16 * (column % 2) & 0xffffu;
  };
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int m = 0; m < kMatrices; ++m) {
      const std::uint32_t first = kTransposed ? element(m, 2 * t, g) : element(m, g, 2 * t);
      const std::uint32_t second = kTransposed ? element(m, 2 * t + 1, g) : element(m, g, 2 * t + 1);
      static_cast<MatrixRow*>(lanes[lane])->received[m] = first | second << 16;
    }
  }
}

}  // namespace

namespace {
struct Instruction {
  const char* name;
  int multiply_adds;
};
constexpr Instruction kHalves{"mma.m16n8k16", 16 * 8 * 16}, kShort{"mma.m16n8k8", 16 * 8 * 8}, kDoubles{"mma.m8n8k4", 8 * 8 * 4};
}  // namespace

int multiply_adds_of(const char* operation) {
  for (const Instruction& instruction : {kHalves, kShort, kDoubles})
    if (std::strcmp(operation, instruction.name) == 0) return instruction.multiply_adds;
  return 0;
}

#define CNN_SITE __builtin_return_address(0)
void exchange_matrices(MatrixRow& lane, int matrices, bool transposed) {
  using Exchange = void (*)(void* const*);
  constexpr Exchange kPlain[] = {exchange_rows<1, false>, exchange_rows<2, false>, exchange_rows<4, false>};
  constexpr Exchange kTransposed[] = {exchange_rows<1, true>, exchange_rows<2, true>, exchange_rows<4, true>};
  const int count = matrices / 2;
  active_worker->compute("ldmatrix", &lane, transposed ? kTransposed[count] : kPlain[count], CNN_SITE);
}
void multiply_float16(Operands16816& lane) { active_worker->compute(kHalves.name, &lane, multiply_16816<half_to_float>, CNN_SITE); }
void multiply_bfloat16(Operands16816& lane) { active_worker->compute(kHalves.name, &lane, multiply_16816<bfloat16_to_float>, CNN_SITE); }
void multiply_short_float16(OperandsShort& lane) { active_worker->compute(kShort.name, &lane, multiply_short<half_to_float>, CNN_SITE); }
void multiply_short_bfloat16(OperandsShort& lane) {
  active_worker->compute(kShort.name, &lane, multiply_short<bfloat16_to_float>, CNN_SITE);
}
void multiply_tfloat32(Operands1688& lane) { active_worker->compute(kShort.name, &lane, multiply_1688, CNN_SITE); }
void multiply_float64(Operands884& lane) { active_worker->compute(kDoubles.name, &lane, multiply_884, CNN_SITE); }
#undef CNN_SITE

}  // namespace cnn::emulator
