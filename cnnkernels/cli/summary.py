"""`cnnkernels summary`: which kernel the plan takes for each pass of a network's layers, and why not another one."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.markup import escape
from rich.table import Table

from cnnkernels.cli.chosen_layers import choose, layer_options
from cnnkernels.cli.output import catalogue, make_console, print_json

if TYPE_CHECKING:
    from cnnkernels.bench.plans import PlannedPass
    from cnnkernels.bench.suites import Entry

_USUAL_DTYPES = ("bf16",)


@click.command()
@click.argument("problems", nargs=-1, metavar="[PROBLEM]...")
@layer_options
@click.option("--layer", default="", help="Only layers with this in their name.")
@click.option("--pass", "passes", multiple=True, help="fprop, dgrad, wgrad, forward, backward; repeatable.")
@click.option("--reasons", is_flag=True, help="Say why each other kernel was not taken.")
@click.option("--json", "json_output", is_flag=True, help="Print JSON, with every reason.")
def summary(
    problems: tuple[str, ...],
    layer: str,
    dtypes: tuple[str, ...],
    layouts: tuple[str, ...],
    passes: tuple[str, ...],
    reasons: bool,
    json_output: bool,
    suites: tuple[str, ...],
    models: tuple[str, ...],
    batch: int | None,
) -> None:
    """Print the plan: the kernel that runs each pass of each layer. Needs no GPU and launches nothing.

    PROBLEM is a layer (resnet50:l1.3x3) or a problem written out (n1 c64 56x56 k64 3x3 pad 1), as for `cnnkernels profile`. In
    bf16 and both layouts, unless --dtype and --layout say otherwise.

    The times are those of the plan's cost model for an H200. They compare kernels; nobody measured them.
    """
    console = make_console(json_output)
    catalogue()  # or say why there is none
    from cnnkernels.bench import plans
    from cnnkernels.bench.operands import LAYOUTS

    entries = [_read(problem, batch) for problem in problems]
    if suites or models or not problems:
        chosen, _ = choose(console, suites, models, batch)
        entries += [entry for suite in chosen for entry in suite.entries]
    entries = [entry for entry in entries if layer in entry.layer]
    if not entries:
        raise click.ClickException(f"no layer has {layer!r} in its name")
    rows = plans.planned(entries, dtypes or _USUAL_DTYPES, layouts or LAYOUTS, passes)
    if not rows:
        raise click.ClickException(f"these layers have no pass {' or '.join(passes)}")
    if json_output:
        print_json([asdict(row) for row in rows])
        return
    console.print(_table(rows))
    if reasons:
        for row in rows:
            console.print(_reasons(row))
    counts = Counter(row.family for row in rows)
    families = ", ".join(f"{family} {count}" for family, count in counts.most_common())
    console.print(f"{len(rows)} passes: {families}. Modelled for an H200, not measured.")
    if not reasons:
        console.print("[dim]--reasons says why each other kernel was not taken[/]")


def _read(text: str, batch: int | None) -> Entry:
    from cnnkernels.bench.suites import Entry
    from cnnkernels.profile.subject import Problem, parse_subject

    try:
        subject = parse_subject(text, batch)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if not isinstance(subject, Problem):
        raise click.ClickException(f"{text}: a file of trials has no plan")
    net, _, name = subject.name.rpartition(":")
    return Entry(net, name or str(subject.layer), 1, subject.layer)


def _table(rows: list[PlannedPass]) -> Table:
    dtypes, layouts = len({row.dtype for row in rows}) > 1, len({row.layout for row in rows}) > 1
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("layer", overflow="fold", min_width=14)
    for title in ("pass", *["dtype"] * dtypes, *["layout"] * layouts):
        table.add_column(title, no_wrap=True)
    table.add_column("kernel", overflow="fold", min_width=14)
    for title in ("tile", "launch", "shared", "slabs", "model µs"):
        table.add_column(title, justify="right", no_wrap=True)
    before = ""
    for row in rows:
        name = f"{row.net}:{row.layer}" if row.net else row.layer
        cells: list[Any] = ["" if name == before else escape(name), row.name]
        cells += [row.dtype] * dtypes + [row.layout.replace("channels_last", "nhwc")] * layouts
        tile = "" if row.tile is None else "x".join(map(str, row.tile))
        shared = f"{row.shared_bytes / 1024:.0f} KB"
        cells += [row.kernel, tile, f"{row.grid}x{row.threads}", shared, str(row.slabs), f"{row.modelled_us:.1f}"]
        table.add_row(*cells)
        before = name
    return table


def _reasons(row: PlannedPass) -> Table:
    title = f"{row.net}:{row.layer}" if row.net else row.layer
    table = Table(
        box=None, pad_edge=False, show_header=False, title_justify="left",
        title=f"{escape(title)} {row.name} {row.dtype} {row.layout}: {row.kernel} taken, {escape(row.why)}",
    )  # fmt: skip
    for kernel, reason in row.refused:
        table.add_row(f"  not {kernel}", escape(reason))
    return table
