"""`cnnkernels summary`: a model layer by layer; or which kernel the plan takes for each pass of layers, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.markup import escape
from rich.table import Table

from cnnkernels.cli.chosen_layers import choose, layer_options
from cnnkernels.cli.model_table import InputShape, load, model_as_json, print_model
from cnnkernels.cli.output import catalogue, make_console, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from cnnkernels.bench.plans import PlannedPass
    from cnnkernels.bench.suites import Entry

_USUAL_DTYPES = ("bf16",)
_USUAL_LAYOUTS_OF_MODELS = ("nchw",)  # as models are made


@click.command()
@click.argument("subjects", nargs=-1, metavar="[MODEL | PROBLEM]...")
@layer_options("tf32")
@click.option(
    "--input", "input_shape", type=InputShape(), help="Of a MODEL: its input.  [default: 1 image of its size]"
)
@click.option("--layer", default="", help="Only layers with this in their name.")
@click.option("--pass", "passes", multiple=True, help="fprop, dgrad, wgrad, forward, backward; repeatable.")
@click.option("--reasons", is_flag=True, help="Say why each other kernel was not taken.")
@click.option("--json", "json_output", is_flag=True, help="Print JSON, with every reason.")
def summary(
    subjects: tuple[str, ...],
    input_shape: tuple[int, int, int, int] | None,
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
    """Print a model layer by layer, or the plan of layers. Needs no GPU and launches nothing.

    MODEL is lenet5 or another one of ours, torchvision:NAME, timm:NAME or file.py:factory. Each layer of its forward
    pass in eval mode: output, parameters, multiply-accumulates (MACs), receptive field, the bytes that it must move, and
    the kernel of ours that the plan takes for it, in bf16 and nchw, unless --dtype and --layout say otherwise. Its
    roofline time is that of the bytes or the MACs at an H200's rates, whichever is longer; no launch is in it.

    PROBLEM is a layer (resnet50:l1.3x3) or a problem written out (n1 c64 56x56 k64 3x3 pad 1), as for `cnnkernels
    profile`; --suite and --model name many. The kernel that runs each of its passes, in bf16 and both layouts, unless
    --dtype and --layout say otherwise.

    The times of kernels are those of the plan's cost model for an H200. They compare kernels; nobody measured them.
    """
    console = make_console(json_output)
    catalogue()  # or say why there is none
    names = [subject for subject in subjects if _is_model(subject)]
    problems = [subject for subject in subjects if not _is_model(subject)]
    if names:
        if problems or suites or models:
            raise click.UsageError(
                "a MODEL and layers (PROBLEM, --suite, --model) are two questions: ask one at a time"
            )
        if passes or reasons:
            raise click.UsageError("--pass and --reasons are about the plan of layers: name the model with --model")
        if input_shape and batch:
            raise click.UsageError("--input has the batch already: leave --batch out")
        _print_models(
            console,
            names,
            input_shape,
            batch,
            layer,
            dtypes or _USUAL_DTYPES,
            layouts or _USUAL_LAYOUTS_OF_MODELS,
            json_output,
        )
        return
    if input_shape:
        raise click.UsageError("--input is a MODEL's")
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


def _is_model(text: str) -> bool:
    from cnnkernels.models import MODELS, RESNETS

    return text in MODELS or text in RESNETS or text.startswith(("torchvision:", "timm:")) or ".py:" in text


def _print_models(
    console: Console,
    names: list[str],
    input_shape: tuple[int, int, int, int] | None,
    batch: int | None,
    layer: str,
    dtypes: tuple[str, ...],
    layouts: tuple[str, ...],
    json_output: bool,
) -> None:
    found = [load(name, input_shape, batch) for name in names]
    for summary in found:
        if not any(layer in row.name for row in summary.rows):
            raise click.ClickException(f"{summary.name}: no layer has {layer!r} in its name")
    tables = [(summary, dtype, layout, layer) for summary in found for dtype in dtypes for layout in layouts]
    if json_output:
        print_json([model_as_json(*table) for table in tables])
        return
    for index, table in enumerate(tables):
        if index:
            console.print()
        print_model(console, *table)


def _read(text: str, batch: int | None) -> Entry:
    from cnnkernels.bench.suites import Entry
    from cnnkernels.models.load import model_names
    from cnnkernels.profile.subject import Problem, parse_subject

    try:
        subject = parse_subject(text, batch)
    except ValueError as error:
        models = f"\nNor is it a MODEL: {model_names()}" if len(text.split()) == 1 else ""
        raise click.ClickException(f"{error}{models}") from error
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
    batches = any(row.batches > 1 for row in rows)
    if batches:
        table.add_column("batches", justify="right", no_wrap=True)
    for title in ("tile", "launch", "shared", "stages", "slabs", "model µs"):
        table.add_column(title, justify="right", no_wrap=True)
    before = ""
    for row in rows:
        name = f"{row.net}:{row.layer}" if row.net else row.layer
        cells: list[Any] = ["" if name == before else escape(name), row.name]
        cells += [row.dtype] * dtypes + [row.layout.replace("channels_last", "nhwc")] * layouts
        tile = "" if row.tile is None else "x".join(map(str, row.tile))
        shared = f"{row.shared_bytes / 1024:.0f} KB"
        cells += [
            row.kernel,
            *[str(row.batches)] * batches,
            tile,
            f"{row.grid}x{row.threads}",
            shared,
            str(row.stages or ""),
            str(row.slabs),
            f"{row.modelled_us:.1f}",
        ]
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
