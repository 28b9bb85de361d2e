"""How the Triton kernels are launched."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from cnnkernels.backends.triton import INTERPRETED
from cnnkernels.triton import log


def launch(
    name: str, kernel: Any, grid: tuple[int, ...], out: Tensor, *args: Any, warps: int, stages: int = 1, **kwargs: Any
) -> None:
    """Launch `kernel` on the device of `out`, as `name`. Nothing runs where `out` has no elements, or no data.

    While torch.compile traces an operator (registration.py) the launch is recorded instead.
    """
    if out.is_meta or 0 in grid or (INTERPRETED and isinstance(out, FakeTensor)):
        return
    log.note(name)
    wrapped: Any = torch.library.wrap_triton(kernel)
    if out.is_cuda and out.device.index != torch.cuda.current_device():
        with torch.cuda.device(out.device):
            wrapped[grid](*args, **kwargs, num_warps=warps, num_stages=stages)
        return
    wrapped[grid](*args, **kwargs, num_warps=warps, num_stages=stages)


def record_choice(choice: object) -> None:
    """To be replaced."""
