// See unset_values.h.
#include "emulator/checked/unset_values.h"

#include <cmath>
#include <cstdint>
#include <cstring>

#include "emulator/half.h"

namespace cnn::emulator {
namespace {

constexpr std::uint32_t kPattern = 0xfefefefeu;
// A thousandth of a millionth of the pattern as a float, and far from what a layer's activations are.
constexpr double kHuge = 1e30, kHugeInput = 1e25;
// How far a counter or an index that began as the pattern is thought to get.
constexpr std::int64_t kSteps = 1 << 16;

template <class T>
T load(const unsigned char* address) {
  T value;
  std::memcpy(&value, address, sizeof(T));
  return value;
}

double as_number(const unsigned char* address, Values values) {
  switch (values) {
    case Values::kFloat64: return load<double>(address);
    case Values::kFloat32: return load<float>(address);
    case Values::kFloat16: return half_to_float(load<std::uint16_t>(address));
    case Values::kBFloat16: return bfloat16_to_float(load<std::uint16_t>(address));
    default: return 0;
  }
}

std::size_t bytes_of(Values values) {
  switch (values) {
    case Values::kFloat64: return 8;
    case Values::kFloat16:
    case Values::kBFloat16: return 2;
    default: return 4;
  }
}

// The bits themselves, in 4-byte words; as the nearest bfloat16 in 2 bytes.
bool is_pattern(const unsigned char* address, std::size_t size) {
  if (size < 2) return false;
  if (size < 4) return load<std::uint16_t>(address) == 0xfefe || load<std::uint16_t>(address) == 0xfeff;
  return load<std::uint32_t>(address) == kPattern;
}

}  // namespace

bool holds_unset_value(const unsigned char* address, std::size_t size, Values values, bool by_size) {
  const std::size_t step = size < 4 ? size : 4;
  for (std::size_t i = 0; i + step <= size; i += step)
    if (is_pattern(address + i, step)) return true;
  if (values == Values::kOther) {
    if (size == 4) return std::abs(std::int64_t(load<std::int32_t>(address)) - std::int32_t(kPattern)) < kSteps;
    if (size == 8) {
      const auto distance = load<std::uint64_t>(address) - 0xfefefefefefefefeull;
      return distance + std::uint64_t(kSteps) < 2 * std::uint64_t(kSteps);
    }
    return false;
  }
  if (!by_size) return false;
  for (std::size_t i = 0; i + bytes_of(values) <= size; i += bytes_of(values)) {
    const double value = as_number(address + i, values);
    if (std::isfinite(value) && std::abs(value) >= kHuge) return true;
  }
  return false;
}

bool is_huge_input(const unsigned char* address, Values values) {
  const double value = as_number(address, values);
  return std::isfinite(value) && std::abs(value) >= kHugeInput;
}

}  // namespace cnn::emulator
