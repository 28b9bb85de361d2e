"""`cnnkernels info`: what is installed, what can run here, and which kernels are compiled."""

from __future__ import annotations

import os
import platform
from collections import Counter
from pathlib import Path
from typing import Any

import click
import torch
from rich import box
from rich.table import Table

from cnnkernels import __version__, backends
from cnnkernels.cli.output import catalogue, make_console, print_json
from cnnkernels.cli.triton_kernels import triton_kernels, triton_table

# Of output that goes to a file: the lists of kernels have long names and no number to lose.
_WIDTH_OF_LISTS = 180


@click.command()
@click.option("--kernels", "list_kernels", is_flag=True, help="List every compiled kernel.")
@click.option(
    "--triton-arch",
    type=click.Choice(["80", "90", "100"]),
    help="With --kernels: compile the Triton kernels for this compute capability, and say what came of it. A minute; Ctrl-C keeps what is done.",
)
@click.option("--json", "json_output", is_flag=True, help="Print JSON.")
def info(list_kernels: bool, triton_arch: str | None, json_output: bool) -> None:
    """Versions, device, backends and why one is absent, compiled kernels."""
    if triton_arch and not list_kernels:
        raise click.UsageError("--triton-arch is about the list of kernels: add --kernels")
    facts = _facts()
    if triton_arch:
        facts["triton_kernels"] = triton_kernels(int(triton_arch), make_console(json_output))
    if json_output:
        print_json(facts)
        return
    console = make_console(log_width=_WIDTH_OF_LISTS) if list_kernels else make_console()
    console.print(_facts_table(facts))
    console.print(_backends_table(facts["backends"]))
    kernels = facts["kernels"]
    if isinstance(kernels, str):
        console.print(f"[yellow]{kernels}[/]")
    else:
        console.print(_kernels_table(kernels) if list_kernels else _families_table(kernels))
        if not list_kernels:
            console.print("[dim]cnnkernels info --kernels lists each of them[/]")
    if triton_arch:
        compiled = facts["triton_kernels"]
        console.print(f"[yellow]{compiled}[/]" if isinstance(compiled, str) else triton_table(compiled, triton_arch))
    elif list_kernels:
        console.print("[dim]--triton-arch 90 adds the Triton kernels, which it compiles for that[/]")


def _facts() -> dict[str, Any]:
    try:
        from cnnkernels import _C

        build = _C.build_info()
    except ImportError as error:
        build = {"missing": str(error)}
    try:
        kernels: Any = catalogue()
    except click.ClickException as error:
        kernels = error.message
    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    return {
        "versions": {
            "cnnkernels": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": cudnn,
        },
        "build": build,
        "device": _device(),
        "backends": {name: backends.unavailable(name) for name in backends.NAMES if name != "auto"},
        "kernels": kernels,
    }


def _device() -> str:
    if torch.cuda.is_available():
        names = []
        for index in range(torch.cuda.device_count()):
            major, minor = torch.cuda.get_device_capability(index)
            names.append(f"{torch.cuda.get_device_name(index)} (sm_{major}{minor})")
        return ", ".join(names)
    return f"no GPU; {_processor()}, {os.cpu_count()} cores"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _facts_table(facts: dict[str, Any]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, version in facts["versions"].items():
        table.add_row(name, str(version) if version else "[dim]none in this torch[/]")
    table.add_row("device", facts["device"])
    for name, value in facts["build"].items():
        table.add_row(name.replace("_", " "), str(value) if value else "[dim]none[/]")
    return table


def _backends_table(unavailable: dict[str, str | None]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="Backends", title_justify="left", title_style="bold")
    table.add_column("backend", style="cyan", no_wrap=True)
    table.add_column("here", no_wrap=True)
    table.add_column("why not", overflow="fold")
    for name, reason in unavailable.items():
        table.add_row(name, "[green]yes[/]" if reason is None else "[yellow]no[/]", reason or "")
    return table


def _families_table(kernels: list[dict[str, Any]]) -> Table:
    dtypes = list(dict.fromkeys(kernel["dtype"] for kernel in kernels))
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{len(kernels)} compiled kernels", title_justify="left", title_style="bold"
    )
    table.add_column("operation", style="cyan")
    table.add_column("family")
    table.add_column("passes", overflow="fold")
    for dtype in dtypes:
        table.add_column(dtype, justify="right")
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for kernel in kernels:
        groups.setdefault((kernel["op"], kernel["family"]), []).append(kernel)
    for (operation, family), members in groups.items():
        passes = dict.fromkeys(name for kernel in members for name in kernel["passes"])
        counts = Counter(kernel["dtype"] for kernel in members)
        table.add_row(operation, family, ", ".join(passes), *(str(counts[dtype]) for dtype in dtypes))
    return table


def _kernels_table(kernels: list[dict[str, Any]]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{len(kernels)} compiled kernels", title_justify="left", title_style="bold"
    )
    table.add_column("kernel", style="cyan", no_wrap=True)
    table.add_column("family")
    table.add_column("passes", no_wrap=True)
    table.add_column("tile", no_wrap=True)
    for heading in ("threads", "shared bytes", "index bits"):
        table.add_column(heading, justify="right")
    for kernel in kernels:
        table.add_row(
            kernel["name"],
            kernel["family"],
            ", ".join(kernel["passes"]),
            "x".join(map(str, kernel["tile"])) if kernel["tile"] else "",
            str(kernel["threads"]),
            f"{kernel['shared_bytes']:,}",
            str(kernel["index_bits"]),
        )
    return table
