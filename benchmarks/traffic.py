"""What the kernels of the published layers move, counted by the checked emulator: a table of every pass, in markdown.

    python benchmarks/traffic.py --family depthwise --dtype bf16 > table.md

One image per layer unless --batch says how many. For each pass: sectors of global memory that the bytes used would fit in, over those
touched (coalescing); extra wavefronts of shared memory (conflicts); bytes that the launches touch, and bytes that all threads ask for,
over the bytes that no implementation can avoid. No GPU is needed, and no time is measured. What is large is sampled: a part of the
blocks is run, and what they touch together is not known then.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cnnkernels.bench.suites import Entry
    from cnnkernels.profile.launches import Launch
    from cnnkernels.profile.run import Job

#: A pass that would take the emulator longer is sampled: every so-many-th block is run.
_SECONDS = 6.0


@dataclass(frozen=True)
class Row:
    """One pass of one layer. The last four are ratios; None where there is nothing to divide by."""

    layer: str
    name: str
    dtype: str
    layout: str
    kernel: str
    sampled: bool
    coalescing: float | None
    conflicts: float | None
    unique: float | None
    asked: float

    def cells(self) -> list[str]:
        coalescing = "" if self.coalescing is None else f"{100 * self.coalescing:.0f} %"
        conflicts = "none" if self.conflicts is None else f"{100 * self.conflicts:.1f} %"
        kernel = f"{self.kernel} (sampled)" if self.sampled else self.kernel
        unique = "" if self.unique is None else f"{self.unique:.2f}"
        return [
            self.layer, self.name, self.dtype, self.layout, kernel, coalescing, conflicts, unique, f"{self.asked:.2f}",
        ]  # fmt: skip


_TITLES = ["layer", "pass", "dtype", "layout", "kernel", "coalescing", "conflicts", "unique", "asked"]


def measure(entry: Entry, job: Job, launches: list[Launch]) -> Row:
    """The row of a job from what its launches counted."""
    from cnnkernels.bench.machine import DTYPES
    from cnnkernels.profile import counters
    from cnnkernels.profile.passes import useful

    tensors = [row for launch in launches for row in counters.tensor_traffic(launch)]
    shared = [row for launch in launches for row in counters.shared_traffic(launch)]
    sectors, least = sum(row.sectors for row in tensors), sum(row.least_sectors for row in tensors)
    wavefronts, fewest = sum(row.wavefronts for row in shared), sum(row.least_wavefronts for row in shared)
    compulsory = useful(job.layer, job.name, DTYPES[job.dtype]).bytes
    sampled = any(launch.sampled for launch in launches)
    return Row(
        f"{entry.net}:{entry.layer}", job.name, job.dtype, job.layout, launches[0].kernel,
        sampled,
        least / sectors if sectors else None,
        wavefronts / fewest - 1 if fewest else None,
        None if sampled else sum(counters.totals(launch).launch_bytes for launch in launches) / compulsory,
        sum(row.asked_bytes for row in tensors) / compulsory,
    )  # fmt: skip


@click.command()
@click.option("--suite", default="all", show_default=True)
@click.option("--layer", default="", help="Only layers with this in their name.")
@click.option("--family", "families", multiple=True, help="Only layers of this family; repeatable.")
@click.option("--pass", "passes", multiple=True, help="Only this pass; repeatable.")
@click.option("--dtype", "dtypes", multiple=True, default=("bf16",), show_default=True)
@click.option("--layout", "layouts", multiple=True, default=("channels_last", "nchw"), show_default=True)
@click.option(
    "--batch", default=1, show_default=True, help="Images of each layer; 0: as many as the layer is given with."
)
@click.option("--kernel", default="", help="This kernel, whatever the plan would take.")
def main(
    suite: str, layer: str, families: tuple[str, ...], passes: tuple[str, ...], dtypes: tuple[str, ...],
    layouts: tuple[str, ...], batch: int, kernel: str,
) -> None:  # fmt: skip
    """Print the table; progress goes to stderr."""
    from cnnkernels.bench import suites
    from cnnkernels.profile.passes import expected_seconds, passes_of
    from cnnkernels.profile.run import Job, run

    seen, work = set(), []
    for entry in suites.load(suite).entries:
        one = entry.with_batch(batch) if batch else entry
        if layer not in entry.layer or (families and one.problem.family not in families) or one.problem in seen:
            continue
        seen.add(one.problem)
        for name in passes_of(one.problem):
            if name == "bias_grad" or (passes and name not in passes):
                continue
            whole = expected_seconds(one.problem, name, 1)
            sample = max(1, round(whole / _SECONDS))
            work += [
                (one, Job(one.problem, name, dtype, layout, kernel, sample)) for dtype in dtypes for layout in layouts
            ]
    print("| " + " | ".join(_TITLES) + " |")
    print("|" + "---|" * len(_TITLES))
    start = time.monotonic()
    results = run([job for _, job in work])
    for done, (entry, job) in enumerate(work, 1):
        row = measure(entry, job, next(results))
        print("| " + " | ".join(row.cells()) + " |", flush=True)
        if sys.stderr.isatty():
            click.echo(f"\r{done} of {len(work)}, {time.monotonic() - start:.0f} s ", nl=False, err=True)
    results.close()


if __name__ == "__main__":
    main()
