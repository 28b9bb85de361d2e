"""The problems that kernels are tried on: data, in groups titled by what they provoke.

A problem is stated as torch's functions state it. Its output size is asked of torch itself (on the meta device), so
that no arithmetic of ours is tested against arithmetic of ours. All of them are small: the emulator runs every kernel
on every one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F

from cnnkernels.testing.operands import Layout, Values

Pair = tuple[int, int]

CONV2D_PASSES = ("fprop", "dgrad", "wgrad", "bias_grad")
POOL2D_PASSES = ("max", "max_backward", "max_gather", "avg", "avg_backward")


@dataclass(frozen=True)
class Conv2dProblem:
    """A 2-D convolution of x[N, C, H, W] with K filters of R x S. Pairs are (height, width).

    `transposed` says that the problem is meant as the transposed convolution y[N, K, P, Q] -> x: its output_padding is
    what the rounding of P and Q leaves. `layout` is how all operands lie in memory; an unbatched problem has N = 1.
    `passes` says which passes it is tried in.
    """

    group: str
    N: int
    C: int
    H: int
    W: int
    K: int
    R: int
    S: int
    stride: Pair = (1, 1)
    padding: Pair | Literal["same"] = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    layout: Layout = "contiguous"
    batched: bool = True
    transposed: bool = False
    bias: bool = True
    passes: tuple[str, ...] = CONV2D_PASSES

    def suits(self, name: str) -> bool:
        """Whether pass `name` is tried on it."""
        return name in self.passes

    def __str__(self) -> str:
        text = f"n{self.N} c{self.C} {self.H}x{self.W} k{self.K} {self.R}x{self.S}"
        text += "" if self.stride == (1, 1) else f" stride {_pair(self.stride)}"
        if self.padding == "same":
            text += " same"
        elif self.padding != (0, 0):
            text += f" pad {_pair(self.padding)}"
        text += "" if self.dilation == (1, 1) else f" dilation {_pair(self.dilation)}"
        text += "" if self.groups == 1 else f" groups {self.groups}"
        return text + _suffix(self.layout, self.batched) + (" transposed" if self.transposed else "")

    @property
    def pad_before(self) -> Pair:
        """Rows above and columns to the left of the image; 'same' leaves an odd row or column to the far side."""
        if self.padding == "same":
            return self.dilation[0] * (self.R - 1) // 2, self.dilation[1] * (self.S - 1) // 2
        return self.padding

    @cached_property
    def output_size(self) -> Pair:
        """P and Q."""
        if self.padding == "same":  # asked directly, torch warns of the padded copy that it would make
            return self.H, self.W
        image = torch.empty(1, self.C, self.H, self.W, device="meta")
        weight = torch.empty(self.K, self.C // self.groups, self.R, self.S, device="meta")
        output = F.conv2d(image, weight, None, self.stride, self.padding, self.dilation, self.groups)
        return output.shape[2], output.shape[3]

    @property
    def output_padding(self) -> Pair:
        """What conv_transpose2d needs to get from P x Q back to H x W, for a numeric padding."""
        (P, Q), (top, left) = self.output_size, self.pad_before
        rows = (P - 1) * self.stride[0] - 2 * top + self.dilation[0] * (self.R - 1) + 1
        columns = (Q - 1) * self.stride[1] - 2 * left + self.dilation[1] * (self.S - 1) + 1
        return self.H - rows, self.W - columns

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of input, weight, output and both biases (of the convolution and of the transposed one)."""
        return {
            "input": (self.N, self.C, self.H, self.W),
            "weight": (self.K, self.C // self.groups, self.R, self.S),
            "output": (self.N, self.K, *self.output_size),
            "bias": (self.K,),
            "transposed_bias": (self.C,),
        }

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one pass, padding counted."""
        return self.N * self.K * self.output_size[0] * self.output_size[1] * self.C // self.groups * self.R * self.S


@dataclass(frozen=True)
class Pool2dProblem:
    """A 2-D pooling of x[N, C, H, W].

    `kinds` says which poolings it makes sense for, `passes` in which of their passes it is tried; the rest is torch's
    arguments.
    """

    group: str
    N: int
    C: int
    H: int
    W: int
    window: Pair
    stride: Pair | None = None
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int | None = None
    layout: Layout = "contiguous"
    batched: bool = True
    values: Values = "normal"
    kinds: tuple[Literal["max", "avg"], ...] = field(default=("max", "avg"))
    passes: tuple[str, ...] = POOL2D_PASSES

    def suits(self, name: str) -> bool:
        """Whether pass `name` is tried on it."""
        return name.split("_")[0] in self.kinds and name in self.passes

    def __str__(self) -> str:
        text = f"n{self.N} c{self.C} {self.H}x{self.W} window {_pair(self.window)}"
        text += "" if self.stride is None else f" stride {_pair(self.stride)}"
        text += "" if self.padding == (0, 0) else f" pad {_pair(self.padding)}"
        text += "" if self.dilation == (1, 1) else f" dilation {_pair(self.dilation)}"
        text += " ceil" if self.ceil_mode else ""
        text += "" if self.count_include_pad else " without pad"
        text += "" if self.divisor_override is None else f" divisor {self.divisor_override}"
        text += "" if self.values == "normal" else f" {self.values}"
        return text + _suffix(self.layout, self.batched)

    @property
    def steps(self) -> Pair:
        """The stride, which is the window where none is given."""
        return self.stride or self.window

    @cached_property
    def output_size(self) -> Pair:
        """P and Q."""
        image = torch.empty(1, 1, self.H, self.W, device="meta")
        output = F.max_pool2d(image, self.window, self.stride, self.padding, self.dilation, self.ceil_mode)
        return output.shape[2], output.shape[3]

    @property
    def overlap(self) -> int:
        """The most windows that one pixel can lie in."""
        return -(-self.window[0] // self.steps[0]) * -(-self.window[1] // self.steps[1])


def _pair(pair: Pair) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"


def _suffix(layout: Layout, batched: bool) -> str:
    return ("" if layout == "contiguous" else f" {layout}") + ("" if batched else " unbatched")


def conv2d_group(group: str, *problems: dict[str, Any]) -> tuple[Conv2dProblem, ...]:
    """Convolutions under one title."""
    return tuple(Conv2dProblem(group=group, **problem) for problem in problems)


def pool2d_group(group: str, *problems: dict[str, Any]) -> tuple[Pool2dProblem, ...]:
    """Poolings under one title."""
    return tuple(Pool2dProblem(group=group, **problem) for problem in problems)


def sizes(N: int, C: int, H: int, W: int, K: int, R: int, S: int, **rest: Any) -> dict[str, Any]:
    """A convolution but for its title."""
    return {"N": N, "C": C, "H": H, "W": W, "K": K, "R": R, "S": S, **rest}


def image(N: int, C: int, H: int, W: int, window: Pair, **rest: Any) -> dict[str, Any]:
    """A pooling but for its title."""
    return {"N": N, "C": C, "H": H, "W": W, "window": window, **rest}


# Every size odd, every pair unequal, groups, and a remainder that the strides leave: the problem for the layouts below.
_CROOKED = sizes(2, 6, 11, 19, 10, 2, 5, stride=(3, 2), padding=(1, 3), dilation=(2, 1), groups=2)
_CROOKED_WINDOW = image(2, 5, 11, 17, (3, 2), stride=(2, 3), padding=(1, 0))
# Every size a multiple of every vector's length: whether they can be read in vectors is the layout's doing alone.
_EVEN = sizes(2, 8, 8, 8, 16, 3, 3, padding=(1, 1))
_EVEN_WINDOW = image(2, 8, 16, 16, (2, 2))

CONV2D_PROBLEMS: tuple[Conv2dProblem, ...] = (
    *conv2d_group(
        "the layers of LeNet-5 and MNISTNet",
        sizes(2, 1, 32, 32, 6, 5, 5),
        sizes(2, 6, 14, 14, 16, 5, 5),
        sizes(1, 10, 12, 12, 20, 5, 5),
    ),
    *conv2d_group(
        "tile edges: exactly a tile, one less and one more in every dimension",
        sizes(1, 8, 8, 16, 64, 1, 1),
        sizes(1, 7, 1, 127, 63, 1, 1),
        sizes(1, 9, 3, 43, 65, 1, 1),
        sizes(1, 17, 5, 13, 9, 1, 1),
    ),
    *conv2d_group(
        "odd sizes, with a border",
        sizes(3, 5, 13, 17, 7, 3, 3, padding=(1, 1)),
        sizes(1, 3, 7, 7, 17, 3, 3, padding=(1, 1), bias=False),
    ),
    *conv2d_group(
        "everything asymmetric: rows taken for columns, near side for far side",
        _CROOKED,
        sizes(3, 4, 9, 23, 6, 5, 2, stride=(1, 4), padding=(3, 0), dilation=(1, 3)),
        sizes(1, 3, 7, 9, 5, 4, 2, padding="same", dilation=(1, 3)),
    ),
    *conv2d_group(
        "stride over the filter: pixels that no tap reads, whose gradient is zero",
        sizes(2, 3, 13, 13, 4, 2, 2, stride=(3, 3)),
        sizes(2, 5, 9, 9, 6, 1, 1, stride=(2, 2)),
        sizes(1, 2, 17, 11, 3, 3, 2, stride=(5, 7), padding=(1, 1)),
    ),
    *conv2d_group(
        "dilation: alone, with a stride it shares a divisor with, and with one it does not",
        sizes(1, 4, 15, 15, 4, 3, 3, padding=(4, 4), dilation=(4, 4)),
        sizes(2, 3, 14, 17, 5, 3, 3, stride=(2, 4), padding=(2, 3), dilation=(4, 2)),
        sizes(1, 3, 16, 13, 5, 3, 2, stride=(3, 2), dilation=(2, 3)),
    ),
    *conv2d_group(
        "groups: few, many, and with one channel or one filter each",
        sizes(2, 8, 9, 9, 12, 3, 3, padding=(1, 1), groups=4),
        sizes(1, 6, 5, 7, 4, 1, 1, groups=2),
        sizes(1, 12, 7, 7, 4, 3, 3, groups=4, stride=(2, 2)),
    ),
    *conv2d_group(
        "depthwise, and with a channel multiplier",
        sizes(2, 10, 11, 11, 10, 5, 5, padding=(2, 2), groups=10),
        sizes(1, 5, 9, 8, 15, 3, 3, stride=(2, 1), groups=5),
    ),
    *conv2d_group("1x1 filters on channels that are a multiple of nothing", sizes(2, 33, 7, 5, 18, 1, 1)),
    *conv2d_group(
        "filters as large as the image, and larger: most taps lie in the padding",
        sizes(3, 4, 6, 5, 7, 6, 5),
        sizes(1, 2, 15, 13, 3, 31, 29, padding=(15, 14)),
        sizes(2, 2, 3, 3, 3, 3, 3, padding=(5, 4)),
    ),
    *conv2d_group(
        "long reductions: over channels in fprop, over images and pixels in wgrad",
        sizes(1, 70, 6, 6, 66, 3, 3, padding=(1, 1)),
        sizes(9, 2, 25, 21, 3, 3, 3, padding=(1, 1)),
    ),
    *conv2d_group(
        "one row, one column, one pixel",
        sizes(2, 3, 1, 35, 4, 1, 3, padding=(0, 1)),
        sizes(1, 3, 29, 1, 4, 4, 1, stride=(2, 1)),
        sizes(1, 1, 1, 1, 1, 1, 1),
    ),
    *conv2d_group("no image at all", sizes(0, 3, 8, 8, 4, 3, 3, padding=(1, 1))),
    *conv2d_group(
        "transposed, with output_padding and groups",
        sizes(2, 6, 12, 14, 4, 3, 4, stride=(3, 4), padding=(1, 0), transposed=True),
        sizes(1, 5, 10, 10, 8, 4, 4, stride=(2, 2), padding=(1, 1), transposed=True),
        sizes(2, 6, 11, 12, 9, 3, 2, stride=(2, 3), dilation=(1, 2), groups=3, transposed=True),
    ),
    *conv2d_group(
        "channels last",
        _CROOKED | {"layout": "channels_last"},
        sizes(2, 16, 7, 7, 24, 3, 3, padding=(1, 1), layout="channels_last"),
        sizes(2, 9, 8, 8, 9, 3, 3, groups=9, layout="channels_last"),
    ),
    *conv2d_group(
        "strides of other kinds: inside a larger tensor, repeated, dimensions in the opposite order",
        _CROOKED | {"layout": "sliced"},
        _CROOKED | {"layout": "expanded"},
        _CROOKED | {"layout": "permuted"},
    ),
    *conv2d_group(
        "channels last but for an odd address, or an odd number of elements from pixel, row or image to the next",
        _EVEN | {"layout": "channels_last_sliced_start"},
        _EVEN | {"layout": "channels_last_sliced_pixels"},
        _EVEN | {"layout": "channels_last_sliced_rows"},
        _EVEN | {"layout": "channels_last_sliced_images"},
    ),
    *conv2d_group("unbatched", sizes(1, 3, 9, 10, 5, 3, 3, padding=(1, 1), batched=False)),
)

POOL2D_PROBLEMS: tuple[Pool2dProblem, ...] = (
    *pool2d_group(
        "the layers of LeNet-5",
        image(2, 6, 28, 28, (2, 2)),
        image(2, 16, 10, 10, (2, 2)),
    ),
    *pool2d_group(
        "tile edges: many planes of one result, one plane of many results",
        image(1, 257, 2, 2, (2, 2)),
        image(1, 1, 32, 66, (2, 2)),
        image(3, 5, 33, 31, (2, 2)),
    ),
    *pool2d_group(
        "overlapping windows: a pixel's gradient comes from several",
        image(2, 5, 15, 13, (3, 3), stride=(2, 2), padding=(1, 1)),
        image(1, 4, 9, 9, (3, 3), stride=(1, 1), padding=(1, 1)),
        image(1, 2, 12, 12, (5, 4), stride=(1, 1)),
    ),
    *pool2d_group(
        "everything asymmetric",
        _CROOKED_WINDOW,
        image(2, 3, 13, 19, (2, 3), stride=(1, 3), padding=(1, 0), dilation=(3, 2), kinds=("max",)),
    ),
    *pool2d_group(
        "stride over the window: pixels in no window",
        image(2, 3, 17, 16, (2, 2), stride=(5, 3)),
        image(1, 3, 9, 9, (1, 1), stride=(2, 2)),
    ),
    *pool2d_group(
        "dilation", image(2, 3, 15, 14, (3, 3), stride=(2, 1), padding=(1, 1), dilation=(3, 4), kinds=("max",))
    ),
    *pool2d_group(
        "ceil_mode: a last window that is cut off, and one that would begin in the padding",
        image(2, 3, 10, 12, (3, 3), stride=(2, 2), ceil_mode=True),
        image(1, 3, 7, 8, (3, 2), stride=(3, 3), padding=(1, 1), ceil_mode=True),
        image(1, 3, 10, 9, (4, 4), stride=(3, 5), padding=(2, 1), ceil_mode=True, count_include_pad=False),
    ),
    *pool2d_group(
        "the divisor of average pooling",
        image(2, 3, 9, 11, (3, 3), stride=(2, 2), padding=(1, 1), count_include_pad=False, kinds=("avg",)),
        image(2, 3, 9, 11, (3, 2), padding=(1, 1), divisor_override=5, kinds=("avg",)),
        image(1, 2, 8, 8, (2, 2), stride=(1, 2), divisor_override=-4, ceil_mode=True, kinds=("avg",)),
    ),
    *pool2d_group(
        "one window over all, and windows larger than the image",
        image(2, 7, 9, 11, (9, 11)),
        image(1, 3, 6, 7, (11, 13), stride=(2, 2), padding=(5, 6)),
    ),
    *pool2d_group(
        "one row, one column, one pixel",
        image(2, 3, 1, 37, (1, 3)),
        image(2, 3, 23, 1, (2, 1)),
        image(1, 1, 1, 1, (1, 1)),
    ),
    *pool2d_group(
        "equal values, NaN and infinities in one window",
        image(2, 3, 12, 12, (3, 3), stride=(2, 2), padding=(1, 1), values="integers", kinds=("max",)),
        image(2, 4, 12, 13, (2, 3), padding=(1, 1), values="special", kinds=("max",)),
    ),
    *pool2d_group("no image at all", image(0, 3, 8, 8, (2, 2))),
    *pool2d_group(
        "strides of other kinds: channels last, inside a larger tensor, repeated, dimensions in the opposite order",
        _CROOKED_WINDOW | {"layout": "channels_last"},
        image(2, 33, 8, 8, (2, 2), layout="channels_last"),
        image(1, 36, 8, 8, (2, 2), layout="channels_last"),
        _CROOKED_WINDOW | {"layout": "sliced"},
        _CROOKED_WINDOW | {"layout": "expanded"},
        _CROOKED_WINDOW | {"layout": "permuted"},
    ),
    *pool2d_group(
        "channels last but for an odd address, or an odd number of elements from pixel, row or image to the next",
        _EVEN_WINDOW | {"layout": "channels_last_sliced_start"},
        _EVEN_WINDOW | {"layout": "channels_last_sliced_pixels"},
        _EVEN_WINDOW | {"layout": "channels_last_sliced_rows"},
        _EVEN_WINDOW | {"layout": "channels_last_sliced_images"},
    ),
    *pool2d_group("unbatched", image(1, 3, 9, 10, (2, 2), batched=False)),
)
