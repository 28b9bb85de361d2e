"""How the Triton kernels are launched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from cnnkernels.backends.triton import INTERPRETED
from cnnkernels.triton import log


@dataclass(frozen=True)
class Launch:
    """A launch as the host code states it: kernel[grid](*args, **kwargs), with the compiler's options among the latter."""

    name: str
    kernel: Any
    grid: tuple[int, ...]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Recorded(NamedTuple):
    """What came of operators called on meta tensors."""

    launches: list[Launch]
    choices: list[Any]  # plan.Choice, of the passes that had one


_recorded: ContextVar[Recorded | None] = ContextVar("recorded", default=None)


@contextmanager
def recording() -> Iterator[Recorded]:
    """Collect the launches and choices of operators called on meta tensors, for which otherwise nothing happens."""
    recorded = Recorded([], [])
    token = _recorded.set(recorded)
    try:
        yield recorded
    finally:
        _recorded.reset(token)


def record_choice(choice: Any) -> None:
    recorded = _recorded.get()
    if recorded is not None:
        recorded.choices.append(choice)


def launch(
    name: str, kernel: Any, grid: tuple[int, ...], out: Tensor, *args: Any, warps: int, stages: int = 1, **kwargs: Any
) -> None:
    """Launch `kernel` on the device of `out`, as `name`. Nothing runs where `out` has no elements, or no data.

    While torch.compile traces an operator (registration.py) the launch is recorded instead.
    """
    # enable_fp_fusion: a product and a sum become one FMA. Said here because Triton 3.9 warns where nobody says it, and 3.10 would not.
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
    if 0 in grid or (INTERPRETED and isinstance(out, FakeTensor)):
        return
    if out.is_meta:
        recorded = _recorded.get()
        if recorded is not None:
            recorded.launches.append(Launch(name, kernel, grid, args, {**kwargs, **options}))
        return
    log.note(name)
    wrapped: Any = torch.library.wrap_triton(kernel)
    if out.is_cuda and out.device.index != torch.cuda.current_device():
        with torch.cuda.device(out.device):
            wrapped[grid](*args, **kwargs, **options)
        return
    wrapped[grid](*args, **kwargs, **options)
