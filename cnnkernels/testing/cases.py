"""One pass of one problem made ready to run: operands, the raw operator's call, and what it should give."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cnnkernels.backends import ENTRY_POINTS
from cnnkernels.epilogue import ACTIVATIONS, Epilogue, Norm
from cnnkernels.testing.operands import Values, is_channels_last, lay_out, layout_of, make_operand
from cnnkernels.testing.problem import AdaptivePool2dProblem
from cnnkernels.testing.problems import Conv2dProblem, Pool2dProblem
from cnnkernels.testing.references import (
    Reference,
    adaptive_max_pool2d_with_indices,
    adaptive_pool2d_reference,
    conv2d_reference,
    max_pool2d_with_indices,
    pool2d_reference,
    pyramid,
    window_indices,
)

Problem = Conv2dProblem | Pool2dProblem | AdaptivePool2dProblem
Result = Tensor | tuple[Tensor, ...]

# Integers that every divisor of an average divides grow with this; beyond it their sums leave the half types' digits.
_LARGEST_SCALE = 64


@dataclass(frozen=True)
class Case:
    """A pass on given operands. `run` takes a kernel's name ("" for the plan's choice) and returns what it computes.

    `exact` says that every order of summation gives `reference.fp64` to the last bit; `further` results are exact:
    max pooling's indices, or the later levels of a chain.
    """

    run: Callable[[str], Result]
    reference: Reference
    further: tuple[Tensor, ...]
    exact: bool
    channels_last: bool


def make_case(
    problem: Problem,
    name: str,
    dtype: torch.dtype,
    values: Values = "normal",
    device: str = "cpu",
    backend: str = "emulator",
    *,
    tf32: bool = False,
) -> Case:
    """Pass `name` of `problem` with operands that are the same every time, by `backend`'s operator.

    "integers" gives an exact case where the pass has one: not where an average divides by what no small scale cancels.
    `tf32`: a convolution may multiply fp32 as tf32, which has all of the operands' digits.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(f"{name} {problem} {values}".encode()))
    operators = ENTRY_POINTS[backend]
    if isinstance(problem, Pool2dProblem):
        return _pool2d_case(problem, name, dtype, values, device, operators, generator)
    if isinstance(problem, AdaptivePool2dProblem):
        return _adaptive_pool2d_case(problem, name, dtype, values, device, operators, generator)
    density = 1.0
    case = _conv2d_case(problem, name, dtype, values, density, device, operators, generator, tf32)
    while values == "integers" and not case.exact:
        density /= 2
        case = _conv2d_case(problem, name, dtype, values, density, device, operators, generator, tf32)
    return case


def _conv2d_case(
    problem: Conv2dProblem,
    name: str,
    dtype: torch.dtype,
    values: Values,
    density: float,
    device: str,
    operators: Any,
    generator: torch.Generator,
    tf32: bool,
) -> Case:
    shapes = problem.shapes | {"grad_output": problem.shapes["output"]}

    def operand(role: str) -> Tensor:
        layout = layout_of(role, problem.layout) if len(shapes[role]) == 4 else "contiguous"
        scale = 4 if role == "output" else 1  # for relu6 to have something to cut
        return make_operand(
            shapes[role],
            dtype,
            generator,
            values=values,
            layout=layout,
            device=device,
            scale=scale,
            density=density,
            tf32=tf32,
        )

    operands = {role: operand(role) for role in _CONV2D_OPERANDS[name]}
    # A gradient has no bias; a transposed convolution, which is the same pass, may have one.
    bias = {"fprop": "bias", "fused": "bias", "dgrad": "transposed_bias"}.get(name)
    if bias and problem.bias and (name != "dgrad" or problem.transposed):
        operands[bias] = operand(bias)
    channels_last = is_channels_last(layout_of("weight" if name == "wgrad" else "output", problem.layout))
    operator: Any = getattr(operators, f"conv2d_{name}")
    arguments: tuple[Any, ...] = tuple(operands[role] for role in _CONV2D_OPERANDS[name])
    if bias:
        arguments += (operands.get(bias),)
    epilogue = None
    if name == "fused":
        epilogue = _epilogue(problem, dtype, values, channels_last, device, generator)
        norm = (None, None, None, None, 0.0) if epilogue.norm is None else tuple(epilogue.norm)
        arguments += (*norm, epilogue.residual, epilogue.activation or "none", epilogue.negative_slope)
    if name == "activation_grad":
        epilogue = _lines(generator)
        arguments += (epilogue.activation, epilogue.negative_slope, channels_last)
    reference = conv2d_reference(problem, name, operands, epilogue)
    if name not in ("bias_grad", "activation_grad"):
        output = problem.output_size
        size = {"dgrad": (problem.H, problem.W), "wgrad": (problem.R, problem.S)}.get(name, output)
        arguments += (size, problem.stride, problem.pad_before, problem.dilation, problem.groups, channels_last)
    # The gradient of an activation is no sum.
    exact = name == "activation_grad" or (values == "integers" and _sums_are_exact(reference, dtype))
    options: dict[str, Any] = {}
    if problem.padding_mode != "zeros" and name not in ("bias_grad", "activation_grad"):
        options["padding_mode"] = problem.padding_mode
    if tf32:
        options["allow_tf32"] = True
    return Case(lambda kernel: operator(*arguments, kernel, **options), reference, (), exact, channels_last)


def _epilogue(
    problem: Conv2dProblem,
    dtype: torch.dtype,
    values: Values,
    channels_last: bool,
    device: str,
    generator: torch.Generator,
) -> Epilogue:
    """What follows the convolution: every activation comes, with and without the rest. Of integers, what leaves integers."""
    shape = problem.shapes["output"]
    choice = int(torch.randint(1 << 30, (), generator=generator))

    def chance() -> bool:
        nonlocal choice
        choice, odd = divmod(choice, 2)
        return bool(odd)

    residual = None
    if chance() or chance():
        form = torch.channels_last if channels_last else torch.contiguous_format
        residual = make_operand(shape, dtype, generator, values=values, device=device).contiguous(memory_format=form)
    if values == "integers":
        return Epilogue("relu" if chance() else "relu6", residual=residual)
    norm = None
    if chance() or chance():
        norm_dtype = torch.float32 if dtype.itemsize == 2 and chance() else dtype
        mean, variance, scale, shift = (
            make_operand(shape[1:2], norm_dtype, generator, values=values, device=device) for _ in range(4)
        )
        affine = chance()
        norm = Norm(mean, variance.abs() + 0.5, scale if affine else None, shift if affine else None)
    names = (None, *ACTIVATIONS)
    return Epilogue(names[choice % len(names)], 0.25, residual, norm)


def _lines(generator: torch.Generator) -> Epilogue:
    """An activation whose gradient can be told from its result."""
    choice = int(torch.randint(3, (), generator=generator))
    return Epilogue(("relu", "relu6", "leaky_relu")[choice], 0.25)


_CONV2D_OPERANDS = {
    "fprop": ("input", "weight"),
    "fused": ("input", "weight"),
    "dgrad": ("grad_output", "weight"),
    "wgrad": ("grad_output", "input"),
    "bias_grad": ("grad_output",),
    "activation_grad": ("grad_output", "output"),
}


def _pool2d_case(
    problem: Pool2dProblem,
    name: str,
    dtype: torch.dtype,
    values: Values,
    device: str,
    operators: Any,
    generator: torch.Generator,
) -> Case:
    scale = _cancelling_scale(problem) if values == "integers" and name.startswith("avg") else 1

    def operand(size: tuple[int, int], values: Values) -> Tensor:
        shape = (problem.N, problem.C, *size)
        return make_operand(shape, dtype, generator, values=values, layout=problem.layout, device=device, scale=scale)

    image = (problem.H, problem.W)
    input = operand(image, problem.values if values == "normal" else values)
    operands, indices = {"input": input}, None
    if name.startswith("max"):
        indices = max_pool2d_with_indices(problem, input.cpu())[1].to(device)
        operands["indices"] = lay_out(indices, problem.layout)
        given = window_indices(problem, indices) if problem.indices == "window" else indices
    if name.endswith("backward"):
        operands["grad_output"] = operand(problem.output_size, values)
    reference = pool2d_reference(problem, name, {role: operands[role] for role in _POOL2D_OPERANDS[name]})
    channels_last = is_channels_last(problem.layout)
    operator: Any = getattr(operators, _POOL2D_OPERATORS[name])
    if indices is not None:
        indices = given
        operands["indices"] = lay_out(given, problem.layout)
    arguments: tuple[Any, ...] = tuple(operands[role] for role in _POOL2D_OPERANDS[name])
    if name != "max_gather":
        arguments += (image if name.endswith("backward") else problem.output_size,)
    arguments += (problem.window, problem.steps, problem.padding)
    arguments += (
        (problem.dilation,) if name.startswith("max") else (problem.count_include_pad, problem.divisor_override)
    )
    levels: tuple[Tensor, ...] = ()
    if name == "max" and problem.levels == 3:
        operator, arguments = operators.max_pool2d_pyramid, (input, problem.window[0])
        levels = tuple(pyramid(problem, input.cpu())[1:])
    elif name == "max" and problem.indices != "none":
        operator = operators.max_pool2d_with_indices
        arguments += (problem.indices == "flat",)
    arguments += (channels_last,)
    # What selects values computes nothing, so that it is exact for all of them.
    exact = name in ("max", "max_gather") or (values == "integers" and scale > 0 and _sums_are_exact(reference, dtype))
    exacts = levels or (() if indices is None else (indices,))
    return Case(lambda kernel: operator(*arguments, kernel), reference, exacts, exact, channels_last)


_POOL2D_OPERANDS = {
    "max": ("input",),
    "max_backward": ("grad_output", "indices"),
    "max_gather": ("input", "indices"),
    "avg": ("input",),
    "avg_backward": ("grad_output",),
}
_POOL2D_OPERATORS = {
    "max": "max_pool2d",
    "max_backward": "max_pool2d_backward",
    "max_gather": "max_pool2d_gather",
    "avg": "avg_pool2d",
    "avg_backward": "avg_pool2d_backward",
}


def _adaptive_pool2d_case(
    problem: AdaptivePool2dProblem,
    name: str,
    dtype: torch.dtype,
    values: Values,
    device: str,
    operators: Any,
    generator: torch.Generator,
) -> Case:
    scale = _adaptive_scale(problem) if values == "integers" and "avg" in name else 1

    def operand(size: tuple[int, int], values: Values) -> Tensor:
        shape = (problem.N, problem.C, *size)
        return make_operand(shape, dtype, generator, values=values, layout=problem.layout, device=device, scale=scale)

    image = (problem.H, problem.W)
    input = operand(image, problem.values if values == "normal" else values)
    operands, indices = {"input": input}, None
    if "max" in name:
        indices = adaptive_max_pool2d_with_indices(problem, input.cpu())[1].to(device)
        operands["indices"] = lay_out(indices, problem.layout)
    if name.endswith("backward"):
        operands["grad_output"] = operand(problem.output, values)
    roles = {"adaptive_max_backward": ("grad_output", "indices"), "adaptive_avg_backward": ("grad_output",)}
    operands = {role: operands[role] for role in roles.get(name, ("input",))}
    reference = adaptive_pool2d_reference(problem, name, operands)
    channels_last = is_channels_last(problem.layout)
    operator: Any = getattr(operators, name.replace("max", "max_pool2d").replace("avg", "avg_pool2d"))
    arguments = (*operands.values(), image if name.endswith("backward") else problem.output, channels_last)
    exact = name == "adaptive_max" or (values == "integers" and scale > 0 and _sums_are_exact(reference, dtype))
    further = () if indices is None else (indices,)
    return Case(lambda kernel: operator(*arguments, kernel), reference, further, exact, channels_last)


def _adaptive_scale(problem: AdaptivePool2dProblem) -> int:
    """What every window's size divides; 0 if that is too large."""
    extents = []
    for image, windows in zip((problem.H, problem.W), problem.output, strict=True):
        extents.append({-(-(i + 1) * image // windows) - i * image // windows for i in range(windows)})
    scale = math.lcm(*(rows * columns for rows in extents[0] for columns in extents[1]))
    return scale if scale <= _LARGEST_SCALE else 0


def _sums_are_exact(reference: Reference, dtype: torch.dtype) -> bool:
    """Whether sums of integers stay within the digits of their accumulator, and end within those of the result."""
    if not reference.fp64.numel():
        return True
    accumulator = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    return bool(
        reference.absolute_sum.max() <= 2 ** _digits(accumulator) and reference.fp64.abs().max() <= 2 ** _digits(dtype)
    )


def _digits(dtype: torch.dtype) -> int:
    return 1 - round(math.log2(torch.finfo(dtype).eps))


def _cancelling_scale(problem: Pool2dProblem) -> int:
    """What every divisor of the average divides: a divisor is the area of a window, cut off at the border or not."""
    if problem.divisor_override is not None:
        return abs(problem.divisor_override)
    rows, columns = (range(1, extent + 1) for extent in problem.window)
    scale = math.lcm(*(row * column for row in rows for column in columns))
    return scale if scale <= _LARGEST_SCALE else 0
