// What the compiler calls where -fsanitize=thread and -fsanitize-coverage=trace-pc instrument the kernels: at each access, at each basic
// block, and around each call. Not the thread sanitizer's runtime: this one knows blocks, warps and barriers.
//
// The names and their meaning are those of LLVM's compiler-rt and GCC (gcc/sanitizer.def). A hook comes before its access.
#include <cstring>

#include "emulator/checked/checker.h"
#include "emulator/worker.h"

using cnn::emulator::checker;
using cnn::emulator::current;

#define CNN_HOOK extern "C" __attribute__((visibility("default")))
#define CNN_CALLER __builtin_return_address(0)

namespace {
inline void access(const void* address, std::size_t size, bool write, bool exact_width, const void* site) {
  if (current && size) checker().access(current->linear, address, size, write, exact_width, site);
}
inline void volatile_read(const void* address, std::size_t size, const void* site) {
  if (!current) return;
  cnn::emulator::active_worker->poll(address, site);
  access(address, size, false, true, site);
}
}  // namespace

#define CNN_ACCESS_HOOKS(size)                                                                                  \
  CNN_HOOK void __tsan_read##size(void* address) { access(address, size, false, true, CNN_CALLER); }            \
  CNN_HOOK void __tsan_write##size(void* address) { access(address, size, true, true, CNN_CALLER); }            \
  CNN_HOOK void __tsan_unaligned_read##size(void* address) { access(address, size, false, false, CNN_CALLER); } \
  CNN_HOOK void __tsan_unaligned_write##size(void* address) { access(address, size, true, false, CNN_CALLER); } \
  CNN_HOOK void __tsan_volatile_read##size(void* address) { volatile_read(address, size, CNN_CALLER); }         \
  CNN_HOOK void __tsan_volatile_write##size(void* address) { access(address, size, true, true, CNN_CALLER); }
CNN_ACCESS_HOOKS(1)
CNN_ACCESS_HOOKS(2)
CNN_ACCESS_HOOKS(4)
CNN_ACCESS_HOOKS(8)
CNN_ACCESS_HOOKS(16)

CNN_HOOK void __tsan_read_range(void* address, unsigned long size) { access(address, size, false, false, CNN_CALLER); }
CNN_HOOK void __tsan_write_range(void* address, unsigned long size) { access(address, size, true, false, CNN_CALLER); }
// memory_functions.h.
CNN_HOOK void* cnn_checked_memcpy(void* to, const void* from, unsigned long size) {
  access(from, size, false, false, CNN_CALLER);
  access(to, size, true, false, CNN_CALLER);
  return std::memcpy(to, from, size);
}
CNN_HOOK void* cnn_checked_memmove(void* to, const void* from, unsigned long size) {
  access(from, size, false, false, CNN_CALLER);
  access(to, size, true, false, CNN_CALLER);
  return std::memmove(to, from, size);
}
CNN_HOOK void* cnn_checked_memset(void* to, int value, unsigned long size) {
  access(to, size, true, false, CNN_CALLER);
  return std::memset(to, value, size);
}

CNN_HOOK void __tsan_vptr_read(void**) {}
CNN_HOOK void __tsan_vptr_update(void**, void*) {}
CNN_HOOK void __tsan_init() {}

CNN_HOOK void __tsan_func_entry(void*) {
  if (current && checker().counts()) checker().enters_function(current->linear);
}
CNN_HOOK void __tsan_func_exit() {
  if (current && checker().counts()) checker().leaves_function(current->linear);
}
CNN_HOOK void __sanitizer_cov_trace_pc() {
  if (current && checker().counts()) checker().basic_block(current->linear, CNN_CALLER);
}

// Trials alone are compiled with -fsanitize=alignment,bounds. What the compiler hands over begins with file, line and column.
struct TypeDescription {
  std::uint16_t kind, info;  // of an integer: whether it is signed, and twice the binary logarithm of its bits
  char name[1];
};
// A pointer that is not aligned as its type asks for is about to be used.
struct MisalignedAccess {
  const char* file;
  std::uint32_t line, column;
  const TypeDescription* type;
  unsigned char log_alignment;
  unsigned char kind;
};
// An index that the array does not have.
struct IndexOutOfBounds {
  const char* file;
  std::uint32_t line, column;
  const TypeDescription *array, *index;
};
CNN_HOOK void __ubsan_handle_type_mismatch_v1(MisalignedAccess* data, void* address) {
  if (current) checker().misaligned(current->linear, address, std::size_t(1) << data->log_alignment, CNN_CALLER);
}

CNN_HOOK void __ubsan_handle_out_of_bounds(IndexOutOfBounds* data, unsigned long index) {
  if (!current) return;
  const unsigned unused = 64 - (1u << data->index->info / 2);
  const long value = data->index->info & 1 ? long(index << unused) >> unused : long(index);
  checker().index_out_of_bounds(current->linear, value, data->array->name, CNN_CALLER);
}

// The language's own atomics, which host code around the kernels uses; CUDA's are told by the runtime.
#define CNN_ATOMIC_HOOKS(bits, type)                                                                                                 \
  CNN_HOOK type __tsan_atomic##bits##_load(const volatile type* address, int) { return __atomic_load_n(address, __ATOMIC_SEQ_CST); } \
  CNN_HOOK void __tsan_atomic##bits##_store(volatile type* address, type value, int) {                                               \
    __atomic_store_n(address, value, __ATOMIC_SEQ_CST);                                                                              \
  }                                                                                                                                  \
  CNN_HOOK type __tsan_atomic##bits##_exchange(volatile type* address, type value, int) {                                            \
    return __atomic_exchange_n(address, value, __ATOMIC_SEQ_CST);                                                                    \
  }                                                                                                                                  \
  CNN_HOOK type __tsan_atomic##bits##_fetch_add(volatile type* address, type value, int) {                                           \
    return __atomic_fetch_add(address, value, __ATOMIC_SEQ_CST);                                                                     \
  }                                                                                                                                  \
  CNN_HOOK type __tsan_atomic##bits##_fetch_sub(volatile type* address, type value, int) {                                           \
    return __atomic_fetch_sub(address, value, __ATOMIC_SEQ_CST);                                                                     \
  }                                                                                                                                  \
  CNN_HOOK bool __tsan_atomic##bits##_compare_exchange_strong(volatile type* address, type* expected, type value, int, int) {        \
    return __atomic_compare_exchange_n(address, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                         \
  }                                                                                                                                  \
  CNN_HOOK bool __tsan_atomic##bits##_compare_exchange_weak(volatile type* address, type* expected, type value, int, int) {          \
    return __atomic_compare_exchange_n(address, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                         \
  }
CNN_ATOMIC_HOOKS(8, std::uint8_t)
CNN_ATOMIC_HOOKS(16, std::uint16_t)
CNN_ATOMIC_HOOKS(32, std::uint32_t)
CNN_ATOMIC_HOOKS(64, std::uint64_t)
CNN_HOOK void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
CNN_HOOK void __tsan_atomic_signal_fence(int) {}
