// The log of what was launched.
#pragma once

namespace cnn {

// Remembers the kernel's name while somebody listens (cnnkernels.trace() in Python).
__attribute__((visibility("default"))) void log_launch(const char* kernel);

}  // namespace cnn
