"""What the commands share: where they write, how they choose a backend, and how they name what is missing."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from typing import Any

import click
from rich.console import Console

from cnnkernels import backends

# Wide enough for tables, where output goes to a file or a log.
_WIDTH_OF_LOGS = 120

#: The exit code that a shell reports for a program which Ctrl-C ended.
INTERRUPTED = 130


def make_console(json_output: bool = False, log_width: int = _WIDTH_OF_LOGS) -> Console:
    """Where to write for people: stdout, or stderr where stdout is for a machine. `log_width`: in columns, where it is no terminal."""
    console = Console(stderr=json_output, highlight=False)
    if console.is_terminal or "COLUMNS" in os.environ:
        return console
    return Console(stderr=json_output, highlight=False, width=log_width)


def print_json(report: Any) -> None:
    """Write `report` to stdout for a machine."""
    click.echo(json.dumps(report, indent=1))


def kernels_backend() -> str:
    """The backend that runs our own kernels on this machine: cuda where there is a GPU, else the emulator.

    Raises ClickException where there is neither.
    """
    reasons = {}
    for name in ("cuda", "emulator"):
        reason = backends.unavailable(name)
        if reason is None:
            return name
        reasons[name] = reason
    raise click.ClickException("; ".join(f"{name}: {reason}" for name, reason in reasons.items()))


def require_backend(name: str) -> None:
    """Raise ClickException with the reason where backend `name` cannot run on this machine."""
    reason = backends.unavailable(name)
    if reason is not None:
        raise click.ClickException(f"backend {name!r} cannot run here: {reason}")


def require_checked_emulator() -> None:
    """Raise ClickException with what to do where there is no checked emulator."""
    from cnnkernels.testing import checked_emulator

    missing = checked_emulator.missing()
    if missing is not None:
        raise click.ClickException(missing)


def require_extra(extra: str, *modules: str) -> None:
    """Raise ClickException with the command that installs them where one of the optional `modules` is missing."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise click.ClickException(f"{' and '.join(missing)} missing: pip install cnnkernels[{extra}]")


def catalogue() -> list[dict[str, Any]]:
    """Every compiled kernel. Raises ClickException where `cnnkernels._C`, which knows them, is not built."""
    try:
        from cnnkernels import _C
    except ImportError as error:
        raise click.ClickException(
            f"cnnkernels._C, which has the catalogue of kernels, is not built: {error}"
        ) from error
    rows: list[dict[str, Any]] = _C.catalogue()
    return rows
