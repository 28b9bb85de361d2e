"""The passes of convolution and pooling computed by torch, for references: in fp64, and in the dtype under test.

A pass is named as in the catalogue: fprop, dgrad, wgrad, bias_grad, activation_grad; max, max_backward, max_gather, avg, avg_backward; adaptive_max, ...
Convolutions are written so that padding before the image and the output's size say everything, as in the raw operators:
the image is padded, or cropped, on its far side to what the windows need. Gradients are autograd's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels.epilogue import Epilogue, Norm
from cnnkernels.testing.problem import AdaptivePool2dProblem
from cnnkernels.testing.problems import Conv2dProblem, Pair, Pool2dProblem


@dataclass(frozen=True)
class Reference:
    """What a pass should give, with the sum of each result's |terms| and the size that sums of such terms wander to."""

    fp64: Tensor
    torch_result: Tensor
    absolute_sum: Tensor
    wander: Tensor
    reduction_length: int
    #: An error that is allowed in any case, where results are rounded on the way.
    at_least: Tensor | None = None


def conv2d_reference(
    problem: Conv2dProblem, name: str, operands: dict[str, Tensor], epilogue: Epilogue | None = None
) -> Reference:
    """The reference of pass `name` for `operands` (see :func:`conv2d_pass`) of the dtype under test.

    torch's own result is computed in fp32 for the half types and rounded once at the end: its half-precision CPU
    convolutions are slow and have been wrong (pytorch issues 183815, 169688).
    """
    on_cpu = {role: operand.detach().cpu() for role, operand in operands.items()}
    dtype = next(iter(on_cpu.values())).dtype
    if name == "activation_grad":
        assert epilogue is not None
        gradient = _activation_grad(epilogue, on_cpu["grad_output"], on_cpu["output"])
        return Reference(gradient.double(), gradient, gradient.double().abs(), gradient.double().abs(), 1)
    wide = {role: operand.double() for role, operand in on_cpu.items()}
    narrow = {role: operand.to(_computing_dtype(dtype)) for role, operand in on_cpu.items()}
    N, _, P, Q = problem.shapes["output"]
    taps = problem.R * problem.S
    lengths = {
        "fprop": problem.C // problem.groups * taps,
        "fused": problem.C // problem.groups * taps,
        "dgrad": problem.K // problem.groups * taps,
        "wgrad": N * P * Q,
        "bias_grad": N * P * Q,
    }
    reference = Reference(
        conv2d_pass(problem, name, wide),
        conv2d_pass(problem, name, narrow).to(dtype),
        conv2d_pass(problem, name, {role: operand.abs() for role, operand in wide.items()}),
        conv2d_pass(problem, name, {role: operand.square() for role, operand in wide.items()}).clamp(min=0).sqrt(),
        lengths[name],
    )
    return reference if epilogue is None else _followed_by(epilogue, reference, dtype)


def _activation_grad(epilogue: Epilogue, gradient: Tensor, output: Tensor) -> Tensor:
    """torch's gradient before an activation, from what it gave."""
    aten: Any = torch.ops.aten
    if epilogue.activation == "relu6":
        result: Tensor = aten.hardtanh_backward(gradient, output, 0.0, 6.0)
    elif epilogue.activation == "leaky_relu":
        result = aten.leaky_relu_backward(gradient, output, epilogue.negative_slope, True)
    else:
        result = aten.threshold_backward(gradient, output, 0)
    return result


def _followed_by(epilogue: Epilogue, reference: Reference, dtype: torch.dtype) -> Reference:
    """The reference of a convolution with an epilogue, none of whose parts is steeper than its own slope and 1.13, gelu's."""

    def to(wanted: torch.dtype, part: object) -> Any:
        if isinstance(part, tuple):
            return Norm(*(to(wanted, each) for each in part))
        return part.detach().cpu().to(wanted) if isinstance(part, Tensor) else part

    def converted(wanted: torch.dtype) -> Epilogue:
        return epilogue._replace(residual=to(wanted, epilogue.residual), norm=to(wanted, epilogue.norm))

    wide, added = converted(torch.float64), torch.zeros((), dtype=torch.float64)
    factor: Tensor = added + 1.13
    if wide.norm is not None:
        mean, variance, scale, shift, eps = wide.norm
        per_channel = (1 if scale is None else scale.abs()) / (variance + eps).sqrt()
        offset = mean.abs() * per_channel + (0 if shift is None else shift.abs())
        factor, added = 1.13 * per_channel.view(-1, 1, 1), added + offset.view(-1, 1, 1)
    if wide.residual is not None:
        added = added + wide.residual.abs()
    computing = _computing_dtype(dtype)
    # Rounded where separate operators round: to the dtype under test before the residual is added.
    normed = converted(computing)._replace(residual=None, activation=None).apart(reference.torch_result.to(computing))
    rest = converted(computing)._replace(norm=None)
    result = wide.apart(reference.fp64)
    z = wide._replace(residual=None, activation=None).apart(reference.fp64)
    # Half an ulp of z, as steep as the activation is, and half of the result's; the sum's own error is in fp32, 2^13 finer and more.
    twice_rounded = torch.finfo(dtype).eps / 2 * (1.13 * z.abs() + result.abs()) * (1 + 2**-6)
    return Reference(
        result,
        rest.apart(normed.to(dtype).to(computing)).to(dtype),
        reference.absolute_sum * factor + added,
        reference.wander * factor + added,
        reference.reduction_length,
        twice_rounded if dtype.itemsize == 2 else None,
    )


def conv2d_pass(problem: Conv2dProblem, name: str, operands: dict[str, Tensor]) -> Tensor:
    """One pass by torch. `operands` holds those it reads of input, weight, bias, transposed_bias and grad_output."""
    if name == "bias_grad":
        return operands["grad_output"].sum((0, 2, 3))
    some = next(iter(operands.values()))
    zeros = {role: some.new_zeros(shape) for role, shape in problem.shapes.items()}
    if name in ("fprop", "fused"):
        return _convolve(problem, operands["input"], operands["weight"]) + _bias(operands.get("bias"))
    differentiated = "input" if name == "dgrad" else "weight"
    arguments = {role: operands.get(role, zeros[role]) for role in ("input", "weight")}
    arguments[differentiated] = zeros[differentiated].requires_grad_()
    output = _convolve(problem, arguments["input"], arguments["weight"])
    (gradient,) = torch.autograd.grad(output, arguments[differentiated], operands["grad_output"])
    return gradient + _bias(operands.get("transposed_bias") if name == "dgrad" else None)


def pool2d_reference(problem: Pool2dProblem, name: str, operands: dict[str, Tensor]) -> Reference:
    """The reference of pass `name` for `operands`: input, grad_output and indices, those of them that it reads."""
    on_cpu = {role: operand.detach().cpu() for role, operand in operands.items()}
    dtype = next(operand.dtype for operand in on_cpu.values() if operand.is_floating_point())

    def compute(to: torch.dtype, absolute: bool = False) -> Tensor:
        values = {role: operand.to(to) if operand.is_floating_point() else operand for role, operand in on_cpu.items()}
        if absolute:
            values = {role: operand.abs() for role, operand in values.items()}
        return pool2d_pass(problem, name, values)

    R, S = problem.window
    lengths = {"avg": R * S, "avg_backward": problem.overlap, "max_backward": problem.overlap}
    # Windows are small: the sum of |values| serves as the size of their partial sums as well.
    absolute_sum = compute(torch.float64, absolute=True).abs()
    result, own = compute(torch.float64), compute(_computing_dtype(dtype)).to(dtype)
    return Reference(result, own, absolute_sum, absolute_sum, lengths.get(name, 1))


def pool2d_pass(problem: Pool2dProblem, name: str, operands: dict[str, Tensor]) -> Tensor:
    """One pass by torch. max_backward adds every gradient at its index; max_gather reads the input there."""
    if name == "max":
        return max_pool2d_with_indices(problem, operands["input"])[0]
    if name == "max_gather":
        taken = operands["input"].flatten(2).gather(2, operands["indices"].flatten(2))
        return taken.view(operands["indices"].shape)
    if name == "max_backward":
        grad_output, indices = operands["grad_output"].flatten(2), operands["indices"].flatten(2)
        gradient = grad_output.new_zeros(problem.N, problem.C, problem.H * problem.W)
        return gradient.scatter_add(2, indices, grad_output).view(problem.N, problem.C, problem.H, problem.W)
    if name == "avg":
        return _average(problem, operands["input"])
    grad_output = operands["grad_output"]
    image = grad_output.new_zeros(problem.N, problem.C, problem.H, problem.W).requires_grad_()
    return torch.autograd.grad(_average(problem, image), image, grad_output)[0]


def max_pool2d_with_indices(problem: Pool2dProblem, input: Tensor) -> tuple[Tensor, Tensor]:
    """torch's max pooling and its indices. Half inputs go through fp32, which holds each of their values."""
    output, indices = F.max_pool2d(
        input.to(_computing_dtype(input.dtype)),
        problem.window,
        problem.stride,
        problem.padding,
        problem.dilation,
        problem.ceil_mode,
        return_indices=True,
    )
    return output.to(input.dtype), indices


def pyramid(problem: Pool2dProblem, input: Tensor) -> list[Tensor]:
    """The levels of a chain of max poolings by torch."""
    results: list[Tensor] = []
    for _ in range(problem.levels):
        results.append(max_pool2d_with_indices(problem, results[-1] if results else input)[0])
    return results


def window_indices(problem: Pool2dProblem, indices: Tensor) -> Tensor:
    """Flat indices h * W + w as taps r * S + s of their windows, uint8; 0 for a window that holds no pixel."""
    return taps_of(indices, problem.W, problem.window, problem.steps, problem.padding, problem.dilation)


def taps_of(indices: Tensor, width: int, window: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    P, Q = indices.shape[2:]
    top = torch.arange(P).view(P, 1) * stride[0] - padding[0]
    left = torch.arange(Q) * stride[1] - padding[1]
    rows, columns = indices.cpu() // width - top, indices.cpu() % width - left
    r, s = rows // dilation[0], columns // dilation[1]
    within = (rows % dilation[0] == 0) & (columns % dilation[1] == 0)
    within &= (r >= 0) & (r < window[0]) & (s >= 0) & (s < window[1])
    return torch.where(within, r * window[1] + s, 0).to(torch.uint8).to(indices.device)


def adaptive_pool2d_reference(problem: AdaptivePool2dProblem, name: str, operands: dict[str, Tensor]) -> Reference:
    """The reference of pass `name` for `operands`: input, grad_output and indices, those of them that it reads."""
    on_cpu = {role: operand.detach().cpu() for role, operand in operands.items()}
    dtype = next(operand.dtype for operand in on_cpu.values() if operand.is_floating_point())

    def compute(to: torch.dtype, absolute: bool = False) -> Tensor:
        values = {role: operand.to(to) if operand.is_floating_point() else operand for role, operand in on_cpu.items()}
        if absolute:
            values = {role: operand.abs() for role, operand in values.items()}
        return _adaptive_pool2d_pass(problem, name, values)

    (P, Q), (H, W) = problem.output, (problem.H, problem.W)
    length = (
        (-(-H // P) + 1) * (-(-W // Q) + 1) if not name.endswith("backward") else (-(-P // H) + 1) * (-(-Q // W) + 1)
    )
    absolute_sum = compute(torch.float64, absolute=True).abs()
    result, own = compute(torch.float64), compute(_computing_dtype(dtype)).to(dtype)
    return Reference(result, own, absolute_sum, absolute_sum, 1 if name == "adaptive_max" else length)


def _adaptive_pool2d_pass(problem: AdaptivePool2dProblem, name: str, operands: dict[str, Tensor]) -> Tensor:
    if name == "adaptive_max":
        return adaptive_max_pool2d_with_indices(problem, operands["input"])[0]
    if name == "adaptive_avg":
        return F.adaptive_avg_pool2d(operands["input"], problem.output)
    grad_output = operands["grad_output"]
    if name == "adaptive_max_backward":
        gradient = grad_output.new_zeros(problem.N, problem.C, problem.H * problem.W)
        gradient = gradient.scatter_add(2, operands["indices"].flatten(2), grad_output.flatten(2))
        return gradient.view(problem.N, problem.C, problem.H, problem.W)
    image = grad_output.new_zeros(problem.N, problem.C, problem.H, problem.W).requires_grad_()
    return torch.autograd.grad(F.adaptive_avg_pool2d(image, problem.output), image, grad_output)[0]


def adaptive_max_pool2d_with_indices(problem: AdaptivePool2dProblem, input: Tensor) -> tuple[Tensor, Tensor]:
    """torch's adaptive max pooling and its indices. Half inputs go through fp32, which holds each of their values."""
    computing = input.to(_computing_dtype(input.dtype))
    output, indices = F.adaptive_max_pool2d(computing, problem.output, return_indices=True)
    return output.to(input.dtype), indices


def _convolve(problem: Conv2dProblem, input: Tensor, weight: Tensor) -> Tensor:
    (P, Q), (top, left) = problem.output_size, problem.pad_before
    bottom = (P - 1) * problem.stride[0] + problem.dilation[0] * (problem.R - 1) + 1 - problem.H - top
    right = (Q - 1) * problem.stride[1] + problem.dilation[1] * (problem.S - 1) + 1 - problem.W - left
    if problem.padding_mode == "zeros":
        padded = F.pad(input, (left, right, top, bottom))
    else:  # no cropping, which torch's circular mode takes for another shift; what is too much is less than a stride
        padded = F.pad(input, (left, max(0, right), top, max(0, bottom)), mode=problem.padding_mode)
    return F.conv2d(padded, weight, None, problem.stride, 0, problem.dilation, problem.groups)


def _average(problem: Pool2dProblem, input: Tensor) -> Tensor:
    return F.avg_pool2d(
        input,
        problem.window,
        problem.stride,
        problem.padding,
        problem.ceil_mode,
        problem.count_include_pad,
        problem.divisor_override,
    )


def _bias(bias: Tensor | None) -> Tensor | float:
    return 0.0 if bias is None else bias.view(-1, 1, 1)


def _computing_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
