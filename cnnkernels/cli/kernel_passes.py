"""What `verify` and `check` share: the choice of kernel passes, the table of them, and what is said of those that fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich import box
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from cnnkernels.testing.verify import Record

_OPERATIONS = {
    "conv2d": ("fprop", "fused", "dgrad", "wgrad", "bias_grad", "activation_grad"),
    "max_pool2d": ("max", "max_backward", "max_gather"),
    "avg_pool2d": ("avg", "avg_backward"),
    "adaptive_max_pool2d": ("adaptive_max", "adaptive_max_backward"),
    "adaptive_avg_pool2d": ("adaptive_avg", "adaptive_avg_backward"),
}
_PASSES = [name for passes in _OPERATIONS.values() for name in passes]
_SHOWN = 3

_Command = TypeVar("_Command", bound=Callable[..., Any])


def kernel_options(command: _Command) -> _Command:
    """The options that say which kernel passes: --op as `operations` for `passes_of`, --dtype as `dtypes`, --kernel."""
    options = (
        click.option(
            "--op",
            "operations",
            multiple=True,
            type=click.Choice([*_OPERATIONS, *_PASSES]),
            help="Only this operation or pass; may be repeated.",
        ),
        click.option(
            "--dtype",
            "dtypes",
            multiple=True,
            type=click.Choice(["f64", "f32", "tf32", "f16", "bf16"]),
            help="Only this; repeatable.",
        ),
        click.option("--kernel", default="", help="Only kernels with this in their name."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def passes_of(operations: Iterable[str]) -> tuple[str, ...]:
    """The passes that --op has named, by themselves or by their operation."""
    return tuple(name for operation in operations for name in _OPERATIONS.get(operation, (operation,)))


def progress_bar(console: Console) -> Progress:
    """A bar with the number of items done, the time left and what is being done; nothing where it would be a file."""
    columns = (BarColumn(40), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("[dim]{task.description}"))
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def pass_table(
    records: Iterable[Record], headings: Sequence[str], cells: Callable[[Record], Iterable[str]], caption: str
) -> Table:
    """A row for every record: kernel, pass, `cells` under `headings`, and the verdict."""
    table = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify="left")
    table.add_column("kernel", style="cyan", no_wrap=True)
    table.add_column("pass", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    in_order = sorted(records, key=lambda one: (one.subject.family, _position(one), one.subject.dtype))
    for _, section in groupby(in_order, key=lambda one: (one.subject.family, one.subject.name)):
        for record in section:
            table.add_row(record.subject.title, record.subject.name, *cells(record), _verdict(record))
        table.add_section()
    return table


def print_failures(console: Console, records: Iterable[Record], advice: str = "") -> None:
    """Each record that failed, with the first of its failures; `advice` is for one that no problem reaches."""
    for record in records:
        if record.failures or not record.problems:
            console.print(f"[bold red]{record.subject.title}, {record.subject.name}[/]")
        if not record.problems:
            said = "no problem reaches it" + (f": {advice}" if advice else "")
            console.print(f"  {said}; refused:" if record.refused else f"  {said}")
            for problem, reason in list(record.refused.items())[:_SHOWN]:
                console.print(f"    {escape(problem)}: {escape(reason)}")
        for failure in record.failures[:_SHOWN]:
            console.print(f"  {escape(failure)}")
        if len(record.failures) > _SHOWN:
            console.print(f"  and {len(record.failures) - _SHOWN} more")


def _position(record: Record) -> int:
    """Of its pass in the table: new ones come last."""
    return _PASSES.index(record.subject.name) if record.subject.name in _PASSES else len(_PASSES)


def _verdict(record: Record) -> str:
    if record.passed:
        return "[green]pass[/]"
    failed = len(record.failures) + len(record.findings)
    return f"[red]{failed} failed[/]" if failed else "[red]not reached[/]"
