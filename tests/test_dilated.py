"""What the dilated kernels move, counted by the checked emulator."""

from __future__ import annotations

import pytest

from cnnkernels.profile.launches import Launch
from cnnkernels.profile.run import Job, run
from cnnkernels.profile.subject import parse_problem

pytestmark = pytest.mark.checked_emulator


def launch_of(problem: str, name: str, dtype: str, layout: str) -> Launch:
    layer, _ = parse_problem(problem)
    (launches,) = run([Job(layer, name, dtype, layout, f"conv2d_dilated_128x64_{dtype}")])
    (launch,) = (one for one in launches if "dilated" in one.kernel)
    return launch


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_dilated_is_coalesced_and_without_conflicts(dtype: str, layout: str) -> None:
    launch = launch_of("n1 c64 24x24 k64 3x3 pad 12 dilation 12", "fprop", dtype, layout)
    moved = [site for site in launch.sites if site.space == "global"]
    # In NCHW half a row of 24 pixels is inside, which the taps' shift of 12 begins within a sector: 48 bytes of fp32 and 24 of halves each
    # touch a sector more than they fill.
    least = 0.9 if layout == "channels_last" else 0.8 if dtype == "f32" else 0.6
    assert sum(s.least_sectors for s in moved) >= least * sum(s.sectors for s in moved)
    shared = [site for site in launch.sites if site.space == "shared"]
    assert sum(s.wavefronts for s in shared) <= 1.1 * sum(s.least_wavefronts for s in shared)
