// Defines the operators (schemas.h). Part of the emulator library, which is always there; the CUDA library adds its kernels.
#include <torch/csrc/stable/library.h>

#include "schemas.h"

STABLE_TORCH_LIBRARY(cnnkernels, library) {
  for (const char* schema : cnn::kSchemas) library.def(schema);
}
