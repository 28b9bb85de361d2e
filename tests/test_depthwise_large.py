"""What the depthwise kernels for filters of any size move and skip, counted by the checked emulator, and that the plan takes them.

The layers are RepLKNet's and UniRepLKNet's with fewer channels and images.
"""

from __future__ import annotations

import pytest
import torch

from cnnkernels.bench import suites, tune
from cnnkernels.profile.launches import Launch
from cnnkernels.profile.run import Job, run
from cnnkernels.profile.subject import parse_problem

pytestmark = pytest.mark.checked_emulator

PASSES = ("fprop", "dgrad", "wgrad")
LAYOUTS = {"nchw": "nchw", "channels_last": "nhwc"}
ON_7X7 = "n2 c16 7x7 k16 13x13 pad 6 groups 16"
ON_14X14 = "n2 c16 14x14 k16 13x13 pad 6 groups 16"


def launches(text: str, names: tuple[str, ...], dtype: str, layout: str) -> list[Launch]:
    layer, _ = parse_problem(text)
    kernels = [
        f"conv2d_depthwise_large_{'wgrad' if n == 'wgrad' else 'gather'}_{LAYOUTS[layout]}_{dtype}" for n in names
    ]
    jobs = [Job(layer, name, dtype, layout, kernel) for name, kernel in zip(names, kernels, strict=True)]
    return [result[0] for result in run(jobs)]


@pytest.mark.parametrize("dtype", ["bf16", "f32"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_move_in_whole_sectors_and_without_conflicts(layout: str, dtype: str) -> None:
    for launch in launches(ON_14X14, PASSES, dtype, layout):
        images = [s for s in launch.sites if s.buffer in ("input", "output", "grad_output", "grad_input")]
        sectors, least = sum(s.sectors for s in images), sum(s.least_sectors for s in images)
        assert least >= 0.9 * sectors, f"{launch.kernel}: {least} of {sectors} sectors"
        assert all(s.width == 16 for s in images if s.space == "global"), launch.kernel
        filters = [s for s in launch.sites if s.buffer == "weight" and s.space == "global"]
        assert all(s.width == 16 for s in filters), f"{launch.kernel}: filters in single elements"
        shared = [s for s in launch.sites if s.space == "shared"]
        wavefronts, fewest = sum(s.wavefronts for s in shared), sum(s.least_wavefronts for s in shared)
        assert wavefronts <= 1.08 * fewest, f"{launch.kernel}: {wavefronts} wavefronts, {fewest} without conflicts"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_taps_in_the_padding_are_skipped(layout: str) -> None:
    """13 x 13 on 7 x 7: a row of results meets 7 of 13 rows of taps, and 7 columns of results need all of 13 columns, in fours."""
    layer, _ = parse_problem(ON_7X7)
    (launch,) = launches(ON_7X7, ("fprop",), "f32", layout)
    taps = [s for s in launch.sites if s.file.endswith("large_kernel.cuh") and s.access == "load" and s.width == 16]
    # 16 channels of 2 images are a warp. For each of 7 rows, and 4 fours of taps, the taps of each of 7 rows of results.
    assert sum(s.instructions for s in taps) == 7 * 4 * 7 * layer.N * layer.C // 32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_plan_takes_them_for_their_layers(layout: str, name: str, dtype: torch.dtype) -> None:
    for net in ("replknet_31b", "unireplknet_t"):
        for entry in suites.load(net).entries:
            layer = entry.problem
            if layer.is_pooling or layer.groups != layer.C or layer.R < 9:
                continue
            planned = tune.problem_of(layer, name, dtype, layout).plan()["kernel"]
            assert planned.startswith("conv2d_depthwise_large_"), f"{layer}: {planned}"
