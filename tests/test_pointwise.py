"""What the pointwise kernels move, counted by the checked emulator."""

from __future__ import annotations

import pytest

from cnnkernels.profile.launches import Launch
from cnnkernels.profile.run import Job, run
from cnnkernels.profile.subject import parse_problem

pytestmark = pytest.mark.checked_emulator


def launch_of(problem: str, name: str, dtype: str, layout: str) -> Launch:
    layer, _ = parse_problem(problem)
    ((launch,),) = run([Job(layer, name, dtype, layout, f"conv2d_pointwise_128x64_{dtype}")])
    return launch


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_pointwise_is_coalesced_and_without_conflicts(dtype: str, layout: str) -> None:
    launch = launch_of("n1 c64 16x32 k64 1x1", "fprop", dtype, layout)
    moved = [site for site in launch.sites if site.space == "global"]
    assert sum(s.least_sectors for s in moved) >= 0.9 * sum(s.sectors for s in moved)
    shared = [site for site in launch.sites if site.space == "shared"]
    assert sum(s.wavefronts for s in shared) <= 1.1 * sum(s.least_wavefronts for s in shared)
