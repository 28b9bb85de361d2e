// The windows kernels in fp16.
#include "pool2d/windows/windows.cuh"

namespace cnn::pool2d {
template void add_windows_kernels<__half>(std::vector<Kernel>& catalogue);
}
