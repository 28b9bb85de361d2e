"""What ran in a model's training step, layer by layer, and how far it is from fp64.

One real training step is run under the launch log and under a watch on torch's dispatcher. Then each convolution and
pooling is run again alone, pass by pass, on the very tensors that it had in the step. The launches of those runs have
to be the step's, no more and no fewer: so the kernel named for a pass is the one that trained the model.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from cnnkernels.convert import restore
from cnnkernels.explain import trace
from cnnkernels.testing.oracles import Comparison, compare_to_fp64

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
_POOLINGS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)


@dataclass(frozen=True)
class LayerPass:
    """One pass of one layer: what ran, and its error. `kernels` is empty where the step had no use for the pass."""

    layer: str
    kind: str
    shape: str
    name: str
    kernels: tuple[str, ...]
    comparison: Comparison | None
    problem: str

    @property
    def passed(self) -> bool:
        return not self.problem


@dataclass(frozen=True)
class LayerReport:
    """Every pass of every layer; `problems` are faults of the step as a whole."""

    rows: tuple[LayerPass, ...]
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.problems and all(row.passed for row in self.rows)


@dataclass
class _Seen:
    """The tensors that a layer had in the step."""

    input: Tensor
    needs_input_grad: bool
    output_shape: torch.Size
    grad_output: Tensor | None = None

    def needs(self, gradient: str) -> bool:
        """Whether the step computed this gradient."""
        return self.grad_output is not None and (self.needs_input_grad or gradient in ("wgrad", "bias grad"))

    def on_cpu(self, function: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor | None]:
        """`function` of the input and of the output's gradient, on the CPU."""
        gradient = self.grad_output
        return function(self.input.cpu()), None if gradient is None else function(gradient.cpu())


class _OperatorWatch(TorchDispatchMode):
    """Counts torch's own convolution and pooling operators, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if name.startswith("aten.") and ("conv" in name or "pool" in name):
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


def check_layers(model: nn.Module, images: Tensor, labels: Tensor) -> LayerReport:
    """Check every convolution and pooling of `model` in a training step on `images` and `labels` of its device.

    Gradients, buffers (BatchNorm's statistics) and random state are left as they were; the model is left in training mode.
    """
    kinds = _CONVOLUTIONS + _POOLINGS
    layers: dict[str, nn.Module] = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    seen, step_launches, foreign = _run_step(model, layers, images, labels)
    problems = [f"{count} x {name} of torch ran in the step" for name, count in sorted(foreign.items())]
    rows: list[LayerPass] = []
    for name, layer in layers.items():
        if name not in seen:
            problems.append(f"{name} did not run")
            continue
        rows += _check_layer(name, layer, seen[name])
    alone = Counter(kernel for row in rows for kernel in row.kernels)
    if step_launches != alone:
        missing, more = step_launches - alone, alone - step_launches
        problems.append(f"the step's launches are not those of its layers: {dict(missing)} more, {dict(more)} fewer")
    return LayerReport(tuple(rows), tuple(problems))


def _run_step(
    model: nn.Module, layers: dict[str, nn.Module], images: Tensor, labels: Tensor
) -> tuple[dict[str, _Seen], Counter[str], Counter[str]]:
    seen: dict[str, _Seen] = {}

    def remember(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            (input,) = inputs
            seen[name] = layer = _Seen(input.detach(), input.requires_grad, output.shape)

            def keep_gradient(gradient: Tensor) -> None:
                layer.grad_output = gradient.detach()

            if output.requires_grad:
                output.register_hook(keep_gradient)

        return hook

    hooks = [layer.register_forward_hook(remember(name)) for name, layer in layers.items()]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    devices = [images.device] if images.is_cuda else []
    try:
        with torch.random.fork_rng(devices=devices), trace() as launched, _OperatorWatch() as watch:
            model.train()
            loss = functional.cross_entropy(model(images), labels)
            torch.autograd.grad(loss, [parameter for parameter in model.parameters() if parameter.requires_grad])
    finally:
        for hook in hooks:
            hook.remove()
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return seen, Counter(launched), watch.seen


def _check_layer(name: str, layer: nn.Module, seen: _Seen) -> list[LayerPass]:
    kind, shape = _describe(layer), f"{_extent(seen.input.shape)} → {_extent(seen.output_shape)}"
    # The same layer on torch's own operators, on the CPU, which has no tf32.
    plain = copy.deepcopy(layer).cpu()
    restore(plain)
    rows = []
    for pass_name, reduction_length in _reduction_lengths(layer, seen).items():
        compute = _PASSES[pass_name]
        kernels: tuple[str, ...] = ()
        comparison, problem = None, ""
        if pass_name in ("fprop", "forward") or seen.needs(pass_name):
            result, kernels = compute(layer, seen.input, seen.grad_output)
            magnitude = None
            if isinstance(layer, _CONVOLUTIONS):
                magnitude = compute(_absolute(plain), *seen.on_cpu(lambda tensor: tensor.double().abs()))[0]
            comparison = compare_to_fp64(
                result,
                compute(copy.deepcopy(plain).double(), *seen.on_cpu(Tensor.double))[0],
                reduction_length,
                compute(plain, *seen.on_cpu(lambda tensor: tensor))[0],
                magnitude=magnitude,
            )
            problem = comparison.message if kernels else "no kernel of ours ran"
        rows.append(LayerPass(name, kind, shape, pass_name, kernels, comparison, problem))
    return rows


def _absolute(plain: nn.Module) -> nn.Module:
    absolute = copy.deepcopy(plain).double()
    with torch.no_grad():
        for parameter in absolute.parameters():
            parameter.abs_()
    return absolute


def _forward(layer: nn.Module, input: Tensor, grad_output: Tensor | None) -> tuple[Tensor, tuple[str, ...]]:
    with torch.no_grad(), trace() as launched:
        output = layer(input)
    return output, tuple(launched)


def _gradient(of: str) -> Callable[[nn.Module, Tensor, Tensor | None], tuple[Tensor, tuple[str, ...]]]:
    def compute(layer: nn.Module, input: Tensor, grad_output: Tensor | None) -> tuple[Tensor, tuple[str, ...]]:
        tensors = {name: parameter.detach() for name, parameter in layer.named_parameters()} | {"input": input}
        differentiated = tensors[of] = tensors[of].detach().requires_grad_()
        parameters = {name: tensor for name, tensor in tensors.items() if name != "input"}
        output = functional_call(layer, parameters, (tensors["input"],))
        with trace() as launched:
            (gradient,) = torch.autograd.grad(output, differentiated, grad_output)
        return gradient, tuple(launched)

    return compute


_PASSES = {
    "fprop": _forward,
    "dgrad": _gradient("input"),
    "wgrad": _gradient("weight"),
    "bias grad": _gradient("bias"),
    "forward": _forward,
    "backward": _gradient("input"),
}


def _reduction_lengths(layer: nn.Module, seen: _Seen) -> dict[str, int]:
    """The passes that the layer has, each with the number of terms in one of its results."""
    module: Any = layer
    if isinstance(layer, _POOLINGS):
        if isinstance(layer, (nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)):
            (H, W), (P, Q) = seen.input.shape[-2:], seen.output_shape[-2:]
            area = (-(-H // P) + 1) * (-(-W // Q) + 1)
            return {"forward": area, "backward": (-(-P // H) + 1) * (-(-Q // W) + 1)}
        window = module.kernel_size
        area = window * window if isinstance(window, int) else window[0] * window[1]
        return {"forward": area, "backward": area}
    taps, pixels = module.kernel_size[0] * module.kernel_size[1], seen.output_shape.numel() // seen.output_shape[1]
    if isinstance(layer, nn.ConvTranspose2d):
        pixels = max(pixels, seen.input.numel() // seen.input.shape[1])
    lengths = {
        "fprop": module.in_channels // module.groups * taps,
        "dgrad": module.out_channels // module.groups * taps,
        "wgrad": pixels,
        "bias grad": pixels,
    }
    return lengths if module.bias is not None else {name: lengths[name] for name in ("fprop", "dgrad", "wgrad")}


def _describe(layer: nn.Module) -> str:
    size: Any = getattr(layer, "kernel_size", None) or layer.output_size
    height, width = (size, size) if isinstance(size, int) else size
    return f"{type(layer).__name__} {height}x{width}"


def _extent(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
