"""Backend "emulator": our CUDA kernels thread by thread on the CPU, which the operators' CPU key reaches."""

from __future__ import annotations

import torch

from cnnkernels import ops


def unavailable() -> str | None:
    """Why the emulator cannot run on this machine; None where it can."""
    return ops.EMULATOR_MISSING


def refusal(input: torch.Tensor) -> str | None:
    """Why the emulator cannot take `input`; None where it can. Meta tensors get shapes and strides only."""
    if not (input.is_cpu or input.is_meta):
        return f"the emulator takes CPU tensors and the input is on {input.device}"
    return ops.EMULATOR_MISSING
