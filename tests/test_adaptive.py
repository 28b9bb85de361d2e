"""Adaptive pooling: its windows in closed form, torch's meaning, and what the kernels move on the layers of published networks."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import Place
from torch import Tensor

from cnnkernels import functional, ops
from cnnkernels.bench.layer import Layer
from cnnkernels.profile.launches import Launch
from cnnkernels.profile.passes import useful
from cnnkernels.profile.run import Job, run
from cnnkernels.profile.subject import parse_problem
from cnnkernels.testing.oracles import assert_like_torch

NAMES = ("adaptive_avg_pool2d", "adaptive_max_pool2d")
SIZES = range(1, 41)


def window(t: int, sources: int, targets: int) -> range:
    """What csrc/pool2d/adaptive/windows.cuh computes."""
    return range(t * sources // targets, -(-(t + 1) * sources // targets))


def test_the_windows_of_a_pixel_are_the_same_function_with_the_sizes_exchanged() -> None:
    """h lies in window p of H over P exactly if p lies in window h of P over H: backward has nothing to filter."""
    for H in SIZES:
        for P in SIZES:
            forward = {(p, h) for p in range(P) for h in window(p, H, P)}
            backward = {(p, h) for h in range(H) for p in window(h, P, H)}
            assert forward == backward, (H, P)


def test_every_size_of_one_axis(place: Place) -> None:
    """All windows of 1 to 40 rows over 1 to 40, forward and backward. Each length in one call, as columns, with the rest as rows."""
    for H in SIZES:
        x = torch.arange(1.0, H + 1, dtype=torch.float64).view(1, 1, H, 1).to(place.device)
        for P in SIZES:
            expected = F.adaptive_avg_pool2d(x.cpu(), (P, 1))
            assert torch.equal(ops.adaptive_avg_pool2d(x, (P, 1), False).cpu(), expected), (H, P)
            gradient = torch.zeros(H, dtype=torch.float64)
            for p in range(P):
                for h in window(p, H, P):
                    gradient[h] += (p + 1.0) / len(window(p, H, P))
            y = torch.arange(1.0, P + 1, dtype=torch.float64).view(1, 1, P, 1).to(place.device)
            actual = ops.adaptive_avg_pool2d_backward(y, (H, 1), False).cpu().flatten()
            assert torch.equal(actual, gradient), (H, P)


X = torch.randn(2, 6, 9, 7)

CALLS: list[tuple[Any, ...]] = [
    (X, 1), (X, (1, 1)), (X, 3), (X, (4, 2)), (X, [None, 3]), (X, (None, None)), (X, (12, 20)), (X[0], 2), (X[0], (None, 1)),
    (X[:0], 2), (X, 0), (X, (0, 2)), (X.transpose(2, 3), (3, 2)), (X[:, 1:4, 2:, ::2], (3, 2)), (X[:, :1].expand(2, 6, 9, 7), 1),
]  # fmt: skip
REFUSED: list[tuple[Any, ...]] = [
    (X, -1), (X, (2, -3)), (X, None), (X, [2]), (X, (1, 2, 3)), (X, 1.5), (X, True), (X, (2.0, 1)), (X, "a"), (X, torch.tensor(2)),
    (X[0, 0], 2), (X[None], 2), (X[:, :, :0], 2), (X[:, :, :, :0], 2), (1.0, 2), (),
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arguments", CALLS, ids=range(len(CALLS)))
def test_calls_mean_what_torchs_mean(name: str, arguments: tuple[Any, ...], place: Place) -> None:
    arguments = tuple(value.to(place.device) if isinstance(value, Tensor) else value for value in arguments)
    ours, theirs = getattr(functional, name)(*arguments, backend=place.backend), getattr(F, name)(*arguments)
    assert_like_torch(ours, theirs)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arguments", REFUSED, ids=range(len(REFUSED)))
def test_errors_are_torchs(name: str, arguments: tuple[Any, ...]) -> None:
    theirs, ours = (
        _raised(getattr(F, name), arguments),
        _raised(getattr(functional, name), arguments, backend="emulator"),
    )
    assert theirs is not None and (type(ours), str(ours)) == (type(theirs), str(theirs))


def _raised(function: Callable[..., object], arguments: tuple[Any, ...], **options: str) -> Exception | None:
    try:
        function(*arguments, **options)
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("size", [1, (3, 2)])
@pytest.mark.parametrize("name", NAMES)
def test_formats_are_torchs(name: str, size: Any, place: Place) -> None:
    """Results and gradients, but for the gradient of an average of 1 x 1: it is the input's, where torch makes a contiguous one."""
    formats = (torch.contiguous_format, torch.channels_last)
    for of_input in formats:
        for of_grad in formats:
            results = []
            for function in (getattr(F, name), lambda *a: getattr(functional, name)(*a, backend=place.backend)):
                input = X.to(place.device, memory_format=of_input).requires_grad_()
                output = function(input, size)
                grad_output = torch.ones_like(output).contiguous(memory_format=of_grad)
                results.append((output, *torch.autograd.grad(output, input, grad_output)))
            (y, dx), (ours, our_dx) = results
            assert_like_torch(ours, y)
            if name == "adaptive_avg_pool2d" and size == 1:
                assert dx.is_contiguous() and our_dx.is_contiguous(memory_format=of_input)
            else:
                assert_like_torch(our_dx, dx)


def test_nan_and_ties() -> None:
    """NaN wins, the last of several; of equal values the first; a window of -inf has its first pixel's index."""
    nan, inf = float("nan"), float("inf")
    rows = [[1.0, nan, nan, 5.0], [3.0, 3.0, 3.0, 3.0], [-inf, -inf, -inf, -inf], [0.0, 7.0, 7.0, -inf]]
    for channels_last in (False, True):
        x = torch.tensor(rows).view(1, 4, 2, 2)
        x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
        for size in (1, 2, (1, 2), 3):
            ours = functional.adaptive_max_pool2d(x, size, True, backend="emulator")
            theirs = F.adaptive_max_pool2d(x, size, True)
            assert torch.equal(ours[1], theirs[1]) and torch.equal(ours[0].nan_to_num(9), theirs[0].nan_to_num(9))


# The layers of the sets.
LAYERS = {
    "resnet50:gap": "c2048 7x7",
    "mobilenet_v2:gap": "c1280 7x7",
    "deeplabv3_os8_520:aspp_gap, fewer channels": "c64 65x65",
    "deeplabv3_os16_513:aspp_gap, fewer channels": "c64 33x33",
    "efficientnet_b0:se_gap32": "c32 112x112",
    "efficientnet_b0:se_gap240": "c240 28x28",
    "efficientnet_b0:se_gap480": "c480 14x14",
}


@pytest.mark.parametrize("layout", ["channels_last", "nchw"])
@pytest.mark.parametrize("op", ["adaptive_avg", "adaptive_avg_backward", "adaptive_max", "adaptive_max_backward"])
@pytest.mark.parametrize("N", [1, 8, 32, 256])
def test_the_plan_takes_the_family(op: str, layout: str, N: int) -> None:
    """channels_last: the kernels of channels. NCHW: those of planes; a maximum, which no layer of the sets is, may be a tie."""
    import cnnkernels._C as native

    for text in LAYERS.values():
        C, H, W = (int(size) for size in text[1:].replace("x", " ").split())
        sizes = {"N": N, "C": C, "H": H, "W": W, "R": 1, "S": 1, "P": 1, "Q": 1}
        for dtype in ("f32", "f16", "bf16"):
            plan = native.plan_pool2d(op, dtype, sizes, (1, 1), (0, 0), (1, 1), layout == "channels_last")
            assert plan["family"] == "adaptive"
            if layout == "channels_last" or op.startswith("adaptive_avg"):
                assert ("planes" in plan["kernel"]) == (layout == "nchw"), (plan["kernel"], text)


DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}
LAYOUTS = ("channels_last", "nchw")
PASSES = ("forward", "backward")

Case = tuple[str, str, str, str]  # title, dtype, layout, pass


def layer_of(title: str) -> Layer:
    return parse_problem(f"adaptive_avg_pool2d n1 {LAYERS[title]} 1x1")[0]


@pytest.fixture(scope="module")
def counted() -> dict[Case, list[Launch]]:
    """Every layer's launches, counted in one process."""
    cases = list(itertools.product(LAYERS, DTYPES, LAYOUTS, PASSES))
    jobs = [Job(layer_of(title), name, dtype, layout) for title, dtype, layout, name in cases]
    return dict(zip(cases, run(jobs), strict=True))


@pytest.mark.checked_emulator
@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("title", LAYERS)
def test_averages_of_one_window_move_each_byte_once(
    title: str, dtype: str, layout: str, name: str, counted: dict[Case, list[Launch]]
) -> None:
    """Whole sectors in accesses of 16 bytes, no bank conflicts, hardly a byte asked for twice.

    Backward a thread reads a gradient for at least every fourth store.
    """
    sites = [site for launch in counted[title, dtype, layout, name] for site in launch.sites]
    moved = [site for site in sites if site.space == "global"]
    shared = [site for site in sites if site.space == "shared"]
    assert sum(site.least_sectors for site in moved) >= 0.93 * sum(site.sectors for site in moved)
    assert sum(site.wavefronts for site in shared) == sum(site.least_wavefronts for site in shared)
    most = {"forward": 1.01, "backward": 1.5}[name] * useful(layer_of(title), name, DTYPES[dtype]).bytes
    assert sum(site.bytes_asked for site in moved if site.buffer != "workspace") <= most
    images = [site for site in moved if site.buffer in ("input", "grad_input")]
    wide = sum(site.bytes_asked for site in images if site.width == 16)
    assert wide >= 0.98 * sum(site.bytes_asked for site in images)
