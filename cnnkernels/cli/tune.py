"""`cnnkernels tune`: measure which kernel is fastest for each problem of a network, into the table that `auto` reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as Grid

from cnnkernels import tuning
from cnnkernels.cli.chosen_layers import choose, layer_options
from cnnkernels.cli.output import INTERRUPTED, catalogue, kernels_backend, make_console, print_json, require_backend

if TYPE_CHECKING:
    from rich.console import Console

    from cnnkernels.bench.tune import Task, Timing
    from cnnkernels.tuning import Entry, Problem

_NOT_GPU = "These are not GPU times: they tune the emulator, which runs our kernels on the CPU to check them."


@click.command()
@layer_options("tf32")
@click.option("--layer", default="", help="Only layers (with --show: problems) with this in their name.")
@click.option("--backend", type=click.Choice(["cuda", "emulator"]), help="[default: cuda with a GPU, else emulator]")
@click.option("--budget", type=click.FloatRange(0), help="Begin no new problem after so many seconds.")
@click.option("--retune", is_flag=True, help="Measure again what the table has already.")
@click.option("--show", is_flag=True, help="Print the tables; measure nothing.")
@click.option("--json", "json_output", is_flag=True, help="Print JSON.")
@click.pass_context
def tune(
    context: click.Context,
    layer: str,
    dtypes: tuple[str, ...],
    layouts: tuple[str, ...],
    backend: str | None,
    budget: float | None,
    retune: bool,
    show: bool,
    json_output: bool,
    **options: Any,
) -> None:
    """Measure the kernels of a network's layers and keep the fastest of each.

    In both layouts, unless --layout says otherwise; on a GPU in bf16 and in fp32 as torch is set to multiply it (tf32, its
    default, or f32), on a CPU in f32, unless --dtype does.

    Every kernel that can run a problem, and torch's operator, passes the correctness gate and is timed. Backend auto then takes
    the fastest; cuda and emulator take the fastest of our kernels. Each winner is in the table before the next problem is
    begun: Ctrl-C loses nothing, and the same command goes on from there.
    """
    console = make_console(json_output)
    if show:
        _show(console, layer, json_output)
        return
    if backend is None:
        backend = kernels_backend()
    require_backend(backend)
    catalogue()  # or say why there is none
    import torch

    from cnnkernels.bench import tune as engine
    from cnnkernels.bench.machine import TF32
    from cnnkernels.bench.operands import LAYOUTS
    from cnnkernels.geometry import fp32_precision

    device = torch.device("cuda" if backend == "cuda" else "cpu")
    name = tuning.device_name(device)
    if TF32 in dtypes and backend != "cuda":
        raise click.BadParameter("fp32 is multiplied as tf32 on a GPU alone", param_hint="--dtype")
    fp32 = TF32 if fp32_precision() == "tf32" else "f32"
    names = dtypes or (("bf16", fp32) if backend == "cuda" else ("f32",))
    suites, _ = choose(console, **options)
    lines = [line for suite in suites for line in suite.entries if layer in line.layer]
    work, left_out = engine.tasks(lines, backend, names, layouts or LAYOUTS)
    for title, reason in left_out.items():
        console.print(f"[yellow]left out[/] {escape(title)}: {escape(reason)}")
    if not work:
        raise click.ClickException("nothing is left to tune by --layer")
    recorded = tuning.load(name)
    left = work if retune else [task for task in work if not task.recorded_in(recorded)]
    console.print(f"{len(work)} problems on {name}, {len(work) - len(left)} of them in the table already")
    if backend == "emulator":
        console.print(f"[bold yellow]{_NOT_GPU}[/]")
    done: list[tuple[Task, Entry | None]] = []
    columns = (BarColumn(30), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("[dim]{task.description}"))
    interrupted = False
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = progress.add_task("", total=len(left))
            for task, entry, timings in engine.tune(
                left,
                device,
                _measure(),
                budget=budget,
                before=lambda task: progress.update(bar, description=escape(task.title)),
            ):
                done.append((task, entry))
                progress.update(bar, advance=1)
                _print_result(console, task, entry, timings)
    except KeyboardInterrupt:
        interrupted = True
    kept = sum(entry is not None for _, entry in done)
    path = tuning.user_directory() / tuning.file_name(name)
    if json_output:
        entries = [
            _as_json(task.problem, entry) if entry else {"key": task.problem.key, "backend": None}
            for task, entry in done
        ]
        left_over = len(left) - len(done)
        print_json({"device": name, "table": str(path), "kept": kept, "left": left_over, "entries": entries})
    console.print(f"{kept} kept in {path}")
    if len(done) < len(left):
        why = "[yellow]interrupted[/]" if interrupted else "--budget is over"
        console.print(f"{why}: {len(left) - len(done)} are left; the same command goes on from there")
    if interrupted:
        context.exit(INTERRUPTED)
    context.exit(0 if kept == len(done) else 1)


def _measure() -> Any:
    from cnnkernels.bench.candidates import measure_candidates

    return measure_candidates


def _print_result(console: Console, task: Task, entry: Entry | None, timings: list[Timing]) -> None:
    for timing in timings:
        if timing.median_us is None:
            console.print(f"  [red]no time[/] {timing.candidate.name}: {escape(timing.reason)}")
    if entry is None:
        console.print(f"{escape(task.title)}: [red]no candidate has a time[/]")
        return
    winner, *others = _times(entry)
    console.print(f"{escape(task.title)}, median µs: [cyan]{winner}[/]  [dim]{', '.join(others)}[/]", soft_wrap=True)


def _show(console: Console, wanted: str, json_output: bool) -> None:
    tables = tuning.tables()
    if json_output:
        print_json(
            [
                {
                    "path": str(table.path),
                    "shipped": table.shipped,
                    "device": table.device,
                    "ignored": table.ignored,
                    "entries": [_as_json(problem, entry) for problem, entry in table.entries.items()],
                }
                for table in tables
            ]
        )
        return
    if not tables:
        console.print(f"no tables: neither in {tuning.SHIPPED} nor in {tuning.user_directory()}")
    for table in tables:
        if table.ignored:
            console.print(f"[yellow]{table.path} is ignored[/]: {escape(table.ignored)}")
            continue
        origin = "shipped" if table.shipped else "yours"
        grid = Grid(box=box.SIMPLE_HEAD, title=f"{table.device} ({origin}: {table.path})", title_justify="left")
        grid.add_column("problem", overflow="fold")
        grid.add_column("median µs of the fastest", style="cyan", overflow="fold")
        grid.add_column("and of the others", overflow="fold")
        grid.add_column("measured", no_wrap=True)
        for problem, entry in table.entries.items():
            if wanted in problem.key:
                winner, *others = _times(entry)
                grid.add_row(problem.key, winner, "\n".join(others), entry.measured[:10])
        console.print(grid)
        if table.device == tuning.EMULATED_DEVICE:
            console.print(f"[yellow]{_NOT_GPU}[/]")


def _times(entry: Entry) -> list[str]:
    """Every candidate with its time, the fastest first; at the end those without one."""
    timed = sorted(entry.candidates.items(), key=lambda item: item[1])
    return [f"{time:,.1f} {name}" for name, time in timed] + [f"{name}: no time" for name in entry.refused]


def _as_json(problem: Problem, entry: Entry) -> dict[str, Any]:
    return {"key": problem.key} | entry.to_dict()
