// Recognises values that were made from a local variable nobody set, where a kernel runs but once (trials run with different bits in such
// variables, and are compared).
//
// -ftrivial-auto-var-init=pattern fills such variables with 0xfe bytes: -1.7e38 as a float or bfloat16, -5e303 as a double. Sums swallow
// everything else and come out as the very same bits; averages and products stay of a size that no sound kernel makes of ordinary
// inputs. A maximum or ReLU hides it: that is left to the compiler's -Wmaybe-uninitialized.
#pragma once

#include <cstddef>

#include "emulator/runtime.h"

namespace cnn::emulator {

// Whether one of the values at [address, address + size) is so. `by_size`: judge by their size too, which needs inputs that are not huge.
bool holds_unset_value(const unsigned char* address, std::size_t size, Values values, bool by_size);
// Whether the finite value at `address` is so large that kernels may make values as large as an unset one of it.
bool is_huge_input(const unsigned char* address, Values values);

}  // namespace cnn::emulator
