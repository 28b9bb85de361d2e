"""Backend "triton": our Triton kernels, on a GPU or on the CPU under Triton's interpreter.

Its operators have the names and arguments of torch.ops.cnnkernels.*; they are attributes of this module. They are loaded when the first
one is asked for: that imports triton and torch's compiler, which takes seconds.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch

__all__ = ["INTERPRETED", "refusal", "unavailable"]

# Triton reads the variable when a kernel is defined. It has to be set before anything imports triton, so later changes count for nothing here.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")

_MISSING = None if importlib.util.find_spec("triton") else "triton is not installed: pip install triton"
_NOT_ON_CPU = (
    "on the CPU the Triton kernels run under Triton's interpreter alone: set TRITON_INTERPRET=1 before Python starts"
)


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    from cnnkernels.triton import operators

    return getattr(operators, name)


def unavailable() -> str | None:
    """Why the Triton kernels cannot run on this machine; None where they can."""
    if _MISSING is None and not INTERPRETED and not torch.cuda.is_available():
        return f"torch sees no CUDA device, and {_NOT_ON_CPU}"
    return _MISSING


def refusal(input: torch.Tensor) -> str | None:
    """Why the Triton kernels cannot take `input`; None where they can. Meta tensors get shapes and strides only."""
    if _MISSING is None and input.is_cpu and not INTERPRETED:
        return f"the input is on the CPU, and {_NOT_ON_CPU}"
    if not (input.is_cuda or input.is_cpu or input.is_meta):
        return f"the Triton kernels take CUDA tensors and the input is on {input.device}"
    return _MISSING
