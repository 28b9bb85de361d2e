"""A profile for people: one compact page per launch, in a terminal of 80 columns or more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from cnnkernels.profile.hardware import (
    DIVISION_SLOTS,
    DRAM_RATE,
    FP32_COMPARE_LANES,
    FP32_LANES,
    FP64_LANES,
    ISSUE,
    L1_RATE,
    L2_BYTES_PER_SM,
    L2_RATE,
    MATRIX_MULTIPLY_ADDS,
    SMS,
    WARP,
    WARPS_PER_SM,
    constants,
)
from cnnkernels.profile.model import NOTICE, pipe_slots
from cnnkernels.profile.resources import ARCHITECTURE
from cnnkernels.profile.tables import Column, fitting
from cnnkernels.profile.text import duration, percent, several, shortened, si, times

if TYPE_CHECKING:
    from rich.console import Console

    from cnnkernels.profile.lines import LineCost
    from cnnkernels.profile.machine_code import Operations
    from cnnkernels.profile.model import Resource
    from cnnkernels.profile.report import LaunchReport, PassReport

#: Of running text, and of a line of source with what stands before it.
_WIDTH = 100
_LINES = 3
_BAR = 12
#: Accesses to shared memory of less than this part of the wavefronts share one row.
_SHOWN_PART = 0.02
_LEGEND = (
    "asked: bytes, by active lanes. per block: different bytes of each block, summed. per launch: different bytes of the launch, and "
    "their part of the tensor. re-read: asked / per block · per block / per launch. All of it: docs/emulator.md, What is counted."
)


def print_pass(console: Console, report: PassReport, all_lines: bool = False) -> None:
    """The launches of a pass one after the other, and what they come to together."""
    console.rule(f"[bold]{escape(report.title)}[/]", align="left", style="dim")
    if report.problem:
        console.print(f"[dim]{escape(str(report.problem['text']))}[/]")
    for number, launch in enumerate(report.launches, 1):
        if number > 1:
            console.print(f"[dim]{'╌' * _width(console)}[/]")
        _print_launch(console, report, launch, number, all_lines)
    if len(report.launches) > 1:
        _print_sum(console, report)
    if report.error:
        console.print(f"[bold red]{escape(report.error)}[/]")
    if not report.launches:
        console.print("[yellow]no kernel was launched[/]")


def print_notice(console: Console) -> None:
    """What the columns mean, what the times are, and what they leave out."""
    console.print(f"[dim]{_LEGEND}[/]")
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
    console.print(f"[bold]{duration(prediction.seconds)}[/] on an H200 by the model, {limiter}")
    sections = [fitting(console, _model_columns(launch)), _pairs(console, _facts(report, launch), "cyan")]
    if launch.tensors:
        sections.append(fitting(console, _tensor_columns(launch)))
    if launch.shared:
        sections.append(fitting(console, _shared_columns(launch)))
    if launch.lines:
        lines = launch.lines if all_lines else launch.lines[:_LINES]
        sections.append(fitting(console, _line_columns(lines, prediction.limiter, _width(console))))
    sentences = [*prediction.missing, *launch.remarks]
    if sentences:
        sections.append(_pairs(console, [("note", escape(sentence)) for sentence in sentences], "yellow"))
    for section in sections:
        console.print()
        console.print(section)
    console.print()


def _width(console: Console) -> int:
    return min(console.width, _WIDTH)


def _grid(launch: LaunchReport) -> str:
    what = launch.launch
    return f"{several(what.blocks, 'block')} of {what.threads} threads"


def _pairs(console: Console, pairs: Iterable[tuple[str, str]], style: str) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 1), width=_width(console))
    table.add_column(style=style, no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in pairs:
        table.add_row(name, text)
    return table


def _model_columns(launch: LaunchReport) -> list[Column]:
    prediction = launch.prediction
    longest = max(prediction.launch_seconds, prediction.limiter.seconds)
    resources = prediction.resources
    own = prediction.launch_seconds
    waits = [resource.seconds * resource.rate > resource.work * 1.005 for resource in resources]
    bars = [_bar(one.seconds / longest, one is prediction.limiter) for one in resources] + [_bar(own / longest)]
    notes = [f"[dim]x {prediction.imbalance:.3g} (busiest SM)[/]" if one else "" for one in waits] + [""]
    return [
        Column("resource", [*(one.name for one in resources), "launch"]),
        Column("work", [*(si(one.work, one.unit) for one in resources), ""]),
        Column("rate", [*(_RATES[one.key] for one in resources), ""], goes=1),
        Column("time", [*(duration(one.seconds) for one in resources), duration(own)]),
        Column("", bars, goes=3, left=True),
        Column("", notes, goes=2, left=True),
    ]


_RATES = {
    "dram": f"{DRAM_RATE.value / 1e12:.3g} TB/s",
    "l2": f"{L2_RATE.value / 1e12:.3g} TB/s",
    "l2_to_sm": f"{L2_BYTES_PER_SM.count} B/clk/SM",
    "l1": f"{L1_RATE.count} /clk/SM",
    "issue": f"{ISSUE.count} /clk/SM",
    "fp32": f"{FP32_LANES.count} /clk/SM",
    "fp64": f"{FP64_LANES.count} /clk/SM",
    "tensor": f"{MATRIX_MULTIPLY_ADDS.count} /clk/SM",
}


def _tensor_columns(launch: LaunchReport) -> list[Column]:
    rows = launch.tensors
    parts = [percent(row.launch_bytes / row.tensor_bytes if row.tensor_bytes else None, 2) for row in rows]
    launched = [f"{'' if row.exact else '~'}{si(row.launch_bytes, 'B')}" for row in rows]
    conflicts = [_conflicts(row.conflicts) if row.conflicts else "" for row in rows]
    columns = [
        Column(
            "global memory", [f"{escape(shortened(row.buffer, 14))} [dim]{row.access}[/]" for row in rows], "global"
        ),
        Column("instr.", [si(row.instructions) for row in rows], goes=4),
        Column("asked", [si(row.asked_bytes, "B") for row in rows], goes=3),
        Column("sectors", [si(row.sectors) for row in rows], goes=1),
        Column("coalesced", [_graded(row.coalescing) for row in rows], "coal."),
        Column("wavefronts", [si(row.wavefronts) for row in rows], "wavefr.", goes=2),
        Column("conflicts", conflicts, "confl."),
        Column("per block", [si(row.block_bytes, "B") for row in rows], "/ block"),
        Column("per launch", launched, "/ launch"),
        Column("", [f"[dim]{part}[/]" for part in parts], goes=5),
        Column("re-read", [f"{times(row.reread_in_block)} · {times(row.reread_by_blocks)}" for row in rows]),
    ]
    # Most kernels read global memory without bank conflicts.
    return columns if any(conflicts) else [one for one in columns if one.heading not in ("wavefronts", "conflicts")]


def _shared_columns(launch: LaunchReport) -> list[Column]:
    most = sum(row.wavefronts for row in launch.shared)
    rows = [row for row in launch.shared if row.wavefronts >= _SHOWN_PART * most]
    rest = [row for row in launch.shared if row.wavefronts < _SHOWN_PART * most]
    names = [f"{escape(shortened(row.array, 24))} [dim]{row.access}[/]" for row in rows]
    conflicts = [_conflicts(row.conflicts or 0.0) for row in rows]
    if rest:
        names.append(f"[dim]{len(rest)} smaller[/]")
        conflicts.append("")

    def counts(name: str, unit: str = "") -> list[str]:
        one_by_one = [getattr(row, name) for row in rows]
        together = [sum(getattr(row, name) for row in rest)] if rest else []
        return [si(count, unit) for count in one_by_one + together]

    return [
        Column("shared memory", names, "shared"),
        Column("instr.", counts("instructions"), goes=3),
        Column("asked", counts("asked_bytes", "B"), goes=2),
        Column("wavefronts", counts("wavefronts"), "wavefr."),
        Column("least", counts("least_wavefronts"), goes=1),
        Column("bank conflicts", conflicts, "conflicts"),
    ]


def _facts(report: PassReport, launch: LaunchReport) -> Iterable[tuple[str, str]]:
    totals = launch.totals
    if launch.issued is not None and launch.active is not None:
        yield "arithmetic", _arithmetic(report, launch.issued, launch.active)
    lanes = [f"{lanes:.1f} of 32 {where}" for lanes, where in (
        (totals.active_lanes, "in the code"), (totals.active_lanes_in_accesses, "in memory accesses")
    ) if lanes is not None]  # fmt: skip
    if lanes:
        yield "active lanes", ", ".join(lanes)
    yield "also", _others(launch)
    from_dram, from_l2 = launch.intensity
    if from_dram and from_l2:
        yield "intensity", f"{from_dram:.3g} multiply-adds per byte from DRAM, {from_l2:.3g} per byte from L2"
    if report.useful and len(report.launches) == 1:
        yield "compulsory", _compulsory(report)
    yield ARCHITECTURE, _compiled(launch)
    yield "occupancy", _occupancy(launch)
    yield "grid", _waves(launch)


def _others(launch: LaunchReport) -> str:
    """Barriers as a block sees them, what else there is in the whole launch."""
    totals, parts = launch.totals, []
    if totals.block_barriers:
        barriers = totals.block_barriers / launch.launch.blocks
        parts.append(f"{barriers:.4g} barrier{'s' * (barriers != 1)} in each block")
    named = (
        ("warp barrier", totals.warp_barriers), ("shuffle", totals.shuffles), ("matrix product", totals.matrix_products),
        ("atomic", totals.atomics), ("asynchronous load", totals.async_copies),
    )  # fmt: skip
    some = ", ".join(f"{si(count)} {name}{'s' * (count != 1)}" for name, count in named if count)
    if some:
        parts.append(f"{some} in the launch")
    return "; ".join(parts) or "no barriers, shuffles, atomics or asynchronous copies"


def _arithmetic(report: PassReport, issued: Operations, active: Operations) -> str:
    executed = WARP.count * issued.fma
    parts = []
    products = sum(launch.totals.matrix_multiply_adds for launch in report.launches)
    if products:
        useful = f", {_graded(report.useful.fmas / products)} useful" if report.useful and report.useful.fmas else ""
        parts.append(f"{si(products)} multiply-adds on tensor cores{useful}")
    elif executed:
        parts.append(f"{si(executed)} multiply-adds issued, {percent(active.fma / executed)} of them by active lanes")
        if report.useful and report.useful.fmas and len(report.launches) == 1:
            parts.append(f"{si(report.useful.fmas)} useful: [bold]{_graded(report.useful.fmas / executed)}[/]")
    others = WARP.count * (issued.total - issued.fma)
    if others >= 0.001 * executed and others:
        parts.append(f"{si(others)} {'other ' * bool(executed)}floating-point operations{_slots(issued)}")
    return "; ".join(parts) or "no floating-point operations"


def _slots(issued: Operations) -> str:
    """How what is not a multiply-add counts in the model's table."""
    slots = WARP.count * (sum(pipe_slots(issued)) - issued.fma)
    if slots == WARP.count * (issued.total - issued.fma):
        return ""
    dear = []
    if issued.compare32:
        dear.append(f"{FP32_LANES.count // FP32_COMPARE_LANES.count} a comparison, minimum or maximum")
    if issued.division32 or issued.division64:
        dear.append(f"{DIVISION_SLOTS.count} a division or square root")
    return f" in {si(slots)} lane slots ({', '.join(dear)}, 1 any other)"


def _compulsory(report: PassReport) -> str:
    assert report.useful is not None
    least = report.useful.bytes
    indices = f", {report.useful.indices}" if report.useful.indices else ""
    return (
        f"{si(least, 'B')} at least for this pass{indices}; from DRAM {report.launch_bytes / least:.2f}x that, "
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
    unknown = " [yellow](registers unknown)[/]" if launch.resources is None else ""
    fewer = ""
    if launch.resident_blocks < fits.blocks:
        fewer = f"; this grid puts at most {launch.resident_blocks} there ({several(launch.resident_warps, 'warp')})"
    return (
        f"up to {several(fits.blocks, 'block')} per SM = {fits.warps} of {WARPS_PER_SM.count} warps ({percent(fits.fraction)}), "
        f"limited by {' and '.join(fits.limited_by)}{unknown}{fewer}"
    )


def _waves(launch: LaunchReport) -> str:
    w = launch.waves
    if w.busiest == 1:
        idle = f", {w.idle} of them idle" if w.idle else ""
        return f"{_grid(launch)} on {SMS.count} SMs{idle}: 1 wave"
    last = "" if w.waves == 1 else f", the last {percent(w.last_fill)} full"
    even = w.imbalance < 1.0005
    busiest = (
        f"every SM runs {w.busiest}"
        if even
        else f"the busiest SM runs {w.busiest}, {percent(w.imbalance - 1)} over its share"
    )
    return f"{_grid(launch)} on {SMS.count} SMs: {several(w.waves, 'wave')} of {w.per_wave:,}{last}; {busiest}"


def _line_columns(shown: tuple[LineCost, ...], limiter: Resource, width: int) -> list[Column]:
    room = max(20, width - max(13, *(len(cost.line.place) for cost in shown)) - 24)
    return [
        Column("dearest lines", [escape(cost.line.place) for cost in shown]),
        Column("part", [percent(cost.share) for cost in shown]),
        Column("time", [duration(cost.seconds) for cost in shown]),
        Column(
            f"of {limiter.name}", [f"[dim]{escape(shortened(cost.text, room))}[/]" for cost in shown], goes=1, left=True
        ),
    ]


def _print_sum(console: Console, report: PassReport) -> None:
    parts = [f"{len(report.launches)} launches, [bold]{duration(report.seconds)}[/] by the model"]
    if report.useful:
        parts.append(_compulsory(report))
        executed = report.executed_fmas
        if executed and report.useful.fmas:
            parts.append(f"{percent(report.useful.fmas / executed)} of {si(executed)} multiply-adds useful")
    console.print(f"[bold]{escape(report.title)}[/]: {'; '.join(parts)}\n")


def _bar(part: float, limiter: bool = False) -> str:
    eighths = round(max(0.0, min(1.0, part)) * _BAR * 8)
    whole, rest = divmod(eighths, 8)
    text = "█" * whole + ("▏▎▍▌▋▊▉"[rest - 1] if rest else "")
    return f"[{'yellow' if limiter else 'dim'}]{text.ljust(_BAR)}[/]"


def _conflicts(extra: float) -> str:
    color = "green" if extra < 0.05 else "yellow" if extra < 0.5 else "red"
    return f"[{color}]{'+' if extra else ''}{percent(extra)}[/]"


def _graded(part: float | None) -> str:
    if part is None:
        return "—"
    color = "green" if part >= 0.9 else "yellow" if part >= 0.5 else "red"
    return f"[{color}]{percent(part)}[/]"
