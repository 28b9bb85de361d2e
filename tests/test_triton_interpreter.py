"""Triton's interpreter made quick: the same bits, stray addresses found, and Triton as it was afterwards."""

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
            semantic.broadcast_impl_value, semantic.binary_op_type_checking_impl, interpreter.GridExecutor._init_args_hst,
            interpreter.InterpreterBuilder.create_masked_load, interpreter.InterpreterBuilder.create_masked_store,
            interpreter.InterpreterBuilder.create_atomic_rmw, interpreter.interpreter_builder.options)


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
    assert all(replaced) if triton.__version__.startswith("3.9.") else replaced == [False] * 11 + [True], replaced
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


@triton.jit
def shift_kernel(x: tl.tensor, y: tl.tensor, length: int, shift: int, LANES: tl.constexpr) -> None:
    lanes = tl.arange(0, LANES)
    tl.store(y + lanes + shift, tl.load(x + lanes, mask=lanes < length), mask=lanes < length)


@triton.jit
def count_kernel(count: tl.tensor, slot: int) -> None:
    tl.atomic_add(count + slot, 1)


@pytest.mark.parametrize(
    ("length", "shift", "said"),
    [
        (9, 0, "shift_kernel loads 2 bytes that reach 2 bytes past 'x'"),
        (8, 1, "shift_kernel stores 2 bytes that reach 2 bytes past 'y'"),
        (8, -3, "shift_kernel stores 2 bytes that reach 6 bytes before 'y'"),
    ],
)
def test_an_address_outside_of_the_tensors_is_named(length: int, shift: int, said: str) -> None:
    # Both in the middle of memory that is there: without the check nothing would be seen.
    x, y = (torch.zeros(1024 * (1 + i), dtype=torch.bfloat16)[512:520] for i in range(2))
    with quick(), pytest.raises(triton.runtime.errors.InterpreterError, match=said):
        shift_kernel[(1,)](x, y, length, shift, LANES=16)


def test_an_atomic_update_outside_of_the_tensors_is_named() -> None:
    counts = torch.zeros(16, dtype=torch.int32)
    with quick():
        count_kernel[(3,)](counts[8:10], 1)
        assert counts.tolist() == [0] * 9 + [3] + [0] * 6
        with pytest.raises(
            triton.runtime.errors.InterpreterError, match=r"count_kernel updates 4 bytes .* 4 bytes past 'count'"
        ):
            count_kernel[(1,)](counts[8:10], 2)


def test_lanes_that_are_masked_off_may_point_anywhere() -> None:
    x, y = torch.arange(5.0), torch.zeros(5)
    with quick():
        shift_kernel[(1,)](x, y, 5, 0, LANES=16)
    assert torch.equal(x, y)
