// What kernels may say: ordinary CUDA that has to compile and to compute what a GPU computes. Each kernel leaves its results for the
// trial behind it, which has them worked out by hand.
#include <algorithm>
#include <cassert>
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "emulator/trial.h"

using namespace std;  // as many do: nothing here may clash with it

// What came out, each time, and what is right. The first element counts them.
struct Expect {
  double* out;
  __device__ void operator()(double value, double right) {
    const int n = int(out[0]++);
    out[1 + 2 * n] = value;
    out[2 + 2 * n] = right;
  }
};
__global__ void reset(double* out) { *out = 0; }

// Runs `kernel` in one thread.
template <class... Params, class... Args>
void expect(cnn::emulator::Trial& trial, void (*kernel)(Expect, Params...), const Args&... args) {
  double* out = trial.workspace<double>("results", {101});
  cnn::launch("reset", {1, 1}, reset, out);
  cnn::launch("kernel", {1, 1}, kernel, Expect{out}, args...);
  if (out[0] == 0) throw runtime_error("no results");
  for (int i = 0; i < int(out[0]); ++i) {
    const double value = out[1 + 2 * i], right = out[2 + 2 * i];
    char text[100];
    snprintf(text, sizeof text, "result %d is %.17g, not %.17g", i, value, right);
    if (value != right && !(isnan(value) && isnan(right))) throw runtime_error(text);
  }
}

// --- Minimum and maximum of mixed types.

__global__ void extrema(Expect is, int n, unsigned u, long long wide, float a, double b, float nan, short narrow) {
  is(min(blockDim.x, 5), 1);
  is(min(n, 4u), 4);  // -3 as an unsigned number is large
  is(max(n, 4), 4);
  is(max(u, 0u), 7);
  is(min(wide, -7ll), -7);
  is(max(wide, 1ull), 18446744073709551610.0);
  is(::min(narrow, narrow), 2);
  is(min(narrow, n), -3);
  is(max(a, 0.0), 0.5);
  is(min(b, a), -2.5);
  is(max(a, 2.0f), 2);
  is(max(nan, 1.0f), 1);
  is(min(1.0f, nan), 1);
  is(fminf(a, 0.25f) + fmaxf(a, 0) + fmax(a, 0.25f), 0.25 + 0.5 + 0.5);
  is(1.0f / max(0.0f, -0.0f), INFINITY);
  is(1.0f / min(0.0f, -0.0f), -INFINITY);
  is(max(min(n, 10), -1), -1);
}
CNN_TRIAL(ordinary_cuda_clean_extrema) { expect(trial, extrema, -3, 7u, -6ll, 0.5f, -2.5, NAN, short(2)); }

// --- Atomics. All threads of the grid.

struct Counters {
  int sum, least, most, bits, swapped;
  unsigned hits, wrapped, down, far, both, winners;
  unsigned long long wide, most_wide;
  long long least_signed;
  float total;
  double exact;
  float last;
};

__global__ void count_all(Counters* c, float* totals, __half* halves, __nv_bfloat16* bfloats, __half2* pairs,
                          __nv_bfloat162* bfloat_pairs) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  atomicAdd(&c->hits, 1);
  atomicAdd(&c->sum, i);
  atomicSub(&c->sum, 1u);
  atomicAdd(&c->total, 1);
  atomicAdd(&c->exact, 0.5f);
  atomicAdd(&c->wide, 1u << 31);
  atomicMin(&c->least, i - 5);
  atomicMax(&c->most, i);
  atomicMin(&c->least_signed, -i);
  atomicMax(&c->most_wide, i * 0x100000000ull);
  atomicOr(&c->bits, 1 << i % 8);
  atomicAnd(&c->bits, ~0x100);
  atomicXor_block(&c->bits, 0);
  atomicInc(&c->wrapped, 9);
  atomicDec(&c->down, 99u);
  if (i == 0) atomicDec(&c->far, 3);
  atomicAdd_block(&c->both, 1);
  atomicAdd_system(&c->both, 1u);
  atomicExch(&c->last, 4);
  if (atomicCAS(&c->swapped, 0, 17) == 0) atomicAdd(&c->winners, 1);
  atomicAdd(reinterpret_cast<float2*>(totals), make_float2(1, 2));
  atomicAdd(reinterpret_cast<float4*>(totals + 4), float4{1.0f, 2.0f, 3.0f, 4.0f});
  atomicAdd(halves, __float2half(0.5f));
  atomicAdd(bfloats, __float2bfloat16(2.0f));
  atomicAdd(pairs, __floats2half2_rn(1.0f, 0.25f));
  atomicAdd(bfloat_pairs, __floats2bfloat162_rn(-1.0f, 1.0f));
}
__global__ void clear(Counters* c, float* totals, __half* halves, __nv_bfloat16* bfloats, __half2* pairs, __nv_bfloat162* bfloat_pairs) {
  *c = {};
  c->least = INT_MAX;
  c->bits = 0x100;
  c->far = 100;
  for (int i = 0; i < 8; ++i) totals[i] = 0;
  *halves = 0;
  *bfloats = 0;
  *pairs = {0.0f, 0.0f};
  *bfloat_pairs = {};
}
CNN_TRIAL(ordinary_cuda_clean_atomics) {
  auto* c = reinterpret_cast<Counters*>(trial.workspace<char>("counters", {sizeof(Counters)}));
  float* totals = trial.workspace<float>("totals", {8});
  auto* halves = trial.output<__half>("halves", {1});
  auto* bfloats = trial.output<__nv_bfloat16>("bfloats", {1});
  auto* pairs = trial.output<__half2>("pairs", {1});
  auto* bfloat_pairs = trial.output<__nv_bfloat162>("bfloat_pairs", {1});
  cnn::launch("clear", {1, 1}, clear, c, totals, halves, bfloats, pairs, bfloat_pairs);
  cnn::launch("count_all", {2, 64}, count_all, c, totals, halves, bfloats, pairs, bfloat_pairs);
  const bool right = c->hits == 128 && c->sum == 127 * 128 / 2 - 128 && c->total == 128 && c->exact == 64 && c->wide == 64ull << 32 &&
                     c->least == -5 && c->most == 127 && c->least_signed == -127 && c->most_wide == 127ull << 32 && c->bits == 0xff &&
                     c->wrapped == 8 && c->down == 72 && c->far == 3 && c->both == 256 && c->last == 4 && c->swapped == 17 &&
                     c->winners == 1;
  if (!right) throw runtime_error("a counter is wrong");
  for (int i = 0; i < 8; ++i)
    if (totals[i] != (i < 2 ? 128 * (i + 1) : i < 4 ? 0 : 128 * (i - 3))) throw runtime_error("totals are wrong");
  if (float(*halves) != 64 || float(*bfloats) != 256 || float(pairs->x) != 128 || float(pairs->y) != 32 || float(bfloat_pairs->x) != -128 ||
      float(bfloat_pairs->y) != 128)
    throw runtime_error("sums of halves are wrong");
}

// --- Vectors, however they are made. Each thread stores sixteen.

struct __align__(16) Texel {
  float4 colour;
  int index;
};
union Quad {
  float4 vector;
  float values[4];
};

__device__ float4 operator*(float a, float4 v) { return make_float4(a * v.x, a * v.y, a * v.z, a * v.w); }
__device__ __noinline__ float4 reversed(float4 v) { return {v.w, v.z, v.y, v.x}; }

constexpr int kVectors = 16;
__global__ void make_vectors(const float4* x, float4* y, int n) {
  const int i = int(threadIdx.x);
  y += i * kVectors;
  const float4 v = x[i];
  const float a = v.x;
  *y++ = x[i];
  *y++ = make_float4(a, 0, 0, n);
  *y++ = {a, a, a, a};
  *y++ = {a};
  *y++ = {.x = a, .w = 1.0f};
  *y++ = float4{a, 9.0f};
  *y++ = {};
  *y++ = 2.0f * v;
  *y++ = reversed(v);
  float4 sum = {0.0f}, zero{}, several[2] = {{1, 2, 3, 4}, v};
  sum.x += v.y, sum.z += several[0].w;
  *y++ = sum;
  *y++ = i % 2 ? zero : several[0];
  Quad quad;
  quad.vector = v;
  for (float& value : quad.values) value += 1.0f;
  Quad copy = quad, other{zero};
  other = copy;
  *y++ = other.vector;
  Texel texel{v, 3}, moved;
  moved = Texel{texel.colour, texel.index + 1};
  moved.colour.y = float(moved.index);
  *y++ = moved.colour;
  *y++ = __ldg(&x[i]);
  const auto [p, q, r, s] = v;
  *y++ = {s, r, q, p};
  __stcg(y, float4(a, a, a, a));
}
CNN_TRIAL(ordinary_cuda_clean_vectors) {
  const float* x = trial.input<float>("x", {8 * 4});
  float* y = trial.output<float>("y", {8 * kVectors * 4});
  cnn::launch("make_vectors", {1, 8}, make_vectors, reinterpret_cast<const float4*>(x), reinterpret_cast<float4*>(y), 9);
  for (int i = 0; i < 8; ++i) {
    const float a = x[4 * i], b = a + 1, c = a + 2, d = a + 3;
    const vector<float> first = i % 2 ? vector<float>{0, 0, 0, 0} : vector<float>{1, 2, 3, 4};
    const vector<vector<float>> wanted = {
        {a, b, c, d}, {a, 0, 0, 9}, {a, a, a, a}, {a, 0, 0, 0},     {a, 0, 0, 1}, {a, 9, 0, 0}, {0, 0, 0, 0}, {2 * a, 2 * b, 2 * c, 2 * d},
        {d, c, b, a}, {b, 0, 4, 0}, first,        {b, c, d, d + 1}, {a, 4, c, d}, {a, b, c, d}, {d, c, b, a}, {a, a, a, a}};
    for (int j = 0; j < kVectors; ++j)
      if (!equal(wanted[j].begin(), wanted[j].end(), y + (i * kVectors + j) * 4))
        throw runtime_error("vector " + to_string(j) + " of thread " + to_string(i) + " is wrong");
  }
}

__global__ void all_vectors(Expect is) {
  is(make_char1(-1).x + make_char2(1, 2).y + make_char3(1, 2, 3).z + make_char4(1, 2, 3, -4).w, 0);
  is(make_uchar1(255).x + make_uchar2(1, 2).y + make_uchar3(1, 2, 3).z + make_uchar4(1, 2, 3, 4).w, 264);
  is(make_short1(-1).x + make_short2(1, 2).y + make_short3(1, 2, 3).z + make_short4(1, 2, 3, 4).w, 8);
  is(make_ushort1(1).x + make_ushort2(1, 2).y + make_ushort3(1, 2, 3).z + make_ushort4(1, 2, 3, 4).w, 10);
  is(make_int1(1).x + make_int2(1, 2).y + make_int3(1, 2, 3).z + make_int4(1, 2, 3, 4).w, 10);
  is(make_uint1(1).x + make_uint2(1, 2).y + make_uint3(1, 2, 3).z + make_uint4(1, 2, 3, 4).w, 10);
  is(make_long1(1).x + make_long2(1, 2).y + make_long3(1, 2, 3).z, 6);
  is(make_ulong1(1).x + make_ulong2(1, 2).y + make_ulong3(1, 2, 3).z, 6);
  is(make_longlong1(1).x + make_longlong2(1, 2).y + make_longlong3(1, 2, 3).z, 6);
  is(make_ulonglong1(1).x + make_ulonglong2(1, 2).y + make_ulonglong3(1, 2, 3).z, 6);
  is(make_float1(1).x + make_float2(1, 2).y + make_float3(1, 2, 3).z + make_float4(1, 2, 3, 4).w, 10);
  is(make_double1(1).x + make_double2(1, 2).y + make_double3(1, 2, 3).z, 6);
  const float1 one = {2.0f};
  const uchar4 bytes = {1, 2, 3, 4};
  is(one.x + bytes.w, 6);
}
static_assert(sizeof(char3) == 3 && alignof(char4) == 4 && alignof(short4) == 8 && alignof(int2) == 8 && sizeof(float3) == 12);
static_assert(alignof(float4) == 16 && alignof(double2) == 16 && alignof(long2) == 16 && alignof(uchar2) == 2 && alignof(half2) == 4);
static_assert(is_trivially_copyable_v<float4> && is_aggregate_v<float4> && is_trivially_copyable_v<half>);
CNN_TRIAL(ordinary_cuda_clean_all_vectors) { expect(trial, all_vectors); }

// --- Halves.

template <class T>
__global__ void half_arithmetic(Expect is, T a, T b, float f, int n) {
  T c = a + b;
  is(c, 5);
  c += b, c -= a, c *= b, c /= 2;
  is(c, 9);
  is(-a, -2);
  c = 1.5f;
  is(float(c) + f, 2);
  c = n;
  ++c, c++;
  is(c, 9);
  const T made[] = {1, 2.5f, 3.5, a};
  is(made[1] * made[2], 8.75);
  is((a < b) + 2 * (a <= a) + 4 * (a > b) + 8 * (a >= b) + 16 * (a == b) + 32 * (a != b), 1 + 2 + 32);
  const T none = T(NAN);
  is((none == none) + 2 * (none != none) + 4 * __heq(none, a) + 8 * __hequ(none, a) + 16 * __hltu(a, none) + 32 * __hgt(a, none),
     2 + 8 + 16);
  is(__hadd(a, b) - __hsub(a, b), 6);
  is(__hmul(a, b) / __hdiv(a, b), 9);
  is(__hfma(a, b, T(1.0f)), 7);
  is(__hfma_relu(a, -b, T(1.0f)), 0);
  is(__hmax(a, b), 3);
  is(__hmin(none, b), 3);
  is(__hmax_nan(a, none), NAN);
  is(__hneg(a) + __habs(-b), 1);
  is(__hisnan(none) + 2 * __hisinf(T(-INFINITY)) + 4 * __hisnan(a), 1 - 2);
  is(hexp(T(0.0f)) + hlog2(T(8.0f)) + hsqrt(T(16.0f)) + hrcp(T(0.5f)) + hrsqrt(T(0.25f)) + hfloor(T(-1.5f)) + hrint(T(2.5f)),
     1 + 3 + 4 + 2 + 2 - 2 + 2);
  if (a) is(bool(T(0)) ? 2 : 3, 3);
  is(static_cast<int>(T(-2.75f)) + (unsigned char)(T(200.0f)) + (long long)(a), -2 + 200 + 2);
  is(fmaf(a, b, f) + sqrtf(T(9.0f)), 9.5);
}
CNN_TRIAL(ordinary_cuda_clean_halves) {
  expect(trial, half_arithmetic<half>, half(2), half(3), 0.5f, 7);
  expect(trial, half_arithmetic<nv_bfloat16>, nv_bfloat16(2), nv_bfloat16(3), 0.5f, 7);
}

// One rounding, to nearest even, of what has 11 digits in a half and 8 in a bfloat16.
__global__ void half_rounding(Expect is, float one) {
  is(half(2048.0f * one) + half(1.0f), 2048);                                                           // half way: to even
  is(half(2048.0f * one) + half(3.0f), 2052);                                                           // half way: to even, up
  is(__hmul(half(1.0009765625f * one), half(1.0009765625f)), 1 + 0x1p-9);                               // (1 + 2^-10)^2
  is(__hfma(half(0.0009765625f * one), half(0.5f), half(1.0f)), 1);                                     // 1 + 2^-11, half way
  is(__hfma(half(0.0009775162f * one), half(0.5f), half(1.0f)), 1 + 0x1p-10);                           // a little more
  is(__hfma(half(2049.0f * one), half(0.5f), half(5.9604645e-8f)), 1024);                               // 2049 is 2048 in a half
  is(__hfma(nv_bfloat16(0.00390625f * one), nv_bfloat16(1.0f), nv_bfloat16(1.0f)), 1);                  // 1 + 2^-8, half way
  is(__hfma(nv_bfloat16(257.0f / 256 * one), nv_bfloat16(2), nv_bfloat16(0.0f)), 2);                    // 257 / 256 is 1 in a bfloat16
  is(__hfma(nv_bfloat16(1.5f * one), nv_bfloat16(0.0078125f * 0.5f), nv_bfloat16(1.0f)), 1 + 0x1p-7);   // 1 + 1.5 * 2^-8: up
  is(__hfma(nv_bfloat16(0x1.02p0f * one), nv_bfloat16(0x1.02p0f), nv_bfloat16(0x1p-80f)), 1 + 0x1p-6);  // 1 + 2^-6 + 2^-14
  is(__hfma(nv_bfloat16(0x1.1p0f * one), nv_bfloat16(0x1.1p0f), nv_bfloat16(0x1p-80f)),
     1 + 0x1p-3 + 0x1p-7);                                                                             // 1 + 2^-3 + 2^-8 and a little: up
  is(__hfma(nv_bfloat16(0x1.1p0f * one), nv_bfloat16(0x1.1p0f), nv_bfloat16(-0x1p-80f)), 1 + 0x1p-3);  // and a little less: down
  is(half(0x1.0020000001p0), 1 + 0x1p-10);  // a double, just above half way between 1 and 1 + 2^-10
  is(__double2half(0x1.002p0), 1);
  is(nv_bfloat16(0x1.0100000001p0), 1 + 0x1p-7);
  is(__float2half_rz(0x1.006p0f) + __float2half_ru(0x1.0001p0f) + __float2half_rd(-0x1.0001p0f), 1 + 0x1p-10);
  is(__float2half_rz(1e6f), 65504);
  is(__float2half_rn(65520.0f), INFINITY);
  is(__float2half_rn(2.98023224e-8f), 0);  // half the smallest: to even
  is(__float2half_ru(1e-30f), 0x1p-24);
  is(__float2bfloat16_rz(-0x1.ffp0f) + __float2bfloat16_rd(0x1.ffp0f) + __float2bfloat16_ru(0x1.01p0f), 1 + 0x1p-7);
  is(half(2049) + half(4099u) + half(-2051ll), 2048 + 4100 - 2052);
  is(nv_bfloat16(0x7fffffffffffffffll) == nv_bfloat16(0x1p63f), 1);
  is(nv_bfloat16(0x0180000000000001ll) == nv_bfloat16(0x1.8p56f), 1);
  is(nv_bfloat16(0x0101000000000001ll) == nv_bfloat16(0x1.02p56f), 1);  // a bit that no double holds decides
  is(__int2half_rz(2051) + __uint2half_ru(2049u) + __ll2half_rd(-2049), 2050 + 2050 - 2050);
  is(__half2int_rn(half(2.5f)) + 10 * __half2int_rz(half(-2.5f)) + 100 * __half2int_rd(half(-2.5f)) + 1000 * __half2uint_ru(half(2.5f)),
     2 - 20 - 300 + 3000);
  is(__half2short_rz(half(60000.0f)) + __half2int_rz(half(NAN)), 32767);
  is(__bfloat162int_rz(nv_bfloat16(1e10f)) == INT_MAX && __bfloat162uint_rz(nv_bfloat16(-1.0f)) == 0, 1);
}
CNN_TRIAL(ordinary_cuda_clean_half_rounding) { expect(trial, half_rounding, 1.0f); }

template <class T, class Pair>
__global__ void half_pairs(Expect is, Pair a, Pair b, T c) {
  const auto are = [&is](Pair v, double x, double y) {
    is(v.x, x);
    is(__high2float(v), y);
  };
  Pair sum = a + b * a;
  sum += b, sum -= a;
  are(sum, 10, 8);
  are(-sum / b, -5, -2);
  are(Pair{c, 1.0f}, 7, 1);
  are(Pair(c, c), 7, 7);
  Pair zero = {};
  zero.y = c;
  are(zero, 0, 7);
  are(__hfma2(a, b, a), 12, 5);
  are(__hadd2(a, b), 6, 5);
  are(__hmul2(__hsub2(a, b), b), 4, -12);
  are(__h2div(a, b), 2, 0.25);
  are(__hmax2(a, b), 4, 4);
  are(__hmin2(a, __hneg2(b)), -2, -4);
  are(__habs2(__hneg2(a)), 4, 1);
  are(__hgt2(a, b), 1, 0);
  are(__lowhigh2highlow(a), 1, 4);
  are(h2exp2(a), 16, 2);
  is(__hbgt2(a, b) + 2 * __hbge2(a, a) + 4 * (a == a) + 8 * (a != b), 2 + 4 + 8);
  is(__hgt2_mask(a, b), 0xffff);
}
CNN_TRIAL(ordinary_cuda_clean_half_pairs) {
  expect(trial, half_pairs<half, half2>, make_half2(4, 1), half2(2.0f, 4.0f), half(7));
  expect(trial, half_pairs<nv_bfloat16, nv_bfloat162>, make_bfloat162(4, 1), nv_bfloat162(2.0f, 4.0f), nv_bfloat16(7));
}

__global__ void half_conversions(Expect is, float2 f) {
  const half2 h = __float22half2_rn(f);
  is(__low2half(h) * __high2half(h), -6);
  is(__half22float2(h).y + __low2float(__half2half2(h.y)) + __high2float(__float2half2_rn(f.x)), -3 - 3 + 2);
  is(__lows2half2(h, h).y - __highs2half2(h, h).x + __low2half2(h).y + __high2half2(h).x, 2 - -3 + 2 - 3);
  is(__half_as_ushort(__halves2half2(h.y, h.x).x) + __half_as_short(half(-0.0f)), 0xc200 - 32768);
  is(__ushort_as_half(0x3c00) + __short_as_half(0x4000), 3);
  const nv_bfloat162 b = __float22bfloat162_rn(f);
  is(__low2bfloat16(b) * __high2bfloat16(b), -6);
  is(__bfloat1622float2(b).y + __low2float(__bfloat162bfloat162(b.y)) + __high2float(__float2bfloat162_rn(f.x)), -3 - 3 + 2);
  is(__bfloat16_as_ushort(__halves2bfloat162(b.y, b.x).x), 0xc040);
  is(float(__ushort_as_bfloat16(0x3f80)) + __bfloat162float(__float2bfloat16_rn(2.0f)), 3);
  is(float(half(b.x)) + float(nv_bfloat16(h.y)), -1);
  const uint4 packed = make_uint4(0x40003c00u, 0, 0, 0);
  half values[8];
  memcpy(values, &packed, sizeof values);
  is(values[0] + values[1], 3);
  is(__low2float(*reinterpret_cast<const half2*>(&packed)), 1);
}
CNN_TRIAL(ordinary_cuda_clean_half_conversions) { expect(trial, half_conversions, make_float2(2, -3)); }

// --- Integers.

__global__ void integers(Expect is, unsigned u, int n) {
  is(__popc(u) + __popcll(0xf0000000full) + __clz(n) + __clzll(1) + __ffs(8) + __ffsll(0x100000000ll), 2 + 8 + 24 + 63 + 4 + 33);
  is(__brev(u), 0xa0000000u);
  is(__brevll(1) == 0x8000000000000000ull, 1);
  is(__byte_perm(0x33221100u, 0x77665544u, 0x7410), 0x77441100);
  is(__funnelshift_l(0x80000001u, 0x2u, 1) + __funnelshift_r(0x80000001u, 0x3u, 33) * 2.0, 5 + 2.0 * 0xc0000000u);
  is(__funnelshift_lc(5u, 6u, 40) + 10 * __funnelshift_rc(5u, 6u, 32) + 100 * __funnelshift_l(5u, 6u, 32), 5 + 60 + 600);
  is(__mulhi(-1 << 30, 8) + __umulhi(0x80000000u, 6u), -2 + 3);
  is(__mul64hi(1ll << 62, -8) + __umul64hi(1ull << 63, 6), -2 + 3);
  is(__mul24(-3, 5) + __umul24(0x1000003u, 5u) + __mul24(0x1000002, 2), -15 + 15 + 4);
  is(__sad(-5, 7, 100u) + __usad(3u, 1u, 10u), 112 + 12);
  is(__hadd(-3, 6) + __rhadd(-3, 6) + __uhadd(0xffffffffu, 1u) + __urhadd(2u, 3u), 1 + 2 + 0x80000000u + 3);
  is(__dp4a(0x01ff0203, 0x02030405, 10) + __dp4a(0xff000000u, 0x02000000u, 1u), 10 + 2 - 3 + 8 + 15 + 1 + 510);
  is(__dp4a(make_char4(1, -2, 3, -4), make_char4(5, 6, 7, 8), 100), 100 + 5 - 12 + 21 - 32);
  is(abs(n) + llabs(-3ll) + abs(-2l), 200 + 3 + 2);
}
CNN_TRIAL(ordinary_cuda_clean_integers) { expect(trial, integers, 5u, 200); }

// --- Floats.

__global__ void bits(Expect is, float f, double d) {
  is(__float_as_uint(f) + 0.0 + __float_as_int(-f), 0.0 + 0x3f800000 - 0x40800000);
  is(__uint_as_float(0x40000000u) + __int_as_float(0x3f000000), 2.5);
  is(__double_as_longlong(d) == 0x4004000000000000ll, 1);
  is(__longlong_as_double(0x3ff8000000000000ll), 1.5);
  is(__double2hiint(d) == 0x40040000 && __double2loint(d) == 0, 1);
  is(__hiloint2double(0x40080000, 0), 3);
  is(isnan(f) + 2 * isinf(1 / (f - f)) + 4 * signbit(-f) + 8 * isfinite(d), 2 + 4 + 8);
}
CNN_TRIAL(ordinary_cuda_clean_bits) { expect(trial, bits, 1.0f, 2.5); }

__global__ void float_conversions(Expect is, float f, float nan, double d) {
  is(__float2int_rn(f) + 10 * __float2int_rz(f) + 100 * __float2int_rd(f) + 1000 * __float2int_ru(f), -2 - 20 - 300 - 2000);  // -2.5
  is(__float2int_rn(3.5f) + __float2int_rz(nan), 4);
  is(__float2int_rz(1e10f), INT_MAX);
  is(__float2int_rz(-1e10f), INT_MIN);
  is(__float2uint_rn(f) + __float2uint_ru(2.25f) + __float2uint_rz(4e9f), 3 + 4e9);
  is(__float2ll_rz(1e10f) + __float2ull_rn(2.5f), 1e10 + 2);
  is(__double2int_rn(d) + __double2uint_rd(d) + __double2ll_ru(d) + __double2ull_rz(d),
     16777218 + 16777217 + 16777218 + 16777217);  // 16777217.5
  is(__int2float_rn(16777217) - 16777216, 0);
  is(__int2float_ru(16777217) - 16777216, 2);
  is(__int2float_rz(-16777219) + 16777216, -2);
  is(__uint2float_rd(0xffffffffu), 4294967040.0);
  is(__ll2float_rn(1ll << 40) + __ull2double_rn(1ull << 40), 0x1p41);
  is(__double2float_rn(d) + __double2float_rz(-d) + __double2float_ru(d) - __double2float_rd(d), 2 + 2);
  is(__int2double_rn(-7) + __uint2double_rn(7), 0);
}
CNN_TRIAL(ordinary_cuda_clean_float_conversions) { expect(trial, float_conversions, -2.5f, NAN, 16777217.5); }

__global__ void float_arithmetic(Expect is, float a, float b, float c, float e, double d) {
  is(__fadd_rn(a, b) + __fsub_rn(a, b) + __fdiv_rn(a, 2.0f) + __frcp_rn(4.0f) + __fsqrt_rn(16.0f), 3 - 1 + 0.5 + 0.25 + 4);
  is(__fmul_rn(c, c) - 1.0f, 0x1p-11);            // (1 + 2^-12)^2 - 1: the square is rounded
  is(__fadd_rn(e * e, -1.0f), 0x1p-12);           // (1 + 2^-13)^2 - 1: the same
  is(__fmaf_rn(c, c, -1.0f), 0x1p-11 + 0x1p-24);  // and here it is not
  is(__dadd_rn(d, d) + __dmul_rn(d, d) - __dsub_rn(d, 1.0) + __ddiv_rn(d, 2.0) + __dsqrt_rn(d) + __drcp_rn(d) + __fma_rn(d, d, d),
     8 + 16 - 3 + 2 + 2 + 0.25 + 20);
  is(__saturatef(1.5f) + __saturatef(-1.0f) + __saturatef(0.25f) + __saturatef(NAN), 1.25);
  is(__fdividef(a, 4.0f) + fdividef(a, 4.0f), 0.5);
  is(rsqrtf(4.0f) + rsqrt(d) + rcbrtf(8.0f) + __frsqrt_rn(16.0f), 0.5 + 0.5 + 0.5 + 0.25);
  is(exp2f(3.0f) + exp10f(2.0f) + fabs(-a) + ::abs(-0.5f) + fmaf(a, b, 1.0f) + copysignf(3.0f, -1.0f) + hypotf(3.0f, 4.0f),
     8 + 100 + 1 + 0.5 + 3 - 3 + 5);
  is(sizeof(::exp(a)) + sizeof(::sqrt(a)) + sizeof(::fabs(a)) + sizeof(::pow(a, b)) + sizeof(::fmax(a, d)) + sizeof(::abs(a)),
     4 + 4 + 4 + 4 + 8 + 4);
  float sine, cosine;
  __sincosf(0.0f, &sine, &cosine);
  is(__expf(0.0f) + __logf(1.0f) + __log2f(8.0f) + __log10f(1.0f) + __sinf(0.0f) + __cosf(0.0f) + __tanf(0.0f) + __powf(2.0f, 3.0f) +
         __exp10f(0.0f) + sine + cosine,
     1 + 3 + 1 + 8 + 1 + 1);
  is(floor(-1.5f) + ceil(1.25f) + rint(2.5f) + round(2.5f) + trunc(-2.5f) + lroundf(1.5f) + fmod(7.0f, 4.0f) + tanh(0.0f),
     -2 + 2 + 2 + 3 - 2 + 2 + 3);
}
CNN_TRIAL(ordinary_cuda_clean_float_arithmetic) { expect(trial, float_arithmetic, 1.0f, 2.0f, 1 + 0x1p-12f, 1 + 0x1p-13f, 4.0); }

// --- Variables of the module.

__constant__ float weights[9];
static __constant__ int offsets[] = {-1, 0, 1};
__device__ int visits;
__device__ const float kScale[2] = {0.5f, 2.0f};

__global__ void filter_row(const float* x, float* y, int n) {
  const int i = int(threadIdx.x);
  float sum = 0.0f;
#pragma unroll
  for (int s = 0; s < 3; ++s) {
    const int at = i + offsets[s];
    if (at >= 0 && at < n) sum += weights[s] * x[at];
  }
  y[i] = sum * kScale[1];
  atomicAdd(&visits, 1);
}
CNN_TRIAL(ordinary_cuda_clean_constants) {
  const float three[3] = {1, 2, 3};
  const int none = 0;
  cudaMemcpyToSymbol(weights, three, sizeof three);
  cudaMemcpyToSymbol(visits, &none, sizeof none);
  const float* x = trial.input<float>("x", {32});
  float* y = trial.output<float>("y", {32});
  cnn::launch("filter_row", {1, 32}, filter_row, x, y, 32);
  int seen = 0;
  cudaMemcpyFromSymbol(&seen, visits, sizeof seen);
  if (seen != 32 || y[0] != 2 * (2 * 1 + 3 * 2) || y[1] != 2 * (1 + 4 + 9) || y[31] != 2 * (31 + 2 * 32)) throw runtime_error("wrong");
}

// --- Qualifiers, templates, lambdas, built-in variables, hints.

enum class Activation { kNone, kRelu };
template <Activation kActivation>
static __device__ __forceinline__ float activate(float x) {
  if constexpr (kActivation == Activation::kRelu) return fmaxf(x, 0);
  return x;
}
__host__ __device__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }
template <class F>
__host__ __device__ float apply(F f, float x) {
  return f(x);
}

template <Activation kActivation, int kTaps>
__global__ void __launch_bounds__(64, 2) layer(const float* __restrict__ x, float* __restrict__ y, const int n) {
  const dim3 block = blockDim;
  const uint3 thread = threadIdx;
  dim3 grid(gridDim);
  static_assert(ceil_div(65, 64) == 2);
  const int i = int(blockIdx.x * block.x + thread.x);
  __builtin_assume(n > 0);
  if (__builtin_expect(i >= n, 0)) return;
  float taps[kTaps] = {};
#pragma unroll 4
  for (int k = 0; k < kTaps; ++k) taps[k] = __ldg(x + i) * k;
#pragma unroll 1
  for (int k = 1; k < kTaps; ++k) taps[0] += taps[k];
  const float sum = apply([=] __device__(float v) { return v - 6.0f * grid.x; }, taps[0]);
  auto last = [&](int step) { return sum + float(step); };
  __nanosleep(20);
  if (clock64() == 0 && clock() == -1) printf("%d: %f\n", i, sum);
  assert(i < n && "the rest has returned");
  y[i] = activate<kActivation>(last(1));
}
CNN_TRIAL(ordinary_cuda_clean_qualifiers) {
  const float* x = trial.input<float>("x", {100});
  float* y = trial.output<float>("y", {100});
  const dim3 grid = {unsigned(std::max(1, ceil_div(100, 64)))};
  cnn::launch("layer", {grid, 64}, layer<Activation::kRelu, 4>, x, y, 100);
  for (int i = 0; i < 100; ++i)
    if (y[i] != std::max(0.0f, 6.0f * x[i] - 12.0f + 1.0f)) throw runtime_error("y[" + to_string(i) + "] is wrong");
}
