"""The pooling operators torch.ops.cnnkernels_triton.*: those of torch.ops.cnnkernels.* (csrc/schemas.h), on Triton.

As operators.py, which re-exports them: each allocates its results, chooses a kernel and launches it (pooling.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cnnkernels.triton import pooling
from cnnkernels.triton.pooling import ADAPTIVE, Pooling
from cnnkernels.triton.registration import empty, operator

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_backward",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "max_pool2d_gather",
    "max_pool2d_pyramid",
    "max_pool2d_with_indices",
]

# A tap's number has one byte.
_MOST_WINDOW_TAPS = 256


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise RuntimeError(message)


def _check_divisor(divisor_override: int | None) -> None:
    _require(divisor_override != 0, "divisor_override must not be 0")


def _check_indices(indices: Tensor, like: Tensor, what: str, window: Sequence[int] | None, dimensions: int) -> None:
    """Whether `indices` are such as max pooling gives, and `dimensions` of their sizes are those of `like`."""
    taps = indices.dtype == torch.uint8 and window is not None
    wanted = "int64" if window is None else "uint8 or int64"
    _require(taps or indices.dtype == torch.int64, f"indices must be {wanted}, not {indices.dtype}")
    _require(indices.dim() == 4, f"indices must have 4 dimensions, not {indices.dim()}")
    _require(indices.device == like.device, f"indices and {what} must be on the same device")
    _require(
        indices.shape[:dimensions] == like.shape[:dimensions],
        f"indices {tuple(indices.shape)} and {what} {tuple(like.shape)} must agree in their first {dimensions} sizes",
    )
    if taps and window is not None:
        _check_taps(window)


def _check_taps(window: Sequence[int]) -> None:
    _require(
        window[0] * window[1] <= _MOST_WINDOW_TAPS,
        f"an index in the window has one byte, enough for {_MOST_WINDOW_TAPS} taps and not for {window[0]}x{window[1]}",
    )


def _check_windows(image: Sequence[int], output: Sequence[int]) -> None:
    _require(
        image[0] * image[1] > 0 or output[0] * output[1] == 0, "an image without pixels has no windows to be pooled"
    )


@operator
def max_pool2d(
    input: Tensor, output_size: Sequence[int], kernel_size: Sequence[int], stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], channels_last: bool, kernel_name: str = "",
) -> Tensor:  # fmt: skip
    out = empty(input, (*input.shape[:2], *output_size), channels_last)
    pooling.forward("max", kernel_name, input, out, None, Pooling(kernel_size, stride, padding, dilation))
    return out


@operator
def max_pool2d_with_indices(
    input: Tensor, output_size: Sequence[int], kernel_size: Sequence[int], stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], flat_indices: bool, channels_last: bool, kernel_name: str = "",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    if not flat_indices:
        _check_taps(kernel_size)
    size = (*input.shape[:2], *output_size)
    out = empty(input, size, channels_last)
    indices = empty(input, size, channels_last, torch.int64 if flat_indices else torch.uint8)
    pooling.forward("max", kernel_name, input, out, indices, Pooling(kernel_size, stride, padding, dilation))
    return out, indices


@operator
def max_pool2d_pyramid(
    input: Tensor, window: int, channels_last: bool, kernel_name: str = ""
) -> tuple[Tensor, Tensor, Tensor]:
    _require(window > 0 and window % 2 == 1, f"the window must be odd, not {window}")
    c = Pooling((window, window), (1, 1), (window // 2, window // 2))
    first, second, third = (empty(input, input.shape, channels_last) for _ in range(3))
    pooling.forward("max", kernel_name, input, first, None, c)
    pooling.forward("max", kernel_name, first, second, None, c)
    pooling.forward("max", kernel_name, second, third, None, c)
    return first, second, third


@operator
def max_pool2d_backward(
    grad_output: Tensor, indices: Tensor, input_size: Sequence[int], kernel_size: Sequence[int], stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], channels_last: bool, kernel_name: str = "",
) -> Tensor:  # fmt: skip
    _check_indices(indices, grad_output, "grad_output", kernel_size, 4)
    out = empty(grad_output, (*grad_output.shape[:2], *input_size), channels_last)
    c = Pooling(kernel_size, stride, padding, dilation)
    pooling.backward("max_backward", kernel_name, grad_output, indices, out, c)
    return out


@operator
def max_pool2d_gather(
    input: Tensor, indices: Tensor, kernel_size: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], channels_last: bool, kernel_name: str = "",
) -> Tensor:  # fmt: skip
    _check_indices(indices, input, "input", kernel_size, 2)
    out = empty(input, indices.shape, channels_last)
    pooling.max_gather(kernel_name, input, indices, out, Pooling(kernel_size, stride, padding, dilation))
    return out


@operator
def avg_pool2d(
    input: Tensor, output_size: Sequence[int], kernel_size: Sequence[int], stride: Sequence[int],
    padding: Sequence[int], count_include_pad: bool, divisor_override: int | None, channels_last: bool,
    kernel_name: str = "",
) -> Tensor:  # fmt: skip
    _check_divisor(divisor_override)
    out = empty(input, (*input.shape[:2], *output_size), channels_last)
    c = Pooling(kernel_size, stride, padding, (1, 1), False, count_include_pad, divisor_override)
    pooling.forward("avg", kernel_name, input, out, None, c)
    return out


@operator
def avg_pool2d_backward(
    grad_output: Tensor, input_size: Sequence[int], kernel_size: Sequence[int], stride: Sequence[int],
    padding: Sequence[int], count_include_pad: bool, divisor_override: int | None, channels_last: bool,
    kernel_name: str = "",
) -> Tensor:  # fmt: skip
    _check_divisor(divisor_override)
    out = empty(grad_output, (*grad_output.shape[:2], *input_size), channels_last)
    c = Pooling(kernel_size, stride, padding, (1, 1), False, count_include_pad, divisor_override)
    pooling.backward("avg_backward", kernel_name, grad_output, None, out, c)
    return out


@operator
def adaptive_max_pool2d(
    input: Tensor, output_size: Sequence[int], channels_last: bool, kernel_name: str = ""
) -> tuple[Tensor, Tensor]:
    _check_windows(input.shape[2:], output_size)
    size = (*input.shape[:2], *output_size)
    out, indices = empty(input, size, channels_last), empty(input, size, channels_last, torch.int64)
    pooling.forward("adaptive_max", kernel_name, input, out, indices, ADAPTIVE)
    return out, indices


@operator
def adaptive_max_pool2d_backward(
    grad_output: Tensor, indices: Tensor, input_size: Sequence[int], channels_last: bool, kernel_name: str = ""
) -> Tensor:
    _check_indices(indices, grad_output, "grad_output", None, 4)
    _check_windows(input_size, grad_output.shape[2:])
    out = empty(grad_output, (*grad_output.shape[:2], *input_size), channels_last)
    pooling.backward("adaptive_max_backward", kernel_name, grad_output, indices, out, ADAPTIVE)
    return out


@operator
def adaptive_avg_pool2d(
    input: Tensor, output_size: Sequence[int], channels_last: bool, kernel_name: str = ""
) -> Tensor:  # fmt: skip
    _check_windows(input.shape[2:], output_size)
    out = empty(input, (*input.shape[:2], *output_size), channels_last)
    pooling.forward("adaptive_avg", kernel_name, input, out, None, ADAPTIVE)
    return out


@operator
def adaptive_avg_pool2d_backward(
    grad_output: Tensor, input_size: Sequence[int], channels_last: bool, kernel_name: str = ""
) -> Tensor:
    _check_windows(input_size, grad_output.shape[2:])
    out = empty(grad_output, (*grad_output.shape[:2], *input_size), channels_last)
    pooling.backward("adaptive_avg_backward", kernel_name, grad_output, None, out, ADAPTIVE)
    return out
