"""What `cnnkernels info --kernels --triton-arch` says: the Triton kernels, compiled without a GPU."""

from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console


def triton_kernels(arch: int, console: Console) -> list[dict[str, Any]] | str:
    """A row for each kernel and call of cnnkernels.triton.calls, as compiled for `arch`; a sentence where there is no Triton.

    An interrupt ends it early, with the rows that there are.
    """
    if find_spec("triton") is None:
        return "Triton's kernels are not listed: triton is not installed (pip install triton)"
    from cnnkernels.triton import ahead
    from cnnkernels.triton.calls import CALLS

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    rows: list[dict[str, Any]] = []
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"compiling for sm_{arch}", total=len(CALLS))
        try:
            for kernels in ahead.run(architectures=[arch]):
                rows += [{**asdict(facts), "programs": facts.programs} for facts in kernels]
                progress.update(task, advance=1, description=f"sm_{arch}: {kernels[0].call if kernels else ''}")
        except KeyboardInterrupt:
            console.print(f"[yellow]interrupted: {len(rows)} kernels are compiled, others are missing below[/]")
    return rows


def triton_table(rows: list[dict[str, Any]], arch: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=f"Triton's kernels on sm_{arch}", title_justify="left", title_style="bold")
    table.add_column("kernel", style="cyan", no_wrap=True)
    table.add_column("call", overflow="fold")
    for heading in ("registers", "spilled", "shared bytes", "on an SM", "cubin bytes"):
        table.add_column(heading, justify="right")
    table.add_column("matrix instructions", no_wrap=True)
    for row in rows:
        table.add_row(
            row["kernel"],
            row["call"],
            str(row["registers"]),
            str(row["spilled_bytes"]),
            f"{row['static_shared'] + row['dynamic_shared']:,}",
            str(row["programs"]),
            f"{row['cubin_bytes']:,}",
            ", ".join(f"{count} {name}" for name, count in row["matrix"].items()),
        )
    return table
