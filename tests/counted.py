"""What the tests of the families' counters share: cases, their launches, and what is asked of the launches of a pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cnnkernels.profile.launches import Launch, Site
from cnnkernels.profile.run import Job, run
from cnnkernels.profile.subject import parse_problem


class Case(NamedTuple):
    """A pass of a layer, and every how many-th block is run."""

    problem: str
    name: str
    dtype: str
    layout: str
    kernel: str
    sample: int

    def __str__(self) -> str:
        return f"{self.problem} {self.name} {self.dtype} {self.layout}"


def launches_of(cases: Sequence[Case]) -> dict[Case, list[Launch]]:
    """What every case launches, from one process."""
    jobs = [Job(parse_problem(c.problem)[0], c.name, c.dtype, c.layout, c.kernel, c.sample) for c in cases]
    return dict(zip(cases, run(jobs), strict=True))


def sites(launch: Launch, space: str) -> list[Site]:
    return [site for site in launch.sites if site.space == space]


def conflicts(found: list[Site]) -> float:
    """Wavefronts of shared memory beyond the least, over these."""
    return sum(site.wavefronts for site in found) / sum(site.least_wavefronts for site in found) - 1


def assert_moves_well(case: Case, launches: list[Launch]) -> None:
    """One kernel, or one and the sum of its slabs; asynchronous copies and images written by 16 bytes, whole sectors, no conflicts."""
    launch, *rest = launches
    assert launch.kernel == case.kernel
    sums = f"slabs_{case.dtype}"
    assert [other.kernel for other in rest] in ([], [f"conv2d_sum_{sums}"], [f"conv2d_sum_turned_{sums}"])

    accesses = sites(launch, "global")
    assert {site.width for site in accesses if site.access == "async copy"} == {16}
    assert sum(site.least_sectors for site in accesses) >= 0.9 * sum(site.sectors for site in accesses)
    # The images' own writes: 16 bytes but for the ends of runs.
    written = [site for site in accesses if site.access == "store" and site.buffer in ("output", "grad_input")]
    if case.name != "wgrad":
        wide = sum(site.bytes_used for site in written if site.width == 16)
        assert wide >= 0.9 * sum(site.bytes_used for site in written)

    assert conflicts(sites(launch, "shared")) < 0.1
