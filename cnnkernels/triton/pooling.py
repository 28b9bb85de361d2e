"""Which pooling kernel runs a pass, and what it is launched with: from sizes and strides to a grid and arguments."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cnnkernels.triton import configs
from cnnkernels.triton.configs import PoolTile, ReductionTile
from cnnkernels.triton.convolution import DTYPE_NAMES, Tap, ceil_div, is_linear, is_wide, pixels_are_last, taps_of
from cnnkernels.triton.launch import launch
from cnnkernels.triton.plan import Candidate, Choice, cheapest

WINDOWS = "windows"  # kernels/max_pool.py, avg_pool.py
REDUCTION = "reduction"  # kernels/pool_reduction.py

# The passes by their names in the catalogue, each with the operator that its kernels are named after, and the families
# that run it.
_PASSES = {
    "max": ("max_pool2d", (WINDOWS, REDUCTION)),
    "max_backward": ("max_pool2d_backward", (WINDOWS,)),
    "max_gather": ("max_pool2d_gather", (WINDOWS,)),
    "avg": ("avg_pool2d", (WINDOWS, REDUCTION)),
    "avg_backward": ("avg_pool2d_backward", (WINDOWS,)),
    "adaptive_max": ("adaptive_max_pool2d", (WINDOWS, REDUCTION)),
    "adaptive_max_backward": ("adaptive_max_pool2d_backward", (WINDOWS,)),
    "adaptive_avg": ("adaptive_avg_pool2d", (WINDOWS, REDUCTION)),
    "adaptive_avg_backward": ("adaptive_avg_pool2d_backward", (WINDOWS,)),
}


class Pooling(NamedTuple):
    """A pooling's arguments, as the operators take them. Of an adaptive one the sizes of its tensors say all."""

    window: Sequence[int] = (1, 1)
    stride: Sequence[int] = (1, 1)
    padding: Sequence[int] = (0, 0)
    dilation: Sequence[int] = (1, 1)
    adaptive: bool = False
    count_include_pad: bool = True
    divisor_override: int | None = None


ADAPTIVE = Pooling(adaptive=True)


class Axis(NamedTuple):
    """One axis of a pooling of `image` pixels to `outputs`."""

    image: int
    outputs: int
    taps: int  # of a window, at most
    windows: int  # that a pixel lies in, at most
    stride: int
    pad: int
    dilation: int
    tap: Tap  # the taps of a class of pixels (kernels/tiles.py)


def most_pixels(image: int, outputs: int) -> int:
    """How many pixels the largest adaptive window has: windows of `outputs` that divide `image`.

    With image = each * outputs + rest and g = gcd(image, outputs), window p has each + ceil((p + 1) * rest / outputs) -
    floor(p * rest / outputs) pixels. That is each + 2 where p * rest mod outputs, a multiple of g below outputs, and
    rest together exceed outputs.
    """
    if outputs == 0 or image == 0:
        return 0
    rest = image % outputs
    return image // outputs + (rest > 0) + (rest > math.gcd(image, outputs))


def axes_of(c: Pooling, image: Sequence[int], output: Sequence[int]) -> tuple[Axis, Axis]:
    def axis(i: int) -> Axis:
        if c.adaptive:
            taps, windows = most_pixels(image[i], output[i]), most_pixels(output[i], image[i])
            return Axis(image[i], output[i], max(1, taps), max(1, windows), 1, 0, 1, Tap(1, 0))
        tap = taps_of(c.stride[i], c.dilation[i])
        windows = ceil_div(c.window[i], tap.step)
        return Axis(image[i], output[i], c.window[i], windows, c.stride[i], c.padding[i], c.dilation[i], tap)

    return axis(0), axis(1)


def divisor_of(c: Pooling, axes: tuple[Axis, Axis]) -> tuple[str, int]:
    """What a mean's divisor is to the kernels (avg_pool.py), and which where it is the same for all windows."""
    if c.divisor_override is not None:
        return "same", c.divisor_override
    if 0 in (axes[0].outputs, axes[1].outputs):
        return "same", 1  # of no window
    if c.adaptive:
        alike = all(a.outputs and a.image % a.outputs == 0 for a in axes)
    elif c.count_include_pad:
        alike = all((a.outputs - 1) * a.stride + a.taps <= a.image + 2 * a.pad for a in axes)
    else:
        alike = all(a.pad == 0 and (a.outputs - 1) * a.stride + a.taps <= a.image for a in axes)
    if alike:
        return "same", axes[0].taps * axes[1].taps
    return ("padded" if c.count_include_pad and not c.adaptive else "inside"), 1


class Walk(NamedTuple):
    """A pass as the tiles see it: which results are written, and what is read for each."""

    images: int
    channels: int
    target: Sequence[int]  # rows and columns
    taps: int  # read for each
    at_once: int  # of them, where they are walked
    overlap: float  # how many results read an element, on average
    pixels_last: bool  # of what is read
    step: int  # elements from what a pixel reads to what its neighbour does
    row: int  # elements of a window that lie side by side in a plane
    itemsize: int

    @property
    def results(self) -> int:
        return self.images * self.channels * self.target[0] * self.target[1]

    def cost(self, tile: PoolTile) -> float:
        """Of walking the windows. Lanes have neighbouring pixels of a plane, or channels, if few of several."""
        pixels = self.images * self.target[0] * self.target[1]
        programs = ceil_div(max(1, pixels), tile.pixels) * ceil_div(max(1, self.channels), tile.channels)
        if self.pixels_last:
            apart = max(self._lines(tile.pixels), float(min(self.step, configs.MOST_STEP)))
        else:
            apart = self._lines(tile.channels if self.channels > tile.channels else self.channels * tile.pixels)
        return self._time(programs, tile.pixels * tile.channels * apart, self.taps, ceil_div(self.taps, self.at_once))

    def parts(self, tile: ReductionTile) -> int:
        """As many as give every multiprocessor two programs, as long as each has a few steps."""
        steps = ceil_div(max(1, self.taps), tile.window)
        programs = ceil_div(max(1, self.results), tile.results)
        return max(1, min(configs.TARGET_PROGRAMS // programs, steps // configs.LEAST_STEPS_OF_SLAB))

    def reduction_cost(self, tile: ReductionTile) -> float:
        """Of windows side by side. The tree at the end is a step as well, and so is the parts' way through memory."""
        parts = self.parts(tile)
        programs = ceil_div(max(1, self.results), tile.results) * parts
        apart = self._lines(min(tile.window, self.row) if self.pixels_last else min(tile.results, self.channels))
        steps = ceil_div(ceil_div(max(1, self.taps), tile.window), parts) + 1 + (parts > 1)
        return self._time(programs, tile.results * tile.window * apart, steps, steps)

    def _time(self, programs: int, elements: float, taps: int, waits: int) -> float:
        """Elements that a multiprocessor reads, or could read while its programs wait for memory: the larger number."""
        rounds = ceil_div(programs, configs.MULTIPROCESSORS * configs.PROGRAMS_AT_ONCE)
        wait = configs.WAIT_ELEMENTS / min(max(1.0, self.overlap), configs.MOST_STEP)
        return max(programs * elements * taps / configs.MULTIPROCESSORS, rounds * waits * wait)

    def _lines(self, run: int) -> float:
        """How many times the bytes asked for are moved, in lines of 128, where lanes read runs of `run` elements."""
        return max(1.0, 128 / (max(1, run) * self.itemsize))


@functools.cache
def names_of(name: str, dtype: torch.dtype) -> dict[str, tuple[str, PoolTile | ReductionTile]]:
    """The kernels of pass `name`: family and tile of each by its name."""
    operator, families = _PASSES[name]
    tiles: dict[str, Sequence[PoolTile | ReductionTile]] = {
        WINDOWS: configs.POOL_TILES,
        REDUCTION: configs.REDUCTION_TILES,
    }
    return {
        f"triton_{operator}_{tile.size}_{DTYPE_NAMES[dtype]}": (family, tile)
        for family in families
        for tile in tiles[family]
    }


def catalogue(dtype: torch.dtype) -> list[dict[str, Any]]:
    """A row for each pooling kernel of `dtype`: its name, family, dtype, passes and tile."""
    return [
        {"name": kernel, "family": family, "dtype": DTYPE_NAMES[dtype], "passes": (name,), "tile": tile}
        for name in _PASSES
        for kernel, (family, tile) in names_of(name, dtype).items()
    ]


def choose(name: str, walk: Walk, dtype: torch.dtype, kernel_name: str = "") -> Choice[PoolTile | ReductionTile]:
    """What runs pass `name`.

    Raises:
        CannotRun: `kernel_name` is no kernel of this pass and dtype, or refuses the problem.
    """
    candidates: list[Candidate[PoolTile | ReductionTile]] = []
    for kernel, (family, tile) in names_of(name, dtype).items():
        slabs, refusal = 1, ""
        if isinstance(tile, PoolTile):
            cost = walk.cost(tile)
        else:
            slabs, cost = walk.parts(tile), walk.reduction_cost(tile)
            if walk.taps * configs.LEAST_FILLED < tile.window:
                refusal = f"a window of {walk.taps} pixels fills little of a tile of {tile.window}"
        candidates.append(Candidate(kernel, family, tile, slabs, cost, tile.why, refusal=refusal))
    return cheapest(candidates, kernel_name)


def _tiles(tile: PoolTile, out: Tensor, pixels_last: bool) -> tuple[int, int]:
    """How many programs there are, and how many of them are neighbours along the tensors' memory."""
    pixels = ceil_div(out.shape[0] * out.shape[2] * out.shape[3], tile.pixels)
    channels = ceil_div(out.shape[1], tile.channels)
    return pixels * channels, pixels if pixels_last else channels


def _warps(pixels_last: bool) -> int:
    return configs.WARPS_OF_PLANES if pixels_last else configs.WARPS_OF_CHANNELS


def _dense(out: Tensor) -> tuple[int, ...]:
    """A result's height, width, their product, and the strides of images, channels and pixels: rows have no gaps."""
    height, width = out.shape[2:]
    return height, width, height * width, out.stride(0), out.stride(1), out.stride(3)


def _is_wide(axes: tuple[Axis, Axis], *tensors: Tensor) -> bool:
    """Whether offsets into one of the tensors, or products of sizes in kernels/windows.py, need 64 bits."""
    return is_wide(*tensors) or any(
        max(a.outputs * a.image, a.outputs * a.stride, a.image + a.pad + a.taps * a.dilation) >= 2**31 - 2**20
        for a in axes
    )


def _taps_at_once(axes: tuple[Axis, Axis]) -> int:
    return min(axes[0].taps * axes[1].taps, configs.TAPS_AT_ONCE)


def _windows_at_once(axes: tuple[Axis, Axis]) -> int:
    return min(axes[0].windows * axes[1].windows, configs.WINDOWS_AT_ONCE)


def forward_walk(out: Tensor, input: Tensor, axes: tuple[Axis, Axis]) -> Walk:
    """What the pass from `input` to `out` reads."""
    h, w = axes
    taps, pixels = h.taps * w.taps, h.image * w.image
    whole = w.taps == w.image and is_linear(input)
    return Walk(
        out.shape[0], out.shape[1], out.shape[2:],
        taps, _taps_at_once(axes), taps * h.outputs * w.outputs / max(1, pixels),
        pixels_are_last(input), w.image // max(1, w.outputs), taps if whole else w.taps, input.element_size(),
    )  # fmt: skip


def backward_walk(out: Tensor, grad_output: Tensor, axes: tuple[Axis, Axis]) -> Walk:
    """What the pass from `grad_output` to `out` reads: neighbours read neighbours, or the same.

    Lanes lie as `out` does, which is the larger tensor, and where windows do not overlap the one that most bytes are
    of.
    """
    h, w = axes
    windows, outputs = h.windows * w.windows, h.outputs * w.outputs
    return Walk(
        out.shape[0], out.shape[1], out.shape[2:],
        windows, _windows_at_once(axes), windows * h.image * w.image / max(1, outputs),
        pixels_are_last(out), 1, w.windows, grad_output.element_size(),
    )  # fmt: skip


def gather_walk(out: Tensor, indices: Tensor) -> Walk:
    """Of a gather: the indices, one for each result."""
    return Walk(
        out.shape[0], out.shape[1], out.shape[2:], 1, 1, 1.0, pixels_are_last(indices), 1, 1, indices.element_size()
    )


def forward(name: str, kernel_name: str, input: Tensor, out: Tensor, index: Tensor | None, c: Pooling) -> None:
    """y (`out`) of x: maxima, with their indices unless these are None, or means. `index` lies as `out` does."""
    axes = h, w = axes_of(c, input.shape[2:], out.shape[2:])
    choice = choose(name, forward_walk(out, input, axes), out.dtype, kernel_name)
    if isinstance(choice.tile, ReductionTile):
        _reduce(choice.kernel, choice.tile, choice.slabs, input, out, index, c, axes)
        return
    assert choice.tile is not None
    tile, last = choice.tile, pixels_are_last(input)
    programs, inner = _tiles(tile, out, last)
    sizes = (*input.shape[:2], *input.shape[2:], *input.stride(), *_dense(out), h.pad, w.pad)
    blocks = {"BLOCK_PIXELS": tile.pixels, "BLOCK_CHANNELS": tile.channels}
    wide = _is_wide(axes, input, out)
    if name.endswith("max"):
        from cnnkernels.triton.kernels.max_pool import max_pool2d_kernel

        launch(
            choice.kernel, max_pool2d_kernel, (programs,), out,
            input, out, index, *sizes, inner,
            R=h.taps, S=w.taps, STRIDE_H=h.stride, STRIDE_W=w.stride, DILATION_H=h.dilation, DILATION_W=w.dilation,
            ADAPTIVE=c.adaptive, TAPS_AT_ONCE=_taps_at_once(axes), PIXELS_LAST=last, WIDE=wide, **blocks,
            warps=_warps(last),
        )  # fmt: skip
    else:
        from cnnkernels.triton.kernels.avg_pool import avg_pool2d_kernel

        kind, divisor = divisor_of(c, axes)
        launch(
            choice.kernel, avg_pool2d_kernel, (programs,), out,
            input, out, *sizes, divisor, inner,
            R=h.taps, S=w.taps, STRIDE_H=h.stride, STRIDE_W=w.stride, DIVISOR=kind,
            ADAPTIVE=c.adaptive, TAPS_AT_ONCE=_taps_at_once(axes), PIXELS_LAST=last, WIDE=wide, **blocks,
            warps=_warps(last),
        )  # fmt: skip


def _reduce(
    name: str,
    tile: ReductionTile,
    parts: int,
    input: Tensor,
    out: Tensor,
    index: Tensor | None,
    c: Pooling,
    axes: tuple[Axis, Axis],
) -> None:
    """`forward` by kernels/pool_reduction.py: means, or maxima with or without their indices."""
    from cnnkernels.triton.kernels.pool_reduction import merge_parts_kernel, pool2d_reduction_kernel

    h, w = axes
    maxima = "max_pool" in name
    kind, divisor = ("same", 1) if maxima else divisor_of(c, axes)
    whole = c.adaptive and h.outputs == w.outputs == 1 and is_linear(input)
    # Of a plane that is one window, one row: its pixels' numbers are offsets.
    image = (1, h.image * w.image) if whole else (h.image, w.image)
    window = image if whole else (h.taps, w.taps)
    taps = window[0] * window[1]
    taps_of_part = max(1, ceil_div(ceil_div(taps, parts), tile.window)) * tile.window
    parts = max(1, ceil_div(taps, taps_of_part))
    wide = _is_wide(axes, input, out) or parts * out.numel() >= 2**31 - 2**20
    partial = partial_tap = None
    if parts > 1:
        accumulator = torch.float64 if out.dtype == torch.float64 else torch.float32
        partial = torch.empty(parts * out.numel(), dtype=accumulator, device=out.device)
        if maxima:
            partial_tap = torch.empty_like(partial, dtype=torch.int64 if wide else torch.int32)
    geometry: dict[str, Any] = {
        "STRIDE_H": h.stride, "STRIDE_W": w.stride, "DILATION_H": h.dilation, "DILATION_W": w.dilation,
        "MAX": maxima, "DIVISOR": kind, "ADAPTIVE": c.adaptive, "WIDE": wide,
        "CHANNELS_LAST": not pixels_are_last(out),
    }  # fmt: skip
    launch(
        name, pool2d_reduction_kernel, (ceil_div(out.numel(), tile.results), parts), out,
        input, out, index, partial, partial_tap,
        out.numel(), out.shape[1], *image, *input.stride(), *out.shape[2:],
        h.pad, w.pad, divisor, *window, taps, taps_of_part,
        WHOLE=whole, EVEN=whole and input.stride(0) == input.shape[1] * input.stride(1),
        WINDOW_LAST=pixels_are_last(input), BLOCK_RESULTS=tile.results, BLOCK_WINDOW=tile.window, **geometry,
        warps=tile.warps,
    )  # fmt: skip
    if partial is not None:
        programs = ceil_div(out.numel(), configs.MERGE_BLOCK)
        launch(
            f"triton_merge_parts_{DTYPE_NAMES[out.dtype]}", merge_parts_kernel, (programs,), out,
            partial, partial_tap, parts, out, index,
            out.numel(), out.shape[1], *image, *out.shape[2:], h.pad, w.pad, divisor, *window,
            BLOCK_RESULTS=configs.MERGE_BLOCK, **geometry,
            warps=4,
        )  # fmt: skip


def backward(name: str, kernel_name: str, grad_output: Tensor, indices: Tensor | None, out: Tensor, c: Pooling) -> None:
    """dx (`out`) of dy, and of the indices of maxima, which means have none of."""
    axes = h, w = axes_of(c, out.shape[2:], grad_output.shape[2:])
    choice = choose(name, backward_walk(out, grad_output, axes), out.dtype, kernel_name)
    assert isinstance(choice.tile, PoolTile)
    tile, last = choice.tile, pixels_are_last(out)
    programs, inner = _tiles(tile, out, last)
    blocks = {"BLOCK_PIXELS": tile.pixels, "BLOCK_CHANNELS": tile.channels}
    windows = {"WINDOWS_H": h.windows, "WINDOWS_W": w.windows, "WINDOWS_AT_ONCE": _windows_at_once(axes)}
    if indices is not None:
        from cnnkernels.triton.kernels.max_pool import max_pool2d_backward_kernel

        launch(
            choice.kernel, max_pool2d_backward_kernel, (programs,), out,
            grad_output, indices, out, *out.shape[:2],
            *grad_output.shape[2:], *grad_output.stride(), *indices.stride(), *_dense(out), h.pad, w.pad, inner,
            R=h.taps, S=w.taps, STRIDE_H=h.stride, STRIDE_W=w.stride, DILATION_H=h.dilation, DILATION_W=w.dilation,
            TAP_STEP_H=h.tap.step, TAP_STEP_W=w.tap.step, INVERSE_H=h.tap.inverse, INVERSE_W=w.tap.inverse,
            ADAPTIVE=c.adaptive, PIXELS_LAST=last, WIDE=_is_wide(axes, grad_output, indices, out), **windows, **blocks,
            warps=_warps(last),
        )  # fmt: skip
    else:
        from cnnkernels.triton.kernels.avg_pool import avg_pool2d_backward_kernel

        kind, divisor = divisor_of(c, axes)
        launch(
            choice.kernel, avg_pool2d_backward_kernel, (programs,), out,
            grad_output, out, *out.shape[:2],
            *grad_output.shape[2:], *grad_output.stride(), *_dense(out), h.pad, w.pad, divisor, inner,
            R=h.taps, S=w.taps, STRIDE_H=h.stride, STRIDE_W=w.stride, DIVISOR=kind,
            ADAPTIVE=c.adaptive, PIXELS_LAST=last, WIDE=_is_wide(axes, grad_output, out), **windows, **blocks,
            warps=_warps(last),
        )  # fmt: skip


def max_gather(kernel_name: str, input: Tensor, indices: Tensor, out: Tensor, c: Pooling) -> None:
    """x at the indices (`out`)."""
    from cnnkernels.triton.kernels.max_pool import max_pool2d_gather_kernel

    axes = h, w = axes_of(c, input.shape[2:], out.shape[2:])
    choice = choose("max_gather", gather_walk(out, indices), out.dtype, kernel_name)
    assert isinstance(choice.tile, PoolTile)
    tile, last = choice.tile, pixels_are_last(indices)
    programs, inner = _tiles(tile, out, last)
    launch(
        choice.kernel, max_pool2d_gather_kernel, (programs,), out,
        input, indices, out, *out.shape[:2],
        *input.shape[2:], input.shape[2] * input.shape[3], *input.stride(), *indices.stride(), *_dense(out)[1:],
        h.pad, w.pad, inner,
        S=w.taps, STRIDE_H=h.stride, STRIDE_W=w.stride, DILATION_H=h.dilation, DILATION_W=w.dilation,
        PIXELS_LAST=last, WIDE=_is_wide(axes, input, indices, out),
        BLOCK_PIXELS=tile.pixels, BLOCK_CHANNELS=tile.channels,
        warps=_warps(last),
    )  # fmt: skip
