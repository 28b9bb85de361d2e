"""How the Triton kernels are launched."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor

_lock = threading.Lock()
_launched: list[str] | None = None


def start_log() -> None:
    """Note the names of kernels launched from now on."""
    global _launched
    with _lock:
        _launched = []


def read_log() -> list[str]:
    """The names noted since :func:`start_log`, in order of launch."""
    with _lock:
        return list(_launched or ())


def stop_log() -> None:
    global _launched
    with _lock:
        _launched = None


def launch(
    name: str, kernel: Any, grid: tuple[int, ...], out: Tensor, *args: Any, warps: int, stages: int = 1, **kwargs: Any
) -> None:
    """Launch `kernel` on the device of `out`, as `name`. Nothing runs where `out` has no elements, or no data (device "meta").

    Within a torch.library.triton_op, which every operator of ours is, torch.compile records the launch instead.
    """
    if out.is_meta or 0 in grid:
        return
    if _launched is not None:
        with _lock:
            if _launched is not None:
                _launched.append(name)
    wrapped: Any = torch.library.wrap_triton(kernel)
    if out.is_cuda and out.device.index != torch.cuda.current_device():
        with torch.cuda.device(out.device):
            wrapped[grid](*args, **kwargs, num_warps=warps, num_stages=stages)
        return
    wrapped[grid](*args, **kwargs, num_warps=warps, num_stages=stages)
