"""Derivatives of every order, in both modes and under vmap, and what a backward pass does not do."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import Place, compiled_kernels_alone
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

import cnnkernels
from cnnkernels import functional, ops
from cnnkernels.testing import assert_gradients

Shape = tuple[int, ...]

# title: (function, tensor shapes, options). Small, because gradgradcheck visits every pair of elements.
PROBLEMS: dict[str, tuple[str, tuple[Shape, ...], dict[str, Any]]] = {
    "everything asymmetric": (
        "conv2d",
        ((2, 4, 5, 6), (4, 2, 3, 2), (4,)),
        {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2},
    ),
    "same with an odd total": ("conv2d", ((1, 2, 4, 3), (3, 2, 2, 4), (3,)), {"padding": "same"}),
    "depthwise, two filters a channel": ("conv2d", ((1, 3, 4, 4), (6, 1, 2, 3)), {"groups": 3, "padding": 1}),
    "unbatched, no bias": ("conv2d", ((2, 4, 3), (3, 2, 2, 2)), {}),
    "strides that skip rows": ("conv2d", ((1, 1, 7, 7), (1, 1, 2, 2), (1,)), {"stride": 3}),
    "transposed, with output_padding": (
        "conv_transpose2d",
        ((2, 4, 3, 2), (4, 2, 3, 2), (4,)),
        {"stride": (2, 1), "padding": (1, 0), "output_padding": (1, 1), "dilation": (1, 2), "groups": 2},
    ),
    "transposed, output_padding above the stride": (
        "conv_transpose2d",
        ((1, 2, 3, 3), (2, 3, 2, 2)),
        {"stride": 2, "output_padding": 2, "dilation": 3},
    ),
    "max, overlapping and dilated": (
        "max_pool2d",
        ((2, 2, 6, 5),),
        {"kernel_size": (3, 2), "stride": 2, "padding": 1, "dilation": (1, 2), "ceil_mode": True},
    ),
    "max, unbatched": ("max_pool2d", ((2, 5, 4),), {"kernel_size": 2}),
    "avg, cut-off windows": (
        "avg_pool2d",
        ((2, 2, 6, 5),),
        {"kernel_size": (3, 2), "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False},
    ),
    "adaptive max, windows that overlap": ("adaptive_max_pool2d", ((2, 2, 7, 5),), {"output_size": (3, 2)}),
    "adaptive max, more windows than pixels": ("adaptive_max_pool2d", ((2, 3, 2),), {"output_size": (4, 3)}),
    "adaptive avg, windows that overlap": ("adaptive_avg_pool2d", ((2, 2, 7, 5),), {"output_size": (3, 2)}),
    "adaptive avg, one window": ("adaptive_avg_pool2d", ((2, 3, 4, 3),), {"output_size": 1}),
    "adaptive avg, unbatched": ("adaptive_avg_pool2d", ((2, 3, 2),), {"output_size": (4, None)}),
    "avg, unbatched with a divisor": ("avg_pool2d", ((2, 6, 5),), {"kernel_size": 3, "divisor_override": 5}),
}


def _inputs(shapes: tuple[Shape, ...], device: str, requires_grad: bool = True) -> list[Tensor]:
    # Distinct values a step apart, so that no maximum changes hands within a finite difference.
    tensors = []
    for shape in shapes:
        count = torch.Size(shape).numel()
        values = (torch.randperm(count).double() - count / 2) / 7
        tensors.append(values.reshape(shape).to(device).requires_grad_(requires_grad))
    return tensors


@compiled_kernels_alone  # on Triton tests/test_opinfo.py and test_triton.py look at fewer directions
@pytest.mark.parametrize("title", PROBLEMS)
def test_gradients_are_the_numerical_ones(title: str, place: Place) -> None:
    """First and second order, reverse and forward mode, alone and under vmap, twice with the same bits."""
    name, shapes, options = PROBLEMS[title]
    function = getattr(functional, name)
    assert_gradients(lambda *t: function(*t, **options, backend=place.backend), _inputs(shapes, place.device))


def test_third_order_agrees_with_torch(place: Place) -> None:
    tensors = _inputs(((1, 2, 4, 4), (2, 2, 2, 2)), place.device)

    def third(conv2d: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        total = conv2d(*tensors, padding=1).sin().sum()
        for _ in range(2):
            first, second = torch.autograd.grad(total, tensors, create_graph=True)
            total = first.sin().sum() + second.sin().sum()
        return torch.autograd.grad(total, tensors)

    ours = third(lambda *t, **k: functional.conv2d(*t, **k, backend=place.backend))
    for mine, theirs in zip(ours, third(F.conv2d), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("requires", list(itertools.product([True, False], repeat=3))[:-1], ids=str)
@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_only_the_gradients_asked_for_are_computed(name: str, requires: tuple[bool, bool, bool]) -> None:
    """needs_input_grad is honoured: a frozen weight costs no wgrad kernel, and nothing is saved for it."""
    tensors = _inputs(((1, 2, 4, 4), (2, 2, 2, 2), (2,)), "cpu", requires_grad=False)
    for tensor, wanted in zip(tensors, requires, strict=True):
        tensor.requires_grad_(wanted)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        output = getattr(functional, name)(*tensors, backend="emulator")
    with cnnkernels.trace() as launched:
        output.sum().backward()
    # The gather kernels run fprop and dgrad, of which each of the two functions has the other as its input's gradient.
    for kernels, wanted in zip(("gather", "wgrad", "bias_grad"), requires, strict=True):
        assert any(kernels in kernel for kernel in launched) == wanted, (kernels, launched)
    for tensor, wanted in zip(tensors, requires, strict=True):
        assert (tensor.grad is not None) == wanted
    input, weight, _ = tensors
    needed = [weight] * requires[0] + [input] * requires[1]
    assert {tensor.data_ptr() for tensor in saved} == {tensor.data_ptr() for tensor in needed}


@pytest.mark.parametrize(
    ("window", "return_indices", "dtype"),
    [(2, False, torch.uint8), (16, False, torch.uint8), ((17, 16), False, torch.int64), (2, True, torch.int64)],
)
def test_max_pool_saves_its_indices_only(
    window: int | tuple[int, int], return_indices: bool, dtype: torch.dtype
) -> None:
    """A byte each, the tap of the window, unless the caller asks for pixels or a byte does not hold the taps."""
    saved: list[Tensor] = []
    input = torch.randn(2, 3, 18, 18, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        functional.max_pool2d(input, window, return_indices=return_indices, backend="emulator")
    assert [tensor.dtype for tensor in saved] == [dtype]


def test_max_pool_has_no_indices_where_nothing_differentiates(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise AssertionError("indices were computed")

    input = torch.randn(2, 3, 6, 6, requires_grad=True)
    expected = F.max_pool2d(input, 2)
    monkeypatch.setattr(ops, "max_pool2d_with_indices", fail)
    with torch.no_grad():
        assert torch.equal(functional.max_pool2d(input, 2, backend="emulator"), expected)
    assert torch.equal(functional.max_pool2d(input.detach(), 2, backend="emulator"), expected)
    with pytest.raises(AssertionError, match="indices were computed"):
        functional.max_pool2d(input, 2, backend="emulator")


def test_avg_pool_saves_nothing() -> None:
    def fail(tensor: Tensor) -> Tensor:
        raise AssertionError("a tensor was saved")

    input = torch.randn(2, 3, 6, 6, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(fail, fail):
        functional.avg_pool2d(input, 2, backend="emulator")


def test_no_graph_without_gradients() -> None:
    input, weight = torch.randn(1, 1, 4, 4, requires_grad=True), torch.randn(1, 1, 2, 2)
    with torch.no_grad():
        assert functional.conv2d(input, weight, backend="emulator").grad_fn is None
    assert functional.conv2d(input.detach(), weight, backend="emulator").grad_fn is None
    assert functional.conv2d(input, weight, backend="emulator").grad_fn is not None
    with torch.inference_mode():
        assert functional.conv2d(input, weight, backend="emulator").is_inference()


def test_indices_carry_no_gradient() -> None:
    input = torch.randn(1, 2, 4, 4, requires_grad=True)
    output, indices = functional.max_pool2d(input, 2, return_indices=True, backend="emulator")
    assert output.requires_grad and not indices.requires_grad


def test_an_input_changed_after_forward_is_noticed() -> None:
    input, weight = torch.randn(1, 1, 4, 4), torch.randn(1, 1, 2, 2, requires_grad=True)
    output = functional.conv2d(input, weight, backend="emulator")
    input.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_backward_runs_on_the_backend_of_forward() -> None:
    input = torch.randn(1, 1, 4, 4, requires_grad=True)
    with cnnkernels.use_backend("emulator"):
        output = functional.avg_pool2d(input, 2)
    with cnnkernels.use_backend("torch"), cnnkernels.trace() as launched:
        output.sum().backward()
    assert len(launched) == 1 and "avg" in launched[0]


VMAPPED: dict[str, tuple[str, tuple[Shape, ...], dict[str, Any]]] = {
    "groups": ("conv2d", ((2, 4, 5, 4), (6, 2, 3, 2), (6,)), {"stride": 2, "padding": 1, "groups": 2}),
    "no groups": ("conv2d", ((2, 2, 5, 4), (3, 2, 3, 2), (3,)), {"padding": "same"}),
    "unbatched, no bias": ("conv2d", ((2, 5, 4), (3, 2, 3, 2)), {}),
    "transposed with groups": (
        "conv_transpose2d",
        ((2, 4, 3, 4), (4, 3, 3, 2), (6,)),
        {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2},
    ),
    "max": ("max_pool2d", ((2, 2, 5, 4),), {"kernel_size": 2, "return_indices": True}),
    "max, unbatched": ("max_pool2d", ((2, 5, 4),), {"kernel_size": 2, "ceil_mode": True}),
    "avg": ("avg_pool2d", ((2, 2, 5, 4),), {"kernel_size": 2, "padding": 1}),
}


@pytest.mark.parametrize("title", VMAPPED)
def test_vmap_over_every_choice_of_dimensions(title: str, place: Place) -> None:
    """Each tensor batched in any dimension or not at all: the result is the stack of the single calls."""
    name, shapes, options = VMAPPED[title]
    function = getattr(functional, name)
    batch = 3
    choices = list(itertools.product(*[[None, *range(len(shape) + 1)] for shape in shapes]))
    # vmap is the same code for every backend: of Triton's interpreter, which is slow, every fourth choice.
    for in_dims in choices[:: 4 if place.backend == "triton" and len(choices) > 50 else 1]:
        if set(in_dims) == {None}:
            continue
        tensors = [
            torch.randn(*shape[:dim], batch, *shape[dim:]) if dim is not None else torch.randn(shape)
            for shape, dim in zip(shapes, in_dims, strict=True)
        ]
        tensors = [tensor.double().to(place.device) for tensor in tensors]
        ours = vmap(lambda *t: function(*t, **options, backend=place.backend), in_dims)(*tensors)
        singles = [
            getattr(F, name)(
                *[t if d is None else t.select(d, i) for t, d in zip(tensors, in_dims, strict=True)], **options
            )
            for i in range(batch)
        ]
        if name == "max_pool2d" and options.get("return_indices"):
            assert torch.equal(ours[1], torch.stack([indices for _, indices in singles]))
            ours, singles = ours[0], [output for output, _ in singles]
        torch.testing.assert_close(ours, torch.stack(singles))


def test_vmap_launches_once_for_the_whole_batch() -> None:
    images, weights = torch.randn(4, 2, 3, 5, 5), torch.randn(4, 6, 3, 3, 3)
    with cnnkernels.trace() as launched:
        vmap(lambda x, w: functional.conv2d(x, w, backend="emulator"))(images, weights)
    assert len(launched) == 1


def _loss(weight: Tensor, bias: Tensor, image: Tensor, **backend: str) -> Tensor:
    functions: Any = functional if backend else F
    maps = functions.conv2d(image, weight, bias, padding=1, **backend).tanh()
    maps = functions.conv_transpose2d(functions.max_pool2d(maps, 2, **backend), weight, **backend)
    return functions.avg_pool2d(maps, 2, **backend).square().sum()


TRANSFORMS: dict[str, Callable[..., Any]] = {
    "per-sample gradients": lambda loss, w, b, x: vmap(grad(loss, argnums=(0, 1)), (None, None, 0))(w, b, x),
    "jacrev of grad": lambda loss, w, b, x: jacrev(grad(loss))(w, b, x[0]),
    "jacfwd of grad": lambda loss, w, b, x: jacfwd(grad(loss, argnums=2))(w, b, x[0]),
    "hessian": lambda loss, w, b, x: hessian(loss)(w, b, x[0]),
    "vmap of hessian": lambda loss, w, b, x: vmap(hessian(loss, argnums=1), (None, None, 0))(w, b, x),
    "jvp": lambda loss, w, b, x: jvp(lambda w: loss(w, b, x[0]), (w,), (torch.ones_like(w),)),
    "grad of vmap": lambda loss, w, b, x: grad(lambda w: vmap(loss, (None, None, 0))(w, b, x).sin().sum())(w),
}


@pytest.mark.parametrize("title", TRANSFORMS)
def test_transforms_agree_with_torch(title: str, place: Place) -> None:
    tensors = [torch.randn(s, dtype=torch.float64).to(place.device) for s in ((3, 2, 2, 2), (3,), (2, 1, 2, 4, 4))]
    ours = TRANSFORMS[title](lambda *t: _loss(*t, backend=place.backend), *tensors)
    theirs = TRANSFORMS[title](_loss, *tensors)
    torch.testing.assert_close(ours, theirs)
