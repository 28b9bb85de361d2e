"""What kernels are tested with: problems as data, oracles, the emulator's switches, and the engine that joins them."""

from cnnkernels.testing.emulation import emulator
from cnnkernels.testing.oracles import (
    assert_close_to_fp64,
    assert_exact,
    assert_gradients,
    assert_like_torch,
    assert_memory_format,
    assert_same_bits,
    compare_to_fp64,
)
from cnnkernels.testing.problems import CONV2D_PROBLEMS, POOL2D_PROBLEMS, Conv2dProblem, Pool2dProblem

__all__ = [
    "CONV2D_PROBLEMS",
    "POOL2D_PROBLEMS",
    "Conv2dProblem",
    "Pool2dProblem",
    "assert_close_to_fp64",
    "assert_exact",
    "assert_gradients",
    "assert_like_torch",
    "assert_memory_format",
    "assert_same_bits",
    "compare_to_fp64",
    "emulator",
]
