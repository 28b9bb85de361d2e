"""A profile for people: one compact page per launch, its tables at most 100 columns wide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

from cnnkernels.profile.hardware import (
    DRAM_RATE,
    FP32_LANES,
    FP64_LANES,
    ISSUE,
    L2_BYTES_PER_SM,
    L2_RATE,
    SMS,
    WARP,
    WARPS_PER_SM,
    constants,
)
from cnnkernels.profile.model import NOTICE
from cnnkernels.profile.resources import ARCHITECTURE

if TYPE_CHECKING:
    from rich.console import Console

    from cnnkernels.profile.lines import LineCost
    from cnnkernels.profile.model import Resource
    from cnnkernels.profile.report import LaunchReport, PassReport

_WIDTH = 100
_LINES = 3
_BAR = 12
#: Accesses to shared memory of less than this part of the wavefronts share one row.
_SHOWN_PART = 0.02


def print_pass(console: Console, report: PassReport, all_lines: bool = False) -> None:
    """The launches of a pass one after the other, and what they come to together."""
    console.rule(f"[bold]{escape(report.title)}[/]", align="left", style="dim")
    if report.problem:
        console.print(f"[dim]{escape(str(report.problem['text']))}[/]")
    for number, launch in enumerate(report.launches, 1):
        if number > 1:
            console.print(f"[dim]{'╌' * _WIDTH}[/]")
        _print_launch(console, report, launch, number, all_lines)
    if len(report.launches) > 1:
        _print_sum(console, report)
    if report.error:
        console.print(f"[bold red]{escape(report.error)}[/]")
    if not report.launches:
        console.print("[yellow]no kernel was launched[/]")


def print_notice(console: Console, reports: Iterable[PassReport]) -> None:
    """What the times are, and what they leave out; and which blocks were run where not all were."""
    sampled = {launch.launch.kernel: launch.launch for report in reports for launch in report.launches}
    for launch in (launch for launch in sampled.values() if launch.sampled):
        every = round(launch.scale)
        console.print(
            f"[yellow]sampled[/] {escape(launch.kernel)}: every {_ordinal(every)} block was run, {launch.blocks_run:,} of "
            f"{launch.blocks:,}, and counts multiplied up; what is unique over the launch is an estimate"
        )
    kinds = Counter(constant.kind for constant in constants().values())
    stated = ", ".join(f"{kinds[kind]} {kind}" for kind in ("documented", "measured", "assumed"))
    console.print(
        f"[bold yellow]Times are {NOTICE}[/]: of what is counted, each resource alone at its full rate, and the slowest of them. "
        "Without latency and integer arithmetic; with cold caches; accesses one by one, where nvcc may merge neighbours."
    )
    console.print(
        f"[dim]An H200 in {kinds.total()} constants ({stated}): cnnkernels/profile/hardware.py, and --json[/]"
    )


def _print_launch(console: Console, report: PassReport, launch: LaunchReport, number: int, all_lines: bool) -> None:
    prediction, what = launch.prediction, launch.launch
    of = f"  [dim]launch {number} of {len(report.launches)}[/]" if len(report.launches) > 1 else ""
    console.print(f"[bold cyan]{escape(what.kernel)}[/]  {_grid(launch)}{of}")
    limiter = f"limited by [bold]{prediction.limiter.name}[/]"
    if prediction.launch_bound:
        limiter = f"most of it the launch itself; after that {limiter}"
    console.print(f"[bold]{_time(prediction.seconds)}[/] on an H200 by the model, {limiter}")
    sections = [_model_table(launch), _facts_table(report, launch)]
    sections += [_tensor_table(launch)] * bool(launch.tensors)
    sections += [_shared_table(launch)] * bool(launch.shared)
    sections += [_lines_table(launch.lines, prediction.limiter, all_lines)] * bool(launch.lines)
    for section in sections:
        console.print()
        console.print(section)
    for sentence in prediction.missing:
        console.print(f"[yellow]{escape(sentence)}[/]")
    console.print()


def _grid(launch: LaunchReport) -> str:
    what = launch.launch
    return f"{what.blocks:,} block{'s' * (what.blocks != 1)} of {what.threads} threads"


def _model_table(launch: LaunchReport) -> Table:
    prediction = launch.prediction
    longest = max(prediction.launch_seconds, prediction.limiter.seconds)
    table = _table("resource", "work", "rate", "time")
    table.add_column("", no_wrap=True, width=_BAR)
    table.add_column("", no_wrap=True, style="dim")
    for resource in prediction.resources:
        waits = resource.seconds * resource.rate > resource.work * 1.005
        table.add_row(
            resource.name,
            _si(resource.work, resource.unit),
            _RATES[resource.key],
            _time(resource.seconds),
            _bar(resource.seconds / longest, resource is prediction.limiter),
            f"x {prediction.imbalance:.3g}, the busiest SM's" if waits else "",
        )
    table.add_row("launch", "", "", _time(prediction.launch_seconds), _bar(prediction.launch_seconds / longest), "")
    return table


_RATES = {
    "dram": f"{DRAM_RATE.value / 1e12:.3g} TB/s",
    "l2": f"{L2_RATE.value / 1e12:.3g} TB/s",
    "l2_to_sm": f"{L2_BYTES_PER_SM.count} B/clk/SM",
    "l1": "1 /clk/SM",
    "issue": f"{ISSUE.count} /clk/SM",
    "fp32": f"{FP32_LANES.count} /clk/SM",
    "fp64": f"{FP64_LANES.count} /clk/SM",
}


def _tensor_table(launch: LaunchReport) -> Table:
    table = _table("global memory", "instr.", "asked", "sectors", "coalesced", "per block", "per launch", "re-read")
    for row in launch.tensors:
        about = "" if row.exact else "~"
        part = row.launch_bytes / row.tensor_bytes if row.tensor_bytes else None
        table.add_row(
            f"{escape(_short(row.buffer, 14))} [dim]{row.access}[/]",
            _si(row.instructions),
            _si(row.asked_bytes, "B"),
            _si(row.sectors),
            _graded(row.coalescing),
            _si(row.block_bytes, "B"),
            f"{about}{_si(row.launch_bytes, 'B')} [dim]{_percent(part, 2)}[/]",
            f"{_times(row.reread_in_block)} · {_times(row.reread_by_blocks)}",
        )
    return table


def _shared_table(launch: LaunchReport) -> Table:
    table = _table("shared memory", "instr.", "asked", "wavefronts", "least", "bank conflicts")
    most = sum(row.wavefronts for row in launch.shared)
    shown = [row for row in launch.shared if row.wavefronts >= _SHOWN_PART * most]
    for row in shown:
        conflicts = row.conflicts or 0.0
        color = "green" if conflicts < 0.05 else "yellow" if conflicts < 0.5 else "red"
        table.add_row(
            f"{escape(_short(row.array, 24))} [dim]{row.access}[/]",
            _si(row.instructions),
            _si(row.asked_bytes, "B"),
            _si(row.wavefronts),
            _si(row.least_wavefronts),
            f"[{color}]{'+' if conflicts else ''}{_percent(conflicts)}[/]",
        )
    rest = [row for row in launch.shared if row not in shown]
    if rest:
        table.add_row(
            f"[dim]{len(rest)} smaller[/]",
            _si(sum(row.instructions for row in rest)),
            _si(sum(row.asked_bytes for row in rest), "B"),
            _si(sum(row.wavefronts for row in rest)),
            _si(sum(row.least_wavefronts for row in rest)),
            "",
        )
    return table


def _facts_table(report: PassReport, launch: LaunchReport) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 1), width=_WIDTH)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _facts(report, launch):
        table.add_row(name, text)
    return table


def _facts(report: PassReport, launch: LaunchReport) -> Iterable[tuple[str, str]]:
    totals = launch.totals
    if launch.issued is not None and launch.active is not None:
        yield "arithmetic", _arithmetic(report, launch)
    lanes = [f"{lanes:.1f} of 32 {where}" for lanes, where in (
        (totals.active_lanes, "in the code"), (totals.active_lanes_in_accesses, "in memory accesses")
    ) if lanes is not None]  # fmt: skip
    if lanes:
        yield "active lanes", ", ".join(lanes)
    named = (
        ("block barrier", totals.block_barriers), ("warp barrier", totals.warp_barriers), ("shuffle", totals.shuffles),
        ("atomic", totals.atomics), ("asynchronous load", totals.async_copies),
    )  # fmt: skip
    some = ", ".join(f"{_si(count)} {name}{'s' * (count != 1)}" for name, count in named if count)
    yield "also", some or "no barriers, shuffles, atomics or asynchronous copies"
    from_dram, from_l2 = launch.intensity
    if from_dram and from_l2:
        yield "intensity", f"{from_dram:.3g} multiply-adds per byte from DRAM, {from_l2:.3g} per byte from L2"
    if report.useful and len(report.launches) == 1:
        yield "compulsory", _compulsory(report)
    yield ARCHITECTURE, _compiled(launch)
    yield "occupancy", _occupancy(launch)
    yield "grid", _waves(launch)


def _arithmetic(report: PassReport, launch: LaunchReport) -> str:
    assert launch.issued is not None and launch.active is not None
    executed = WARP.count * launch.issued.fma
    parts = []
    if executed:
        parts.append(
            f"{_si(executed)} multiply-adds issued, {_percent(launch.active.fma / executed)} of them by active lanes"
        )
        if report.useful and report.useful.fmas and len(report.launches) == 1:
            parts.append(f"{_si(report.useful.fmas)} useful: [bold]{_graded(report.useful.fmas / executed)}[/]")
    others = WARP.count * (launch.issued.total - launch.issued.fma)
    if others >= 0.001 * executed and others:
        parts.append(f"{_si(others)} {'other ' * bool(executed)}floating-point operations")
    return "; ".join(parts) or "no floating-point operations"


def _compulsory(report: PassReport) -> str:
    assert report.useful is not None
    least = report.useful.bytes
    return (
        f"{_si(least, 'B')} at least for this pass; from DRAM {report.launch_bytes / least:.2f}x that, "
        f"from L2 {report.block_bytes / least:.2f}x"
    )


def _compiled(launch: LaunchReport) -> str:
    used = launch.resources
    if used is None:
        return f"[yellow]unknown[/]: {escape(launch.why_no_resources)}"
    dynamic = launch.launch.dynamic_shared_bytes
    shared = f"{used.static_shared_bytes:,} B shared" + (f" and {dynamic:,} B dynamic" if dynamic else "")
    spills = (
        f"[bold red]spills {used.spill_store_bytes} B, reloads {used.spill_load_bytes} B[/]"
        if used.spills
        else "no spills"
    )
    stack = f", {used.stack_bytes} B stack" if used.stack_bytes else ""
    return f"{used.registers} registers, {shared}, {spills}{stack}"


def _occupancy(launch: LaunchReport) -> str:
    fits = launch.occupancy
    if not fits.blocks:
        return f"[bold red]0: no block fits a multiprocessor, by its {' and '.join(fits.limited_by)}[/]"
    unknown = " [yellow](at most: registers unknown)[/]" if launch.resources is None else ""
    return (
        f"{fits.blocks} block{'s' * (fits.blocks != 1)} = {fits.warps} of {WARPS_PER_SM.count} warps per SM "
        f"({_percent(fits.fraction)}), limited by {' and '.join(fits.limited_by)}{unknown}"
    )


def _waves(launch: LaunchReport) -> str:
    w = launch.waves
    if w.busiest == 1:
        idle = f", {w.idle} of them idle" if w.idle else ""
        return f"{_grid(launch)} on {SMS.count} SMs{idle}: 1 wave"
    last = "" if w.waves == 1 else f", the last {_percent(w.last_fill)} full"
    even = w.imbalance < 1.0005
    busiest = (
        f"every SM runs {w.busiest}"
        if even
        else f"the busiest SM runs {w.busiest}, {_percent(w.imbalance - 1)} over its share"
    )
    return (
        f"{_grid(launch)} on {SMS.count} SMs: {w.waves} wave{'s' * (w.waves != 1)} of {w.per_wave:,}{last}; {busiest}"
    )


def _lines_table(lines: tuple[LineCost, ...], limiter: Resource, all_lines: bool) -> Table:
    shown = lines if all_lines else lines[:_LINES]
    table = _table("dearest lines", "part", "time")
    table.add_column(f"of {limiter.name}", no_wrap=True)
    room = _WIDTH - max(13, *(len(cost.line.place) for cost in shown)) - 24
    for cost in shown:
        text = f"[dim]{escape(_short(cost.text, room))}[/]"
        table.add_row(escape(cost.line.place), _percent(cost.share), _time(cost.seconds), text)
    return table


def _print_sum(console: Console, report: PassReport) -> None:
    parts = [f"{len(report.launches)} launches, [bold]{_time(report.seconds)}[/] by the model"]
    if report.useful:
        parts.append(_compulsory(report))
        executed = report.executed_fmas
        if executed and report.useful.fmas:
            parts.append(f"{_percent(report.useful.fmas / executed)} of {_si(executed)} multiply-adds useful")
    console.print(f"[bold]{escape(report.title)}[/]: {'; '.join(parts)}\n")


def _table(name: str, *numbers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0, 0, 1), header_style="bold")
    table.add_column(name, style="cyan", no_wrap=True)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _bar(part: float, limiter: bool = False) -> str:
    eighths = round(max(0.0, min(1.0, part)) * _BAR * 8)
    whole, rest = divmod(eighths, 8)
    text = "█" * whole + ("▏▎▍▌▋▊▉"[rest - 1] if rest else "")
    return f"[{'yellow' if limiter else 'dim'}]{text}[/]" if text else ""


def _si(value: float, unit: str = "") -> str:
    """With three digits: 1.23 M, 45.6 kB, 789 wavefronts."""
    apart = " " if len(unit) > 1 else ""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            digits = f"{value / size:.3g}" if value < size * 999.5 else f"{value / size:,.0f}"
            return f"{digits} {prefix}{apart}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def _time(seconds: float) -> str:
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= size * 0.9995:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _percent(part: float | None, digits: int = 3) -> str:
    if part is None:
        return "—"
    if part >= 10:
        return f"{100 * part:,.0f} %"
    return "100 %" if round(part, 4) == 1 else f"{100 * part:.{digits}g} %"


def _times(ratio: float | None) -> str:
    return "—" if ratio is None else f"{ratio:.3g}x"


def _graded(part: float | None) -> str:
    if part is None:
        return "—"
    color = "green" if part >= 0.9 else "yellow" if part >= 0.5 else "red"
    return f"[{color}]{_percent(part)}[/]"


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
