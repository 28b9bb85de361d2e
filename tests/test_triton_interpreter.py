"""Triton's interpreter made quick: the same bits, and Triton as it was afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import triton
import triton.language as tl

from cnnkernels.backends.triton import INTERPRETED
from cnnkernels.testing.interpreter import quick

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(not INTERPRETED, reason="on a GPU nothing is interpreted"),
]

# In a process of its own: in this one the interpreter has been quick from the start.
_COMPARED = """
import torch
import triton
from triton.language import core
from triton.runtime import interpreter

from cnnkernels import functional as F
from cnnkernels.testing.interpreter import quick


def state():
    semantic = type(interpreter.interpreter_semantic)
    return (interpreter._patch_lang, interpreter._get_np_dtype, interpreter._convert_float, core.block_type.__init__, core.tensor.__init__,
            semantic.broadcast_impl_value, interpreter.interpreter_builder.options)


def results(dtype):
    torch.manual_seed(0)
    x = torch.randn(2, 6, 9, 7, dtype=dtype, requires_grad=True)
    dense = torch.randn(5, 6, 3, 3, dtype=dtype, requires_grad=True)
    depthwise = torch.randn(6, 1, 3, 3, dtype=dtype, requires_grad=True)
    outputs = [
        F.conv2d(x, dense, padding=1, stride=2, backend="triton"),
        F.conv2d(x, depthwise, padding=1, groups=6, backend="triton"),
        F.max_pool2d(x, 3, 2, backend="triton"),
        F.avg_pool2d(x, 3, 2, backend="triton"),
    ]
    return outputs + list(torch.autograd.grad([y.sin().sum() for y in outputs], [x, dense, depthwise]))


before = state()
for dtype in (torch.float32, torch.bfloat16, torch.float64):
    slow = results(dtype)
    with quick(), quick():
        replaced = [now is not then for now, then in zip(state(), before)]
        fast = results(dtype)
    assert all(map(torch.equal, slow, fast)), dtype
    assert all(now is then for now, then in zip(state(), before))
    assert all(replaced) if triton.__version__.startswith("3.9.") else replaced == [False] * 6 + [True], replaced
print("the same bits")
"""


def test_the_quick_interpreter_computes_the_same_bits_and_leaves_triton_as_it_was() -> None:
    ran = subprocess.run([sys.executable, "-c", _COMPARED], capture_output=True, text=True, check=False)
    assert ran.stdout == "the same bits\n", ran.stderr


@triton.jit
def misfit_kernel(out: tl.tensor) -> None:
    offsets = tl.arange(0, 4)
    tl.store(out + offsets, offsets + tl.arange(0, 8))


def test_blocks_of_unlike_shapes_are_still_refused() -> None:
    with quick(), pytest.raises(triton.runtime.errors.InterpreterError, match="incompatible dimensions"):
        misfit_kernel[(1,)](torch.empty(8, dtype=torch.int32))
