"""What the convolution kernels are launched with: from sizes and strides to a grid and arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cnnkernels.geometry import fp32_precision
from cnnkernels.triton import configs
from cnnkernels.triton.configs import MatrixTile
from cnnkernels.triton.launch import launch

DTYPE_NAMES = {torch.float64: "f64", torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}


class Convolution(NamedTuple):
    """A convolution's arguments, as the operators take them."""

    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int
    padding_mode: str


class EpilogueTensors(NamedTuple):
    """What kernels/epilogue.py reads; None where a part is missing."""

    bias: Tensor | None = None
    mean: Tensor | None = None
    variance: Tensor | None = None
    scale: Tensor | None = None
    shift: Tensor | None = None
    eps: float = 0.0
    residual: Tensor | None = None
    activation: str = "none"
    slope: float = 0.0

    @property
    def arguments(self) -> tuple[Any, ...]:
        """In the order of the kernels' parameters, but for the activation."""
        bias_stride = 0 if self.bias is None else self.bias.stride(0)
        return (
            self.bias, bias_stride, self.mean, self.variance, self.scale, self.shift, self.eps, self.residual, self.slope,
        )  # fmt: skip


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def precision(dtype: torch.dtype) -> str:
    """How tl.dot multiplies."""
    return fp32_precision() if dtype == torch.float32 else "ieee"


def is_wide(*tensors: Tensor) -> bool:
    """Whether offsets into one of them need 64 bits."""
    return any(
        sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True)) >= 2**31 - 2**20
        for t in tensors
    )


def is_linear(t: Tensor) -> bool:
    """Whether the pixels of an image have no gaps between rows."""
    return t.shape[2] == 1 or t.stride(2) == t.shape[3] * t.stride(3)


def pixels_are_last(image: Tensor) -> bool:
    """Whether neighbours in memory are pixels of a plane, not channels."""
    return image.shape[1] == 1 or image.stride(1) != 1


def common_power(*numbers: int) -> int:
    """The largest power of two, up to a vector's, that divides all `numbers`. Of symbols torch.compile guards the remainders alone."""
    power = configs.LONGEST_VECTOR
    while power > 1 and any(number % power != 0 for number in numbers):
        power //= 2
    return power


def steps_of(t: Tensor, *axes: int) -> list[int]:
    """The strides along `axes`, but of those with one index."""
    return [t.stride(axis) for axis in axes if t.shape[axis] > 1]


def vector_of(image: Tensor, channels: int, whole: bool) -> int:
    """An image's *_VECTOR of kernels/gather.py.

    Of neighbouring channels, of which `channels` belong together, or, where pixels are last, of pixels of a plane (`whole`: all, in order).
    """
    if not pixels_are_last(image):
        return common_power(*steps_of(image, 0, 2, 3), channels, image.shape[1])
    if not (whole and image.stride(3) == 1 and is_linear(image)):
        return 1
    return common_power(*steps_of(image, 0, 1), image.shape[2] * image.shape[3])


def vector_of_filter(filter: Tensor) -> int:
    """A filter's, of its channels."""
    return common_power(*steps_of(filter, 0, 2, 3), filter.shape[1]) if filter.stride(1) == 1 else 1


def vector_of_taps(filter: Tensor) -> int:
    """A filter's, of its channels and taps as one run."""
    return common_power(filter.shape[1] * filter.shape[2] * filter.shape[3]) if filter.is_contiguous() else 1


def stack_of(groups: int, group_in: int, group_out: int) -> int:
    """How many groups a tile of wgrad belongs to."""
    if groups == 1:
        return 1
    return max(1, min(groups, configs.STACKED_CHANNELS // max(group_in, group_out)))


def is_product(taps: Sequence[int], c: Convolution) -> bool:
    """Whether each result reads one pixel, that of its own place."""
    return tuple(taps) == tuple(c.stride) == (1, 1) and tuple(c.padding) == (0, 0)


def source_vector(source: Tensor, channels: int, taps: Sequence[int], c: Convolution) -> int:
    """The *_VECTOR of the image that a pass gathers from, fprop's and wgrad's x, dgrad's dy; `channels` of it belong to a tile."""
    return vector_of(source, channels, is_product(taps, c))


def is_by_element(dtype: torch.dtype, *vectors: int) -> bool:
    """Whether one of the vectors is smaller than a copy past the registers can be, which is 4 bytes."""
    return min(vectors) * dtype.itemsize < 4


class Tap(NamedTuple):
    """The taps of a class of dgrad's rows (kernels/tiles.py): their distance, and an inverse modulo that."""

    step: int
    inverse: int


def taps_of(stride: int, dilation: int) -> Tap:
    common = math.gcd(stride, dilation)
    step = stride // common
    return Tap(step, pow(dilation // common, -1, step) if step > 1 else 0)


def gather(
    name: str,
    tile: MatrixTile,
    slabs: int,
    source: Tensor,
    weight: Tensor,
    out: Tensor,
    c: Convolution,
    epilogue: EpilogueTensors,
    dgrad: bool,
) -> None:
    """fprop of x (`source`) to y (`out`), or dgrad of dy to dx."""
    from cnnkernels.triton.kernels.gather import conv2d_gather_kernel

    group_out, group_in = out.shape[1] // c.groups, source.shape[1] // c.groups
    R, S = weight.shape[2:]
    along = [taps_of(stride, dilation) for stride, dilation in zip(c.stride, c.dilation, strict=True)]
    partial = None
    if slabs > 1:
        accumulator = torch.float64 if out.dtype == torch.float64 else torch.float32
        partial = torch.empty(slabs * out.numel(), dtype=accumulator, device=out.device)
    classes = c.stride[0] * c.stride[1] if dgrad else 1
    rows, columns = (
        (ceil_div(out.shape[2], c.stride[0]), ceil_div(out.shape[3], c.stride[1])) if dgrad else out.shape[2:]
    )
    grid = (
        classes * ceil_div(out.shape[0] * rows * columns, tile.rows),
        c.groups * ceil_div(group_out, tile.columns),
        slabs,
    )
    filter_in, filter_out = (0, 1) if dgrad else (1, 0)
    launch(
        name, conv2d_gather_kernel, grid, out,
        source, weight, out, partial,
        *(epilogue.arguments if slabs == 1 else EpilogueTensors().arguments),
        out.shape[0], *source.shape[2:], *source.stride(),
        *out.shape[2:], *out.stride(), out.numel(),
        group_in, group_out,
        weight.shape[0] // c.groups * weight.stride(0), weight.stride(filter_in), weight.stride(filter_out), *weight.stride()[2:],
        *c.padding,
        R=R, S=S,
        DGRAD=dgrad, STRIDE_H=c.stride[0], STRIDE_W=c.stride[1], DILATION_H=c.dilation[0], DILATION_W=c.dilation[1],
        TAP_STEP_H=along[0].step, TAP_STEP_W=along[1].step, INVERSE_H=along[0].inverse, INVERSE_W=along[1].inverse,
        PADDING_MODE=c.padding_mode, ACTIVATION=epilogue.activation if slabs == 1 else "none",
        FLAT=group_in <= configs.MOST_FLAT_CHANNELS and R * S > 1, PIXELS_LAST=pixels_are_last(source),
        LINEAR=is_product((R, S), c) and is_linear(source) and is_linear(out),
        SOURCE_VECTOR=source_vector(source, group_in, (R, S), c), FILTER_VECTOR=vector_of_filter(weight),
        OUT_VECTOR=vector_of(out, group_out, classes == 1), OUT_CHANNELS_LAST=not pixels_are_last(out),
        WIDE=is_wide(source, out), SLABS=slabs, PRECISION=precision(out.dtype),
        BLOCK_PIXELS=tile.rows, BLOCK_OUT=tile.columns, BLOCK_IN=tile.depth,
        warps=tile.warps, stages=tile.stages,
    )  # fmt: skip
    if partial is not None:
        sum_slabs(partial, slabs, out, epilogue)


def padded_dgrad(
    name: str, tile: MatrixTile, grad_output: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, c: Convolution
) -> None:
    """dx (`out`) of dy, under a padding mode."""
    from cnnkernels.triton.kernels.padded_dgrad import conv2d_padded_dgrad_kernel

    group_out, group_in = out.shape[1] // c.groups, grad_output.shape[1] // c.groups
    R, S = weight.shape[2:]
    numbers: list[int] = []  # of the positions before and after a pixel's own
    for axis in (0, 1):
        before = c.padding[axis]
        reach = (grad_output.shape[2 + axis] - 1) * c.stride[axis] + (weight.shape[2 + axis] - 1) * c.dilation[axis]
        after = max(0, reach + 1 - before - out.shape[2 + axis])
        numbers += (-before, after) if c.padding_mode == "replicate" else (-min(before, 1), min(after, 1))
    launch(
        name, conv2d_padded_dgrad_kernel,
        (
            ceil_div(out.shape[0] * out.shape[2] * out.shape[3], tile.rows),
            c.groups * ceil_div(group_out, tile.columns),
        ),
        out,
        grad_output, weight, out, bias, 0 if bias is None else bias.stride(0),
        out.shape[0], *grad_output.shape[2:], *grad_output.stride(), *out.shape[2:], *out.stride(), group_in, group_out,
        weight.shape[0] // c.groups * weight.stride(0), *weight.stride(), *c.padding, *numbers, R, S,
        STRIDE_H=c.stride[0], STRIDE_W=c.stride[1], DILATION_H=c.dilation[0], DILATION_W=c.dilation[1],
        PADDING_MODE=c.padding_mode, PIXELS_LAST=pixels_are_last(grad_output),
        WIDE=is_wide(grad_output, out), PRECISION=precision(out.dtype),
        BLOCK_PIXELS=tile.rows, BLOCK_OUT=tile.columns, BLOCK_IN=tile.depth,
        warps=tile.warps, stages=tile.stages,
    )  # fmt: skip


def sum_slabs(partial: Tensor, slabs: int, out: Tensor, epilogue: EpilogueTensors, channel_axis: int = 1) -> None:
    """out = epilogue(the slabs' sums, added in order); `out` has no gaps, and each slab lies as it does."""
    from cnnkernels.triton.kernels.sums import sum_slabs_kernel

    fill = (tile for tile in configs.SUM_TILES if ceil_div(out.numel(), tile[0]) >= configs.MULTIPROCESSORS)
    block, block_slabs = next(fill, configs.SUM_TILES[-1])
    launch(
        f"triton_sum_slabs_{DTYPE_NAMES[out.dtype]}", sum_slabs_kernel, (ceil_div(out.numel(), block),), out,
        partial, out, *epilogue.arguments,
        out.numel(), slabs, out.stride(channel_axis), out.shape[channel_axis],
        ACTIVATION=epilogue.activation, WIDE=(slabs + block_slabs) * out.numel() >= 2**31 - 2**20,
        BLOCK_SLABS=block_slabs, BLOCK=block,
        warps=4,
    )  # fmt: skip


def wgrad(
    name: str, tile: MatrixTile, slabs: int, grad_output: Tensor, input: Tensor, out: Tensor, c: Convolution
) -> None:
    """dw (`out`) of dy and x."""
    from cnnkernels.triton.kernels.wgrad import conv2d_wgrad_kernel

    group_out, group_in = grad_output.shape[1] // c.groups, input.shape[1] // c.groups
    R, S = out.shape[2:]
    stack = stack_of(c.groups, group_in, group_out)
    pixels = grad_output.shape[0] * grad_output.shape[2] * grad_output.shape[3]
    pixels_of_slab = max(1, ceil_div(ceil_div(pixels, slabs), tile.depth)) * tile.depth
    slabs = max(1, ceil_div(pixels, pixels_of_slab))
    partial = out
    if slabs > 1:
        accumulator = torch.float64 if out.dtype == torch.float64 else torch.float32
        partial = torch.empty(slabs * out.numel(), dtype=accumulator, device=out.device)
    last = pixels_are_last(input)
    grid = (
        ceil_div(c.groups, stack) * ceil_div(stack * group_out, tile.rows),
        ceil_div(stack * group_in * R * S, tile.columns),
        slabs,
    )
    launch(
        name, conv2d_wgrad_kernel, grid, out,
        input, grad_output, partial,
        input.shape[0], *input.shape[2:], *input.stride(),
        *grad_output.shape[2:], *grad_output.stride(),
        grad_output.shape[1], input.shape[1], group_in, group_out, *out.stride(), out.numel(),
        *c.padding, pixels_of_slab,
        R=R, S=S, STRIDE_H=c.stride[0], STRIDE_W=c.stride[1], DILATION_H=c.dilation[0], DILATION_W=c.dilation[1],
        PADDING_MODE=c.padding_mode, STACK=stack, TAPS_INNER=last, PIXELS_LAST=last,
        LINEAR=is_product((R, S), c) and is_linear(input) and is_linear(grad_output),
        X_VECTOR=source_vector(input, stack * group_in, (R, S), c),
        DY_VECTOR=vector_of(grad_output, stack * group_out, True) if pixels_are_last(grad_output) == last else 1,
        OUT_VECTOR=vector_of_taps(out) if last else vector_of_filter(out),
        WIDE=is_wide(input, grad_output) or slabs * out.numel() >= 2**31, PRECISION=precision(out.dtype),
        BLOCK_OUT=tile.rows, BLOCK_COLUMNS=tile.columns, BLOCK_PIXELS=tile.depth,
        warps=tile.warps, stages=tile.stages,
    )  # fmt: skip
    if slabs > 1:
        sum_slabs(partial, slabs, out, EpilogueTensors())


def activation_grad(grad_output: Tensor, output: Tensor, activation: str, negative_slope: float, out: Tensor) -> None:
    """The gradient before an activation (`out`, which has no gaps), from the one behind it and from what it gave."""
    from cnnkernels.triton.kernels.activation_grad import activation_grad_kernel

    order = sorted(range(4), key=lambda axis: (-out.stride()[axis], axis))
    extents = [out.shape[axis] for axis in order]
    strides = [[tensor.stride(axis) for axis in order] for tensor in (output, grad_output)]
    alike = all(
        extent == 1 or of_output == of_gradient == out.stride(axis)
        for axis, extent, of_output, of_gradient in zip(order, extents, *strides, strict=True)
    )
    launch(
        f"triton_conv2d_activation_grad_{DTYPE_NAMES[out.dtype]}", activation_grad_kernel,
        (ceil_div(out.numel(), configs.ACTIVATION_GRAD_BLOCK),), out,
        output, grad_output, out, out.numel(), *reversed(extents[1:]), *strides[0], *strides[1], negative_slope,
        ACTIVATION=activation, ALIKE=alike, WIDE=is_wide(output, grad_output, out), BLOCK=configs.ACTIVATION_GRAD_BLOCK,
        warps=4,
    )  # fmt: skip


def bias_grad(grad_output: Tensor, out: Tensor) -> None:
    """db (`out`) of dy."""
    from cnnkernels.triton.kernels.sums import bias_grad_kernel

    name = f"triton_conv2d_bias_grad_{DTYPE_NAMES[out.dtype]}"
    N, K, P, Q = grad_output.shape
    last = pixels_are_last(grad_output)
    along, across = configs.BIAS_GRAD_BLOCK
    block_channels, block_pixels = (across // 8, along * 8) if last else (along, across)
    blocks, pixels = max(1, ceil_div(K, block_channels)), N * P * Q
    slabs = max(1, min(configs.TARGET_PROGRAMS // blocks, pixels // (configs.LEAST_STEPS_OF_SLAB * block_pixels)))
    pixels_of_slab = max(1, ceil_div(ceil_div(pixels, slabs), block_pixels)) * block_pixels
    slabs = max(1, ceil_div(pixels, pixels_of_slab))
    partial = out
    if slabs > 1:
        accumulator = torch.float64 if out.dtype == torch.float64 else torch.float32
        partial = torch.empty(slabs * K, dtype=accumulator, device=out.device)
    launch(
        name, bias_grad_kernel, (blocks, slabs), out,
        grad_output, partial, N, K, P, Q, *grad_output.stride(), pixels_of_slab,
        PIXELS_LAST=last, VECTOR=vector_of(grad_output, K, True), WIDE=is_wide(grad_output), BLOCK_CHANNELS=block_channels, BLOCK_PIXELS=block_pixels,
        warps=4,
    )  # fmt: skip
    if slabs > 1:
        sum_slabs(partial, slabs, out, EpilogueTensors(), 0)
