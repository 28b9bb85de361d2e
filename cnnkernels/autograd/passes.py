"""What all passes share: how one is called, how it launches, and how vmap's batch dimension folds into another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import unwrap_dead_wrappers
from torch.autograd import forward_ad

from cnnkernels import tuning
from cnnkernels.backends import ENTRY_POINTS
from cnnkernels.geometry import Conv2dGeometry, Pool2dGeometry


class Pass(torch.autograd.Function):
    """A Function whose arguments are tensors (or None), then a geometry and a backend's name."""

    traced: Callable[..., Any]

    def __init_subclass__(cls) -> None:
        # torch.compile traces no Function that defines a jvp, so it gets a twin that does not.
        members = {name: cls.__dict__[name] for name in ("forward", "setup_context", "backward")}
        twin: Any = type(cls.__name__, (torch.autograd.Function,), members)
        cls.traced = staticmethod(lambda *args: twin.apply(*args))

    @classmethod
    def call(cls, *args: Any) -> Any:
        """Run the pass, as an autograd node only where something can see one."""
        if torch.is_grad_enabled():
            for tensor in args[:-2]:
                if tensor is not None and tensor.requires_grad:
                    return cls.traced(*args) if torch.compiler.is_compiling() else cls.apply(*args)
        if _transforms_active():
            if torch.compiler.is_dynamo_compiling():
                # torch 2.13 would trace the forward alone and give a gradient of zeros: leave the frame to eager torch.
                torch._dynamo.graph_break(msg="an autograd.Function under a torch.func transform")
            return cls.apply(*args)
        if forward_ad._current_level >= 0:
            return cls.apply(*args)
        return cls.forward(*args)

    @classmethod
    def apply(cls, *args: Any) -> Any:
        # Function.apply inspects forward's signature at every call to fill in defaults: ten times the cost of the
        # rest of it. Our forwards have no defaults.
        if _transforms_active():
            return super().apply(*args)
        return super(torch.autograd.Function, cls).apply(*unwrap_dead_wrappers(args))  # type: ignore[misc]


def differentiated(*tensors: Tensor) -> bool:
    """Whether a call on these tensors is recorded for its gradient."""
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor.requires_grad:
                return True
    return False


def observed(*tensors: Tensor) -> bool:
    """Whether something differentiates or batches a call on these tensors."""
    return differentiated(*tensors) or transformed()


def transformed() -> bool:
    """Whether a transform of torch.func, or forward-mode differentiation, runs."""
    return _transforms_active() or forward_ad._current_level >= 0


def launch(op: str, backend: str, geometry: Conv2dGeometry | Pool2dGeometry, arguments: tuple[Any, ...]) -> Any:
    """Run `backend`'s operator `op`, on the kernel that the tuning table has for the problem, else on the plan's."""
    options: dict[str, Any] = {}
    if isinstance(geometry, Conv2dGeometry):
        if geometry.padding_mode != "zeros":
            options["padding_mode"] = geometry.padding_mode
        if geometry.allow_tf32 and not backend.startswith("triton"):  # which asks torch itself
            options["allow_tf32"] = True
    if tuning.active:
        return tuning.run(op, backend, geometry, arguments, options)
    return getattr(ENTRY_POINTS[backend], op)(*arguments, **options)


def _transforms_active() -> bool:
    """Whether a torch.func transform (vmap, grad, jvp, ...) is running."""
    active: bool = torch._C._are_functorch_transforms_active()
    return active


def batched(tensor: Any, dim: int | None, batch: int) -> Any:
    """`tensor` with the batch dimension first, repeated by stride 0 where it has none; None stays None."""
    if tensor is None:
        return None
    return tensor.expand(batch, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def fold(tensor: Any, dim: int, into: int, groups: int = 1) -> Any:
    """Merge batch dimension `dim` into dimension `into` (counted without it): group-major, then batch-major."""
    if tensor is None:
        return None
    if groups == 1:
        return tensor.movedim(dim, into).flatten(into, into + 1)
    grouped = tensor.movedim(dim, 0).unflatten(into + 1, (groups, tensor.shape[into + (into >= dim)] // groups))
    return grouped.movedim(0, into + 1).flatten(into, into + 2)


def unfold(tensor: Tensor, dim: int, batch: int, groups: int = 1) -> Tensor:
    """Undo :func:`fold`, with the batch dimension in front."""
    each = tensor.shape[dim] // (batch * groups)
    if groups == 1:
        return tensor.unflatten(dim, (batch, each)).movedim(dim, 0)
    return tensor.unflatten(dim, (groups, batch, each)).movedim(dim + 1, 0).flatten(dim + 1, dim + 2)
