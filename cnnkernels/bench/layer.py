"""A layer as torch states it, the passes it has, and the least work that each of them is.

Sizes are the field's: x[N, C, H, W], K filters of R x S, y[N, K, P, Q]; pairs are (height, width).

Useful work counts what no implementation can avoid. A multiply-add whose tap lies in the padding is not useful. Of the
image only pixels that some window reads are; every element of a result is, zeros too. Each operand moves once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = tuple[int, int]

CONVOLUTIONS = ("conv2d", "conv_transpose2d")
POOLINGS = ("max_pool2d", "avg_pool2d")
ADAPTIVE = ("adaptive_max_pool2d", "adaptive_avg_pool2d")
OPS = CONVOLUTIONS + POOLINGS + ADAPTIVE

#: A convolution's passes, each alone, and the two forwards with an epilogue: bias and ReLU; bias, sum and ReLU.
CONVOLUTION_PASSES = ("fprop", "dgrad", "wgrad")
FUSED_PASSES = ("fprop_relu", "fprop_add_relu")
POOLING_PASSES = ("forward", "backward")

#: The kinds of problem that ask for kernels of their own, in the order in which tables list them.
FAMILIES = (
    "dense", "strided", "pointwise", "first_layer", "depthwise", "grouped", "dilated", "transposed", "pool",
)  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """One layer. `K` is C for poolings; R and S are the filter's or window's; `output` is asked of adaptive poolings only.

    Raises ValueError for a combination that torch would refuse.
    """

    op: str
    N: int
    C: int
    H: int
    W: int
    K: int = 0
    R: int = 1
    S: int = 1
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    output_padding: Pair = (0, 0)
    ceil_mode: bool = False
    count_include_pad: bool = True
    output: Pair | None = None

    def __post_init__(self) -> None:
        if self.op not in OPS:
            raise ValueError(f"no layer is called {self.op!r}: {', '.join(OPS)}")
        if self.K == 0:
            object.__setattr__(self, "K", self.C)
        if (self.output is not None) != (self.op in ADAPTIVE):
            raise ValueError(f"{self.op}: output is for adaptive poolings, and they need it")
        try:
            _ = self.output_size
        except RuntimeError as error:
            raise ValueError(f"{self.op}: {error}") from error

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Layer:
        """From :meth:`to_dict`, or from a file that writes one number for a pair of equal ones."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"a layer has no {', '.join(sorted(unknown))}")
        pairs = {"stride", "padding", "dilation", "output_padding", "output"}
        arguments: dict[str, Any] = {name: _pair(value) if name in pairs else value for name, value in values.items()}
        return cls(**arguments)

    def to_dict(self) -> dict[str, Any]:
        """The fields that are not at their defaults; pairs of equal numbers as one number."""
        result: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value == field.default or (field.name == "K" and self.is_pooling):
                continue
            result[field.name] = value[0] if isinstance(value, tuple) and value[0] == value[1] else value
        return {name: list(value) if isinstance(value, tuple) else value for name, value in result.items()}

    def with_batch(self, batch: int) -> Layer:
        return Layer(**(asdict(self) | {"N": batch}))

    def __str__(self) -> str:
        parts = [self.op, f"n{self.N} c{self.C} {self.H}x{self.W}"]
        if not self.is_pooling:
            parts.append(f"k{self.K}")
        parts.append(_by(self.output) if self.output else f"{self.R}x{self.S}")
        for name, value, usual in (
            ("stride", self.stride, (1, 1)), ("pad", self.padding, (0, 0)), ("dilation", self.dilation, (1, 1)),
            ("output pad", self.output_padding, (0, 0)),
        ):  # fmt: skip
            if value != usual:
                parts.append(f"{name} {value[0] if value[0] == value[1] else _by(value)}")
        if self.groups > 1:
            parts.append(f"groups {self.groups}")
        parts += ["ceil"] * self.ceil_mode + ["without pad"] * (not self.count_include_pad)
        return " ".join(parts)

    @property
    def is_pooling(self) -> bool:
        return self.op not in CONVOLUTIONS

    @property
    def passes(self) -> tuple[str, ...]:
        return POOLING_PASSES if self.is_pooling else CONVOLUTION_PASSES

    @property
    def image(self) -> Pair:
        return self.H, self.W

    @cached_property
    def output_size(self) -> Pair:
        """P and Q, as torch has them."""
        x = torch.empty(1, self.C, self.H, self.W, device="meta")
        w = None if self.is_pooling else torch.empty(self.weight_shape, device="meta")
        shape = self.forward(x, w).shape
        return shape[2], shape[3]

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        return self.N, self.C, self.H, self.W

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        return self.N, self.K, *self.output_size

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        if self.op == "conv_transpose2d":
            return self.C, self.K // self.groups, self.R, self.S
        return self.K, self.C // self.groups, self.R, self.S

    @property
    def reduction_lengths(self) -> dict[str, int]:
        """The terms in one result of each pass, at most."""
        taps = self.R * self.S
        if self.is_pooling:
            if self.op in ADAPTIVE:
                P, Q = self.output_size
                taps = (-(-self.H // P) + 1) * (-(-self.W // Q) + 1)
            return {"forward": taps, "backward": taps}
        channels, filters = self.C // self.groups, self.K // self.groups
        P, Q = self.output_size if self.op == "conv2d" else self.image
        lengths = {"fprop": channels * taps, "dgrad": filters * taps, "wgrad": self.N * P * Q}
        return lengths | dict.fromkeys(FUSED_PASSES, lengths["fprop"] + 2)

    def forward(
        self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, functions: Any = F
    ) -> Tensor:
        """The layer by `functions`: torch.nn.functional, or a module with the same names and signatures."""
        if self.op == "conv2d":
            result = functions.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        elif self.op == "conv_transpose2d":
            result = functions.conv_transpose2d(
                x, weight, bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
            )
        elif self.op == "max_pool2d":
            result = functions.max_pool2d(x, (self.R, self.S), self.stride, self.padding, self.dilation, self.ceil_mode)
        elif self.op == "avg_pool2d":
            result = functions.avg_pool2d(
                x, (self.R, self.S), self.stride, self.padding, self.ceil_mode, self.count_include_pad
            )
        else:
            result = getattr(functions, self.op)(x, self.output)
        output: Tensor = result
        return output

    @property
    def family(self) -> str:
        """Which of :data:`FAMILIES` it belongs to: the trait that decides which kernel suits it."""
        if self.is_pooling:
            return "pool"
        if self.op == "conv_transpose2d":
            return "transposed"
        if self.groups > 1:
            return "depthwise" if self.groups == self.C else "grouped"
        if self.dilation != (1, 1):
            return "dilated"
        if self.C <= 4:
            return "first_layer"
        if (self.R, self.S) == (1, 1):
            return "pointwise"
        return "strided" if self.stride != (1, 1) else "dense"

    def useful_flops(self, name: str) -> int:
        """Two for each multiply-add of pass `name` whose tap lies inside the image; 0 for poolings."""
        if self.is_pooling:
            return 0
        taps = math.prod(sum(tap is not None for row in rows for tap in row) for rows in self._reads)
        return 2 * self.N * self.C * (self.K // self.groups) * taps

    def useful_bytes(self, name: str, element_size: int) -> int:
        """What pass `name` reads and writes at least: every operand once. Max pooling remembers a byte per window."""
        touched = tuple(len({pixel for row in rows for pixel in row} - {None}) for rows in self._reads)
        outputs = math.prod(self.output_shape)
        weights = 0 if self.is_pooling else math.prod(self.weight_shape)
        # A transposed convolution reads every pixel of its input, and its output's rows are the ones that taps touch.
        windows_on_input = self.op != "conv_transpose2d"
        read_input = self.N * self.C * (math.prod(touched) if windows_on_input else self.H * self.W)
        read_output = outputs if windows_on_input else self.N * self.K * math.prod(touched)
        inputs = math.prod(self.input_shape)
        elements = {
            "fprop": read_input + weights + outputs,
            "fprop_relu": read_input + weights + outputs + self.K,
            "fprop_add_relu": read_input + weights + 2 * outputs + self.K,
            "dgrad": inputs + weights + read_output,
            "wgrad": read_input + weights + read_output,
            "forward": read_input + outputs,
            "backward": inputs + outputs,
        }[name]
        index_bytes = outputs if name == "backward" and "max" in self.op else 0
        return elements * element_size + index_bytes

    @cached_property
    def _reads(self) -> tuple[list[list[int | None]], list[list[int | None]]]:
        """For rows and for columns: per window, the pixel under each tap; None in the padding."""
        axes: list[list[list[int | None]]] = []
        for axis in range(2):
            if self.op in ADAPTIVE:
                size, out = self.image[axis], self.output_size[axis]
                axes.append([list(range(i * size // out, -(-(i + 1) * size // out))) for i in range(out)])
                continue
            # A transposed convolution's windows lie on its output, one per pixel of its input.
            size, windows = self.image[axis], self.output_size[axis]
            if self.op == "conv_transpose2d":
                size, windows = windows, size
            taps = (self.R, self.S)[axis]
            starts = (i * self.stride[axis] - self.padding[axis] for i in range(windows))
            pixels = ([start + tap * self.dilation[axis] for tap in range(taps)] for start in starts)
            axes.append([[pixel if 0 <= pixel < size else None for pixel in row] for row in pixels])
        rows, columns = axes
        return rows, columns


def _pair(value: Any) -> Pair | None:
    if value is None or isinstance(value, int):
        return None if value is None else (value, value)
    height, width = value
    return height, width


def _by(pair: Pair) -> str:
    return f"{pair[0]}x{pair[1]}"
