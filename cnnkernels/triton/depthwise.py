"""Depthwise convolution on the host: what each kernel of kernels/depthwise*.py refuses, its cost, its grid and its arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cnnkernels.triton import configs
from cnnkernels.triton.configs import DepthwiseTile
from cnnkernels.triton.convolution import (
    Convolution,
    EpilogueTensors,
    ceil_div,
    is_linear,
    is_wide,
    pixels_are_last,
    sum_slabs,
    taps_of,
)
from cnnkernels.triton.launch import launch


def is_depthwise(channels: int, filters: int, groups: int) -> bool:
    """Whether every filter has a channel alone. One channel alone is a matrix product with a short reduction, and as such better off."""
    return groups == channels > 1 and filters % channels == 0


@dataclass(frozen=True)
class Depthwise:
    """A pass of a depthwise convolution as its kernels see it: source is x, or in dgrad dy; out is y, or in dgrad dx, in wgrad dy."""

    operator: str  # "fprop", "dgrad", "wgrad"
    images: int
    channels: int  # of out
    multiplier: int
    source: tuple[int, int]
    out: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    padding_mode: str
    pixels_last: bool
    itemsize: int

    @staticmethod
    def of(operator: str, source: Tensor, out: Tensor, kernel: Sequence[int], c: Convolution) -> Depthwise:
        (sh, sw), (ph, pw), (dh, dw), (R, S) = c.stride, c.padding, c.dilation, kernel
        return Depthwise(
            operator, out.shape[0], out.shape[1], max(source.shape[1], out.shape[1]) // c.groups,
            (source.shape[2], source.shape[3]), (out.shape[2], out.shape[3]), (R, S), (sh, sw), (ph, pw), (dh, dw),
            c.padding_mode, pixels_are_last(source), out.element_size(),
        )  # fmt: skip

    @property
    def open_rows(self) -> int:
        """Rows of results (dgrad: STRIDE_H of them each) that a row of source is part of."""
        return ceil_div(self.kernel[0], self.stride[0])

    @property
    def row_classes(self) -> int:
        return self.dilation[0]

    @property
    def units(self) -> tuple[int, int]:
        """The steps down an image: the first one, and how many."""
        if self.operator == "dgrad":
            step = self.stride[0] * self.dilation[0]
            first = self.padding[0] // step
            return first, (self.out[0] - 1 + self.padding[0]) // step + 1 - first
        rows = ceil_div(self.out[0], self.dilation[0])
        return 0, rows + (self.open_rows - 1 if self.operator == "wgrad" else 0)

    @property
    def columns(self) -> int:
        return ceil_div(self.out[1], self.stride[1]) if self.operator == "dgrad" else self.out[1]

    def run(self, tile: DepthwiseTile) -> int:
        """Neighbours in memory that a thread has: what it writes (wgrad: reads of dy) at once, 16 bytes at most."""
        return math.gcd(min(tile.elements, 16 // self.itemsize), self.out[1] if self.pixels_last else self.channels)

    def registers(self, tile: DepthwiseTile) -> int:
        """Of a thread: weights and sums, or sums and rows."""
        R, S = self.kernel
        elements, run = tile.elements, self.run(tile)
        if tile.kind == "taps":
            # Sums, and addresses and masks: for each pixel, which of planes is each element.
            addresses = 2 if self.pixels_last else 1
            count = elements * (configs.DEPTHWISE_WGRAD_TAPS + 3 if self.operator == "wgrad" else 1 + addresses)
        elif self.operator == "wgrad":
            count = (R * S + self.open_rows + S) * elements
        else:
            channels = elements // run if self.pixels_last else run
            of_row = self.stride[0] * self.stride[1] if self.operator == "dgrad" else 1
            count = R * S * channels + (self.open_rows * of_row + 1) * elements
        return count * max(1, self.itemsize // 4)

    def refusal(self, tile: DepthwiseTile) -> str:
        """Why a kernel cannot run this, or ""."""
        if self.registers(tile) > configs.DEPTHWISE_REGISTERS:
            return f"weights and sums would take {self.registers(tile)} registers"
        if tile.kind == "taps":
            return ""
        if self.padding_mode != "zeros":
            return "it reads no border but zeros"
        if self.stride[0] > 1 and self.dilation[0] > 1:
            return "it takes a stride or a dilation of the rows, not both"
        if self.operator == "dgrad" and self.multiplier > 1:
            return "in dgrad it has one filter for each channel"
        return ""

    def slabs(self, tile: DepthwiseTile) -> tuple[int, int]:
        """Steps of a slab, and (wgrad) images of one."""
        programs = self.row_classes * ceil_div(self.columns, tile.columns) * ceil_div(self.channels, tile.channels)
        target = configs.DEPTHWISE_WGRAD_PROGRAMS if self.operator == "wgrad" else configs.DEPTHWISE_PROGRAMS
        _, units = self.units
        images = max(1, self.images)
        # A slab has four times the rows at least that it shares with the one before.
        slabs = max(1, min(ceil_div(target, programs * images), units // (4 * self.open_rows)))
        of_slab = ceil_div(images, max(1, min(images, target // programs))) if self.operator == "wgrad" else 1
        return ceil_div(units, slabs), of_slab

    def pixels_of_slab(self, tile: DepthwiseTile) -> int:
        """Of the wgrad of any filter."""
        R, S = self.kernel
        pixels = self.images * self.out[0] * self.out[1]
        programs = ceil_div(R * S, configs.DEPTHWISE_WGRAD_TAPS) * ceil_div(self.channels, tile.channels)
        steps = ceil_div(pixels, tile.columns)
        slabs = max(1, min(configs.DEPTHWISE_WGRAD_PROGRAMS // programs, steps // configs.LEAST_STEPS_OF_SLAB))
        return max(1, ceil_div(steps, slabs)) * tile.columns

    def cost(self, tile: DepthwiseTile) -> float:
        """Instructions that the threads of all programs issue, in a model; 132 programs at least are paid for.

        A load of a warp takes 4 for address and mask, as many conversions as it has elements, and 4 for each 128 bytes of L1 that it spans:
        L1 serves one of these while four instructions are issued. Channels are loaded in vectors. Of planes, the pixels of a shifted row are
        loaded one by one, since they are aligned to nothing, by lanes that are as far apart as what they write is long: so pixels are better
        written in 4 bytes a lane than in 16, which a warp does not move in fewer lines.
        """
        R, S = self.kernel
        E, run = tile.elements, self.run(tile)
        vector = 1 if self.pixels_last or (self.operator != "dgrad" and self.multiplier > 1) else run
        loads = E / vector * (4 + vector + 4 * max(1.0, run * self.itemsize / 4))
        channels = ceil_div(self.channels, tile.channels)
        if tile.kind == "taps":
            classes = self.stride[0] * self.stride[1] if self.operator == "dgrad" else 1
            pixels = self.images * ceil_div(self.out[0] * self.out[1], classes)
            programs = channels * classes * ceil_div(pixels, tile.columns)
            # A weight for each channel of a thread, from as many lines as lanes have different channels.
            lanes = min(32 * configs.DEPTHWISE_WARPS, tile.columns // run)
            weights = (
                E * lanes / tile.columns * 8 if self.pixels_last else run * (4 + 4 * min(32, tile.channels // run))
            )
            step = loads + E + (weights if self.operator != "wgrad" else loads / configs.DEPTHWISE_WGRAD_TAPS)
            steps = ceil_div(R * S, classes) * (self.multiplier if self.operator == "dgrad" else 1)
        else:
            of_slab, images = self.slabs(tile)
            programs = (
                channels * self.row_classes * ceil_div(self.columns, tile.columns)
                * ceil_div(self.units[1], of_slab) * ceil_div(self.images, images)
            )  # fmt: skip
            rows = 1 if self.operator == "dgrad" else self.stride[0]
            step = rows * S * loads + R * S * E + 2 * E
            steps = (of_slab + (0 if self.operator == "wgrad" else self.open_rows - 1)) * images
        # A pixel's channels that a tile has are at least 64 bytes, if all lanes of a load are to be served in its time. Beside a tile lie the
        # pixels that it reads and its neighbour too, of planes two sectors of 32 bytes; twice as many of them are read as take the time of the rest.
        if self.pixels_last:
            short, beside = 1.0, 64 / self.itemsize
        else:
            short, beside = 64 / (min(tile.channels, self.channels) * self.itemsize), (S - 1) * self.dilation[1]
        if tile.kind == "slide" and tile.columns < self.columns:
            step *= 1 + beside / (2 * tile.columns)
        return max(programs, configs.MULTIPROCESSORS) * steps * step * max(1.0, short)


def _in_vectors(image: Tensor, last: bool, extent: int = 0) -> tuple[int, tuple[int, ...], int]:
    """A vector's length, and in vectors: the strides but that of neighbours in memory, and `extent`.

    Triton hints to the compiler what is divisible by 16, and nothing else: rows of 56 pixels or pixels of 24 channels need telling.
    """
    strides = [stride if size > 1 else 0 for size, stride in zip(image.shape, image.stride(), strict=True)]
    neighbour = 3 if last else 1
    vector = math.gcd(16 // image.element_size(), extent, *(s for i, s in enumerate(strides) if i != neighbour))
    return vector, tuple(s if i == neighbour else s // vector for i, s in enumerate(strides)), extent // vector


def gather(
    name: str,
    tile: DepthwiseTile,
    d: Depthwise,
    source: Tensor,
    weight: Tensor,
    out: Tensor,
    c: Convolution,
    epilogue: EpilogueTensors,
) -> None:
    """fprop of x (`source`) to y (`out`), or dgrad of dy to dx."""
    from cnnkernels.triton.kernels.depthwise import conv2d_depthwise_slide_kernel, conv2d_depthwise_taps_kernel

    R, S = weight.shape[2:]
    dgrad = d.operator == "dgrad"
    last = d.pixels_last
    source_vector, source_strides, _ = _in_vectors(source, last)
    out_vector, out_strides, extent = _in_vectors(out, last, out.shape[3 if last else 1])
    out_sizes = (out.shape[1], out.shape[2], extent) if last else (extent, out.shape[2], out.shape[3])
    filter_strides = (weight.stride(0), *weight.stride()[2:])
    constants: dict[str, Any] = {
        "DGRAD": dgrad, "STRIDE_H": c.stride[0], "STRIDE_W": c.stride[1],
        "DILATION_H": c.dilation[0], "DILATION_W": c.dilation[1],
        "ACTIVATION": epilogue.activation, "PIXELS_LAST": last, "WIDE": is_wide(source, out),
        "SOURCE_VECTOR": source_vector, "OUT_VECTOR": out_vector, "BLOCK_CHANNELS": tile.channels,
    }  # fmt: skip
    channel_tiles = ceil_div(d.channels, tile.channels)
    if tile.kind == "slide":
        first_unit, units = d.units
        units_of_slab, _ = d.slabs(tile)
        slabs = ceil_div(units, units_of_slab)
        column_tiles = ceil_div(d.columns, tile.columns)
        phase = c.padding[1] % c.stride[1]
        first_shift = (phase - (S - 1) * c.dilation[1]) // c.stride[1]
        launch(
            name, conv2d_depthwise_slide_kernel,
            (d.images * d.row_classes * slabs * column_tiles, channel_tiles), out,
            source, weight, out, *epilogue.arguments,
            *source.shape[2:], *source_strides, *out_sizes, *out_strides, *filter_strides,
            *c.padding, first_unit, units, slabs, units_of_slab, column_tiles,
            R=R, S=S, MULTIPLIER=d.multiplier, PHASE_W=phase if dgrad else 0, FIRST_SHIFT=first_shift if dgrad else 0,
            SHIFTS=(phase + c.stride[1] - 1) // c.stride[1] - first_shift + 1 if dgrad else 0,
            BLOCK_COLUMNS=tile.columns, **constants, warps=configs.DEPTHWISE_WARPS,
        )  # fmt: skip
        return
    along = [taps_of(stride, dilation) for stride, dilation in zip(c.stride, c.dilation, strict=True)]
    classes = c.stride[0] * c.stride[1] if dgrad else 1
    rows, columns = (ceil_div(size, stride if dgrad else 1) for size, stride in zip(d.out, c.stride, strict=True))
    launch(
        name, conv2d_depthwise_taps_kernel, (classes * ceil_div(d.images * rows * columns, tile.columns), channel_tiles), out,
        source, weight, out, *epilogue.arguments,
        d.images, *source.shape[2:], *source_strides, *out_sizes, *out_strides, *filter_strides,
        *c.padding, R, S, d.multiplier,
        TAP_STEP_H=along[0].step, TAP_STEP_W=along[1].step, INVERSE_H=along[0].inverse, INVERSE_W=along[1].inverse,
        # Of one column _in_vectors has no stride.
        PADDING_MODE=c.padding_mode, DENSE=is_linear(out) and out.shape[3] > 1 and not (dgrad and classes > 1),
        BLOCK_PIXELS=tile.columns, **constants, warps=configs.DEPTHWISE_WARPS,
    )  # fmt: skip


def wgrad(
    name: str, tile: DepthwiseTile, d: Depthwise, grad_output: Tensor, input: Tensor, out: Tensor, c: Convolution
) -> None:
    """dw (`out`) of dy and x."""
    from cnnkernels.triton.kernels.depthwise_wgrad import (
        conv2d_depthwise_wgrad_slide_kernel,
        conv2d_depthwise_wgrad_taps_kernel,
    )

    R, S = out.shape[2:]
    last = d.pixels_last
    x_vector, x_strides, _ = _in_vectors(input, last)
    dy_vector, dy_strides, extent = _in_vectors(grad_output, last, grad_output.shape[3 if last else 1])
    sizes = (d.channels, d.out[0], extent) if last else (extent, d.out[0], d.out[1])
    slide = tile.kind == "slide"
    units_of_slab, images_of_slab = d.slabs(tile)
    row_slabs, column_tiles = ceil_div(d.units[1], units_of_slab), ceil_div(d.columns, tile.columns)
    pixels_of_slab = d.pixels_of_slab(tile)
    if slide:
        slabs = column_tiles * row_slabs * d.row_classes * ceil_div(d.images, images_of_slab)
    else:
        slabs = ceil_div(d.images * d.out[0] * d.out[1], pixels_of_slab)
    slabs = max(1, slabs)  # of no image: zeros
    partial = out
    if slabs > 1:
        accumulator = torch.float64 if out.dtype == torch.float64 else torch.float32
        partial = torch.empty(slabs * out.numel(), dtype=accumulator, device=out.device)
    arguments = (
        input, grad_output, partial,
        d.images, *input.shape[2:], *x_strides, *sizes, *dy_strides,
        out.stride(0), *out.stride()[2:], out.numel(), *c.padding,
    )  # fmt: skip
    constants: dict[str, Any] = {
        "STRIDE_H": c.stride[0], "STRIDE_W": c.stride[1], "DILATION_H": c.dilation[0], "DILATION_W": c.dilation[1],
        "PIXELS_LAST": last, "WIDE": is_wide(input, grad_output) or slabs * out.numel() >= 2**31,
        "X_VECTOR": x_vector, "DY_VECTOR": dy_vector, "BLOCK_CHANNELS": tile.channels,
    }  # fmt: skip
    channel_tiles = ceil_div(d.channels, tile.channels)
    if slide:
        launch(
            name, conv2d_depthwise_wgrad_slide_kernel, (slabs, channel_tiles), out,
            *arguments, d.units[1], row_slabs, units_of_slab, images_of_slab, column_tiles,
            R=R, S=S, MULTIPLIER=d.multiplier, BLOCK_COLUMNS=tile.columns, **constants, warps=configs.DEPTHWISE_WARPS,
        )  # fmt: skip
    else:
        taps = configs.DEPTHWISE_WGRAD_TAPS
        launch(
            name, conv2d_depthwise_wgrad_taps_kernel, (ceil_div(R * S, taps), channel_tiles, slabs), out,
            *arguments, R, S, d.multiplier, pixels_of_slab,
            PADDING_MODE=c.padding_mode, TAPS=taps, BLOCK_PIXELS=tile.columns, **constants, warps=configs.DEPTHWISE_WARPS,
        )  # fmt: skip
    if slabs > 1:
        sum_slabs(partial, slabs, out, EpilogueTensors())
