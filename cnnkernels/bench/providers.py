"""Who runs a case: our backends, and what torch and its vendors' libraries offer for the same thing.

A provider makes a call: a function without arguments that runs exactly one pass on operands it was given. Forwards of
a backward pass run while the call is made ready, outside of what is timed; so do weight and layout conversions, which
there are none of: operands come in the provider's layout, and results stay in it.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels import autograd, backends, catalogue, functional, ops
from cnnkernels.bench.layer import Layer
from cnnkernels.bench.operands import LAYOUTS, Case, Operands
from cnnkernels.bench.timing import Call

Forward = Callable[[Operands], Tensor]


@dataclass(frozen=True)
class Provider:
    """`refuse` says why it cannot run a case on a device; None where it can. `forward` runs the case's forward."""

    name: str
    role: str  # "ours" or "baseline"
    refuse: Callable[[Case, torch.device, str], str | None]
    forward: Callable[[Case], Forward]
    layouts: tuple[str, ...] = LAYOUTS

    def make_call(self, case: Case, operands: Operands, forward: Forward | None = None) -> Call:
        """A call on `operands`. Give the same `forward` for all calls of a case that share a compilation."""
        forward = forward or self.forward(case)
        if not case.is_backward:

            def run() -> Tensor:
                with torch.no_grad():
                    return forward(operands)

            return run
        name = "w" if case.name == "wgrad" else "x"
        leaf = getattr(operands, name).detach().requires_grad_()
        with torch.enable_grad():
            output = forward(Operands(**(vars(operands) | {name: leaf})))
        return lambda: torch.autograd.grad(output, leaf, operands.dy, retain_graph=True)[0]


def providers() -> tuple[Provider, ...]:
    """Everyone, ours first: one for each of our backends, then torch's."""
    ours = tuple(_ours(name) for name in backends.NAMES if name not in ("auto", "torch"))
    return (*ours, *_BASELINES)


def forced(backend: str, kernel: str) -> Provider:
    """One kernel of the catalogue, whatever the plan would choose."""
    name = f"{backend}/{kernel}"

    def refuse(case: Case, device: torch.device, layout: str) -> str | None:
        return _refuse_ours(backend, case, device, layout)

    return Provider(name, "ours", refuse, lambda case: _forced_forward(backend, kernel, case))


def _ours(backend: str) -> Provider:
    def refuse(case: Case, device: torch.device, layout: str) -> str | None:
        return _refuse_ours(backend, case, device, layout)

    names = ("conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d", "adaptive_max_pool2d", "adaptive_avg_pool2d")
    functions = types.SimpleNamespace(
        **{
            name: functools.partial(getattr(functional, name), backend=backend)
            for name in names
            if hasattr(functional, name)
        }
    )

    def forward(case: Case) -> Forward:
        if not case.name.endswith("relu"):
            return _plain_forward(case, functions)
        fused = functools.partial(functional.conv2d, backend=backend, activation="relu")

        def run(o: Operands) -> Tensor:
            conv2d = fused if o.z is None else functools.partial(fused, residual=o.z)
            return case.layer.forward(o.x, o.w, o.b, types.SimpleNamespace(conv2d=conv2d))

        return run

    return Provider(backend, "ours", refuse, forward)


def _refuse_ours(backend: str, case: Case, device: torch.device, layout: str) -> str | None:
    wanted = "cpu" if backend == "emulator" else "cuda"
    if device.type != wanted:
        return f"backend {backend} runs {wanted.upper()} tensors"
    missing = backends.unavailable(backend)
    if missing is not None:
        return missing
    if not hasattr(functional, case.layer.op):
        return f"cnnkernels.functional has no {case.layer.op} yet"
    if case.tf32 and device.type != "cuda":
        return "fp32 is multiplied as tf32 on a GPU alone, by torch too"
    return None


def _plain_forward(case: Case, functions: Any) -> Forward:
    layer = case.layer
    if not case.name.endswith("relu"):
        return lambda o: layer.forward(o.x, o.w, None, functions)

    def fused(o: Operands) -> Tensor:
        output = layer.forward(o.x, o.w, o.b, functions)
        if o.z is not None:
            output += o.z
        return output.relu_()

    return fused


def _forced_forward(backend: str, kernel: str, case: Case) -> Forward:
    key = f"{backend}:{kernel}"
    if key not in backends.ENTRY_POINTS:
        entry_points = backends.ENTRY_POINTS[backend]
        row = next(row for row in catalogue.kernels(backend) if row["name"] == kernel)
        fixed: Any = {name: _with_kernel(getattr(entry_points, name), name, row) for name in ops.OPERATORS}
        backends.ENTRY_POINTS[key] = types.SimpleNamespace(**fixed)  # type: ignore[assignment]
    layer = case.layer

    def forward(o: Operands) -> Tensor:
        prepare = getattr(functional, f"prepare_{layer.op}")
        arguments = _Arguments()
        layer.forward(o.x, o.w, None, arguments)
        call = {
            "conv2d": autograd.Conv2dFprop, "conv_transpose2d": autograd.Conv2dDgrad,
            "max_pool2d": autograd.MaxPool2d, "avg_pool2d": autograd.AvgPool2d,
            "adaptive_max_pool2d": autograd.MaxPool2d, "adaptive_avg_pool2d": autograd.AvgPool2d,
        }[layer.op].call  # fmt: skip
        output = call(*prepare(*arguments.seen), key)
        return output[0] if isinstance(output, tuple) else output

    return forward


class _Arguments:
    """Stands in for torch.nn.functional and remembers the arguments that a layer gives it."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        def remember(*args: Any) -> None:
            self.seen = args

        return remember


def _with_kernel(function: Callable[..., Any], name: str, row: dict[str, Any]) -> Callable[..., Any]:
    """`function` with its kernel fixed; but a backward's forward, and a forward's backward, run what the plan says."""
    passes = {"max_pool2d": "max", "avg_pool2d": "avg"}
    own = passes.get(name, name.removeprefix("conv2d_").replace("_pool2d", ""))
    return functools.partial(function, kernel_name=row["name"]) if own in row["passes"] else function


# torch's own, and what it offers by other names.


def _never(case: Case, device: torch.device, layout: str) -> str | None:
    return None


def _eager(case: Case) -> Forward:
    return _plain_forward(case, F)


def _compiled(case: Case) -> Forward:
    plain = _plain_forward(case, F)

    def forward(x: Tensor, w: Tensor | None, b: Tensor | None, z: Tensor | None) -> Tensor:
        return plain(Operands(x, w, b, z, None))

    # Without CUDA graphs of its own: the timer puts every provider into one.
    compiled = torch.compile(forward, fullgraph=True, dynamic=False, mode="max-autotune-no-cudagraphs")
    return lambda o: compiled(o.x, o.w, o.b, o.z)


def forget_compilations() -> None:
    """Between cases: dynamo counts recompilations per function, and gives up after a few."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


def _refuse_linear(case: Case, device: torch.device, layout: str) -> str | None:
    layer = case.layer
    if layer.op != "conv2d" or (layer.R, layer.S) != (1, 1) or layer.groups != 1:
        return "a matrix product is a dense 1x1 convolution only"
    if layer.stride != (1, 1) or layer.padding != (0, 0):
        return "a matrix product is a 1x1 convolution without stride and padding only"
    return None


def _linear(case: Case) -> Forward:
    K, C = case.layer.K, case.layer.C

    def forward(o: Operands) -> Tensor:
        assert o.w is not None
        output = F.linear(o.x.permute(0, 2, 3, 1), o.w.view(K, C), o.b).permute(0, 3, 1, 2)
        if o.z is not None:
            output += o.z
        return output.relu_() if case.name.endswith("relu") else output

    return forward


def _refuse_cudnn_fused(case: Case, device: torch.device, layout: str) -> str | None:
    if device.type != "cuda":
        return "cuDNN runs CUDA tensors"
    if case.layer.op != "conv2d" or not case.name.endswith("relu"):
        return "cuDNN's fused operators are for a convolution followed by ReLU"
    if case.dtype == torch.float64:
        return "cuDNN's fused operators take no fp64"
    return None


def _cudnn_fused(case: Case) -> Forward:
    layer = case.layer
    geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)

    def forward(o: Operands) -> Tensor:
        assert o.w is not None
        if o.z is None:
            return torch.cudnn_convolution_relu(o.x, o.w, o.b, *geometry)
        return torch.cudnn_convolution_add_relu(o.x, o.w, o.z, 1.0, o.b, *geometry)

    return forward


_BASELINES = (
    Provider("torch-eager", "baseline", _never, _eager),
    Provider("torch-compile", "baseline", _never, _compiled),
    Provider("cudnn-fused", "baseline", _refuse_cudnn_fused, _cudnn_fused),
    Provider("torch-linear", "baseline", _refuse_linear, _linear, ("channels_last",)),
)


def baselines_of(layer: Layer, name: str) -> tuple[str, ...]:
    """Who could run pass `name` of `layer` on a GPU: without one of them the opposition is weaker than it could be."""
    case, gpu = Case(layer, name, torch.float32), torch.device("cuda")
    return tuple(one.name for one in _BASELINES if any(one.refuse(case, gpu, layout) is None for layout in one.layouts))
