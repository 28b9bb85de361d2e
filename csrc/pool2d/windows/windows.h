// The windows family: max and average pooling in fp32, fp16 and bf16 with 16-byte accesses in both layouts; 2x2 stride 2, 3x3 stride 2 and
// 3x3 stride 1 with code of their own, forward any other window too; stride-1 max pooling
// of odd windows, and chains of it, rows first.
#pragma once

#include <vector>

namespace cnn::pool2d {

struct Kernel;

template <class T>
void add_windows_kernels(std::vector<Kernel>& catalogue);

}  // namespace cnn::pool2d
