"""`cnnkernels verify`: every compiled kernel on every problem, against torch."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cnnkernels.cli.output import catalogue, kernels_backend, make_console, print_json, require_backend

if TYPE_CHECKING:
    from rich.console import Console

    from cnnkernels.testing.verify import Record

_OPERATIONS = {
    "conv2d": ("fprop", "dgrad", "wgrad", "bias_grad"),
    "max_pool2d": ("max", "max_backward", "max_gather"),
    "avg_pool2d": ("avg", "avg_backward"),
}
_FAILURES_SHOWN = 3


@click.command()
@click.option(
    "--backend",
    type=click.Choice(["emulator", "cuda"]),
    help="Where to run.  [default: cuda with a GPU, else emulator]",
)
@click.option(
    "--op",
    "operations",
    multiple=True,
    type=click.Choice([*_OPERATIONS, *(name for passes in _OPERATIONS.values() for name in passes)]),
    help="Only this operation or pass; may be repeated.",
)
@click.option(
    "--dtype", "dtypes", multiple=True, type=click.Choice(["f64", "f32", "f16", "bf16"]), help="Only this; repeatable."
)
@click.option("--kernel", default="", help="Only kernels with this in their name.")
@click.option("--quick", is_flag=True, help="Only the first problem of each group.")
@click.option("--schedules", is_flag=True, help="Also ask for the same bits under every schedule of the emulator.")
@click.option("--json", "json_output", is_flag=True, help="Print JSON.")
@click.pass_context
def verify(
    context: click.Context,
    backend: str | None,
    operations: tuple[str, ...],
    dtypes: tuple[str, ...],
    kernel: str,
    quick: bool,
    schedules: bool,
    json_output: bool,
) -> None:
    """Run every kernel on every problem and compare with torch.

    Each kernel is forced on each problem it does not refuse. Small integers have to come out exactly; other values as
    near to fp64 as twice torch's own error, or as a bound from the length of the sum allows. Exit code 1 if a kernel
    fails or is reached by no problem.
    """
    if backend is None:
        backend = kernels_backend()
    require_backend(backend)
    if schedules and backend != "emulator":
        raise click.ClickException("--schedules is for --backend emulator: a GPU's schedule is its own")
    catalogue()
    from cnnkernels.testing import verify as engine

    passes = tuple(name for operation in operations for name in _OPERATIONS.get(operation, (operation,)))
    selection = engine.Selection(backend, passes, dtypes, kernel, quick, schedules)
    cases = engine.count_cases(selection)
    if not cases:
        raise click.ClickException("no compiled kernel is left by --op, --dtype and --kernel")
    console = make_console(json_output)
    start = time.perf_counter()
    columns = (BarColumn(40), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("[dim]{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=cases)
        records = engine.verify(selection, lambda case: progress.update(task, advance=1, description=escape(case)))
    seconds = time.perf_counter() - start
    passed = all(record.passed for record in records)
    if json_output:
        rows = [asdict(record) | {"passed": record.passed} for record in records]
        print_json({"backend": backend, "passed": passed, "seconds": seconds, "kernels": rows})
    else:
        console.print(_table(records))
        _print_failures(console, records)
        runs = sum(record.runs for record in records)
        verdict = "[bold green]all pass[/]" if passed else "[bold red]failed[/]"
        console.print(f"{verdict}: {runs:,} runs of {len(records)} kernel passes, {seconds:.0f} s, backend {backend}")
    context.exit(0 if passed else 1)


def _table(records: list[Record]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("kernel", style="cyan", no_wrap=True)
    table.add_column("pass", no_wrap=True)
    for heading in ("runs", "exact", "refused", "max error", "÷ torch's"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    family = None
    for record in sorted(
        records, key=lambda record: (record.subject.family, _pass_order(record), record.subject.dtype)
    ):
        if family not in (None, (record.subject.family, record.subject.name)):
            table.add_section()
        family = (record.subject.family, record.subject.name)
        table.add_row(*_cells(record))
    table.caption = (
        "exact: runs on integers, compared bit for bit.  max error: against fp64, over the other runs.\n"
        "÷ torch's: that error as a multiple of torch's own on the same problem, at worst."
    )
    table.caption_justify = "left"
    return table


def _pass_order(record: Record) -> int:
    return [name for passes in _OPERATIONS.values() for name in passes].index(record.subject.name)


def _cells(record: Record) -> tuple[str, ...]:
    ratio = "" if record.error_ratio is None else f"{record.error_ratio:.2f}"
    if record.passed:
        verdict = "[green]pass[/]"
    else:
        verdict = f"[red]{len(record.failures)} failed[/]" if record.failures else "[red]not reached[/]"
    return (
        record.subject.kernel,
        record.subject.name,
        str(record.runs),
        str(record.exact_runs),
        str(len(record.refused) or ""),
        f"{record.error:.1e}" if record.error else "0",
        ratio,
        verdict,
    )


def _print_failures(console: Console, records: list[Record]) -> None:
    for record in records:
        subject: Any = record.subject
        if record.failures or not record.runs:
            console.print(f"[bold red]{subject.kernel}, {subject.name}[/]")
        if not record.runs:
            console.print("  no problem reaches it; refused:" if record.refused else "  no problem reaches it")
            for problem, reason in list(record.refused.items())[:_FAILURES_SHOWN]:
                console.print(f"    {escape(problem)}: {escape(reason)}")
        for failure in record.failures[:_FAILURES_SHOWN]:
            console.print(f"  {escape(failure)}")
        if len(record.failures) > _FAILURES_SHOWN:
            console.print(f"  and {len(record.failures) - _FAILURES_SHOWN} more")
