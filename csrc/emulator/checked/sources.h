// From an address in machine code to the source line: by binutils' addr2line, which every machine with g++ has.
#pragma once

#include <string>
#include <vector>

#include "emulator/profile.h"

namespace cnn::emulator {

// The lines of calls, given their return addresses. Of a chain of inlined functions, the innermost that is
// neither the emulator's own nor of the wrapped instructions in csrc/common.
std::vector<Source> sources_of_calls(const std::vector<const void*>& return_addresses);
Source source_of_call(const void* return_address);

// A variable of a shared object, with its demangled name.
struct Variable {
  std::string name;
  const unsigned char* begin = nullptr;
  std::size_t bytes = 0;
};
// The one at `address`, or else the last one before it; without a name where the shared object does not tell.
Variable variable_at(const void* address);

// The mangled name of the function at `address`; empty where the shared object does not tell.
std::string symbol_of(const void* address);

}  // namespace cnn::emulator
