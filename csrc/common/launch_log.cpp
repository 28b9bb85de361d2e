// The names of the kernels launched since somebody began to listen, with a C interface so that it can be read through
// ctypes from whichever library is loaded.
#include "common/launch_log.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <string>

namespace cnn {

namespace {
std::atomic<bool> listening{false};
std::mutex mutex;
std::string names;  // one per line
}  // namespace

void log_launch(const char* kernel) {
  if (!listening.load(std::memory_order_relaxed)) return;
  std::lock_guard<std::mutex> lock(mutex);
  names.append(kernel).push_back('\n');
}
}  // namespace cnn

// 1 clears the log and begins, 0 ends.
extern "C" __attribute__((visibility("default"))) void cnnkernels_launch_log_enable(int on) {
  std::lock_guard<std::mutex> lock(cnn::mutex);
  if (on) cnn::names.clear();
  cnn::listening = on != 0;
}

// Copies at most `size` bytes, without a terminator, and returns how many there are.
extern "C" __attribute__((visibility("default"))) std::size_t cnnkernels_launch_log_read(char* buffer, std::size_t size) {
  std::lock_guard<std::mutex> lock(cnn::mutex);
  std::memcpy(buffer, cnn::names.data(), std::min(size, cnn::names.size()));
  return cnn::names.size();
}
