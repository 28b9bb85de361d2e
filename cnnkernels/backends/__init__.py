"""Which implementation runs a call: the names, the policy, and one module per backend with kernels of ours.

A named backend is strict: it runs the call or raises :class:`BackendError` with the reason. `auto` never
raises for lack of a kernel; it takes torch's own operator instead. The policy is :func:`select`, but for one thing: where
`auto` would take a kernel of ours, cnnkernels.functional asks cnnkernels.tuning whether torch's operator was measured faster.
"""

from __future__ import annotations

import os
import threading
from contextlib import ContextDecorator
from types import ModuleType, TracebackType

import torch

from cnnkernels import ops
from cnnkernels.backends import cuda, emulator, triton

__all__ = [
    "ENTRY_POINTS",
    "NAMES",
    "BackendError",
    "ambient_backend",
    "check_name",
    "select",
    "unavailable",
    "use_backend",
]

NAMES = ("auto", "cuda", "triton", "emulator", "torch")

# The backends with kernels of our own, and the module in which each has conv2d_fprop, ..., avg_pool2d_backward. Two of them share
# the operators: torch's dispatcher tells them apart by the tensors' device.
ENTRY_POINTS: dict[str, ModuleType] = {"cuda": ops, "triton": triton, "emulator": ops}


class BackendError(RuntimeError):
    """The chosen backend cannot run this call; the message says why and what could."""


_WHY_NAMED = "asked for by name"
_WHY_AUTO_CUDA = "auto: our CUDA library runs CUDA tensors of this dtype"
_WHY_AUTO_CPU = (
    "auto: torch's own operator runs CPU tensors, because the emulator is for checking kernels, not for speed"
)
_NOT_RECORDED = (
    "torch.jit.trace cannot record our operators, whose sizes may be symbols; call cnnkernels.restore(model) before tracing, "
    "or keep our kernels with torch.export"
)
_WHY_EMPTY = "the input has no elements, so there is nothing to launch: torch's own operator gives the empty result"


class _Ambient(threading.local):
    """The backend of calls that name none. Per thread, and an attribute rather than a ContextVar because
    torch.compile can trace (and guards on) a thread-local's attribute but not ContextVar.get."""

    def __init__(self) -> None:  # once per thread; not a class attribute, which torch.compile of 2.11 reads instead
        self.name: str = os.environ.get("CNNKERNELS_BACKEND") or "auto"


_ambient = _Ambient()


class use_backend(ContextDecorator):
    """Run the calls inside on `name`, one of "auto", "cuda", "triton", "emulator" and "torch".

    A context manager and a decorator; nests; holds for the current thread. The backward pass of a call runs on
    the backend of its forward pass, whatever is in force when backward() is called.

    Raises:
        BackendError: `name` is no backend. Whether the backend can run is decided per call.
    """

    def __init__(self, name: str) -> None:
        check_name(name)
        self.name = name
        self._outer: list[str] = []

    def __enter__(self) -> None:
        self._outer.append(_ambient.name)
        _ambient.name = self.name

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _ambient.name = self._outer.pop()

    def _recreate_cm(self) -> use_backend:
        # One instance per call of a decorated function: calls from several threads must not share _outer.
        return use_backend(self.name)


def ambient_backend() -> str:
    """The backend of calls without `backend=`: from use_backend, else CNNKERNELS_BACKEND, else "auto"."""
    return _ambient.name


def check_name(name: object) -> None:
    """Raise BackendError unless `name` is a backend's name."""
    if name not in NAMES:
        raise BackendError(f"no backend {name!r}: choose one of {', '.join(NAMES)}")


def select(name: str | None, input: object) -> tuple[str, str]:
    """Decide who runs a call whose first tensor is `input`.

    Args:
        name: one of :data:`NAMES`, or None for the ambient backend.

    Returns:
        A key of :data:`ENTRY_POINTS` or "torch", and the reason as a sentence.

    Raises:
        BackendError: the named backend cannot run on this machine or on this tensor's device.
    """
    if name is None:
        name = _ambient.name
    if name == "torch":
        return "torch", _WHY_NAMED
    if not isinstance(input, torch.Tensor):
        return "torch", "the input is no tensor: torch says so in its own words"
    if name == "auto":
        return _select_auto(input)
    if name == "emulator":
        refusal = emulator.refusal(input)
    elif name == "cuda":
        refusal = cuda.refusal(input)
    elif name == "triton":
        refusal = triton.refusal(input)
    else:
        check_name(name)  # raises
        raise AssertionError(name)
    if refusal is None and torch._C._get_tracing_state() is not None:
        refusal = _NOT_RECORDED
    if refusal is not None:
        raise BackendError(f"backend {name!r} cannot run this call: {refusal}")
    if input.numel() == 0:
        return "torch", _WHY_EMPTY
    return name, _WHY_NAMED


def _select_auto(input: torch.Tensor) -> tuple[str, str]:
    if input.is_cpu:
        return "torch", _WHY_AUTO_CPU
    refusal = cuda.refusal(input)
    if refusal is None and torch._C._get_tracing_state() is not None:
        refusal = _NOT_RECORDED
    if refusal is not None:
        return "torch", f"auto: torch's own operator, since our CUDA kernels cannot: {refusal}"
    if input.numel() == 0:
        return "torch", _WHY_EMPTY
    return "cuda", _WHY_AUTO_CUDA


def unavailable(name: str) -> str | None:
    """Why backend `name` cannot run on this machine, as a sentence; None where it can."""
    check_name(name)
    if name == "triton":
        return triton.unavailable()
    if name == "cuda":
        return cuda.unavailable()
    if name == "emulator":
        return emulator.unavailable()
    return None  # auto takes torch where it must
