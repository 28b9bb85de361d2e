"""Tables as wide as there is room for. Where there is less, columns go, one after the other: no number is cut off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich import box
from rich.measure import Measurement
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Column:
    """`short` is the heading where room is scarce, if there is a shorter one. Of columns that may go the one with the highest `goes`
    goes first; with 0 it stays.
    """

    heading: str
    cells: Sequence[str]
    short: str = ""
    goes: int = 0
    left: bool = False


def fitting(console: Console, columns: Sequence[Column]) -> Table:
    """The columns, the first of which names the rows, as a table that fits the console's width."""
    table = _table(columns)
    if _fits(console, table):
        return table
    kept = [replace(column, heading=column.short or column.heading) for column in columns]
    while not _fits(console, table := _table(kept)):
        last = max(column.goes for column in kept)
        if not last:
            return _table(kept, wrap=True)
        kept = [column for column in kept if column.goes != last]
    return table


def _fits(console: Console, table: Table) -> bool:
    wanted = Measurement.get(console, console.options.update(max_width=1 << 16), table).maximum
    return wanted <= console.width


def _table(columns: Sequence[Column], wrap: bool = False) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0, 0, 1), header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(
            column.heading,
            justify="left" if column.left or number == 0 else "right",
            style="cyan" if number == 0 else "",
            no_wrap=not wrap,
            overflow="fold",
        )
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*row)
    return table
