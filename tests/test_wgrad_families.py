"""What the tiled weight gradients move, counted by the checked emulator on layers of real networks, and that the plan takes them.

The batch is reduced and of most launches every so-many-th block is run. A warp is 32 lanes, a sector 32 bytes.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

from cnnkernels.bench import suites
from cnnkernels.bench.layer import Layer
from cnnkernels.bench.tune import problem_of
from cnnkernels.profile.launches import Launch, Site
from cnnkernels.profile.run import Job, run
from cnnkernels.profile.subject import parse_problem

pytestmark = pytest.mark.checked_emulator


class Case(NamedTuple):
    """A problem, how it is run, and the bytes of x and y that its tiles ask for, over those that they have."""

    problem: str
    dtype: str
    layout: str
    kernel: str
    asked: float
    sample: int = 1
    coalesced: float = 0.9


CASES = (
    # 1x1: both operands once where 64 filters and 64 channels are one tile, and where 128 x 128 are.
    Case("n32 c64 56x56 k64 1x1", "bf16", "channels_last", "conv2d_pointwise_wgrad_nhwc_bf16", 1.0, 88),
    Case("n32 c64 56x56 k64 1x1", "bf16", "nchw", "conv2d_pointwise_wgrad_nchw_bf16", 1.0, 88),
    Case("n32 c64 56x56 k64 1x1", "f32", "nchw", "conv2d_pointwise_wgrad_nchw_f32", 1.0, 88),
    Case("n32 c128 56x56 k128 1x1", "bf16", "channels_last", "conv2d_pointwise_wgrad_nhwc_bf16", 1.0, 264),
    Case("n32 c128 56x56 k128 1x1", "f32", "channels_last", "conv2d_pointwise_wgrad_nhwc_f32", 1.0, 264),
    Case("n32 c128 56x56 k128 1x1", "bf16", "nchw", "conv2d_pointwise_wgrad_nchw_bf16", 1.0, 264),
    Case("n32 c32 112x112 k16 1x1", "bf16", "channels_last", "conv2d_pointwise_wgrad_nhwc_bf16", 1.0, 88),
    # 24 channels once for each of five tiles of filters, 144 filters once: (5 * 24 + 144) / (24 + 144).
    Case("n32 c24 56x56 k144 1x1", "bf16", "channels_last", "conv2d_pointwise_wgrad_nhwc_bf16", 1.58, 79),
    # 3x3 with stride 2: x once per tap, a quarter of it each; y once per 128 columns of 9 * 128.
    Case(
        "n32 c128 56x56 k128 3x3 stride 2 pad 1",
        "bf16", "channels_last", "conv2d_transposed_wgrad_nhwc_bf16", (9 / 4 * 4 + 9) / 5, 198,
    ),
    # 2x2 with stride 2 in planes: neighbouring lanes copy neighbouring taps, so that no sector is left half used.
    Case("n4 c64 64x64 k128 2x2 stride 2", "bf16", "nchw", "conv2d_transposed_wgrad_nchw_bf16", 3.0, 20),
    # Dilation 12 at 33 x 33: of the (pixel, tap) pairs 0.57 are inside, and only those are asked for.
    Case(
        "n8 c512 33x33 k128 3x3 pad 12 dilation 12",
        "bf16", "channels_last", "conv2d_dilated_wgrad_nhwc_bf16", 0.58 * (9 * 4 + 36) / 5, 66,
    ),
)  # fmt: skip
WHOLE = Case("n2 c16 32x32 k32 1x1", "bf16", "channels_last", "conv2d_pointwise_wgrad_nhwc_bf16", 1.0)


@pytest.fixture(scope="module")
def launches() -> dict[Case, list[Launch]]:
    """What every case launches, from one process."""
    jobs = [Job(parse_problem(c.problem)[0], "wgrad", c.dtype, c.layout, c.kernel, c.sample) for c in (*CASES, WHOLE)]
    return dict(zip((*CASES, WHOLE), run(jobs), strict=True))


def sites(launch: Launch, space: str) -> list[Site]:
    return [site for site in launch.sites if site.space == space]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.problem} {case.dtype} {case.layout}")
def test_what_is_moved(launches: dict[Case, list[Launch]], case: Case) -> None:
    launch, *rest = launches[case]
    assert launch.kernel == case.kernel
    sums = f"slabs_{case.dtype}"
    assert [other.kernel for other in rest] in ([], [f"conv2d_sum_{sums}"], [f"conv2d_sum_turned_{sums}"])

    accesses = sites(launch, "global")
    # Operands in pieces of 16 bytes, but for x under a stride in planes, which has no two neighbours.
    strided_planes = case.layout == "nchw" and "stride" in case.problem
    assert {site.width for site in accesses if site.access == "async copy"} == {16}
    assert {site.buffer for site in accesses if site.width < 16} == ({"input"} if strided_planes else set())
    assert sum(s.least_sectors for s in accesses) >= case.coalesced * sum(s.sectors for s in accesses)

    shared = sites(launch, "shared")
    least = sum(site.least_wavefronts for site in shared)
    assert sum(site.wavefronts for site in shared) <= 1.1 * least, "bank conflicts"

    operands = [buffer for buffer in launch.buffers if buffer.use == "input"]
    asked = sum(site.bytes_asked for site in accesses if site.access in ("load", "async copy")) * launch.scale
    # Every so-many-th block is not quite the average block: a tenth more is allowed for.
    assert asked <= 1.1 * case.asked * sum(buffer.bytes for buffer in operands)


def test_all_of_the_operands_once(launches: dict[Case, list[Launch]]) -> None:
    """One tile of filters and channels: each byte of x and y is read, and by one block."""
    launch, _ = launches[WHOLE]
    for buffer in launch.buffers:
        if buffer.use == "input":
            assert buffer.read_bytes == buffer.bytes == buffer.block_read_bytes


def tiled(layer: Layer) -> bool:
    """Whether a layer's weight gradient is of these families: 1x1, dilated or strided; no first layer, no narrow groups."""
    transposed = layer.op == "conv_transpose2d"
    channels = layer.K if transposed else layer.C
    if layer.op not in ("conv2d", "conv_transpose2d") or channels <= 4:
        return False
    if layer.groups > 1 and channels // layer.groups < 8:
        return False
    one_by_one = (layer.R, layer.S) == (1, 1)
    return one_by_one or transposed or layer.dilation != (1, 1) or layer.stride != (1, 1)


@pytest.mark.parametrize("net", ["resnet50", "mobilenet_v2", "deeplabv3_os16_513", "unet512same", "fcn8s"])
def test_the_plan_takes_them_for_their_layers(net: str) -> None:
    layers = [entry.problem for entry in suites.load(net).entries if tiled(entry.problem)]
    assert layers
    for layer in layers:
        for dtype in (torch.float32, torch.bfloat16):
            for layout in ("nchw", "channels_last"):
                plan = problem_of(layer, "wgrad", dtype, layout).plan()
                assert plan["family"] in ("pointwise", "dilated", "transposed"), (
                    str(layer),
                    dtype,
                    layout,
                    plan["kernel"],
                )
                assert plan["shared_bytes"] <= 227 * 1024 // 2, "two blocks on a multiprocessor"


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        ("n1 c3 8x8 k8 1x1", "the input of a first layer"),
        ("n1 c32 8x8 k32 1x1 groups 8", "4 channels a group: built for 8 and more"),
        ("n1 c8 8x8 k8 3x3 pad 1", "stride 1: for strided convolutions"),
        ("n1 c8 8x8 k8 3x3 pad 1", "3x3 filter: for 1x1"),
        ("n1 c8 8x8 k8 3x3 stride 2 pad 1", "dilation 1: for dilated filters"),
    ],
)
def test_refusals_say_why(problem: str, reason: str) -> None:
    layer, _ = parse_problem(problem)
    plan = problem_of(layer, "wgrad", torch.float32, "channels_last").plan()
    refused = dict(plan["refused"])
    assert any(reason in why for name, why in refused.items() if "_wgrad_nhwc_" in name), refused
