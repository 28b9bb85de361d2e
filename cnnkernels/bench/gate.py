"""Correctness first: a provider whose result is not right, fresh and of full precision gets no number.

Every provider passes the same gate, ours, torch's and a vendor's. It is asked twice before it is timed and once after:

1. with data A, its memory poisoned with NaN beforehand;
2. with data B written into the same tensors: a result remembered from A is wrong now, and the result it gave for A must
   not have changed meanwhile;
3. after timing, with data C written into the tensors that were timed, through the very thing that was timed: for the
   first and the last set of buffers and one in between, which nobody knows beforehand. What a provider prepared of a
   filter earlier is wrong now.

A result has to have torch's shape and the case's dtype, and of ours also the memory format of the operands: a baseline that
leaves it to its user has less to do, which is said. The operands must be as they were. Against fp64, with M the size to which sums of terms of random sign wander (see cnnkernels.testing.oracles) and u
a dtype's unit roundoff, two things are demanded:

* each element is off by no more than rounding explains: 6 sqrt(L + 1) u_acc M, and u_out for each time it is stored. In
  fp32, where implementations may trade accuracy for speed by Winograd's or Fourier's transformations, u_tf32 M / 2 is
  allowed to one element: a missing or doubled term of the sum is off by far more;
* in fp32 and fp64 the root mean square of the errors is below u_low M / 8, u_low being that of the next format down (tf32's
  2^-11, fp32's 2^-24). Rounding two operands to that format costs about 0.6 u_low M, so a provider that does so stands
  five times above the bar. In the half formats the products are exact in fp32, and the first rule alone tells an
  accumulator of half precision from one of single.

fp32 that may be multiplied as tf32 loses bits of both operands, which a GPU rounds (0.6 u_tf32 M, as above) or cuts off: each
then lacks 0 to 2 u_tf32 of itself, u_tf32 on average with a deviation of 0.58 u_tf32, and a product two such shares. So its sum
lacks 2 u_tf32 of itself, and 0.82 u_tf32 M of random sign: the first and 6 times the second are allowed to an element. The first
rule alone tells bf16 from it, whose two roundings cost 4.8 u_tf32 M, and more at the worst of many elements.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels.bench.flags import without_search
from cnnkernels.bench.layer import Layer
from cnnkernels.bench.operands import MEMORY_FORMATS, Case, Operands, make_operands, renew
from cnnkernels.testing.oracles import compare_to_fp64

_UNIT_TF32 = 2.0**-11
# Unit roundoff of the format that a cheat would compute in instead.
_LOWER = {torch.float32: _UNIT_TF32, torch.float64: 2.0**-24}


@dataclass(frozen=True)
class Expected:
    """The fp64 result, the size M to which partial sums wander, and the values that are rounded on the way."""

    value: Tensor
    wander: Tensor
    intermediate: Tensor | None  # the sum of |values| stored and read again before the result, where the pass has such


@dataclass(frozen=True)
class Verdict:
    """Worst error, what is allowed at its place, and a sentence where the gate is red."""

    error: float
    allowed: float
    message: str = ""

    @property
    def passed(self) -> bool:
        return not self.message


def expect(case: Case, operands: Operands) -> Expected:
    """What `case` should give for `operands`: torch's fp64 result on their device."""
    with without_search():
        return _expect(case, operands)


def _expect(case: Case, operands: Operands) -> Expected:
    x, w, b, z, dy = (None if tensor is None else tensor.detach().double() for tensor in operands.all())
    assert x is not None
    layer = case.layer
    if layer.is_pooling:
        value = _pooling(layer, case.name, x, dy)
        # Windows are small: the sum of |values| bounds their partial sums well enough. A maximum is not rounded at all.
        exact = "max" in layer.op and case.name == "forward"
        absolute = None if dy is None else dy.abs()
        if "max" in layer.op:
            wander = torch.zeros_like(value) if exact else _pooling(layer, case.name, x, absolute)
        else:
            wander = _pooling(layer, case.name, x.abs(), absolute)
        # torch divides each gradient by the window before it adds them up, and rounds it to the operands' dtype.
        rounded = wander if case.name == "backward" and "avg" in layer.op else None
        return Expected(value, wander, rounded)
    assert w is not None
    if case.is_backward:
        assert dy is not None
        value = _gradient(layer, case.name, x, w, dy)
        return Expected(value, _gradient(layer, case.name, x**2, w**2, dy**2).clamp(min=0).sqrt(), None)
    plain = layer.forward(x, w)
    wander = layer.forward(x**2, w**2).clamp(min=0).sqrt()
    if b is None:
        return Expected(plain, wander, None)
    column = b.view(-1, 1, 1)
    biased = plain + column
    total = biased if z is None else biased + z
    # A bias is added before or after the first rounding, and a sum in between may be stored too.
    intermediate = plain.abs() + biased.abs() + total.abs()
    return Expected(F.relu(total), (wander**2 + column**2).sqrt(), intermediate)


class Evidence:
    """The data that everyone is shown for one case, and what should come of it: each computed once."""

    def __init__(self, case: Case, device: torch.device, seed: int) -> None:
        self.case, self.device, self.seed = case, device, seed
        self._operands: dict[int, Operands] = {}
        self._expected: dict[int, Expected] = {}
        self._afterwards: dict[int, Expected] = {}

    def operands(self, number: int, layout: str) -> Operands:
        """A copy of data set `number`, A being 0 and B 1, in `layout`."""
        if number not in self._operands:
            generator = torch.Generator(self.device).manual_seed(self.seed + number)
            self._operands[number] = make_operands(self.case, "nchw", self.device, generator)
        copy = make_operands(self.case, layout, self.device)
        copy.copy_(self._operands[number])
        return copy

    def expected(self, number: int) -> Expected:
        if number not in self._expected:
            self._expected[number] = expect(self.case, self.operands(number, "nchw"))
        return self._expected[number]

    def places(self, sets: int) -> list[int]:
        """Which of `sets` are looked at after timing: the first, the last, and any."""
        return sorted({0, sets - 1, secrets.randbelow(sets)})

    def renew(self, operands: Operands, place: int) -> Expected:
        """Write data C into `operands`, the timed set number `place`, and tell what should come of it.

        Sets with the same number hold the same values in every layout, so that this too is computed once.
        """
        renew(operands, self.case, torch.Generator(self.device).manual_seed(self.seed + 2 + place))
        if place not in self._afterwards:
            self._afterwards[place] = expect(self.case, operands)
        return self._afterwards[place]


def judge(case: Case, layout: str, result: object, expected: Expected) -> Verdict:
    """Hold a provider's result against what it should be; `layout` "" takes it in any."""
    wrong = _wrong_form(case, result, expected.value)
    if not wrong and layout and isinstance(result, Tensor) and not lies_in(case, layout, result):
        wrong = f"the result has strides {result.stride()}, which is not {layout}"
    if wrong:
        return Verdict(float("inf"), 0.0, wrong)
    assert isinstance(result, Tensor)
    unit = torch.finfo(case.dtype).eps / 2
    lower = _LOWER.get(case.dtype)
    in_tf32 = case.tf32 and not case.layer.is_pooling
    at_least = torch.zeros_like(expected.wander)
    if in_tf32:
        sums = expected.value.abs() if expected.intermediate is None else expected.intermediate
        at_least = _UNIT_TF32 * (2 * sums + 5 * expected.wander)
    elif case.dtype == torch.float32 and not case.layer.is_pooling:
        at_least = _UNIT_TF32 / 2 * expected.wander
    if expected.intermediate is not None:
        at_least = at_least + unit * expected.intermediate
    length = case.layer.reduction_lengths[case.name]
    comparison = compare_to_fp64(result, expected.value, length, magnitude=expected.wander, at_least=at_least)
    message = "" if comparison.passed else f"wrong result {comparison.message}"
    if lower is not None and length > 1 and not in_tf32:
        message = _lower_precision(result, expected, lower, case.dtype, comparison.passed) or message
    return Verdict(comparison.error, comparison.allowed, message)


def _lower_precision(result: Tensor, expected: Expected, lower: float, dtype: torch.dtype, close: bool) -> str:
    """A sentence where errors are everywhere, and of the size that arithmetic in a lower format makes them.

    Unless `close`, larger ones than bf16 makes of fp32 are no matter of precision.
    """
    finite = expected.value.isfinite()
    error = torch.where(finite, result.detach().double() - expected.value, 0.0).abs()
    typical, bar = float(error.square().mean().sqrt()), float(expected.wander.square().mean().sqrt()) * lower / 8
    everywhere = float((error > bar / 4).double().mean()) > 0.1
    if typical > bar > 0 and everywhere and (close or typical < 64 * bar):
        return f"lower precision: errors of {typical:.3g} (root mean square), where {dtype} arithmetic stays below {bar:.3g}"
    return ""


def lies_in(case: Case, layout: str, result: Tensor) -> bool:
    """Whether a result is dense in `layout`. A filter's gradient may be laid out either way, as torch's is."""
    return case.name == "wgrad" or result.is_contiguous(memory_format=MEMORY_FORMATS[layout])


def _wrong_form(case: Case, result: object, value: Tensor) -> str:
    if not isinstance(result, Tensor):
        return f"the result is a {type(result).__name__}, not a tensor"
    if result.dtype != case.dtype:
        return f"the result is {result.dtype}, not {case.dtype}"
    if result.shape != value.shape:
        return f"the result has shape {tuple(result.shape)}, not {tuple(value.shape)}"
    if result.device != value.device:
        return f"the result is on {result.device}, not {value.device}"
    return ""


def _gradient(layer: Layer, name: str, x: Tensor, w: Tensor, dy: Tensor) -> Tensor:
    transposed = layer.op == "conv_transpose2d"
    mask = [name == "dgrad", name == "wgrad", False]
    gradients = torch.ops.aten.convolution_backward(
        dy,
        x,
        w,
        None,
        layer.stride,
        layer.padding,
        layer.dilation,
        transposed,
        layer.output_padding,
        layer.groups,
        mask,
    )
    gradient: Tensor = gradients[0 if name == "dgrad" else 1]
    return gradient


def _pooling(layer: Layer, name: str, x: Tensor, dy: Tensor | None) -> Tensor:
    if name == "forward":
        return layer.forward(x)
    with torch.enable_grad():
        image = x.detach().requires_grad_()
        return torch.autograd.grad(layer.forward(image), image, dy)[0]
