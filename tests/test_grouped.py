"""What the grouped kernels move on layers of real networks, counted by the checked emulator, and that the plan takes them.

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

RESNEXT = "n8 c128 56x56 k128 3x3 pad 1 groups 32"  # groups of 4
RESNEXT_STRIDED = "n8 c512 28x28 k512 3x3 stride 2 pad 1 groups 32"  # of 16
RESNEXT_LAST = "n8 c1024 7x7 k1024 3x3 pad 1 groups 32"  # of 32, on planes of 49 pixels
REGNET = "n8 c192 28x28 k192 3x3 pad 1 groups 4"  # of 48: channels in slices
REGNET_STRIDED = "n8 c192 56x56 k192 3x3 stride 2 pad 1 groups 4"


CASES = (
    Case(RESNEXT, "fprop", "bf16", "channels_last", "conv2d_grouped_gather_14x4_bf16", 60),
    Case(RESNEXT, "dgrad", "f32", "nchw", "conv2d_grouped_gather_14x4_f32", 60),
    Case(RESNEXT, "wgrad", "bf16", "channels_last", "conv2d_grouped_wgrad_4x3_bf16", 40),
    Case(RESNEXT_STRIDED, "fprop", "bf16", "channels_last", "conv2d_grouped_gather_7x8_bf16", 40),
    Case(RESNEXT_STRIDED, "dgrad", "bf16", "nchw", "conv2d_grouped_gather_7x8_bf16", 40),
    Case(RESNEXT_STRIDED, "wgrad", "f32", "channels_last", "conv2d_grouped_wgrad_8x3_f32", 60),
    Case(RESNEXT_LAST, "fprop", "bf16", "nchw", "conv2d_grouped_gather_7x8_bf16", 60),
    Case(RESNEXT_LAST, "dgrad", "f32", "channels_last", "conv2d_grouped_gather_7x8_f32", 60),
    Case(REGNET, "fprop", "bf16", "channels_last", "conv2d_grouped_gather_7x8_bf16", 60),
    Case(REGNET, "wgrad", "bf16", "channels_last", "conv2d_grouped_wgrad_8x3_bf16", 60),
    Case(REGNET_STRIDED, "fprop", "f32", "nchw", "conv2d_grouped_gather_7x8_f32", 60),
    Case(REGNET_STRIDED, "dgrad", "bf16", "channels_last", "conv2d_grouped_gather_7x8_bf16", 60),
)


@pytest.fixture(scope="module")
def launches() -> dict[Case, list[Launch]]:
    return launches_of(CASES)


@pytest.mark.checked_emulator
@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_moved(launches: dict[Case, list[Launch]], case: Case) -> None:
    assert_moves_well(case, launches[case])


GROUPED = [
    entry
    for entry in suites.load(suites.ALL).entries
    if entry.problem.family == "grouped" and (entry.problem.R, entry.problem.S) != (1, 1) and entry.problem.N > 1
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_plan_takes_them_for_channels_last_layers(dtype: torch.dtype) -> None:
    assert len(GROUPED) > 10
    for entry in GROUPED:
        for name in entry.problem.passes:
            plan = problem_of(entry.problem, name, dtype, "channels_last").plan()
            if dtype != torch.float32 and entry.problem.C // entry.problem.groups >= 16 and "_tensor" in plan["kernel"]:
                continue  # halves, and wide enough for a tile of the tensor cores to each group
            assert plan["family"] == "grouped", f"{entry.net}:{entry.layer} {name}: {plan['kernel']}"
            assert plan["shared_bytes"] <= 227 * 1024


@pytest.mark.parametrize(
    ("problem", "name", "kernel", "why"),
    [
        ("n1 c32 8x8 k32 3x3", "fprop", "gather_7x8", "not grouped"),
        ("n1 c32 8x8 k32 1x1 groups 4", "fprop", "gather_7x8", "1x1 filter"),
        ("n1 c24 8x8 k24 3x3 groups 4", "fprop", "gather_7x8", "built for multiples of 4"),
        ("n1 c16 8x8 k16 3x3 groups 4", "dgrad", "gather_7x8", "groups of 4 results: this one computes 8 at a time"),
        ("n1 c256 8x8 k256 3x3 groups 2", "wgrad", "wgrad_8x3", "built for up to 64"),
        ("n1 c32 12x12 k32 3x3 stride 5 groups 4", "fprop", "gather_7x8", "stride above 4"),
    ],
)
def test_refusals_say_why(problem: str, name: str, kernel: str, why: str) -> None:
    stated = problem_of(parse_problem(problem)[0], name, torch.float32, "channels_last")
    with pytest.raises(RuntimeError, match=why):
        stated.plan(f"conv2d_grouped_{kernel}_f32")
