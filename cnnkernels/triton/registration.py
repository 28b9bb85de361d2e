"""How an operator of this backend becomes torch.ops.cnnkernels_triton.<name>."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
