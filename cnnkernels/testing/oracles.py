"""What a result is held against: exact integers, fp64, torch itself, and its own numerical derivatives.

The fp64 oracle allows an error of

    u_out |y|  +  6 sqrt(L + 1) u_acc M        or twice torch's own worst error, if that is more,

for a result y that is a sum of L products t_i (and a bias), accumulated with unit roundoff u_acc = eps / 2 (that of
fp32 for the half types), and rounded once more, by u_out, when it is stored. The first term is that last rounding. The
second is probabilistic rounding analysis (Higham and Mary, SIAM J. Sci. Comput. 41(5), 2019): each of the L additions
is off by at most u_acc times its partial sum; if these errors are independent, of mean zero, and the partial sums of
size M, then their total exceeds lambda sqrt(L) u_acc M with probability at most 2 exp(-lambda^2 / 2), which lambda = 6
makes 3e-8. `magnitude` is M:

* sum |t_i|, which no partial sum exceeds, for data of any kind;
* sqrt(sum t_i^2), which is how far sums of terms with independent signs wander: for operands of `make_operand`.

A term left out, or taken twice, is off by |t_i|. With the second M that is over the bound, for a typical term, in fp32
sums of up to a million terms. Nothing here is tuned to what the kernels happen to do.

For fp64 results the reference is as inexact as the result; the bound, far above either's error, holds for both at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_ACCUMULATOR = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
_LAMBDA = 6.0


@dataclass(frozen=True)
class Comparison:
    """A result against its fp64 reference. Errors are absolute; `message` is empty where it passed."""

    error: float
    torch_error: float | None
    allowed: float
    message: str

    @property
    def passed(self) -> bool:
        return not self.message


def compare_to_fp64(
    actual: Tensor,
    reference_fp64: Tensor,
    reduction_length: int,
    torch_result: Tensor | None = None,
    *,
    magnitude: Tensor | None = None,
    at_least: Tensor | None = None,
) -> Comparison:
    """Hold `actual` against `reference_fp64` as the module's docstring says.

    Args:
        actual: fp64, fp32, fp16 or bf16, any strides, any device.
        reference_fp64: the fp64 result, of the inputs as rounded to actual's dtype.
        reduction_length: L, the products (for a pooling: the values) summed per result.
        torch_result: torch's result in actual's dtype, whose own error is allowed twice.
        magnitude: M of each result, fp64. Without it the largest |reference| stands in, which is right for operands of
            mean zero and more than a few results: some of their sums wander as far as any does.
        at_least: an error that is allowed in any case, fp64, per result.

    The comparison is made on the reference's device.

    Returns:
        The worst error and the largest error allowed at that place.

    Raises:
        AssertionError: shape or dtype do not fit together at all.
    """
    reference = reference_fp64.detach()
    assert reference.dtype == torch.float64, f"the reference is {reference.dtype}, not fp64"
    assert actual.shape == reference.shape, f"shape {tuple(actual.shape)}, expected {tuple(reference.shape)}"
    if torch_result is not None:
        assert actual.dtype == torch_result.dtype, f"dtype {actual.dtype}, torch gives {torch_result.dtype}"
    if not actual.numel():
        return Comparison(0.0, None if torch_result is None else 0.0, 0.0, "")
    dtype = actual.dtype
    computed = actual.detach().to(reference.device).double()
    rounded = reference.to(dtype).double()
    strange = _where_not_both_alike(computed, rounded)
    if strange is not None:
        return Comparison(math.inf, None, 0.0, f"{_place(strange)}: {computed[strange]}, expected {rounded[strange]}")
    # NaN and infinities coincide: what is left to compare is finite.
    finite = rounded.isfinite()
    zero = reference.new_zeros(())
    reference = torch.where(finite, reference, zero)
    error = (torch.where(finite, computed, zero) - reference).abs()
    allowed = _allowed(reference, dtype, reduction_length, magnitude)
    if at_least is not None:
        allowed = torch.maximum(allowed, at_least)
    torch_error = None
    if torch_result is not None:
        own = torch.where(finite, torch_result.detach().to(reference.device).double(), zero)
        torch_error = float((own - reference).abs().nan_to_num(posinf=0.0).max())
        allowed = allowed.clamp(min=2 * torch_error)
    worst = _index_of_largest(error - allowed)
    message = ""
    if error[worst] > allowed[worst]:
        message = (
            f"{_place(worst)}: {computed[worst]:.9g}, fp64 says {reference[worst]:.9g}: off by {error[worst]:.3g}, "
            f"allowed for sums of {reduction_length}: {allowed[worst]:.3g}; "
            f"{int((error > allowed).sum())} of {error.numel()} results are off"
        )
    largest = _index_of_largest(error)
    return Comparison(float(error[largest]), torch_error, float(allowed[largest]), message)


def assert_close_to_fp64(
    actual: Tensor,
    reference_fp64: Tensor,
    reduction_length: int,
    torch_result: Tensor | None = None,
    *,
    magnitude: Tensor | None = None,
) -> None:
    """Fail unless `actual` is as near to `reference_fp64` as :func:`compare_to_fp64` demands. Same arguments."""
    comparison = compare_to_fp64(actual, reference_fp64, reduction_length, torch_result, magnitude=magnitude)
    assert comparison.passed, comparison.message


def assert_exact(actual: Tensor, expected: Tensor) -> None:
    """Fail unless dtype, shape and every value are equal; a NaN equals a NaN. Names the first and worst difference."""
    assert actual.dtype == expected.dtype, f"dtype {actual.dtype}, expected {expected.dtype}"
    assert actual.shape == expected.shape, f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    computed, wanted = actual.detach().cpu(), expected.detach().cpu()
    different = (computed != wanted) & ~((computed != computed) & (wanted != wanted))
    if different.any():
        distance = (computed.double() - wanted.double()).abs().nan_to_num(nan=math.inf)
        worst = _index_of_largest(torch.where(different, distance, torch.full_like(distance, -1.0)))
        raise AssertionError(
            f"{_place(worst)}: {computed[worst]}, expected exactly {wanted[worst]}; "
            f"{int(different.sum())} of {different.numel()} values differ"
        )


def assert_same_bits(actual: Tensor, expected: Tensor) -> None:
    """Fail unless the two have equal dtype, shape and bits: -0.0 is not 0.0, and a NaN has its payload."""
    assert actual.dtype == expected.dtype, f"dtype {actual.dtype}, expected {expected.dtype}"
    integers = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}[actual.element_size()]
    assert_exact(actual.contiguous().view(integers), expected.contiguous().view(integers))


def assert_memory_format(actual: Tensor, channels_last: bool) -> None:
    """Fail unless the 4-D `actual` is dense and in the given memory format."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    assert actual.is_contiguous(memory_format=memory_format), (
        f"strides {actual.stride()} of shape {tuple(actual.shape)} are not {memory_format}"
    )


def assert_like_torch(actual: Tensor, torch_result: Tensor) -> None:
    """Fail unless dtype, device, shape and strides are those of torch's result."""
    for what in ("dtype", "device", "shape"):
        ours, theirs = getattr(actual, what), getattr(torch_result, what)
        assert ours == theirs, f"{what} {ours}, torch gives {theirs}"
    assert actual.stride() == torch_result.stride(), f"strides {actual.stride()}, torch gives {torch_result.stride()}"


def assert_gradients(function: Callable[..., Any], inputs: Sequence[Tensor], *, second: bool = True) -> None:
    """Fail unless `function`'s derivatives at the fp64 `inputs` are its numerical ones, and repeat bit for bit.

    First derivatives in reverse and forward mode, one at a time and under vmap; `second` adds second derivatives.
    """
    arguments = tuple(inputs)
    torch.autograd.gradcheck(
        function,
        arguments,
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
        nondet_tol=0.0,
    )
    if second:
        torch.autograd.gradgradcheck(
            function, arguments, check_fwd_over_rev=True, check_batched_grad=True, nondet_tol=0.0
        )


def _allowed(reference: Tensor, dtype: torch.dtype, length: int, magnitude: Tensor | None) -> Tensor:
    accumulator = torch.finfo(_ACCUMULATOR.get(dtype, dtype))
    result = torch.finfo(dtype)
    scale = reference.abs().max() if magnitude is None else magnitude.detach().to(reference.device)
    # The bias is one more term of the sum. Below the smallest normal number, rounding costs up to half a subnormal.
    sum_error = _LAMBDA * math.sqrt(length + 1) * accumulator.eps / 2 * scale
    return sum_error + result.eps / 2 * reference.abs() + result.tiny * result.eps


def _where_not_both_alike(computed: Tensor, expected: Tensor) -> tuple[int, ...] | None:
    unlike = (computed.isnan() != expected.isnan()) | (computed.isinf() | expected.isinf()) & (computed != expected)
    unlike &= ~(computed.isnan() & expected.isnan())
    return _index_of_largest(unlike.double()) if unlike.any() else None


def _index_of_largest(values: Tensor) -> tuple[int, ...]:
    return tuple(int(i) for i in torch.unravel_index(values.argmax(), values.shape))


def _place(index: tuple[int, ...]) -> str:
    return f"at {list(index)}"
