// The windows kernels in bf16.
#include "pool2d/windows/windows.cuh"

namespace cnn::pool2d {
template void add_windows_kernels<__nv_bfloat16>(std::vector<Kernel>& catalogue);
}
