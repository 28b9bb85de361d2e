"""Sizes, parameters, MACs and bytes by shapes alone, against torch; receptive fields, against gradients."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cnnkernels import arithmetic
from cnnkernels.arithmetic import IMAGE, ReceptiveField, receptive_field

CONVOLUTIONS: list[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ("conv2d", (2, 6, 11, 9), (8, 3, 3, 5), {"stride": (2, 1), "padding": (1, 2), "dilation": (2, 1), "groups": 2}),
    ("conv2d", (2, 4, 8, 9), (4, 1, 3, 3), {"padding": "same", "dilation": 2, "groups": 4}),
    ("conv2d", (4, 8, 9), (5, 4, 2, 2), {"padding": "valid"}),
    ("conv2d", (0, 4, 8, 9), (5, 4, 2, 2), {}),
    ("conv_transpose2d", (2, 6, 5, 4), (6, 4, 3, 2), {"stride": 2, "padding": 1, "output_padding": (1, 0), "groups": 3}),
    ("conv_transpose2d", (6, 5, 4), (6, 4, 3, 3), {"dilation": 2}),
]  # fmt: skip


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("op", "input", "weight", "arguments"), CONVOLUTIONS)
def test_convolutions_are_torchs(
    op: str, input: tuple[int, ...], weight: tuple[int, ...], arguments: dict[str, Any], bias: bool
) -> None:
    filters = weight[0] if op == "conv2d" else weight[1] * arguments.get("groups", 1)
    x, w, b = torch.randn(input), torch.randn(weight), torch.randn(filters) if bias else None
    with FlopCounterMode(display=False) as counter:
        y = getattr(F, op)(x, w, b, **arguments)
    found = getattr(arithmetic, op)(input, weight, bias, **arguments)
    assert found.output == y.shape
    assert found.macs == counter.get_total_flops() // 2
    assert found.parameters == w.numel() + (b.numel() if b is not None else 0)
    assert found.bytes(torch.bfloat16) == 2 * (x.numel() + found.parameters + y.numel())
    assert found.bytes(torch.float64) == 4 * found.bytes(torch.bfloat16)


def test_macs_in_closed_form() -> None:
    layer = arithmetic.conv2d((8, 64, 56, 56), (128, 64, 3, 3), stride=2, padding=1)
    assert layer.output == (8, 128, 28, 28)
    assert layer.macs == 8 * 128 * 28 * 28 * 64 * 9
    assert layer.parameters == 128 * 64 * 9 + 128
    assert layer.intensity(torch.float32) == layer.macs / layer.bytes(torch.float32)
    assert arithmetic.conv_transpose2d((8, 64, 7, 5), (64, 4, 2, 2), stride=2).macs == 8 * 64 * 7 * 5 * 4 * 4
    dense = arithmetic.linear((2, 3, 64), (10, 64))
    assert (dense.output, dense.macs, dense.parameters) == ((2, 3, 10), 2 * 3 * 10 * 64, 650)
    assert arithmetic.linear((64,), (64,)).output == ()


def test_poolings_are_torchs() -> None:
    sizes = [(2, 3, 13, 10), (3, 7, 12)]
    checked = 0
    for input, kernel, stride, padding, ceil in product(sizes, (2, (3, 2)), (None, 2, 3), (0, 1), (False, True)):
        x = torch.randn(input)
        for dilation in (1, 2):
            expected = F.max_pool2d(x, kernel, stride, padding, dilation, ceil).shape
            found = arithmetic.max_pool2d(input, kernel, stride, padding, dilation, ceil)
            assert found.output == expected
            assert (found.macs, found.parameters) == (0, 0)
            assert found.bytes(torch.float32) == 4 * (x.numel() + expected.numel())
        assert arithmetic.avg_pool2d(input, kernel, stride, padding, ceil).output == F.avg_pool2d(x, kernel, stride, padding, ceil).shape  # fmt: skip
        checked += 1
    assert checked == 48
    for size in (1, (3, None)):
        assert arithmetic.adaptive_avg_pool2d(sizes[0], size).output == F.adaptive_avg_pool2d(torch.ones(sizes[0]), size).shape  # fmt: skip
        assert arithmetic.adaptive_max_pool2d(sizes[1], size).output == F.adaptive_max_pool2d(torch.ones(sizes[1]), size).shape  # fmt: skip


@pytest.mark.parametrize(
    ("op", "shapes", "arguments"),
    [
        ("conv2d", ((1, 3, 8, 8), (4, 2, 3, 3)), {}),
        ("conv2d", ((1, 2, 2, 8), (4, 2, 3, 3)), {}),
        ("conv2d", ((1, 2, 8, 8), (4, 2, 3, 3)), {"stride": 0}),
        ("conv2d", ((1, 2, 8, 8), (4, 2, 3, 3)), {"padding": -1}),
        ("conv2d", ((1, 2, 8, 8), (4, 2, 3, 3)), {"padding": "some"}),
        ("conv2d", ((2, 8), (4, 2, 3, 3)), {}),
        ("conv_transpose2d", ((1, 3, 8, 8), (2, 2, 3, 3)), {}),
        ("conv_transpose2d", ((1, 2, 8, 8), (2, 2, 3, 3)), {"output_padding": 1}),
        ("conv_transpose2d", ((1, 2, 1, 1), (2, 2, 3, 3)), {"padding": 2}),
        ("linear", ((1, 3), (4, 2)), {}),
        ("max_pool2d", ((1, 2, 8, 8),), {"kernel_size": 3, "padding": 2}),
        ("max_pool2d", ((1, 2, 8, 8),), {"kernel_size": 9}),
        ("avg_pool2d", ((1, 2, 8, 8),), {"kernel_size": 2, "ceil_mode": "yes"}),
        ("adaptive_avg_pool2d", ((1, 2, 8, 8),), {"output_size": (1, 2, 3)}),
    ],
)
def test_what_torch_refuses_is_refused_in_its_words(op: str, shapes: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises((RuntimeError, TypeError, ValueError)) as torchs:
        getattr(F, op)(*map(torch.empty, shapes), **arguments)
    with pytest.raises(torchs.type) as ours:
        getattr(arithmetic, op)(*shapes, **{"bias": False} if len(shapes) == 2 else {}, **arguments)
    assert str(ours.value) == str(torchs.value)


CHAINS = {
    "one": [(3, 1, 1, 1)],
    "strides": [(3, 2), (3, 2), (2, 2), (5, 1)],
    "dilated and padded": [(3, 1, 2, 2), (2, 3, 1, 1), (3, 1, 3, 0)],
    "even": [(4, 2, 1, 1), (2, 1, 1, 0)],
    "gaps": [(1, 3), (3, 2), (1, 2)],
}  # fmt: skip


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_receptive_fields_are_where_gradients_reach(chain: list[tuple[int, ...]]) -> None:
    """Filters of ones: a pixel has a gradient where a feature depends on it. In the middle of the image none is cut."""
    field = receptive_field(chain)
    x = torch.zeros(1, 1, 1, 200, requires_grad=True)
    y = x
    for kernel, *rest in chain:
        stride, dilation, padding = (*rest, 1, 1, 0)[: len(rest)] + (1, 1, 0)[len(rest) :]
        y = F.conv2d(y, torch.ones(1, 1, 1, kernel), None, (1, stride), (0, padding), (1, dilation))
    for feature in (y.shape[-1] // 2, y.shape[-1] // 2 + 1):
        (gradient,) = torch.autograd.grad(y[0, 0, 0, feature], x, retain_graph=True)
        touched = gradient[0, 0, 0].nonzero()
        assert int(touched[0]) == field.left + feature * field.jump
        assert int(touched[-1] - touched[0]) + 1 == field.size
    assert field.start == field.left + (field.size - 1) / 2


def test_published_receptive_fields() -> None:
    """Table 1 of Araujo, Norris and Sim: AlexNet and VGG-16 with effective stride and padding."""
    alexnet = [(11, 4), (3, 2), (5, 1, 1, 2), (3, 2), (3, 1, 1, 1), (3, 1, 1, 1), (3, 1, 1, 1), (3, 2)]
    assert receptive_field(alexnet) == ReceptiveField(195, 32, -64)
    vgg16 = [step for convolutions in (2, 2, 3, 3, 3) for step in [(3, 1, 1, 1)] * convolutions + [(2, 2)]]
    field = receptive_field(vgg16)
    assert (field.size, field.jump, -field.left) == (212, 32, 90)


def test_fields_that_meet() -> None:
    wide, narrow = IMAGE.through(5, padding=2), IMAGE.through(3, padding=1)
    assert wide.union(narrow) == narrow.union(wide) == wide
    assert IMAGE.through(3).union(IMAGE.through(3, padding=2)) == ReceptiveField(5, 1, -2)
    assert IMAGE.through(2, 2).of_all(7) == ReceptiveField(14, 0, 0)
    with pytest.raises(ValueError, match="2 and 1 pixels apart"):
        IMAGE.through(2, 2).union(IMAGE)


def test_bad_chains() -> None:
    for layer, message in (((0,), "kernel"), ((1, 0), "stride"), ((1, 1, 0), "dilation")):
        with pytest.raises(ValueError, match=f"{message} is at least 1, not 0"):
            receptive_field([layer])
    with pytest.raises(TypeError, match=r"stride is an integer along one axis, not \(1, 1\)"):
        IMAGE.through(3, (1, 1))  # type: ignore[arg-type]


def test_modules_have_these_parameters() -> None:
    conv, up, dense = nn.Conv2d(6, 8, 3, groups=2), nn.ConvTranspose2d(6, 4, 2, groups=2), nn.Linear(5, 3)
    counts = [sum(parameter.numel() for parameter in module.parameters()) for module in (conv, up, dense)]
    found = [
        arithmetic.conv2d((1, 6, 9, 9), tuple(conv.weight.shape), groups=2),
        arithmetic.conv_transpose2d((1, 6, 9, 9), tuple(up.weight.shape), groups=2),
        arithmetic.linear((1, 5), tuple(dense.weight.shape)),
    ]
    assert [layer.parameters for layer in found] == counts
