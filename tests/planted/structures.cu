// Structures that are copied whole: padding and members that nobody uses need not be set, those that are used do.
#include "emulator/trial.h"

constexpr int kThreads = 64;

// Mean and variance by a tree (Welford). The last four bytes of each item are padding.
struct Moments {
  double mean, squares;
  int count;
};

template <bool kFaulty>
__global__ void variance(const float* x, double* result) {
  CNN_SHARED(moments, Moments[kThreads]);
  const int t = int(threadIdx.x);
  moments[t].mean = double(x[t]);
  moments[t].squares = 0.0;
  if (!kFaulty) moments[t].count = 1;
  __syncthreads();
  for (int step = kThreads / 2; step > 0; step /= 2) {
    if (t < step) {
      const Moments a = moments[t], b = moments[t + step];  // fault: uninitialised read
      const double difference = b.mean - a.mean;
      Moments both;
      both.count = a.count + b.count;
      both.mean = a.mean + difference * b.count / both.count;
      both.squares = a.squares + b.squares + difference * difference * a.count * b.count / both.count;
      moments[t] = both;
    }
    __syncthreads();
  }
  if (t == 0) *result = moments[0].squares / moments[0].count;
}

template <bool kFaulty>
void run_moments(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kThreads});
  double* result = trial.output<double>("result", {1});
  cnn::launch("variance", {dim3(1), dim3(kThreads)}, variance<kFaulty>, x, result);
  if (!kFaulty && *result != (kThreads * kThreads - 1) / 12.0) throw std::runtime_error("variance: wrong result");
}

CNN_TRIAL(structures_faulty_moments) { run_moments<true>(trial); }
CNN_TRIAL(structures_clean_moments) { run_moments<false>(trial); }

// A maximum and where it was. Three bytes of each item are padding; they are copied to the workspace, too.
struct Best {
  float value;
  signed char tap;
};

template <bool kFaulty>
__global__ void pool(const float* x, Best* best, float* y) {
  CNN_SHARED(items, Best[kThreads]);
  const int t = int(threadIdx.x);
  const bool first = x[t] > x[t + 1];
  items[t].value = first ? x[t] : x[t + 1];
  if (!kFaulty || first) items[t].tap = first ? 0 : 1;
  __syncthreads();
  const Best mirrored = items[kThreads - 1 - t];  // fault: uninitialised read
  best[t] = mirrored;
  y[t] = mirrored.value + 0.5f * float(mirrored.tap);  // other
}

template <bool kFaulty>
void run_best(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kThreads + 1});
  auto* best = reinterpret_cast<Best*>(trial.workspace<float>("best", {kThreads, 2}));
  float* y = trial.output<float>("y", {kThreads});
  cnn::launch("pool", {dim3(1), dim3(kThreads)}, pool<kFaulty>, x, best, y);
}

CNN_TRIAL(structures_faulty_best) { run_best<true>(trial); }
CNN_TRIAL(structures_clean_best) { run_best<false>(trial); }

// Three channels in a vector of four.
template <bool kFaulty>
__global__ void add_channels(const float* x, float* y) {
  CNN_SHARED(pixels, float4[kThreads]);
  const int t = int(threadIdx.x);
  float4 pixel;
  pixel.x = x[3 * t];
  pixel.y = x[3 * t + 1];
  pixel.z = x[3 * t + 2];
  pixels[t] = pixel;
  __syncthreads();
  const float4 mirrored = pixels[kThreads - 1 - t];  // fault: uninitialised read
  float sum = mirrored.x + mirrored.y + mirrored.z;
  if (kFaulty) sum += mirrored.w;
  y[t] = sum;  // other
}

template <bool kFaulty>
void run_channels(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {kThreads, 3});
  float* y = trial.output<float>("y", {kThreads});
  cnn::launch("add_channels", {dim3(1), dim3(kThreads)}, add_channels<kFaulty>, x, y);
}

CNN_TRIAL(structures_faulty_channels) { run_channels<true>(trial); }
CNN_TRIAL(structures_clean_channels) { run_channels<false>(trial); }

// Twelve bytes, which is no vector's size.
struct Vec3 {
  float x, y, z;
};

__global__ void mirror_points(const Vec3* from, Vec3* to) {
  CNN_SHARED(points, Vec3[kThreads]);
  const int t = int(threadIdx.x);
  points[t] = from[t];
  __syncthreads();
  const Vec3 point = points[kThreads - 1 - t];
  to[t] = {point.z, point.y, point.x};
}

CNN_TRIAL(structures_clean_points) {
  const float* x = trial.input<float>("x", {kThreads, 3});
  float* y = trial.output<float>("y", {kThreads, 3});
  cnn::launch("mirror_points", {dim3(1), dim3(kThreads)}, mirror_points, reinterpret_cast<const Vec3*>(x), reinterpret_cast<Vec3*>(y));
  if (y[0] != 3.0f * kThreads) throw std::runtime_error("mirror_points: wrong result");
}

// In braces, with four bytes of padding behind, and changed after the copy.
struct Average {
  double sum;
  int count;
};

__global__ void extend_averages(const float* x, double* y) {
  CNN_SHARED(averages, Average[kThreads]);
  const int t = int(threadIdx.x);
  averages[t] = {double(x[t]), 1};
  __syncthreads();
  Average average = averages[kThreads - 1 - t];
  average.sum += 1.0;
  average.count += 1;
  y[t] = average.sum / average.count;
}

CNN_TRIAL(structures_clean_braces) {
  const float* x = trial.input<float>("x", {kThreads});
  double* y = trial.output<double>("y", {kThreads});
  cnn::launch("extend_averages", {dim3(1), dim3(kThreads)}, extend_averages, x, y);
}

// Sixteen bytes, of which eight have to be aligned: a row of complex numbers may begin at any double.
struct Complex {
  double real, imaginary;
};

__global__ void square_complex(const double* row, double* y) {
  const int t = int(threadIdx.x);
  const Complex value = reinterpret_cast<const Complex*>(row + 1)[t];
  y[t] = value.real * value.real + value.imaginary * value.imaginary;
}

CNN_TRIAL(structures_clean_complex) {
  const double* row = trial.input<double>("row", {2 * kThreads + 1});
  double* y = trial.output<double>("y", {kThreads});
  cnn::launch("square_complex", {dim3(1), dim3(kThreads)}, square_complex, row, y);
}
