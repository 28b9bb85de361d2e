"""What a layer amounts to, by its shapes alone: output size, parameters, multiply-accumulates, bytes, receptive field.

The functions have the names and arguments of torch.nn.functional's, with a shape wherever that takes a tensor:

    layer = conv2d((8, 64, 56, 56), (128, 64, 3, 3), padding=1, stride=2)
    layer.output, layer.parameters, layer.macs, layer.bytes(torch.bfloat16)

Output sizes are those of cnnkernels.functional, which are torch's; what torch refuses raises torch's exception.

**MACs** are multiply-accumulates: one product of an input and a weight, added to a sum. Counted is every tap of every
window: also those in the padding, and those of a transposed convolution that are cut off its output. Not counted are
the bias, and what has no weights to multiply with, as poolings. So count papers, and torch.utils.flop_counter, whose
FLOPs are two per MAC; some who write FLOPs mean MACs. The benchmark's useful work (cnnkernels.bench.layer) is less: it
leaves the padding out.

**Bytes** are compulsory: input, weight, bias and output, each moved once, whatever the kernel. The index that max
pooling keeps for its backward is not among them.

Receptive fields: :class:`ReceptiveField`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from cnnkernels import functional
from cnnkernels.geometry import Refused

__all__ = [
    "IMAGE",
    "LayerArithmetic",
    "ReceptiveField",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "conv2d",
    "conv_transpose2d",
    "convolution_macs",
    "linear",
    "max_pool2d",
    "product_macs",
    "receptive_field",
]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerArithmetic:
    """One call of a layer. Shapes are torch's; a weight or bias that is not there is None."""

    input: Shape
    weight: Shape | None
    bias: Shape | None
    output: Shape
    macs: int  # multiply-accumulates, of all images

    @property
    def parameters(self) -> int:
        """Numbers in weight and bias."""
        return sum(math.prod(shape) for shape in (self.weight, self.bias) if shape is not None)

    def bytes(self, dtype: torch.dtype) -> int:
        """Bytes of input, weight, bias and output, all of `dtype`: what must be moved at least."""
        return (math.prod(self.input) + self.parameters + math.prod(self.output)) * dtype.itemsize

    def intensity(self, dtype: torch.dtype) -> float:
        """MACs per compulsory byte. Raises ZeroDivisionError where nothing is moved."""
        return self.macs / self.bytes(dtype)


def conv2d(
    input: Sequence[int],
    weight: Sequence[int],
    bias: bool = True,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> LayerArithmetic:
    """torch.nn.functional.conv2d.

    Args:
        input: (N, C, H, W) or (C, H, W).
        weight: (K, C / groups, R, S).
        bias: whether there is one, of K numbers.
        stride, padding, dilation, groups: as torch takes them; padding also as "same" or "valid".

    Raises:
        RuntimeError, TypeError, ValueError: torch's, for what torch refuses.
    """
    shapes = _shape(input), _shape(weight), (weight[0],) if bias and weight else None
    output = _output("conv2d", shapes, stride=stride, padding=padding, dilation=dilation, groups=groups)
    return LayerArithmetic(*shapes, output, convolution_macs(input, weight, output))


def conv_transpose2d(
    input: Sequence[int],
    weight: Sequence[int],
    bias: bool = True,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> LayerArithmetic:
    """torch.nn.functional.conv_transpose2d.

    Args:
        input: (N, C, H, W) or (C, H, W).
        weight: (C, K / groups, R, S).
        bias: whether there is one, of K numbers.
        stride, padding, output_padding, groups, dilation: as torch takes them.

    Raises:
        RuntimeError, TypeError, ValueError: torch's, for what torch refuses.
    """
    shapes = _shape(input), _shape(weight), (weight[1] * groups,) if bias and len(weight) > 1 else None
    output = _output(
        "conv_transpose2d", shapes,
        stride=stride, padding=padding, output_padding=output_padding, groups=groups, dilation=dilation,
    )  # fmt: skip
    return LayerArithmetic(*shapes, output, convolution_macs(input, weight, output, transposed=True))


def max_pool2d(
    input: Sequence[int],
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> LayerArithmetic:
    """torch.nn.functional.max_pool2d of an input (N, C, H, W) or (C, H, W).

    As on a GPU: there torch takes padding up to half of the window with its gaps, on a CPU without them.

    Raises:
        RuntimeError, TypeError, ValueError: torch's, for what torch refuses.
    """
    return _pooling(
        "max_pool2d", input,
        kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode,
    )  # fmt: skip


def avg_pool2d(
    input: Sequence[int], kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False
) -> LayerArithmetic:
    """torch.nn.functional.avg_pool2d of an input (N, C, H, W) or (C, H, W). What it divides by changes no number here.

    Raises:
        RuntimeError, TypeError, ValueError: torch's, for what torch refuses.
    """
    return _pooling("avg_pool2d", input, kernel_size=kernel_size, stride=stride, padding=padding, ceil_mode=ceil_mode)


def adaptive_max_pool2d(input: Sequence[int], output_size: Any) -> LayerArithmetic:
    """torch.nn.functional.adaptive_max_pool2d of an input (N, C, H, W) or (C, H, W).

    Raises:
        RuntimeError, TypeError, ValueError: torch's, for what torch refuses.
    """
    return _pooling("adaptive_max_pool2d", input, output_size=output_size)


def adaptive_avg_pool2d(input: Sequence[int], output_size: Any) -> LayerArithmetic:
    """torch.nn.functional.adaptive_avg_pool2d of an input (N, C, H, W) or (C, H, W).

    Raises:
        RuntimeError, TypeError, ValueError: torch's, for what torch refuses.
    """
    return _pooling("adaptive_avg_pool2d", input, output_size=output_size)


def linear(input: Sequence[int], weight: Sequence[int], bias: bool = True) -> LayerArithmetic:
    """torch.nn.functional.linear.

    Args:
        input: (..., C).
        weight: (K, C), or (C,).
        bias: whether there is one, of K numbers.

    Raises:
        RuntimeError: torch's, for what torch refuses.
    """
    shapes = _shape(input), _shape(weight), _shape(weight[:-1]) if bias else None
    try:
        output = F.linear(*(_tensor(shape, "meta") for shape in shapes)).shape
    except RuntimeError:
        F.linear(*(_tensor(shape, "cpu") for shape in shapes))  # in the words of torch's operators for data
        raise
    return LayerArithmetic(*shapes, tuple(output), product_macs(input, output))


def convolution_macs(
    input: Sequence[int], weight: Sequence[int], output: Sequence[int], transposed: bool = False
) -> int:
    """MACs of a convolution, of any number of dimensions: each output takes all numbers of a filter.

    Of a transposed one each input does. The shapes are torch's, and the channels of a filter those of its group.
    """
    return math.prod(input if transposed else output) * math.prod(weight[1:])


def product_macs(left: Sequence[int], output: Sequence[int]) -> int:
    """MACs of a product of matrices whose left factor and whose result have these shapes."""
    return math.prod(output) * left[-1]


@dataclass(frozen=True)
class ReceptiveField:
    """Along one axis: the pixels of the image that the features of a layer depend on.

    Feature i depends on `size` pixels in a row, the first of which is left + i * jump: on none outside of them, perhaps
    not on all. Pixels are counted from 0, and those of the padding go on beyond both edges: nothing is cut off at the
    image's size.

    Source: Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019. Their
    r_0 is `size`, their effective stride S_0 `jump`, their effective padding P_0 `-left`.
    """

    size: int = 1  # pixels
    jump: int = 1  # pixels from one feature's field to the next one's; 0 where all features have the same
    left: int = 0  # the first pixel of feature 0's field

    @property
    def start(self) -> float:
        """The centre of feature 0's field in pixels; pixel i has its centre at i."""
        return self.left + (self.size - 1) / 2

    def through(self, kernel: int, stride: int = 1, dilation: int = 1, padding: int = 0) -> ReceptiveField:
        """The field after a convolution or pooling: `padding` is what stands before the first pixel.

        A strided transposed convolution has none of this form: its outputs depend on different numbers of inputs by
        turns. Nor has an interpolation. One with stride 1 is a convolution, padded by dilation * (kernel - 1) - padding.

        Raises:
            ValueError: a kernel, stride or dilation below 1.
            TypeError: something that is not an integer.
        """
        for name, value in (("kernel", kernel), ("stride", stride), ("dilation", dilation), ("padding", padding)):
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} is an integer along one axis, not {value!r}")
            if value < 1 and name != "padding":
                raise ValueError(f"{name} is at least 1, not {value}")
        size = self.size + (kernel - 1) * dilation * self.jump
        return ReceptiveField(size, self.jump * stride, self.left - padding * self.jump)

    def of_all(self, features: int) -> ReceptiveField:
        """The field of something that depends on the first `features` features at once, as global pooling does."""
        return ReceptiveField(self.size + (features - 1) * self.jump, 0, self.left)

    def union(self, other: ReceptiveField) -> ReceptiveField:
        """The field of feature i of a sum or concatenation: from the first to the last pixel of both.

        Where the two have one centre, as in residual networks, this is the larger of them.

        Raises:
            ValueError: the jumps are different, so that there is no such field.
        """
        if self.jump != other.jump:
            raise ValueError(f"fields that are {self.jump} and {other.jump} pixels apart have no common one")
        left = min(self.left, other.left)
        right = max(self.left + self.size, other.left + other.size)
        return ReceptiveField(right - left, self.jump, left)


#: The field of a pixel of the image.
IMAGE = ReceptiveField()


def receptive_field(layers: Iterable[Sequence[int]]) -> ReceptiveField:
    """The field of the last of a chain of layers, along one axis.

    Args:
        layers: (kernel, stride, dilation, padding) of each convolution or pooling, the first one first; from the right
            they may be left out, and are then 1, 1 and 0.

    Raises:
        ValueError, TypeError: as ReceptiveField.through.
    """
    field = IMAGE
    for layer in layers:
        field = field.through(*layer)
    return field


def _pooling(op: str, input: Sequence[int], **arguments: Any) -> LayerArithmetic:
    shape = _shape(input)
    return LayerArithmetic(shape, None, None, _output(op, (shape,), **arguments), 0)


def _output(op: str, shapes: tuple[Shape | None, ...], **arguments: Any) -> Shape:
    image, *others = shapes
    assert image is not None
    try:
        # A prepared call ends with its geometry.
        prepared = getattr(functional, f"prepare_{op}")(*(_tensor(shape, "meta") for shape in shapes), **arguments)
    except (Refused, TypeError, ValueError):
        # What our kernels do not take, or torch refuses: on a CPU, for its operators on "meta" take more than they may.
        return tuple(getattr(F, op)(*(_tensor(shape, "cpu") for shape in shapes), **arguments).shape)
    geometry = prepared[-1]
    # The geometry of a transposed convolution is that of the convolution which it reverses.
    size = geometry.image if op == "conv_transpose2d" else geometry.output
    if not others:
        return *image[:-2], *size
    weight = others[0]
    assert weight is not None
    channels = weight[1] * geometry.groups if op == "conv_transpose2d" else weight[0]
    return *image[:-3], channels, *size


def _shape(sizes: Sequence[int]) -> Shape:
    return tuple(sizes)


def _tensor(shape: Shape | None, device: str) -> Any:
    """A tensor of that shape which takes no memory."""
    return None if shape is None else torch.zeros((), device=device).expand(shape)
