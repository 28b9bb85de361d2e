"""Backend "cuda": our CUDA kernels on the GPU."""

from __future__ import annotations

import torch

from cnnkernels import ops
from cnnkernels.ops import (
    avg_pool2d,
    avg_pool2d_backward,
    conv2d_bias_grad,
    conv2d_dgrad,
    conv2d_fprop,
    conv2d_wgrad,
    max_pool2d,
    max_pool2d_backward,
    max_pool2d_gather,
)

__all__ = [
    "avg_pool2d",
    "avg_pool2d_backward",
    "conv2d_bias_grad",
    "conv2d_dgrad",
    "conv2d_fprop",
    "conv2d_wgrad",
    "max_pool2d",
    "max_pool2d_backward",
    "max_pool2d_gather",
    "refusal",
    "unavailable",
]


def unavailable() -> str | None:
    """Why our CUDA kernels cannot run on this machine; None where it can."""
    return ops.CUDA_MISSING


def refusal(input: torch.Tensor) -> str | None:
    """Why our CUDA kernels cannot take `input`; None where it can. Meta tensors get shapes and strides only."""
    if not (input.is_cuda or input.is_meta):
        return f"the CUDA kernels take CUDA tensors and the input is on {input.device}"
    return ops.CUDA_MISSING
