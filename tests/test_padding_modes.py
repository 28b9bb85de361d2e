"""Reflect, replicate and circular padding: mapped into the image by the kernels, with torch's values, gradients, formats and errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import cnnkernels
from cnnkernels import explain, functional

MODES = ("reflect", "replicate", "circular")
SHAPES: dict[str, dict[str, Any]] = {
    "3x3": {"kernel_size": 3, "padding": 1},
    "wide": {"kernel_size": (5, 4), "padding": (4, 3)},
    "strided": {"kernel_size": 3, "padding": (2, 1), "stride": (2, 3)},
    "dilated same": {"kernel_size": (4, 3), "padding": "same", "dilation": (1, 2)},
    "grouped": {"kernel_size": 3, "padding": 1, "groups": 2, "bias": False},
}


def pair_of(mode: str, shape: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Conv2d, nn.Conv2d]:
    """torch's module and ours with its weights."""
    torch.manual_seed(0)
    theirs = nn.Conv2d(4, 6, padding_mode=mode, dtype=dtype, **SHAPES[shape])
    ours = cnnkernels.nn.Conv2d(4, 6, padding_mode=mode, dtype=dtype, **SHAPES[shape])
    ours.load_state_dict(theirs.state_dict())
    ours.backend = "emulator"
    return theirs, ours


class _Seen(TorchDispatchMode):
    """The operators that run, and how many elements each result has."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operators.append((str(func), result.numel() if isinstance(result, Tensor) else 0))
        return result


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", MODES)
def test_forward_and_gradients_are_torchs(mode: str, shape: str, memory_format: torch.memory_format) -> None:
    theirs, ours = pair_of(mode, shape)
    x = torch.randn(2, 4, 7, 8, dtype=torch.float64).to(memory_format=memory_format)
    results = []
    for module in (theirs, ours):
        image = x.clone().requires_grad_()
        output = module(image)
        output.backward(torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output))
        results.append((output, image.grad, *(parameter.grad for parameter in module.parameters())))
    for theirs_result, our_result in zip(*results, strict=True):
        torch.testing.assert_close(our_result, theirs_result, rtol=1e-12, atol=1e-12)
    assert results[1][0].stride() == results[0][0].stride()


@pytest.mark.parametrize("mode", MODES)
def test_gradients_of_every_order(mode: str) -> None:
    x, w, b = (
        torch.randn(size, dtype=torch.float64, requires_grad=True) for size in ((1, 2, 4, 3), (2, 2, 3, 2), (2,))
    )

    def convolve(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return functional.conv2d(x, w, b, stride=(1, 2), padding=(2, 1), padding_mode=mode, backend="emulator")

    assert torch.autograd.gradcheck(convolve, (x, w, b), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(convolve, (x, w, b))


@pytest.mark.parametrize("mode", MODES)
def test_no_padded_copy(mode: str) -> None:
    _, ours = pair_of(mode, "3x3", torch.float32)
    x = torch.randn(2, 4, 9, 9, requires_grad=True)
    with _Seen() as seen:
        ours(x).sum().backward()
    padded = 2 * 4 * 11 * 11
    assert any("cnnkernels" in name for name, _ in seen.operators)
    assert not [name for name, numel in seen.operators if "pad" in name or numel == padded]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", MODES)
def test_unbatched_and_every_dtype(mode: str, dtype: torch.dtype) -> None:
    theirs, ours = pair_of(mode, "strided", dtype)
    x = torch.randn(4, 8, 9).to(dtype)
    expected = theirs.float()(x.float())
    bound = 4 * torch.finfo(dtype).eps * (1 + expected.abs().max())  # results of 36 products, rounded once
    assert (ours(x).float() - expected).abs().max() <= bound


@pytest.mark.parametrize(
    ("mode", "padding"), [("reflect", 5), ("reflect", (1, 6)), ("circular", 6), ("circular", (5, 7))]
)
def test_padding_beyond_the_image_is_torchs_error(mode: str, padding: Any) -> None:
    x, w = torch.randn(1, 2, 5, 6), torch.randn(3, 2, 3, 3)
    sides = [padding] * 4 if isinstance(padding, int) else [padding[1]] * 2 + [padding[0]] * 2
    with pytest.raises(RuntimeError) as theirs:
        F.pad(x, sides, mode=mode)
    with pytest.raises(RuntimeError) as ours:
        functional.conv2d(x, w, padding=padding, padding_mode=mode, backend="emulator")
    assert str(ours.value) == str(theirs.value)


def test_unknown_mode_is_torchs_error() -> None:
    with pytest.raises(NotImplementedError, match="Unrecognised padding mode"):
        functional.conv2d(
            torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3), padding=1, padding_mode="mirror", backend="emulator"
        )


def test_explain_names_the_mode() -> None:
    _, ours = pair_of("reflect", "3x3", torch.float32)
    explanation = explain(ours, torch.randn(1, 4, 8, 8))
    assert [plan.name for plan in explanation.passes] == ["fprop", "dgrad", "wgrad", "bias_grad"]


def test_compiled() -> None:
    theirs, ours = pair_of("circular", "3x3", torch.float32)
    x = torch.randn(2, 4, 7, 8)
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), theirs(x), rtol=1e-5, atol=1e-5)
