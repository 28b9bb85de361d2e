"""Backend "cuda": our CUDA kernels on the GPU, which the operators' CUDA key reaches."""

from __future__ import annotations

import torch

from cnnkernels import ops


def unavailable() -> str | None:
    """Why our CUDA kernels cannot run on this machine; None where it can."""
    return ops.CUDA_MISSING


def refusal(input: torch.Tensor) -> str | None:
    """Why our CUDA kernels cannot take `input`; None where it can. Meta tensors get shapes and strides only."""
    if not (input.is_cuda or input.is_meta):
        return f"the CUDA kernels take CUDA tensors and the input is on {input.device}"
    return ops.CUDA_MISSING
