"""The emulator's switches as a context manager."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Schedule = Literal["forward", "reverse", "random"]


@contextmanager
def emulator(threads: int | None = None, schedule: Schedule | None = None, seed: int | None = None) -> Iterator[None]:
    """Run emulated kernels with other switches inside the block; what is None stays as it is. Process-wide.

    Args:
        threads: OS threads that share a launch's blocks; 0 lets the emulator choose.
        schedule: the order in which blocks, and the threads of a block, run.
        seed: of the random schedule.

    Raises:
        ImportError: `cnnkernels._C` is not built for this Python.
        ValueError: no such schedule.
    """
    from cnnkernels import _C

    before = _C.emulator_config()
    asked = {"threads": threads, "schedule": schedule, "seed": seed}
    _C.emulator_configure(**{**before, **{name: value for name, value in asked.items() if value is not None}})
    try:
        yield
    finally:
        _C.emulator_configure(**before)
