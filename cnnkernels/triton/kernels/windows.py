"""The windows of pooling, both ways: which pixels a window has, and which windows a pixel lies in.

    window p of an axis, fixed:     p * STRIDE - pad + r * DILATION,  0 <= r < TAPS, as far as these lie in the image
    window p of an axis, adaptive:  floor(p * image / outputs) .. ceil((p + 1) * image / outputs) - 1

Both are a first pixel and a count of pixels DILATION apart. Of a fixed window that is what the border leaves of it, so
that a walk over taps compares each with the count alone, whatever lies in the padding or beyond it.

Pixel h lies in the fixed windows (h + pad - r * DILATION) / STRIDE that are whole: those of one class of taps, TAP_STEP
apart, which kernels/tiles.py derives. It lies in the adaptive windows floor(h * outputs / image) .. ceil((h + 1) *
outputs / image) - 1: the same function with the sizes exchanged, since for whole numbers floor(p * image / outputs) <=
h says p < (h + 1) * outputs / image, and h < ceil((p + 1) * image / outputs) says p + 1 > h * outputs / image.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cnnkernels.triton.kernels.tiles import class_of_axis


@triton.jit
def tile_of_program(
    plane, inner_tiles,
    PIXELS_LAST: tl.constexpr, WIDE: tl.constexpr, BLOCK_PIXELS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """Image and pixel of its plane of each of the program's pixels, and its channels.

    Neighbouring programs are neighbours in memory: `inner_tiles` of pixels, or of channels, come before the next of the
    other.
    """
    inner, outer = tl.program_id(0) % inner_tiles, tl.program_id(0) // inner_tiles
    if WIDE:
        inner, outer = inner.to(tl.int64), outer.to(tl.int64)
    if PIXELS_LAST:
        m, channel = inner * BLOCK_PIXELS, outer * BLOCK_CHANNELS
    else:
        m, channel = outer * BLOCK_PIXELS, inner * BLOCK_CHANNELS
    m += tl.arange(0, BLOCK_PIXELS)
    pixel = m % plane
    if PIXELS_LAST:
        # One pixel to a lane. Were the compiler to see that results lie side by side, it would give a lane several, to
        # store them at once, and each of the many reads of a warp would be spread over as many times its bytes.
        pixel = tl.max_contiguous(pixel, 1)
    return m // plane, pixel, channel + tl.arange(0, BLOCK_CHANNELS)


@triton.jit
def window_of_axis(p, image, outputs, TAPS, STRIDE, pad, DILATION, ADAPTIVE: tl.constexpr):
    """The first pixel of window `p` in the image, and how many it has there."""
    if ADAPTIVE:
        first = p * image // outputs
        count = ((p + 1) * image + outputs - 1) // outputs - first
    else:
        start = p * STRIDE - pad
        before = (tl.maximum(-start, 0) + DILATION - 1) // DILATION  # taps that lie before the image
        first = start + before * DILATION
        count = tl.minimum(TAPS - before, (tl.maximum(image - first, 0) + DILATION - 1) // DILATION)
    return first, tl.maximum(count, 0)


@triton.jit
def extent_of_axis(p, count, image, TAPS, STRIDE, pad, PADDED: tl.constexpr):
    """One axis's factor of window `p`'s divisor: its pixels in the image, or with PADDED those in the padding too."""
    if PADDED:
        count = tl.minimum(image + 2 * pad - p * STRIDE, TAPS)
    return tl.maximum(count, 1)  # of a window without a pixel the mean is 0


@triton.jit
def windows_of_axis(
    h, image, outputs, pad,
    TAPS: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr,
    TAP_STEP: tl.constexpr, INVERSE: tl.constexpr, WINDOWS: tl.constexpr, ADAPTIVE: tl.constexpr,
):  # fmt: skip
    """The first of at most WINDOWS windows that pixel `h` lies in, the pixel's tap of it, and how many there are.

    Of fixed windows it is counted back from the last one, so that the first ones may not exist.
    """
    if ADAPTIVE:
        first, count = window_of_axis(h, outputs, image, 0, 1, 0, 1, True)
        tap = h  # of no use: indices are pixels
    else:
        tap, count, last = class_of_axis(h + pad, TAPS, STRIDE, DILATION, TAP_STEP, INVERSE)
        tap += (WINDOWS - 1) * TAP_STEP
        first = last - (WINDOWS - 1) * (DILATION * TAP_STEP // STRIDE)
    return first, tap, count


@triton.jit
def window_of_pixel(
    i, first, tap, count, outputs,
    STRIDE: tl.constexpr, DILATION: tl.constexpr, TAP_STEP: tl.constexpr, WINDOWS: tl.constexpr, ADAPTIVE: tl.constexpr,
):  # fmt: skip
    """Number `i` of what windows_of_axis found, in ascending order: the window, the pixel's tap, whether it exists."""
    p = first + i * (DILATION * TAP_STEP // STRIDE)
    exists = i < count if ADAPTIVE else (WINDOWS - 1 - i < count) & (p >= 0) & (p < outputs)
    return p, tap - i * TAP_STEP, exists
