"""Redirect torch's own convolutions and poolings to our kernels while a block of code runs, whoever calls them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from cnnkernels import functional
from cnnkernels.backends import check_name

__all__ = ["override"]


def _max_pool2d_with_indices(*args: Any, **kwargs: Any) -> Any:
    return functional.max_pool2d(*args, **{**kwargs, "return_indices": True})


def _adaptive_max_pool2d_with_indices(*args: Any, **kwargs: Any) -> Any:
    return functional.adaptive_max_pool2d(*args, **{**kwargs, "return_indices": True})


# What torch calls its operators by where a mode can see them. torch.nn.functional's max poolings come as the function that
# their return_indices leads to, or as the operator below it.
_OURS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    torch.conv2d: functional.conv2d,
    torch.conv_transpose2d: functional.conv_transpose2d,
    torch.max_pool2d: functional.max_pool2d,
    F.max_pool2d: functional.max_pool2d,
    F.max_pool2d_with_indices: _max_pool2d_with_indices,
    F.avg_pool2d: functional.avg_pool2d,
    F.adaptive_avg_pool2d: functional.adaptive_avg_pool2d,
    F.adaptive_max_pool2d: functional.adaptive_max_pool2d,
    F.adaptive_max_pool2d_with_indices: _adaptive_max_pool2d_with_indices,
}


class override(TorchFunctionMode):
    """with override(): every 2-D convolution and pooling of torch.nn.functional runs on our kernels, in this thread.

    For models that call `F.max_pool2d` and the like in their forward(), which `convert` does not reach, and for code that is not
    to be changed at all: torch.nn's modules end in the same functions. Nothing of the model is touched, and all of it is over
    with the block. Results, gradients and errors are those of cnnkernels.functional.

    Calls inside torch's own compiled code are not seen: torch.ops.aten.convolution, a scripted module, what another thread does.
    Nor does a checkpointed block, which backward() computes again: torch's checkpoint says that it got other tensors. Convert such a model.

    Args:
        backend: of the redirected calls, as in cnnkernels.functional; None leaves the ambient backend in charge.

    Raises:
        BackendError: `backend` is no backend's name.
    """

    def __init__(self, backend: str | None = None) -> None:
        if backend is not None:
            check_name(backend)
        super().__init__()
        self.backend = backend

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        keywords = dict(kwargs) if kwargs else {}
        ours = _OURS.get(func)
        if ours is not None and not functional.torchs_turn.calls:
            return ours(*args, **keywords, backend=self.backend)
        return func(*args, **keywords)

    def __enter__(self) -> override:
        functional.torchs_turn.blocks += 1
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        functional.torchs_turn.blocks -= 1
