"""What the kernels of first layers move on layers of real networks, counted by the checked emulator, and that the plan takes them.

The batch is reduced and of most launches every so-many-th block is run. A warp is 32 lanes, a sector 32 bytes.
"""

from __future__ import annotations

import pytest
import torch
from counted import Case, assert_moves_well, launches_of

from cnnkernels.bench import suites
from cnnkernels.bench.tune import problem_of
from cnnkernels.profile.launches import Launch
from cnnkernels.profile.subject import parse_problem

RESNET = "n4 c3 224x224 k64 7x7 stride 2 pad 3"
VGG = "n4 c3 224x224 k64 3x3 pad 1"
UNET = "n1 c1 572x572 k64 3x3"
YOLO = "n4 c3 640x640 k32 6x6 stride 2 pad 2"
LENET = "n64 c1 32x32 k6 5x5"


CASES = (
    Case(RESNET, "fprop", "bf16", "channels_last", "conv2d_first_layer_fprop_c3_bf16", 60),
    Case(RESNET, "fprop", "bf16", "nchw", "conv2d_first_layer_fprop_c3_bf16", 60),
    Case(RESNET, "wgrad", "bf16", "channels_last", "conv2d_first_layer_wgrad_c3_bf16", 60),
    Case(VGG, "fprop", "f32", "nchw", "conv2d_first_layer_fprop_c3_f32", 100),
    Case(VGG, "wgrad", "bf16", "channels_last", "conv2d_first_layer_wgrad_c3_bf16", 100),
    Case(UNET, "fprop", "bf16", "nchw", "conv2d_first_layer_fprop_c3_bf16", 40),
    Case(UNET, "wgrad", "f32", "channels_last", "conv2d_first_layer_wgrad_c3_f32", 40),
    Case(YOLO, "fprop", "bf16", "nchw", "conv2d_first_layer_fprop_c3_bf16", 200),
)


@pytest.fixture(scope="module")
def launches() -> dict[Case, list[Launch]]:
    return launches_of(CASES)


@pytest.mark.checked_emulator
@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_moved(launches: dict[Case, list[Launch]], case: Case) -> None:
    assert_moves_well(case, launches[case])


FIRST = [entry for entry in suites.load(suites.ALL).entries if entry.problem.family == "first_layer"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_the_plan_takes_them(dtype: torch.dtype, layout: str) -> None:
    assert len(FIRST) >= 5
    for entry in FIRST:
        for name in ("fprop", "wgrad"):
            plan = problem_of(entry.problem, name, dtype, layout).plan()
            assert plan["family"] == "first_layer", f"{entry.net}:{entry.layer} {name}: {plan['kernel']}"


def test_a_single_channel_may_have_any_filter() -> None:
    for layout in ("nchw", "channels_last"):
        plan = problem_of(parse_problem(LENET)[0], "wgrad", torch.float32, layout).plan()
        assert plan["family"] == "first_layer"


@pytest.mark.parametrize(
    ("problem", "name", "kernel", "why"),
    [
        ("n1 c5 8x8 k8 3x3", "fprop", "fprop_c3", "5 channels: built for up to 4"),
        ("n1 c4 8x8 k8 3x3 groups 2", "wgrad", "wgrad_c4", "grouped"),
        ("n1 c3 8x8 k8 1x1", "fprop", "fprop_c3", "1x1 filter"),
        ("n1 c3 8x8 k8 3x3", "fprop", "fprop_c4", "built for quads of 4 channels"),
        ("n1 c3 12x12 k8 3x3 stride 5", "fprop", "fprop_c3", "stride above 4"),
    ],
)
def test_refusals_say_why(problem: str, name: str, kernel: str, why: str) -> None:
    stated = problem_of(parse_problem(problem)[0], name, torch.float32, "channels_last")
    with pytest.raises(RuntimeError, match=why):
        stated.plan(f"conv2d_first_layer_{kernel}_f32")
