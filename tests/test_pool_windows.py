"""The windows family: what its kernels move on layers of the layer sets, when the plan takes them, and the spatial pyramid."""

from __future__ import annotations

from dataclasses import dataclass

import cnnkernels._C as _C
import pytest
import torch
import torch.nn.functional as F
from conftest import Place
from torch import Tensor

import cnnkernels
from cnnkernels import functional, ops
from cnnkernels.bench.suites import load
from cnnkernels.bench.tune import problem_of
from cnnkernels.profile.launches import Launch, Site
from cnnkernels.profile.run import Job, run
from cnnkernels.profile.subject import parse_problem

# --- What moves, by the checked emulator's counters.


@dataclass(frozen=True)
class Moved:
    asked: float  # bytes that threads ask for, over the compulsory ones
    unique: float | None  # bytes that differ, over the compulsory ones; None of a sampled launch
    coalesced: float
    conflicts: float
    widest: int  # of the accesses to x


def moved(launch: Launch, compulsory: int) -> Moved:
    memory: list[Site] = [site for site in launch.sites if site.sectors]
    shared = [site for site in launch.sites if site.space == "shared" and site.least_wavefronts]
    unique = sum(buffer.read_bytes + buffer.written_bytes for buffer in launch.buffers) / compulsory
    wavefronts, least = (sum(getattr(site, name) for site in shared) for name in ("wavefronts", "least_wavefronts"))
    return Moved(
        sum(site.bytes_asked for site in memory) * launch.scale / compulsory,
        None if launch.sampled else unique,
        sum(site.least_sectors for site in memory) / sum(site.sectors for site in memory),
        wavefronts / least - 1 if least else 0,
        max(site.width for site in memory),
    )


VGG, RESNET = "max n1 c64 224x224 2x2 stride 2", "max n1 c64 112x112 3x3 stride 2 pad 1"
ALEXNET, DENSENET = "max n1 c64 55x55 3x3 stride 2", "avg n1 c128 56x56 2x2 stride 2"
# layer, layout, dtype, sample; the least that is coalesced and the most bank conflicts; the kernels, forward and backward
PLANAR, CHANNELS, ODD = ("planar", "planar"), ("channels", "channels"), ("separable", "gathered")
COUNTED = [
    (VGG, "channels_last", "bf16", 16, 0.99, 0.0, CHANNELS),
    (VGG, "nchw", "bf16", 16, 0.99, 0.0, PLANAR),
    (VGG, "nchw", "f32", 16, 0.99, 0.0, PLANAR),
    (RESNET, "channels_last", "bf16", 4, 0.99, 0.0, CHANNELS),
    (RESNET, "channels_last", "f32", 8, 0.99, 0.0, CHANNELS),
    (RESNET, "nchw", "bf16", 8, 0.98, 0.01, PLANAR),
    (RESNET, "nchw", "f32", 8, 0.98, 0.01, PLANAR),
    (ALEXNET, "nchw", "bf16", 4, 0.98, 0.01, PLANAR),
    (DENSENET, "nchw", "bf16", 4, 0.98, 0.01, PLANAR),
    (DENSENET, "channels_last", "f32", 4, 0.99, 0.0, CHANNELS),
    # Planes of 7 to 35 columns: rows of no whole words, strips that share a warp.
    *(
        (f"{kind} n1 c{channels} {columns}x{columns} {window}", "nchw", dtype, 1, 0.96, 0.05, PLANAR)
        for dtype in ("bf16", "f32")
        for kind, channels, columns, window in (
            ("max", 8, 27, "3x3 stride 2"),
            ("max", 16, 13, "3x3 stride 2"),
            ("max", 8, 14, "3x3 pad 1"),
            ("max", 32, 7, "3x3 pad 1"),
            ("avg", 4, 35, "3x3 pad 1"),
            ("avg", 8, 17, "3x3 pad 1"),
            ("max", 16, 28, "2x2 stride 2"),
            ("avg", 32, 14, "2x2 stride 2"),
            ("max", 32, 10, "2x2 stride 2"),
        )
    ),
    # Windows of any odd size, with indices forward. Channels dense, the host's compiler reads the words of 16 bytes one by one; nvcc
    # does not: those conflicts are not asserted.
    ("max n1 c8 20x20 5x5 pad 2", "nchw", "bf16", 1, 0.96, 0.1, ODD),
    ("max n1 c8 20x20 5x5 pad 2", "nchw", "f32", 1, 0.96, 0.1, ODD),
    ("max n1 c32 20x20 5x5 pad 2", "channels_last", "bf16", 1, 0.99, 2, ODD),
    # Channels that are no whole vectors.
    ("max n4 c6 28x28 2x2 stride 2", "channels_last", "bf16", 1, 0.96, 0.1, PLANAR),
]


@pytest.mark.checked_emulator
def test_what_the_kernels_move() -> None:
    jobs, limits = [], []
    for text, layout, dtype, sample, coalesced, conflicts, kernels in COUNTED:
        layer, _ = parse_problem(text)
        for name, pass_, what in zip(("forward", "backward"), ("", "_backward"), kernels, strict=True):
            kernel = f"pool2d_{layer.op.split('_')[0]}{pass_}_windows_{what}_{dtype}"
            jobs.append(Job(layer, name, dtype, layout, kernel, sample))
            limits.append((coalesced, conflicts))
    for job, (coalesced, conflicts), (launch,) in zip(jobs, limits, run(jobs), strict=True):
        found = moved(launch, job.layer.useful_bytes(job.name, 4 if job.dtype == "f32" else 2))
        assert launch.kernel == job.kernel
        assert found.asked <= 1.5, (job, found)
        assert found.unique is None or found.unique <= 1.05, (job, found)
        assert found.coalesced >= coalesced, (job, found)
        assert found.conflicts <= conflicts, (job, found)
        assert found.widest == 16, (job, found)


@pytest.mark.checked_emulator
def test_backward_of_windows_that_do_not_overlap_moves_eleven_bytes_a_window() -> None:
    """bf16, 2x2: 2 bytes of gradient and 1 of index read, 8 written."""
    layer, _ = parse_problem("max n1 c8 32x32 2x2 stride 2")
    ((launch,),) = run([Job(layer, "backward", "bf16", "channels_last", "pool2d_max_backward_windows_channels_bf16")])
    asked = sum(site.bytes_asked for site in launch.sites if site.sectors)
    assert asked == 11 * 8 * 16 * 16


@pytest.mark.checked_emulator
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_a_pyramid_reads_once_and_writes_thrice(layout: str) -> None:
    layer, _ = parse_problem("max n1 c16 20x20 5x5 pad 2")
    ((launch,),) = run([Job(layer, "forward", "bf16", layout, "pool2d_max_windows_separable_bf16")])
    found = moved(launch, layer.useful_bytes("forward", 2))
    assert found.asked <= 1.05 and found.unique == 1 and found.coalesced >= 0.9 and found.widest == 16
    # Channels dense, the host's compiler reads the words of 16 bytes one by one; nvcc does not.
    assert layout == "channels_last" or found.conflicts <= 0.1


# --- When the plan takes them.

# The layers that it leaves to the direct kernels: too small to fill the machine, whichever takes them.
LEFT = {("pool2", "channels_last"), ("pool2", "nchw")}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "suite",
    ["vgg16", "resnet50", "alexnet", "lenet5", "googlenet", "inception_v3", "unet572", "densenet121", "yolo_spp"],
)
def test_the_plan_takes_the_family_for_its_layers(suite: str, dtype: torch.dtype) -> None:
    taken = 0
    for entry in load(suite).entries:
        layer = entry.problem
        if layer.op not in ("max_pool2d", "avg_pool2d"):
            continue
        for layout in ("nchw", "channels_last"):
            for name in ("forward", "backward"):
                plan = problem_of(layer, name, dtype, layout).plan()
                if "_windows_" in plan["kernel"]:
                    taken += 1
                else:
                    assert (entry.layer, layout) in LEFT, (entry, name, layout, plan)
    assert taken


def test_refusals_say_what_the_kernels_are_built_for() -> None:
    def reasons(op: str, C: int, taps: int, channels_last: bool, indices: str, stride: int = 2) -> str:
        P = (32 - taps) // stride + 1
        sizes = {"N": 1, "C": C, "H": 32, "W": 32, "R": taps, "S": taps, "P": P, "Q": P}
        plan = _C.plan_pool2d(op, "f32", sizes, (stride, stride), (0, 0), (1, 1), channels_last, "", indices)
        return "\n".join(reason for kernel, reason in plan["refused"] if "_windows_" in kernel)

    assert "7 channels are no multiple of the 4 of 16 bytes" in reasons("max", 7, 2, True, "window")
    assert "flat indices: built for a byte of index, or none" in reasons("max", 8, 2, True, "flat")
    assert "backward it is built for 2x2 stride 2" in reasons("max_backward", 8, 4, True, "window")
    assert "built for stride 1" in reasons("max", 8, 3, False, "none")


# --- Odd addresses: results do not depend on them, nor on which kernel runs.


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_any_address_gives_the_same_bits(format: torch.memory_format, dtype: torch.dtype) -> None:
    whole = torch.randn(2, 16, 16, 64).to(dtype, memory_format=format)
    x = torch.empty(whole.numel() + 3, dtype=dtype)[3:].as_strided(whole.shape, whole.stride()).copy_(whole)
    channels_last = format is torch.channels_last
    for window, stride, padding, size in ((2, 2, 0, (8, 32)), (3, 2, 1, (8, 32)), (3, 1, 1, (16, 64))):
        geometry = ((window,) * 2, (stride,) * 2, (padding,) * 2, (1, 1))
        y, index = ops.max_pool2d_with_indices(whole, size, *geometry, False, channels_last)
        kernel = f"pool2d_max_windows_{'channels' if channels_last else 'planar'}_{_short(dtype)}"
        again, same = ops.max_pool2d_with_indices(x, size, *geometry, False, channels_last, kernel)
        assert torch.equal(y, again) and torch.equal(index, same)


def _short(dtype: torch.dtype) -> str:
    return {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}[dtype]


# --- The spatial pyramid.


def pools(x: Tensor) -> tuple[Tensor, ...]:
    return tuple(F.max_pool2d(x, k, 1, k // 2) for k in (5, 9, 13))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_pyramid_is_its_three_poolings(format: torch.memory_format, dtype: torch.dtype, place: Place) -> None:
    x = torch.randn(2, 16, 14, 11).to(place.device, dtype, memory_format=format)
    with cnnkernels.trace() as launched:
        ours = functional.spatial_pyramid_max_pool2d(x, 5, backend=place.backend)
    assert len(launched) == (3 if dtype is torch.float64 or place.backend == "triton" else 1)
    for one, expected in zip(ours, pools(x), strict=True):
        assert torch.equal(one, expected) and one.stride() == expected.stride()
    unbatched = functional.spatial_pyramid_max_pool2d(x[0], 5, backend=place.backend)
    assert all(torch.equal(one, many[0]) for one, many in zip(unbatched, ours, strict=True))


def test_a_pyramids_gradient_is_that_of_its_three_poolings(place: Place) -> None:
    values = torch.randperm(2 * 3 * 12 * 9).double().view(2, 3, 12, 9).to(place.device)  # no two alike
    ours, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    weights = [torch.randn_like(values) for _ in range(3)]
    for x, results in (
        (ours, functional.spatial_pyramid_max_pool2d(ours, backend=place.backend)),
        (theirs, pools(theirs)),
    ):
        sum((w * y).sum() for w, y in zip(weights, results, strict=True)).backward()
        assert x.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_pyramid_of_what_torch_refuses_raises_what_torch_raises() -> None:
    with pytest.raises(RuntimeError, match="kernel"):
        functional.spatial_pyramid_max_pool2d(torch.randn(1, 1, 8, 8), 0, backend="torch")
    with pytest.raises(cnnkernels.BackendError, match="not odd"):
        functional.spatial_pyramid_max_pool2d(torch.randn(1, 1, 8, 8), 4, backend="emulator")
