"""One pass of a layer on the emulator: which operator it is, what it has to do at least, and its launch."""

from __future__ import annotations

import functools
import math
import types
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cnnkernels import autograd, backends, functional, ops
from cnnkernels.bench.layer import Layer
from cnnkernels.bench.operands import Case, Operands, make_operands
from cnnkernels.testing.references import taps_of

#: Of a convolution, besides those that the benchmark measures.
BIAS_GRAD = "bias_grad"

#: The operator's pass, as the catalogue of kernels names it. A transposed convolution is a convolution's dgrad, and the other way round.
_OPERATOR_PASSES = {
    "conv2d": {"fprop": "fprop", "dgrad": "dgrad", "wgrad": "wgrad", BIAS_GRAD: BIAS_GRAD},
    "conv_transpose2d": {"fprop": "dgrad", "dgrad": "fprop", "wgrad": "wgrad", BIAS_GRAD: BIAS_GRAD},
    "max_pool2d": {"forward": "max", "backward": "max_backward"},
    "avg_pool2d": {"forward": "avg", "backward": "avg_backward"},
    "adaptive_max_pool2d": {"forward": "adaptive_max", "backward": "adaptive_max_backward"},
    "adaptive_avg_pool2d": {"forward": "adaptive_avg", "backward": "adaptive_avg_backward"},
}

#: What the checked emulator does per second while it counts, roughly: 28e6 of a dense 3x3 convolution on two cores. It tells how long
#: a problem would take, and so how much of it to run.
EMULATED_STEPS_PER_SECOND = 25e6
#: Of a pass that would take more seconds than this, only every so-many-th block is run.
LONGEST_PASS = 60.0


@dataclass(frozen=True)
class Useful:
    """What no implementation of a pass can avoid. `fmas` is 0 for a pass without multiply-adds.

    `indices` says how those of max pooling count in `bytes`; how large they are is an implementation's choice.
    """

    fmas: int
    bytes: int
    indices: str = ""


#: As :meth:`Layer.useful_bytes` has them.
_INDICES = {"forward": "without indices", "backward": "with indices of a byte"}


def passes_of(layer: Layer) -> tuple[str, ...]:
    """Every pass that can be profiled; those of the benchmark first.

    Raises ValueError for a layer that no kernel of ours runs yet.
    """
    if layer.op not in _OPERATOR_PASSES:
        raise ValueError(f"no kernel runs {layer.op} yet: {', '.join(_OPERATOR_PASSES)} are what there is")
    return tuple(_OPERATOR_PASSES[layer.op])


def operator_pass(layer: Layer, name: str) -> str:
    """What the catalogue calls pass `name` of `layer`."""
    return _OPERATOR_PASSES[layer.op][name]


def useful(layer: Layer, name: str, dtype: torch.dtype) -> Useful:
    if name == BIAS_GRAD:
        return Useful(0, (math.prod(layer.output_shape) + layer.K) * dtype.itemsize)
    indices = _INDICES[name] if "max" in layer.op else ""
    return Useful(layer.useful_flops(name) // 2, layer.useful_bytes(name, dtype.itemsize), indices)


def sample_for(layer: Layer, name: str) -> int:
    """Every how-many-th block to run, for the pass to take about :data:`LONGEST_PASS` seconds at most."""
    return max(1, math.ceil(_steps(layer, name) / EMULATED_STEPS_PER_SECOND / LONGEST_PASS))


def expected_seconds(layer: Layer, name: str, sample: int) -> float:
    """A guess."""
    return _steps(layer, name) / sample / EMULATED_STEPS_PER_SECOND


def _steps(layer: Layer, name: str) -> int:
    """Multiply-adds, padding counted; for passes without them, reads of a tap."""
    outputs = math.prod(layer.output_shape)
    if name == BIAS_GRAD:
        return outputs
    if layer.is_pooling:
        return outputs * layer.reduction_lengths["forward"]
    windows = math.prod(layer.input_shape[2:] if layer.op == "conv_transpose2d" else layer.output_size)
    return layer.N * layer.C * (layer.K // layer.groups) * layer.R * layer.S * windows


def run_pass(
    layer: Layer, name: str, dtype: torch.dtype, layout: str, kernel: str = "", *, allow_tf32: bool = False
) -> Any:
    """Run pass `name` of `layer` once on the emulator, on `kernel` or on the plan's choice. Nothing else is launched.

    Returns what the pass computes from :func:`operands`.

    Raises:
        RuntimeError: the kernel refuses the problem, or does something wrong; the message says what.
    """
    o = operands(layer, name, dtype, layout)
    backend = _backend(kernel)
    *tensors, geometry = layer.forward(o.x, o.w, None, _PREPARE)
    image = tensors[0]
    if allow_tf32 and not layer.is_pooling:
        geometry = geometry._replace(allow_tf32=True)
    calls: dict[str, Any] = {
        "fprop": lambda: _forward(layer).call(image, o.w, None, geometry, backend),
        "dgrad": lambda: _backward(layer).call(o.dy, o.w, None, geometry, backend),
        "wgrad": lambda: autograd.Conv2dWgrad.call(*_output_and_input(layer, o.dy, image), geometry, backend),
        BIAS_GRAD: lambda: autograd.Conv2dBiasGrad.call(o.dy, geometry, backend),
        "forward": lambda: _pool(layer)(image, geometry, backend),
        "backward": lambda: _pool_backward(layer, o.dy, image, geometry, backend),
    }
    with torch.no_grad():
        return calls[name]()


def operands(layer: Layer, name: str, dtype: torch.dtype, layout: str) -> Operands:
    """The tensors of a pass; the same every time."""
    # What the benchmark has for a backward pass includes the gradient; bias_grad is none of its passes.
    case = Case(layer, "wgrad" if name == BIAS_GRAD else name, dtype)
    return make_operands(case, layout, torch.device("cpu"), torch.Generator().manual_seed(0))


#: Gives a call's arguments as the passes take them, instead of running it.
_PREPARE = types.SimpleNamespace(
    conv2d=functional.prepare_conv2d,
    conv_transpose2d=functional.prepare_conv_transpose2d,
    max_pool2d=functional.prepare_max_pool2d,
    avg_pool2d=functional.prepare_avg_pool2d,
    adaptive_max_pool2d=functional.prepare_adaptive_max_pool2d,
    adaptive_avg_pool2d=functional.prepare_adaptive_avg_pool2d,
)


def _backend(kernel: str) -> str:
    if not kernel:
        return "emulator"
    key = f"emulator:{kernel}"
    fixed: Any = {name: functools.partial(getattr(ops, name), kernel_name=kernel) for name in ops.OPERATORS}
    backends.ENTRY_POINTS[key] = types.SimpleNamespace(**fixed)  # type: ignore[assignment]
    return key


def _forward(layer: Layer) -> Any:
    return autograd.Conv2dDgrad if layer.op == "conv_transpose2d" else autograd.Conv2dFprop


def _backward(layer: Layer) -> Any:
    return autograd.Conv2dFprop if layer.op == "conv_transpose2d" else autograd.Conv2dDgrad


def _output_and_input(layer: Layer, gradient: Tensor | None, image: Tensor) -> tuple[Any, Any]:
    """Of the convolution whose wgrad it is."""
    return (image, gradient) if layer.op == "conv_transpose2d" else (gradient, image)


def _pool(layer: Layer) -> Any:
    calls: dict[str, Any] = {
        "max_pool2d": autograd.max_pool2d, "avg_pool2d": autograd.AvgPool2d.call,
        "adaptive_max_pool2d": autograd.MaxPool2d.call, "adaptive_avg_pool2d": autograd.AvgPool2d.call,
    }  # fmt: skip
    return calls[layer.op]


def _pool_backward(layer: Layer, gradient: Any, image: Tensor, geometry: Any, backend: str) -> Any:
    if layer.op in ("avg_pool2d", "adaptive_avg_pool2d"):
        return autograd.AvgPool2dBackward.call(gradient, geometry, backend)
    g = geometry
    if layer.op == "adaptive_max_pool2d":
        _, indices = torch.nn.functional.adaptive_max_pool2d(image.float(), g.output, return_indices=True)
        return autograd.MaxPool2dBackward.call(gradient, indices, geometry, backend)
    _, indices = torch.nn.functional.max_pool2d(
        image.float(), g.window, g.stride, g.padding, g.dilation, layer.ceil_mode, return_indices=True
    )
    if g.window[0] * g.window[1] <= 256:  # as the forward pass would have it
        indices = taps_of(indices, g.image[1], g.window, g.stride, g.padding, g.dilation)
    return autograd.MaxPool2dBackward.call(gradient, indices, geometry, backend)
