"""What torch's arguments mean in sizes: one validity check, one output-size rule, one memory-format rule.

A convolution pass relates x[N, C, H, W], w[K, C/groups, R, S] and y[N, K, P, Q] by
h = p * stride - padding + r * dilation (w alike). `padding` is the top and left side only: with `image` and
`output` both explicit the far side is implied, so asymmetric 'same' and output_padding need no padded copy,
and fprop, dgrad and wgrad share one geometry.

The checks accept exactly what torch accepts for the dtypes we have kernels for. They do not phrase errors:
they raise :class:`Refused`, and cnnkernels.functional lets torch say what is wrong in its own words.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import torch
from torch import Tensor

Pair = tuple[int, int]

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class Refused(Exception):
    """Our kernels do not run these arguments. Internal: no public function lets it out."""


class NothingToDo(Refused):
    """The result has no elements: there is nothing to launch, and torch's own operator may stand in."""


class Conv2dGeometry(NamedTuple):
    """A convolution without its tensors. Pairs are (height, width); padding is (top, left)."""

    image: Pair  # H, W
    filter: Pair  # R, S
    output: Pair  # P, Q
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    channels_last: bool  # of every tensor that any pass of this convolution returns
    padding_mode: str = "zeros"
    allow_tf32: bool = False  # CUDA kernels may multiply fp32 as tf32: :func:`allows_tf32`


class Pool2dGeometry(NamedTuple):
    """A pooling without its tensors. Pairs are (height, width). Of an adaptive one only image, output and format count."""

    image: Pair  # H, W
    window: Pair  # R, S
    output: Pair  # P, Q
    stride: Pair
    padding: Pair
    dilation: Pair  # (1, 1) for average pooling
    count_include_pad: bool  # average pooling only
    divisor_override: int | None  # average pooling only
    channels_last: bool  # of every tensor that any pass of this pooling returns
    adaptive: bool = False  # the windows are what image and output say


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    padding_mode: str = "zeros",
) -> Conv2dGeometry:
    """The geometry of torch.nn.functional.conv2d for a batched input, padded as torch.nn.Conv2d's `padding_mode` says."""
    groups, stride, dilation = _integer(groups), pair(stride), pair(dilation)
    _, channels, height, width = input.shape
    filters, group_channels, *filter = _filter_shape(weight)
    extent = _extent(filter, dilation)
    if stride[0] <= 0 or stride[1] <= 0:
        raise Refused("a stride that is not positive")
    if not isinstance(padding, str):
        before = pair(padding)
        if before[0] < 0 or before[1] < 0:
            raise Refused("negative padding")
    elif padding == "same":
        before = ((extent[0] - 1) // 2, (extent[1] - 1) // 2)
    elif padding == "valid":
        before = (0, 0)
    else:
        raise Refused("an unknown padding")
    if padding == "same":
        if stride != (1, 1):
            raise Refused("padding='same' with a stride")
        output = (height, width)
    else:
        rows, columns = height + 2 * before[0] - extent[0], width + 2 * before[1] - extent[1]
        if rows < 0 or columns < 0:
            raise Refused("a filter larger than the padded input")
        output = (rows // stride[0] + 1, columns // stride[1] + 1)
    if groups <= 0 or channels != group_channels * groups or filters % groups != 0:
        raise Refused("channels, filters and groups that do not match")
    _check_tensors(input, weight, bias, filters)
    channels_last = looks_channels_last(input)
    if padding_mode != "zeros":
        after = (extent[0] - 1 - before[0], extent[1] - 1 - before[1]) if padding == "same" else before
        _check_padding_mode(padding_mode, (height, width), before, after)
        # torch convolves a padded copy, and copies circularly into contiguous memory.
        channels_last = channels_last and padding_mode != "circular"
    return Conv2dGeometry(
        (height, width), (filter[0], filter[1]), output, stride, before, dilation, groups,
        channels_last or looks_channels_last(weight), padding_mode, allows_tf32(input),
    )  # fmt: skip


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: object,
    padding: object,
    output_padding: object,
    groups: object,
    dilation: object,
) -> Conv2dGeometry:
    """The geometry of the convolution whose dgrad is torch.nn.functional.conv_transpose2d of a batched input.

    Its `output` is the transposed convolution's input and its `image` the transposed convolution's output.
    """
    groups, stride, padding, dilation = _integer(groups), pair(stride), pair(padding), pair(dilation)
    output_padding = pair(output_padding)
    _, channels, height, width = input.shape
    weight_channels, group_filters, *filter = _filter_shape(weight)
    extent = _extent(filter, dilation)
    if stride[0] <= 0 or stride[1] <= 0:
        raise Refused("a stride that is not positive")
    if padding[0] < 0 or padding[1] < 0:
        raise Refused("negative padding")
    for extra, step, spread in zip(output_padding, stride, dilation, strict=True):
        if extra < 0 or (extra >= step and extra >= spread):
            raise Refused("output_padding out of range")
    image = (
        (height - 1) * stride[0] - 2 * padding[0] + extent[0] + output_padding[0],
        (width - 1) * stride[1] - 2 * padding[1] + extent[1] + output_padding[1],
    )
    if groups <= 0 or channels != weight_channels or channels % groups != 0:
        raise Refused("channels, filters and groups that do not match")
    _check_tensors(input, weight, bias, group_filters * groups)
    if image[0] <= 0 or image[1] <= 0:
        raise NothingToDo("an output without elements")
    return Conv2dGeometry(
        image, (filter[0], filter[1]), (height, width), stride, padding, dilation, groups,
        looks_channels_last(input) or looks_channels_last(weight), allow_tf32=allows_tf32(input),
    )  # fmt: skip


def pool2d(
    input: Tensor,
    kernel_size: object,
    stride: object,
    padding: object,
    dilation: object,
    ceil_mode: object,
    count_include_pad: object = True,
    divisor_override: object = None,
) -> Pool2dGeometry:
    """The geometry of torch.nn.functional.max_pool2d or avg_pool2d for an input of 3 or 4 dimensions."""
    if type(ceil_mode) is not bool or type(count_include_pad) is not bool:
        raise Refused("a flag that is no bool")
    if divisor_override is not None:
        divisor_override = _integer(divisor_override)
        if divisor_override == 0:
            raise Refused("a divisor of zero")
    window, padding, dilation = pair(kernel_size), pair(padding), pair(dilation)
    omitted = stride is None or (isinstance(stride, (tuple, list)) and len(stride) == 0)
    step = window if omitted else pair(stride)
    if window[0] <= 0 or window[1] <= 0:
        raise Refused("a window without elements")
    extent = _extent(window, dilation)
    if step[0] <= 0 or step[1] <= 0:
        raise Refused("a stride that is not positive")
    # torch's CPU operator measures the padding against the window itself, its CUDA operator against the dilated one.
    limit = window if input.is_cpu else extent
    if min(padding) < 0 or 2 * padding[0] > limit[0] or 2 * padding[1] > limit[1]:
        raise Refused("a padding that is negative or above half the window")
    _check_dtype(input)
    height, width = input.shape[-2:]
    output = (
        _pool_output(height, extent[0], step[0], padding[0], ceil_mode),
        _pool_output(width, extent[1], step[1], padding[1], ceil_mode),
    )
    if output[0] <= 0 or output[1] <= 0:
        raise Refused("an output without elements")
    # torch's pools give an unbatched input a contiguous output, whatever the input's strides.
    channels_last = input.dim() == 4 and looks_channels_last(input)
    return Pool2dGeometry(
        (height, width), window, output, step, padding, dilation, count_include_pad, divisor_override, channels_last
    )


def adaptive_pool2d(input: Tensor, output_size: object) -> Pool2dGeometry:
    """The geometry of torch.nn.functional.adaptive_max_pool2d or adaptive_avg_pool2d for an input of 3 or 4 dimensions."""
    height, width = input.shape[-2:]
    if isinstance(output_size, (tuple, list)):
        if len(output_size) != 2:
            raise Refused("a list that is not of two sizes")
        rows, columns = output_size
        output = (height if rows is None else _integer(rows), width if columns is None else _integer(columns))
    elif isinstance(output_size, (int, torch.SymInt)):
        size = _integer(output_size)
        output = (size, size)
    else:
        raise Refused("a size that is no integer")
    if output[0] < 0 or output[1] < 0:
        raise Refused("a negative size")
    _check_dtype(input)
    if output[0] == 0 or output[1] == 0:
        raise NothingToDo("an output without elements")
    # The input's gradient has the input's format, too. torch's has, but for an average of 1 x 1: that is a mean to it, whose
    # gradient comes out contiguous.
    channels_last = input.dim() == 4 and looks_channels_last(input)
    one = (1, 1)
    return Pool2dGeometry((height, width), one, output, one, (0, 0), one, True, None, channels_last, adaptive=True)


def looks_channels_last(tensor: Tensor) -> bool:
    """Whether ATen's suggest_memory_format calls the 4-D `tensor` channels_last (c10's is_channels_last_strides_2d).

    Not is_contiguous(memory_format=torch.channels_last): sliced and size-1 tensors count too, and where the
    strides fit both formats ([N, 1, 1, 1] or one channel) contiguous wins. A convolution's results are
    channels_last where this holds for its input or its weight, a pooling's where it holds for its input; the
    incoming gradient has no say. That is torch's rule on the CPU for every dtype, group count and pass.
    """
    batch_stride, channel_stride, row_stride, column_stride = tensor.stride()
    if channel_stride == 0 or column_stride < channel_stride:  # decides the common contiguous case at once
        return False
    batch, channels, rows, columns = tensor.shape
    if batch == 0 or channels == 0 or rows == 0 or columns == 0:
        return False
    if column_stride < channel_stride * channels:
        return False
    if row_stride < column_stride * columns:
        return False
    least = row_stride * rows
    return batch_stride >= least and least != channel_stride


def pair(value: object) -> Pair:
    """An int, or a list or tuple of one or two, as (height, width)."""
    if type(value) is int:
        return value, value
    if isinstance(value, (tuple, list)):
        if len(value) == 2:
            return _integer(value[0]), _integer(value[1])
        if len(value) != 1:
            raise Refused("a list of neither one nor two sizes")
        value = value[0]
    size = _integer(value)
    return size, size


def _integer(value: object) -> int:
    if type(value) is int:
        return value
    if isinstance(value, torch.SymInt):
        return value  # type: ignore[return-value]  # stands for an int while torch.export and make_fx trace
    try:
        if not isinstance(value, bool):
            return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        pass
    raise Refused("a size that is no integer")


def _filter_shape(weight: Tensor) -> torch.Size:
    if not isinstance(weight, Tensor) or weight.dim() != 4:
        raise Refused("a weight that is no 4-D tensor")
    if weight.numel() == 0:
        raise Refused("a weight without elements")
    return weight.shape


def _extent(filter: Pair | list[int], dilation: Pair) -> Pair:
    """The rows and columns a dilated filter or window spans."""
    if dilation[0] <= 0 or dilation[1] <= 0:
        raise Refused("a dilation that is not positive")
    return dilation[0] * (filter[0] - 1) + 1, dilation[1] * (filter[1] - 1) + 1


def allows_tf32(input: Tensor) -> bool:
    """Whether convolutions of `input` may be multiplied as tf32: fp32 on a GPU, unless torch's switch is off."""
    return input.is_cuda and input.dtype == torch.float32 and fp32_precision() == "tf32"


def fp32_precision() -> str:
    """How convolutions multiply fp32: "tf32" or "ieee", as torch.backends.cudnn.conv.fp32_precision says (allow_tf32 sets it, too).

    What torch.compile has traced keeps what it was then.
    """
    cudnn: Any = torch.backends.cudnn
    return "tf32" if cudnn.conv.fp32_precision == "tf32" else "ieee"


# What torch.compiler.assume_constant_result does, which would import the compiler for it: tracing does not look inside.
fp32_precision._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _check_padding_mode(mode: str, image: Pair, before: Pair, after: Pair) -> None:
    """Whether the image has a pixel for each position that the mode fills, as torch.nn.functional.pad demands it."""
    if mode not in PADDING_MODES:
        raise Refused("an unknown padding mode")
    for size, first, last in zip(image, before, after, strict=True):
        most = {"reflect": size - 1, "circular": size}.get(mode)
        if most is not None and max(first, last) > most:
            raise Refused("padding by more pixels than the image has")


def _pool_output(size: int, extent: int, stride: int, padding: int, ceil_mode: bool) -> int:
    last = size + 2 * padding - extent
    if not ceil_mode:
        return last // stride + 1
    windows = (last + stride - 1) // stride + 1
    # The last window has to start inside the image or the padding before it.
    return windows - 1 if (windows - 1) * stride >= size + padding else windows


def _check_tensors(input: Tensor, weight: Tensor, bias: Tensor | None, filters: int) -> None:
    _check_dtype(input)
    _check_alike(weight, input)
    if bias is not None:
        if not isinstance(bias, Tensor) or bias.dim() != 1 or bias.shape[0] != filters:
            raise Refused("a bias that is not one value per filter")
        _check_alike(bias, input)


def _check_dtype(tensor: Tensor) -> None:
    if tensor.dtype not in DTYPES or tensor.layout is not torch.strided:
        kind = f"{tensor.layout} {tensor.dtype}".replace("torch.", "")
        raise Refused(f"our kernels take strided float64, float32, float16 and bfloat16 tensors, not {kind}")


def _check_alike(tensor: Tensor, input: Tensor) -> None:
    if tensor.dtype is not input.dtype or tensor.layout is not torch.strided:
        raise Refused("tensors of different dtypes or layouts")
    # A Tensor.device costs as much as the rest of this check: the common case does without.
    if not (tensor.is_cpu and input.is_cpu) and tensor.device != input.device:
        raise Refused("tensors on different devices")
