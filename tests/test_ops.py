"""The raw operators as torch sees them: schemas, fakes with exact strides, and what happens without the libraries."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Place
from torch import Tensor

from cnnkernels import ops

Sample = tuple[Any, ...]

LAYOUTS = ("contiguous", "channels_last", "sliced", "expanded")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def _tensor(shape: tuple[int, ...], layout: str, dtype: torch.dtype, device: str) -> Tensor:
    if layout == "channels_last":
        return torch.randn(shape, device=device).to(dtype, memory_format=torch.channels_last)
    if layout == "sliced":
        wide = torch.randn(*(size + 2 for size in shape), device=device).to(dtype)
        return wide[tuple(slice(1, size + 1) for size in shape)]
    if layout == "expanded":
        return torch.randn(shape[0], 1, *shape[2:], device=device).to(dtype).expand(shape)
    return torch.randn(shape, device=device).to(dtype)


def _samples(name: str, device: str, dtypes: tuple[torch.dtype, ...] = DTYPES) -> Iterator[Sample]:
    """Arguments of every operator: an odd geometry in every layout, result format and dtype, then an empty batch."""
    for dtype, layout, channels_last in itertools.product(dtypes, LAYOUTS, (False, True)):
        for flat in (False, True) if name.startswith("max_pool2d_") else (False,):
            yield _sample(name, 2, layout, channels_last, dtype, device, flat)
    yield _sample(name, 0, "contiguous", False, torch.float32, device)


def _sample(
    name: str, N: int, layout: str, channels_last: bool, dtype: torch.dtype, device: str, flat: bool = False
) -> Sample:
    def tensor(*shape: int) -> Tensor:
        return _tensor(shape, layout, dtype, device)

    # x[N, 4, 5, 7] * w[6, 2, 3, 2] -> y[N, 6, 3, 6]: stride (2, 1), padding (1, 0), dilation (1, 2), 2 groups.
    conv = ((2, 1), (1, 0), (1, 2), 2, channels_last)
    bias = _tensor((1, 6, 1, 1), "contiguous", dtype, device).flatten()
    if name == "conv2d_fprop":
        return (tensor(N, 4, 5, 7), tensor(6, 2, 3, 2), bias, (3, 5), *conv)
    if name == "conv2d_fused":
        form = torch.channels_last if channels_last else torch.contiguous_format
        residual = _tensor((N, 6, 3, 5), "contiguous", dtype, device).contiguous(memory_format=form)
        norm = (bias, bias.abs() + 1, bias, None, 1e-5)
        return (tensor(N, 4, 5, 7), tensor(6, 2, 3, 2), bias, *norm, residual, "relu", 0.0, (3, 5), *conv)
    if name == "conv2d_dgrad":
        return (tensor(N, 6, 3, 5), tensor(6, 2, 3, 2), None, (5, 7), *conv)
    if name == "conv2d_wgrad":
        return (tensor(N, 6, 3, 5), tensor(N, 4, 5, 7), (3, 2), *conv)
    if name == "conv2d_bias_grad":
        return (tensor(N, 6, 3, 5),)
    if name == "conv2d_activation_grad":
        return (tensor(N, 6, 3, 5), tensor(N, 6, 3, 5), "leaky_relu", 0.25, channels_last)
    # x[N, 4, 5, 7] -> y[N, 4, 3, 4]: window (3, 2), stride 2, padding (1, 1).
    window = ((3, 2), (2, 2), (1, 1))
    if name == "avg_pool2d":
        return (tensor(N, 4, 5, 7), (3, 4), *window, False, None, channels_last)
    if name == "avg_pool2d_backward":
        return (tensor(N, 4, 3, 4), (5, 7), *window, True, 5, channels_last)
    if name == "max_pool2d":
        return (tensor(N, 4, 5, 7), (3, 4), *window, (1, 1), channels_last)
    # The same to 3 x 4 windows.
    if name in ("adaptive_avg_pool2d", "adaptive_max_pool2d"):
        return (tensor(N, 4, 5, 7), (3, 4), channels_last)
    if name == "adaptive_avg_pool2d_backward":
        return (tensor(N, 4, 3, 4), (5, 7), channels_last)
    if name == "adaptive_max_pool2d_backward":
        _, indices = ops.adaptive_max_pool2d(tensor(N, 4, 5, 7), (3, 4), channels_last)
        return (tensor(N, 4, 3, 4), indices, (5, 7), channels_last)
    if name == "max_pool2d_pyramid":
        return (tensor(N, 4, 5, 7), 3, channels_last)
    if name == "max_pool2d_with_indices":
        return (tensor(N, 4, 5, 7), (3, 4), *window, (1, 1), flat, channels_last)
    _, indices = ops.max_pool2d_with_indices(tensor(N, 4, 5, 7), (3, 4), *window, (1, 1), flat, channels_last)
    if name == "max_pool2d_backward":
        return (tensor(N, 4, 3, 4), indices, (5, 7), *window, (1, 1), channels_last)
    assert name == "max_pool2d_gather"
    return (tensor(N, 4, 5, 7), indices, *window, (1, 1), channels_last)


def test_the_index_of_operators_is_complete() -> None:
    names = {
        name.split("::")[1].split(".")[0] for name in torch._C._dispatch_get_all_op_names() if "cnnkernels::" in name
    }
    assert names == set(ops.OPERATORS)


@pytest.mark.parametrize("name", ops.OPERATORS)
def test_fake_has_the_sizes_strides_and_dtype_of_the_real_result(name: str, place: Place) -> None:
    operator = getattr(ops, name)
    for sample in _samples(name, place.device):
        real = operator(*sample)
        meta = operator(*[value.to("meta") if isinstance(value, Tensor) else value for value in sample])
        reals, metas = (real, meta) if isinstance(real, tuple) else ((real,), (meta,))
        for a, b in zip(reals, metas, strict=True):
            assert (a.shape, a.stride(), a.dtype) == (b.shape, b.stride(), b.dtype)
            if a.dim() == 4:
                channels_last = sample[-1]
                expected = torch.channels_last if channels_last else torch.contiguous_format
                assert a.stride() == torch.empty(a.shape, memory_format=expected).stride()


@pytest.mark.filterwarnings("ignore:cnnkernels.*an autograd kernel was not registered")  # Functions are above the ops
@pytest.mark.parametrize("name", ops.OPERATORS)
def test_opcheck(name: str, place: Place) -> None:
    """torch's four checks of a custom operator: schema, autograd registration, fake tensors, dynamic shapes."""
    operator = getattr(ops, name)
    for sample in _samples(name, place.device, dtypes=(torch.float32,)):
        for requires_grad in (False, True):
            arguments = [
                value.detach().requires_grad_(requires_grad and value.is_floating_point())
                if isinstance(value, Tensor) else value
                for value in sample
            ]  # fmt: skip
            torch.library.opcheck(operator, tuple(arguments))


def test_forcing_a_kernel_by_name() -> None:
    sample = _sample("conv2d_fprop", 2, "contiguous", False, torch.float32, "cpu")
    ops.start_launch_log()
    ops.conv2d_fprop(*sample)
    (planned,) = ops.read_launch_log()
    ops.stop_launch_log()
    assert torch.equal(ops.conv2d_fprop(*sample, planned), ops.conv2d_fprop(*sample))
    with pytest.raises(RuntimeError, match="no_such_kernel"):
        ops.conv2d_fprop(*sample, "no_such_kernel")


def test_launch_log_grows_between_start_and_stop_only() -> None:
    sample = _sample("conv2d_bias_grad", 2, "contiguous", False, torch.float32, "cpu")
    ops.start_launch_log()
    ops.stop_launch_log()
    ops.conv2d_bias_grad(*sample)
    assert ops.read_launch_log() == []
    ops.start_launch_log()
    ops.conv2d_bias_grad(*sample)
    assert ops.read_launch_log()[0] == "conv2d_bias_grad_f32"
    ops.start_launch_log()
    assert ops.read_launch_log() == []
    ops.stop_launch_log()


def test_without_the_libraries_everything_imports_and_says_what_is_missing(tmp_path: Path) -> None:
    program = """
        import torch, cnnkernels
        from cnnkernels import functional as F, nn, ops, backends
        x, w = torch.randn(1, 1, 4, 4), torch.randn(1, 1, 2, 2)
        assert torch.equal(F.conv2d(x, w), torch.nn.functional.conv2d(x, w))  # auto: torch's own
        cnnkernels.convert(torch.nn.Conv2d(1, 1, 2))
        print(backends.unavailable("emulator"))
        for call in (lambda: F.conv2d(x, w, backend="emulator"), lambda: ops.conv2d_bias_grad(x)):
            try:
                call()
            except RuntimeError as error:
                print(type(error).__name__, error)
    """
    environment = dict(os.environ, CNNKERNELS_LIBRARY_DIR=str(tmp_path))
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    missing, backend, operator = process.stdout.splitlines()
    assert missing.startswith(f"{tmp_path}/libcnnkernels_emulator.so is missing: build it with")
    assert backend == f"BackendError backend 'emulator' cannot run this call: {missing}"
    assert operator == f"RuntimeError cnnkernels::conv2d_bias_grad cannot run: {missing}"


def test_a_library_that_does_not_load_says_why(tmp_path: Path) -> None:
    (tmp_path / "libcnnkernels_emulator.so").write_text("not a library")
    process = subprocess.run(
        [sys.executable, "-c", "from cnnkernels import backends; print(backends.unavailable('emulator'))"],
        env=dict(os.environ, CNNKERNELS_LIBRARY_DIR=str(tmp_path)),
        cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "libcnnkernels_emulator.so does not load: " in process.stdout
