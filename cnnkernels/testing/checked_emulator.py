"""Processes that have the checked emulator: whether it is here, the environment they want, and how one of them ended.

A process has one emulator, the fast one unless it was begun otherwise; so whatever checks or counts begins another.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import cnnkernels
from cnnkernels import ops

# Above cnnkernels/: in a checkout, csrc/ is beside it.
ROOT = Path(cnnkernels.__file__).resolve().parent.parent


def missing() -> str | None:
    """Why there is no checked emulator; None where there is."""
    if ops.CHECKED_EMULATOR_LIBRARY.is_file():
        return None
    return (
        f"the checked emulator, {ops.CHECKED_EMULATOR_LIBRARY}, is missing: build it with `make build` or "
        "`pip install --no-build-isolation -e .`, without CNNKERNELS_CHECKED=OFF"
    )


def environment() -> dict[str, str]:
    """What a process is begun with to have the checked emulator, and this very package."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"CNNKERNELS_EMULATOR": "checked", "PYTHONPATH": os.pathsep.join(paths)}


def how_it_ended(code: int, said: str, seconds: int = 0, lines: int = 1) -> str:
    """The end of a sentence that begins with the process.

    Args:
        code: its exit code, negative for a signal.
        said: what it wrote to standard error.
        seconds: after how many an alarm ends it.
        lines: how many of the last lines it wrote are worth showing.
    """
    if code >= 0:
        how = f"exited with {code}"
    elif seconds and -code == signal.SIGALRM:
        how = f"did not end within {seconds} seconds"
    else:
        how = f"was ended by {signal.Signals(-code).name}"
    last_words = "\n".join([line for line in said.splitlines() if line.strip()][-lines:])
    return f"{how}: {last_words}" if last_words else how
