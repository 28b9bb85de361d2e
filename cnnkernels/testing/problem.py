"""What a problem that kernels are tried on is, and how groups of them are written down.

A problem is stated as torch's functions state it. Its output size is asked of torch itself (on the meta device), so
that no arithmetic of ours is tested against arithmetic of ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F

from cnnkernels.testing.operands import Layout, Values

Pair = tuple[int, int]

#: The form of max pooling's indices: none at all, taps of the window (uint8), or pixels of the image (int64).
IndexForm = Literal["none", "window", "flat"]

CONV2D_PASSES = ("fprop", "dgrad", "wgrad", "bias_grad", "activation_grad")
ADAPTIVE_PASSES = ("adaptive_max", "adaptive_max_backward", "adaptive_avg", "adaptive_avg_backward")
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
    padding_mode: str = "zeros"
    passes: tuple[str, ...] = CONV2D_PASSES

    def suits(self, name: str) -> bool:
        """Whether pass `name` is tried on it; "fused" is fprop with an epilogue."""
        return ("fprop" if name == "fused" else name) in self.passes

    def __str__(self) -> str:
        text = f"n{self.N} c{self.C} {self.H}x{self.W} k{self.K} {self.R}x{self.S}"
        text += "" if self.stride == (1, 1) else f" stride {_pair(self.stride)}"
        if self.padding == "same":
            text += " same"
        elif self.padding != (0, 0):
            text += f" pad {_pair(self.padding)}"
        text += "" if self.padding_mode == "zeros" else f" {self.padding_mode}"
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

    `kinds` says which poolings it makes sense for, `passes` in which of their passes it is tried, `indices` in which form max
    pooling's are, `levels` how many poolings of each other it chains; the rest is torch's arguments.
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
    indices: IndexForm = "window"
    levels: Literal[1, 3] = 1

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
        text += "" if self.indices == "window" else f", {self.indices} indices"
        text += "" if self.levels == 1 else f", {self.levels} levels"
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


@dataclass(frozen=True)
class AdaptivePool2dProblem:
    """An adaptive 2-D pooling of x[N, C, H, W] to y[N, C, P, Q], `output` being P and Q."""

    group: str
    N: int
    C: int
    H: int
    W: int
    output: Pair
    layout: Layout = "contiguous"
    values: Values = "normal"
    passes: tuple[str, ...] = ADAPTIVE_PASSES

    def suits(self, name: str) -> bool:
        """Whether pass `name` is tried on it."""
        return name in self.passes

    def __str__(self) -> str:
        text = f"n{self.N} c{self.C} {self.H}x{self.W} to {self.output[0]}x{self.output[1]}"
        return text + ("" if self.values == "normal" else f" {self.values}") + _suffix(self.layout, batched=True)


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


def adaptive_group(group: str, *problems: dict[str, Any]) -> tuple[AdaptivePool2dProblem, ...]:
    """Adaptive poolings under one title."""
    return tuple(AdaptivePool2dProblem(group=group, **problem) for problem in problems)


def to(N: int, C: int, H: int, W: int, output: Pair, **rest: Any) -> dict[str, Any]:
    """An adaptive pooling but for its title."""
    return {"N": N, "C": C, "H": H, "W": W, "output": output, **rest}
