"""What each line of source costs of one resource: a part of the resource's time in the model, which all lines together are."""

from __future__ import annotations

import linecache
from collections import defaultdict
from dataclasses import dataclass

from cnnkernels.profile.launches import Launch, Line, Site
from cnnkernels.profile.machine_code import Counted
from cnnkernels.profile.model import Resource, pipe_slots, site_clocks


@dataclass(frozen=True)
class LineCost:
    """`seconds` of the resource's time, the part `share` of it; `text` is the line itself, "" where its file is not here."""

    line: Line
    share: float
    seconds: float
    text: str


def dearest_lines(launch: Launch, counted: Counted | None, resource: Resource) -> list[LineCost]:
    """Every line that costs anything of `resource`, the dearest first.

    Bytes that a cache serves once for several accesses are shared out among them by the sectors that each of them touched.
    """
    weights: dict[Line, float] = defaultdict(float)
    if resource.key in ("dram", "l2", "l2_to_sm"):
        for site, weight in _shared_out(launch, of_the_launch=resource.key == "dram"):
            weights[site.source] += weight
    elif resource.key == "l1":
        for site in launch.sites:
            weights[site.source] += site_clocks(site)
    else:
        if resource.key == "issue":
            for site in launch.sites:
                weights[site.source] += site.instructions
        if counted and resource.key != "tensor":  # whose instructions are not counted by line
            for block, own in zip(launch.code, counted.by_block, strict=True):
                slots32, slots64 = pipe_slots(own)
                weights[block.source] += {"fp32": slots32, "fp64": slots64, "issue": own.total}[resource.key]
    # Of a line's copies in several functions, and of one inlined in several places, people see one line.
    lines: dict[tuple[str, int], tuple[Line, float]] = {}
    for line, weight in weights.items():
        known = lines.get((line.file, line.number))
        lines[line.file, line.number] = (known[0], known[1] + weight) if known else (line, weight)
    total = sum(weight for _, weight in lines.values())
    costs = [
        LineCost(line, weight / total, weight / total * resource.seconds, source_text(line))
        for line, weight in lines.values()
        if weight > 0
    ]
    return sorted(costs, key=lambda cost: (-cost.share, cost.line))


def source_text(line: Line) -> str:
    """The line as it stands in its file, without its indentation."""
    return linecache.getline(line.file, line.number).strip() if line.number else ""


def _shared_out(launch: Launch, of_the_launch: bool) -> list[tuple[Site, float]]:
    result = []
    for buffer in launch.buffers:
        if of_the_launch:
            unique = {"read": buffer.read_sectors, "write": buffer.written_sectors}
        else:
            unique = {"read": buffer.block_read_sectors, "write": buffer.block_written_sectors}
        for direction, sectors in unique.items():
            kinds = ("load", "async copy", "atomic") if direction == "read" else ("store", "atomic")
            sites = [
                site
                for site in launch.sites
                if site.space == "global" and site.buffer == buffer.name and site.access in kinds
            ]
            touched = sum(site.sectors for site in sites)
            result += [(site, sectors * site.sectors / touched) for site in sites if touched]
    return result
