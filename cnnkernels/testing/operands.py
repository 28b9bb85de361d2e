"""Tensors to run a problem on: what values they hold and how they lie in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

#: How an operand lies in memory. "sliced" lies inside a larger tensor full of NaN, which no kernel may read; "expanded"
#: repeats its first dimension by stride 0; "permuted" has its dimensions stored in the opposite order. The last four
#: are channels_last and leave out one NaN: before the first element, or behind every pixel, row or image. With sizes
#: that are multiples of a vector's length, that alone keeps vectors of channels from being aligned. "channels_last_images"
#: and "channels_last_weights" are convolutions of which only these are channels_last. The images of "far" and
#: "channels_last_far" lie 2^30 elements apart, in memory that is reserved and, between them, never touched.
Layout = Literal[
    "contiguous",
    "channels_last",
    "sliced",
    "expanded",
    "permuted",
    "channels_last_sliced_start",
    "channels_last_sliced_pixels",
    "channels_last_sliced_rows",
    "channels_last_sliced_images",
    "channels_last_images",
    "channels_last_weights",
    "far",
    "channels_last_far",
]

#: "normal" is N(0, 1); "integers" are small enough for sums of them to be exact; "special" has NaN and infinities too.
Values = Literal["normal", "integers", "special"]

# Elements from one far image to the next.
_FAR = 1 << 30
# Elements before and behind each that are NaN.
_MARGIN = 64

# Largest magnitude of "integers", such that sums of some thousand products stay exact in each dtype's own digits.
_LARGEST_INTEGER = {torch.float64: 8, torch.float32: 8, torch.float16: 2, torch.bfloat16: 1}


def make_operand(
    shape: Sequence[int],
    dtype: torch.dtype,
    generator: torch.Generator,
    *,
    values: Values = "normal",
    layout: Layout = "contiguous",
    device: str = "cpu",
    scale: int = 1,
    density: float = 1.0,
    tf32: bool = False,
) -> Tensor:
    """A tensor of the given shape, dtype, values and layout; the same one for the same state of `generator`.

    `scale` multiplies the values, of which on average the part `density` is not replaced by 0. A layout other than
    "contiguous" is for 4-D tensors. `tf32` rounds fp32 to it.
    """
    stored = (1, *shape[1:]) if layout == "expanded" else tuple(shape)
    numbers = _values(stored, dtype, generator, values) * scale
    if density < 1:
        numbers *= torch.rand(stored, generator=generator) < density
    numbers = rounded_to_tf32(numbers).to(device) if tf32 else numbers.to(device)
    return numbers.expand(*shape) if layout == "expanded" else lay_out(numbers, layout)


def rounded_to_tf32(numbers: Tensor) -> Tensor:
    """fp32 `numbers` with ten bits after the point: the nearest, of two the one away from zero (PTX: cvt.rna.tf32.f32)."""
    finite = numbers.isfinite()
    bits = numbers.view(torch.int32)
    return torch.where(finite, (bits + (1 << 12)) & ~((1 << 13) - 1), bits).view(torch.float32)


def lay_out(tensor: Tensor, layout: Layout) -> Tensor:
    """The values of the 4-D `tensor`, numbers or indices, in another layout; "expanded" leaves them dense."""
    if layout == "channels_last":
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "permuted":
        return tensor.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    if layout in ("contiguous", "expanded"):
        return tensor.contiguous()
    n, c, h, w = tensor.shape
    if is_far(layout):
        return _far_apart(tensor, layout) if tensor.is_floating_point() else lay_out(tensor, _near(layout))
    nothing = torch.nan if tensor.is_floating_point() else torch.iinfo(tensor.dtype).min
    if layout == "sliced":
        surroundings = tensor.new_full((n, c + 2, h + 3, 2 * w + 3), nothing)
        inside = surroundings[:, 1 : c + 1, 2 : h + 2, 1 : 2 * w + 1 : 2]
        return inside.copy_(tensor)
    first = int(layout == "channels_last_sliced_start")
    pixel = c + (layout == "channels_last_sliced_pixels")
    row = w * pixel + (layout == "channels_last_sliced_rows")
    image = h * row + (layout == "channels_last_sliced_images")
    surroundings = tensor.new_full((first + n * image,), nothing)
    return surroundings.as_strided(tensor.shape, (image, 1, row, pixel), first).copy_(tensor)


def layout_of(role: str, layout: Layout) -> Layout:
    """The layout of one operand, where a convolution's have different ones."""
    if is_far(layout) and role == "weight":
        return _near(layout)
    if layout not in ("channels_last_images", "channels_last_weights"):
        return layout
    return "channels_last" if (role == "weight") == (layout == "channels_last_weights") else "contiguous"


def is_far(layout: Layout) -> bool:
    """Whether offsets from one image to another may not fit in 31 bits."""
    return layout in ("far", "channels_last_far")


def _near(layout: Layout) -> Layout:
    return "channels_last" if is_channels_last(layout) else "contiguous"


def _far_apart(tensor: Tensor, layout: Layout) -> Tensor:
    n, *image = tensor.shape
    dense = lay_out(tensor, _near(layout))
    # A storage of its own: what torch.empty gives is filled where tests poison it.
    elements = (n - 1) * _FAR + dense[0].numel() + 2 * _MARGIN
    storage = torch.UntypedStorage(elements * tensor.element_size(), device=tensor.device)
    whole = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(storage, 0, (elements,), (1,))
    for i in range(n):
        whole[i * _FAR :][: dense[0].numel() + 2 * _MARGIN] = torch.nan
    strides = dense[0].stride()
    return whole.as_strided((n, *image), (_FAR, *strides), _MARGIN).copy_(tensor)


def is_channels_last(layout: Layout) -> bool:
    """Whether the results for operands in this layout are channels_last, by torch's rule."""
    return layout.startswith("channels_last")


def _values(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, values: Values) -> Tensor:
    if values == "integers":
        largest = _LARGEST_INTEGER[dtype]
        return torch.randint(-largest, largest + 1, shape, generator=generator).to(dtype)
    numbers = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    if values == "special":
        for special in (torch.nan, torch.inf, -torch.inf):
            chosen = torch.rand(shape, generator=generator) < 0.1
            numbers = numbers.masked_fill(chosen, special)
    return numbers
