"""What `cnnkernels bench` prints for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from cnnkernels.bench.compare import cases, comparisons, geomeans, has_time
from cnnkernels.cli.output import print_json

if TYPE_CHECKING:
    from rich.console import Console

    from cnnkernels.bench.store import Row, Run

NOT_GPU = (
    "These are not GPU times: the emulator runs our kernels thread by thread on the CPU, to check them, not for speed."
)

_SHORT = {"nchw": "nchw", "channels_last": "nhwc"}


def headline(run: Run) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items() if version)
    text = f"[bold]{escape(run.device['name'])}[/], {versions}, commit {run.commit[:10] or 'unknown'}{' (changed)' if run.dirty else ''}"
    return text if run.on_gpu else f"{text}\n[yellow]{NOT_GPU}[/]"


def print_case(console: Console, rows: list[Row], run: Run) -> None:
    """One line per case: each provider's median, its faster layout, fastest first; then whoever has no number, and why.

    The ratio of ours to the strongest baseline only where it means something: an emulator's time is no kernel's.
    """
    first = rows[0]
    name = f"{first.net} {first.layer}".strip() + (" latency" if first.metric == "latency" else "")
    best: dict[str, Row] = {}
    for row in sorted(filter(has_time, rows), key=lambda row: row.median_us or 0.0):
        best.setdefault(row.provider, row)
    numbers = "   ".join(
        f"{'[cyan]' if row.role == 'ours' else ''}{row.provider} {microseconds(row.median_us)}"
        f"{'[/]' if row.role == 'ours' else ''} [dim]{_SHORT.get(row.layout, '')}[/]"
        for row in best.values()
    )
    ratio = max((c.speedup for c in comparisons(rows) if c.speedup is not None), default=None)
    verdict = ""
    if run.on_gpu and ratio is not None:
        verdict = f"[{'green' if ratio > 1 else 'red'}]{ratio:.3g}x[/]   "
    title = f"{escape(name)} [bold]{first.name}[/] {first.dtype}"
    console.print(f"{title}   {verdict}{numbers or '[red]nobody has a number[/]'}", soft_wrap=True)
    for row in rows:
        if row.status in ("refused", "failed", "unsteady", "skipped"):
            console.print(f"  [red]{row.status}[/] {row.provider} {row.layout}: {escape(row.reason)}", soft_wrap=True)


def print_summary(console: Console, rows: list[Row], run: Run) -> None:
    """What it comes to: geometric means on a GPU; on a CPU how many passed, which is all that can be said."""
    timed = [row for row in rows if row.metric == "time"]
    if timed and run.on_gpu:
        title = "ours against the strongest baseline, geometric means"
        table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
        table.add_column("family", style="cyan")
        for heading in ("speedup", "to torch eager", "measured", "wins", "losses", "baseline missing"):
            table.add_column(heading, justify="right")
        for mean in geomeans(comparisons(timed), cases(timed)):
            table.add_row(
                mean.group, _ratio(mean.speedup), _ratio(mean.to_torch), f"{mean.measured} of {mean.wanted}",
                str(mean.wins), str(mean.losses), str(mean.weakened),
            )  # fmt: skip
        console.print(table)
    ours = [row for row in rows if row.role == "ours" and row.status != "unsupported"]
    passed = sum(row.status == "ok" for row in ours)
    console.print(f"[bold]{passed} of {len(ours)}[/] results of ours passed the gate and have a number")
    unsupported = sorted(
        {(row.provider, row.reason) for row in rows if row.status == "unsupported" and row.role == "ours"}
    )
    for provider, reason in unsupported:
        console.print(f"[dim]not run: {provider}: {escape(reason)}[/]")
    if not run.on_gpu:
        console.print(f"[yellow]{NOT_GPU}[/]")


def print_suites(console: Console, json_output: bool) -> None:
    from cnnkernels.bench import suites as published

    loaded = [published.load(name) for name in published.names()]
    if json_output:
        print_json([{"name": s.name, "title": s.title, "source": s.source, "layers": len(s.entries)} for s in loaded])
        return
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("suite", style="cyan", no_wrap=True)
    table.add_column("layers", justify="right")
    table.add_column("what", max_width=90)
    for suite in loaded:
        table.add_row(suite.name, str(len(suite.entries)), escape(suite.title))
    console.print(table)


def print_work(console: Console, work: Any, json_output: bool) -> None:
    if json_output:
        print_json(
            [
                {"title": item.title, "what": item.blank.what, "entrants": [f"{p.name}/{l}" for p, l in item.entrants]}
                for item in work
            ]
        )
        return
    for item in work:
        entrants = ", ".join(dict.fromkeys(provider.name for provider, _ in item.entrants))
        console.print(f"{escape(item.title)}  [dim]{escape(item.blank.what)}[/]  {entrants}")


def _ratio(value: float | None) -> str:
    return "—" if value is None else f"{value:.3g}x"


def microseconds(value: float | None) -> str:
    """A time with three digits, in the unit that suits it."""
    if value is None:
        return "—"
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} µs"
