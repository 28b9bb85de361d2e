"""The table at the end of a training run: layer, pass, the kernel that ran, its error against fp64 torch."""

from __future__ import annotations

from itertools import groupby, zip_longest
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cnnkernels.testing.layers import LayerPass, LayerReport


def print_layers(console: Console, report: LayerReport, batch: int) -> None:
    """Print the table, then what is wrong, or that nothing is."""
    table = Table(
        box=box.ROUNDED,
        title=f"One training step of {batch} images, layer by layer",
        title_style="bold",
        border_style="dim",
        pad_edge=True,
    )
    table.add_column("layer", no_wrap=True)
    table.add_column("pass", no_wrap=True)
    table.add_column("kernels that ran", style="cyan", overflow="fold")
    table.add_column("max error", justify="right", no_wrap=True)
    table.add_column("torch's", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for name, passes in groupby(report.rows, key=lambda row: row.layer):
        rows = list(passes)
        about = (f"[bold]{escape(name)}[/]  {rows[0].kind}", f"[dim]{rows[0].shape}[/]")
        for row, layer in zip_longest(rows, about, fillvalue=""):
            table.add_row(layer, *_cells(row))
        table.add_section()
    console.print(table)
    console.print(
        "[dim]errors: the largest difference from torch's fp64 result on the same inputs; torch's: its own fp32[/]"
    )
    for row in report.rows:
        if row.problem:
            console.print(f"[bold red]{escape(row.layer)}, {row.name}[/]: {escape(row.problem)}")
    for problem in report.problems:
        console.print(f"[bold red]{escape(problem)}[/]")
    if report.passed:
        ran = sum(bool(row.kernels) for row in report.rows)
        console.print(
            f"[bold green]All {ran} passes[/] of the convolutions and poolings, forward and backward, "
            "ran on our kernels."
        )


def _cells(row: LayerPass | str) -> tuple[str, ...]:
    if isinstance(row, str):
        return ("",) * 5
    if row.comparison is None:
        return (row.name, "[dim]not needed: the images have no gradient[/]", "", "", "")
    kernels = "\n[dim]+[/] ".join(dict.fromkeys(row.kernels)) or "[red]none[/]"
    verdict = "[green]pass[/]" if row.passed else "[bold red]FAIL[/]"
    return (row.name, kernels, _error(row.comparison.error), _error(row.comparison.torch_error), verdict)


def _error(error: float | None) -> str:
    return "" if error is None else f"{error:.1e}" if error else "0"


def layers_as_json(report: LayerReport) -> list[dict[str, Any]]:
    """The table's rows for a machine."""
    return [
        {
            "layer": row.layer,
            "kind": row.kind,
            "shape": row.shape,
            "pass": row.name,
            "kernels": list(row.kernels),
            "max_error": row.comparison and row.comparison.error,
            "torch_max_error": row.comparison and row.comparison.torch_error,
            "allowed_error": row.comparison and row.comparison.allowed,
            "passed": row.passed,
            "problem": row.problem,
        }
        for row in report.rows
    ]
