"""How an operator of this backend becomes torch.ops.cnnkernels_triton.<name>."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op, triton_op

from cnnkernels.backends.triton import INTERPRETED


def operator(function: Callable[..., Any]) -> Any:
    """Register `function`, whose annotations are the schema, under its name; what it allocates is its fake result, too.

    A torch.library.triton_op, in which torch.compile sees the kernels. Interpreted kernels are Python, which it cannot take into a graph: then the
    operator is opaque, and the graph calls it.
    """
    name = f"cnnkernels_triton::{function.__name__}"
    if not INTERPRETED:
        return triton_op(name, mutates_args={})(function)
    opaque = custom_op(name, mutates_args=())(function)
    opaque.register_fake(function)
    return opaque


def empty(like: Tensor, size: Sequence[int], channels_last: bool, dtype: torch.dtype | None = None) -> Tensor:
    """An operator's result: dense, in the format that its `channels_last` says, of the dtype and device of `like`."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(size, dtype=dtype or like.dtype, device=like.device, memory_format=memory_format)
