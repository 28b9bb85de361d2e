// Included before everything else in checked kernels (CMakeLists.txt): their calls of memcpy and its kin go to hooks.cpp, since the
// compiler's instrumentation does not see what these functions touch. -fno-builtin-... keeps it from expanding the calls in place.
#pragma once

extern "C" {
void* memcpy(void* __restrict to, const void* __restrict from, unsigned long size) noexcept __asm__("cnn_checked_memcpy");
void* memmove(void* to, const void* from, unsigned long size) noexcept __asm__("cnn_checked_memmove");
void* memset(void* to, int value, unsigned long size) noexcept __asm__("cnn_checked_memset");
}
