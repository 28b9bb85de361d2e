"""What the plan takes for each pass of a layer: the rows of `cnnkernels summary`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cnnkernels.bench import machine
from cnnkernels.bench.suites import Entry
from cnnkernels.bench.tune import problem_of


@dataclass(frozen=True)
class PlannedPass:
    """One pass of one layer, and the kernel that runs it. `modelled_us` is the plan's cost model of an H200, no measurement."""

    net: str
    layer: str
    layer_family: str  # what the layer is
    name: str
    dtype: str
    layout: str
    problem: str
    kernel: str
    family: str  # whose kernel that is
    tile: tuple[int, ...] | None
    batches: int  # the images run in so many, one after another; the grid, slabs and tile are of one
    grid: int
    threads: int
    shared_bytes: int
    slabs: int
    stages: int  # steps of the reduction in shared memory at once; 0: not known, or none
    workspace_bytes: int
    modelled_us: float
    why: str
    refused: tuple[tuple[str, str], ...]


def planned(
    entries: Iterable[Entry], dtypes: Sequence[str], layouts: Sequence[str], passes: Sequence[str] = ()
) -> list[PlannedPass]:
    """Every pass (or those named) of the layers in every dtype and layout.

    Raises ImportError where cnnkernels._C, which has the plan, is not built.
    """
    return [
        plan_pass(entry, name, dtype, layout)
        for entry in entries
        for name in entry.problem.passes
        if not passes or name in passes
        for dtype in dtypes
        for layout in layouts
    ]


def plan_pass(entry: Entry, name: str, dtype: str, layout: str) -> PlannedPass:
    """The plan of one pass of a layer whose tensors are dense in `layout`."""
    tf32 = dtype == machine.TF32
    plan: dict[str, Any] = problem_of(entry.problem, name, machine.DTYPES[dtype], layout, tf32=tf32).plan()
    return PlannedPass(
        entry.net, entry.layer, entry.problem.family, name, dtype, layout, str(entry.problem),
        plan["kernel"], plan["family"], plan["tile"], plan["batches"], plan["grid"], plan["threads"], plan["shared_bytes"],
        plan["slabs"], plan.get("stages", 0),
        plan["workspace_bytes"], plan["modelled_us"], plan["why"], tuple(plan["refused"]),
    )  # fmt: skip
