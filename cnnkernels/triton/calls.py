"""Calls of the Triton operators that their kernels are compiled for ahead of time (ahead.py): layers of known networks, and every tile.

CALLS has a line for each kernel or operator. A call takes nothing, and is one of an operator on meta tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cnnkernels.triton import configs, operators
from cnnkernels.triton.convolution import DTYPE_NAMES

_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}
LAYOUTS = ("nhwc", "nchw")


@dataclass(frozen=True)
class Layer:
    """A square convolution of `size` x `size` pixels; `out` of it are written."""

    images: int
    channels: int
    size: int
    filters: int
    taps: int
    out: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1


LAYERS = {
    "resnet50_3x3": Layer(32, 128, 28, 128, 3, 28, padding=1),
    "resnet50_1x1": Layer(32, 256, 28, 512, 1, 28),
    "resnet50_late_1x1": Layer(32, 1024, 14, 256, 1, 14),  # planes of 4 * 49 pixels
    "resnet50_3x3_stride2": Layer(32, 128, 56, 128, 3, 28, stride=2, padding=1),
    "resnet50_first": Layer(32, 3, 224, 64, 7, 112, stride=2, padding=3),
    "resnext50_3x3": Layer(32, 128, 56, 128, 3, 56, padding=1, groups=32),
    "deeplab_aspp": Layer(8, 2048, 33, 256, 3, 33, padding=12, dilation=12),
    "mobilenet_1x1": Layer(32, 144, 56, 24, 1, 56),  # channels that are a multiple of 8 but not of 16
    "regnet_3x3": Layer(32, 104, 28, 104, 3, 28, padding=1),  # the same
    "decoder_4x4": Layer(16, 128, 64, 256, 4, 32, stride=2, padding=1),  # of which dgrad is a transposed convolution
}


def image(images: int, channels: int, height: int, width: int, dtype: str, layout: str) -> Tensor:
    """A tensor without data: "nhwc" is channels_last."""
    memory_format = torch.channels_last if layout == "nhwc" else torch.contiguous_format
    return torch.empty(
        images, channels, height, width, dtype=_DTYPES[dtype], device="meta", memory_format=memory_format
    )


def convolution(
    what: str, layer: str, dtype: str, layout: str, kernel: str = "", precision: str = "tf32"
) -> tuple[str, Callable[[], Any]]:
    """A pass ("fprop", "dgrad", "wgrad") of a layer, its tensors in one layout; `kernel` is a tile, the plan's if none is given."""
    name = " ".join(
        part for part in (what, layer, dtype + ("-ieee" if precision == "ieee" else ""), layout, kernel) if part
    )

    def call() -> Any:
        l = LAYERS[layer]
        x = image(l.images, l.channels, l.size, l.size, dtype, layout)
        w = image(l.filters, l.channels // l.groups, l.taps, l.taps, dtype, layout)
        y = image(l.images, l.filters, l.out, l.out, dtype, layout)
        geometry = ((l.stride,) * 2, (l.padding,) * 2, (l.dilation,) * 2, l.groups, layout == "nhwc")
        operator = "conv2d_wgrad" if what == "wgrad" else "conv2d_gather"
        kernel_name = f"triton_{operator}_{kernel}_{dtype}" if kernel else ""
        cudnn: Any = torch.backends.cudnn
        conv = cudnn.conv
        before = conv.fp32_precision
        conv.fp32_precision = precision
        try:
            if what == "fprop":
                return operators.conv2d_fprop(x, w, None, (l.out, l.out), *geometry, kernel_name)
            if what == "dgrad":
                return operators.conv2d_dgrad(y, w, None, (l.size, l.size), *geometry, kernel_name)
            return operators.conv2d_wgrad(y, x, (l.taps, l.taps), *geometry, kernel_name)
        finally:
            conv.fp32_precision = before

    return name, call


def _layers() -> Iterator[tuple[str, Callable[[], Any]]]:
    for layout in LAYOUTS:
        for layer in LAYERS:
            if layer != "decoder_4x4":
                yield convolution("fprop", layer, "bf16", layout)
            if layer != "resnet50_first":
                yield convolution("dgrad", layer, "bf16", layout)
            yield convolution("wgrad", layer, "bf16", layout)


def _tiles() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Each on a layer whose operands it is made for."""
    for dtype, precision in (("bf16", "tf32"), ("f16", "tf32"), ("f32", "tf32"), ("f32", "ieee"), ("f64", "tf32")):
        for tile in configs.matrix_tiles(_DTYPES[dtype]):
            for what in ("fprop", "wgrad"):
                if not tile.by_element:
                    yield convolution(what, "resnet50_3x3", dtype, "nhwc", tile.size, precision)
                if tile.by_element or dtype == "f32":
                    yield convolution(what, "resnet50_3x3", dtype, "nchw", tile.size, precision)
                elif dtype == "bf16":
                    yield convolution(what, "resnet50_1x1", dtype, "nchw", tile.size)


def _depthwise(
    what: str, taps: int, stride: int, dtype: str, layout: str, channels: int = 144, size: int = 56
) -> tuple[str, Callable[[], Any]]:
    out, padding = size // stride, taps // 2

    def call() -> Any:
        x, y = (image(32, channels, side, side, dtype, layout) for side in (size, out))
        w = image(channels, 1, taps, taps, dtype, "nchw")
        geometry = ((stride,) * 2, (padding,) * 2, (1, 1), channels, layout == "nhwc")
        if what == "fprop":
            return operators.conv2d_fprop(x, w, None, (out, out), *geometry)
        if what == "dgrad":
            return operators.conv2d_dgrad(y, w, None, (size, size), *geometry)
        return operators.conv2d_wgrad(y, x, (taps, taps), *geometry)

    return f"depthwise {what} {taps}x{taps} stride {stride} {dtype} {layout}", call


def _streams() -> Iterator[tuple[str, Callable[[], Any]]]:
    """What moves memory and computes little."""
    for layout in LAYOUTS:
        last = layout == "nhwc"
        for dtype in ("bf16", "f32"):
            for what in ("fprop", "dgrad", "wgrad"):
                for taps, stride in ((3, 1), (3, 2), (5, 1), (7, 1)):
                    yield _depthwise(what, taps, stride, dtype, layout)
            window = ((3, 3), (2, 2), (1, 1))

            def x(size: int = 112, dtype: str = dtype, layout: str = layout) -> Tensor:
                return image(32, 64, size, size, dtype, layout)

            def index(dtype: torch.dtype, layout: str = layout) -> Tensor:
                return image(32, 64, 56, 56, "f32", layout).to(dtype)

            calls: dict[str, Callable[..., Any]] = {
                "max_pool2d": lambda x, w, last: operators.max_pool2d(x(), (56, 56), *w, (1, 1), last),
                "max_pool2d_with_indices": lambda x, w, last: operators.max_pool2d_with_indices(
                    x(), (56, 56), *w, (1, 1), False, last
                ),
                "avg_pool2d": lambda x, w, last: operators.avg_pool2d(x(), (56, 56), *w, True, None, last),
                "avg_pool2d_backward": lambda x, w, last: operators.avg_pool2d_backward(
                    x(56), (112, 112), *w, True, None, last
                ),
                "adaptive_avg_pool2d": lambda x, w, last: operators.adaptive_avg_pool2d(x(), (7, 7), last),
                "global_avg_pool2d": lambda x, w, last: operators.adaptive_avg_pool2d(x(56), (1, 1), last),
            }
            for name, call in calls.items():
                yield f"{name} {dtype} {layout}", partial(call, x, window, last)
            backward = partial(_max_backward, x, index, window, last)
            yield f"max_pool2d_backward {dtype} {layout}", backward


def _max_backward(x: Callable[..., Tensor], index: Callable[..., Tensor], window: Any, last: bool) -> Any:
    return operators.max_pool2d_backward(x(56), index(torch.uint8), (112, 112), *window, (1, 1), last)


def _padded(layout: str) -> tuple[str, Callable[[], Any]]:
    def call() -> Any:
        dy, w = image(32, 128, 28, 28, "bf16", layout), image(128, 128, 3, 3, "bf16", layout)
        geometry = ((1, 1), (1, 1), (1, 1), 1, layout == "nhwc")
        return operators.conv2d_dgrad(dy, w, None, (28, 28), *geometry, padding_mode="reflect")

    return f"dgrad reflect bf16 {layout}", call


def _activation_grad(dtype: str, layout: str) -> Any:
    dy, y = (image(32, 256, 28, 28, dtype, layout) for _ in range(2))
    return operators.conv2d_activation_grad(dy, y, "relu", 0.0, layout == "nhwc")


def _large(what: str, groups: int = 1) -> tuple[str, Callable[[], Any]]:
    """Of 2^32 elements: offsets have 64 bits."""
    name = f"{'depthwise ' if groups > 1 else ''}{what} of 2^32 elements bf16 nhwc"

    def call() -> Any:
        x, w = image(1 << 15, 128, 32, 32, "bf16", "nhwc"), image(128, 128 // groups, 3, 3, "bf16", "nhwc")
        geometry = ((1, 1), (1, 1), (1, 1), groups, True)
        if what == "bias_grad":
            return operators.conv2d_bias_grad(x)
        if what == "wgrad":
            return operators.conv2d_wgrad(x, x, (3, 3), *geometry)
        return operators.conv2d_fprop(x, w, None, (32, 32), *geometry)

    return name, call


CALLS: dict[str, Callable[[], Any]] = {
    **dict(_layers()),
    **dict(_tiles()),
    **dict(_streams()),
    **dict(_padded(layout) for layout in LAYOUTS),
    **dict(_large(what, groups) for what in ("fprop", "wgrad") for groups in (1, 128)),
    **dict([_large("bias_grad")]),
    "activation_grad bf16 nhwc": lambda: _activation_grad("bf16", "nhwc"),
    "activation_grad f32 nchw": lambda: _activation_grad("f32", "nchw"),
    "bias_grad bf16 nhwc": lambda: operators.conv2d_bias_grad(image(32, 256, 28, 28, "bf16", "nhwc")),
    "bias_grad bf16 nchw": lambda: operators.conv2d_bias_grad(image(32, 256, 28, 28, "bf16", "nchw")),
}
