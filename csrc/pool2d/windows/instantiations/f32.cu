// The windows kernels in fp32.
#include "pool2d/windows/windows.cuh"

namespace cnn::pool2d {
template void add_windows_kernels<float>(std::vector<Kernel>& catalogue);
}
