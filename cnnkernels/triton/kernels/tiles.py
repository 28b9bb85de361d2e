"""What the tiles of several kernels have in common: which pixels and channels they are of, what those read, and in what order.

Of an image and its padding a pixel of a tile reads what `pixels_of_tile` says, tap by tap; a padding mode is `inside_image`. Where neighbours in
memory are read at once, the compiler finds out, or is told by `in_vectors` or `in_elements`.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def in_vectors(at, also_at, exists, also_exists, VECTOR: tl.constexpr, AXIS: tl.constexpr):
    """at + also_at and exists & also_exists, of which the compiler is told what VECTOR says, along AXIS.

    Here and not at the loads, because what is said of a function's argument is lost. What is added to a pointer before has no say.
    """
    offsets, exists = at + also_at, exists & also_exists
    if VECTOR > 1:
        ALONG_0: tl.constexpr = VECTOR if AXIS == 0 else 1
        ALONG_1: tl.constexpr = VECTOR if AXIS == 1 else 1
        offsets = tl.max_contiguous(tl.multiple_of(offsets, (ALONG_0, ALONG_1)), (ALONG_0, ALONG_1))
        exists = tl.max_constancy(exists, (ALONG_0, ALONG_1))
    return offsets, exists


@triton.jit
def class_of_axis(
    offset, taps, STRIDE: tl.constexpr, DILATION: tl.constexpr, TAP_STEP: tl.constexpr, INVERSE: tl.constexpr
):
    """Of the class of rows with h + pad = offset (mod STRIDE): its first tap, how many it has, and the row that the first tap of row 0 reads.

    Tap r contributes where r * DILATION = offset (mod STRIDE). With g = gcd(STRIDE, DILATION), TAP_STEP = STRIDE / g and INVERSE the
    inverse of DILATION / g modulo TAP_STEP, that is r = offset / g * INVERSE (mod TAP_STEP), or never.
    """
    common: tl.constexpr = STRIDE // TAP_STEP
    first = (offset // common * INVERSE) % TAP_STEP
    count = tl.where(offset % common == 0, (taps - first + TAP_STEP - 1) // TAP_STEP, 0)
    return first, tl.maximum(count, 0), (offset - first * DILATION) // STRIDE


@triton.jit
def inside_image(row, rows, MODE: tl.constexpr):
    """Where padded row `row` lies in an image of `rows`: padding modes are index mappings."""
    if MODE == "reflect":
        row = tl.abs(row)
        row = rows - 1 - tl.abs(rows - 1 - row)
    elif MODE == "replicate":
        row = tl.minimum(tl.maximum(row, 0), rows - 1)
    elif MODE == "circular":
        row = tl.where(row < 0, row + rows, tl.where(row >= rows, row - rows, row))
    return row


@triton.jit
def pixels_of_tile(
    tile, images, out_h, out_w, pad_h, pad_w, R, S,
    DGRAD: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    TAP_STEP_H: tl.constexpr, TAP_STEP_W: tl.constexpr, INVERSE_H: tl.constexpr, INVERSE_W: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
):  # fmt: skip
    """Tile `tile` of the pixels of all images, in dgrad of those of one residue class modulo the stride.

    Of each pixel: its image, its number in the plane or class, its row and column, the row and column of what its first tap reads, whether it
    exists. Of all of them: the first tap and the number of taps, of rows and of columns.
    """
    if DGRAD:
        which = tile % (STRIDE_H * STRIDE_W)
        tile = tile // (STRIDE_H * STRIDE_W)
        class_h, class_w = which // STRIDE_W, which % STRIDE_W
        first_r, taps_r, first_h = class_of_axis(class_h + pad_h, R, STRIDE_H, DILATION_H, TAP_STEP_H, INVERSE_H)
        first_s, taps_s, first_w = class_of_axis(class_w + pad_w, S, STRIDE_W, DILATION_W, TAP_STEP_W, INVERSE_W)
        rows = tl.maximum((out_h - class_h + STRIDE_H - 1) // STRIDE_H, 1)
        columns = tl.maximum((out_w - class_w + STRIDE_W - 1) // STRIDE_W, 1)
    else:
        first_r, first_s, taps_r, taps_s, rows, columns = 0, 0, R, S, out_h, out_w
    m = tile * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    pixel = m % (rows * columns)
    n, i, j = m // (rows * columns), pixel // columns, pixel % columns
    if DGRAD:
        row0, column0 = first_h + i, first_w + j
        h, w = class_h + i * STRIDE_H, class_w + j * STRIDE_W
        exists = (n < images) & (h < out_h) & (w < out_w)
    else:
        row0, column0 = i * STRIDE_H - pad_h, j * STRIDE_W - pad_w
        h, w = i, j
        exists = n < images
    return n, pixel, h, w, row0, column0, exists, first_r, first_s, taps_r, taps_s


@triton.jit
def channels_of_tile(tile, group_channels, WIDE: tl.constexpr, BLOCK_CHANNELS: tl.constexpr):
    """Tile `tile` of the channels, which lies within a group: the group, the channels' numbers in it and in all, whether they exist."""
    tiles_of_group = (group_channels + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS
    group = tile // tiles_of_group
    if WIDE:
        group = group.to(tl.int64)
    o = tile % tiles_of_group * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    return group, o, group * group_channels + o, o < group_channels


@triton.jit
def in_elements(
    n_stride, c_stride, h_stride, w_stride, channels, columns, VECTOR: tl.constexpr, PIXELS_LAST: tl.constexpr
):
    """Strides of images, channels, rows and columns, and numbers of channels and columns, of what is given in vectors.

    All strides are but that of neighbours in memory, of the numbers the one that a vector lies along: so the compiler knows them divisible.
    """
    if PIXELS_LAST:
        c_stride, columns = c_stride * VECTOR, columns * VECTOR
    else:
        w_stride, channels = w_stride * VECTOR, channels * VECTOR
    return n_stride * VECTOR, c_stride, h_stride * VECTOR, w_stride, channels, columns


@triton.jit
def within(row, rows, LANES: tl.constexpr):
    """Whether 0 <= row < rows, for each of so many lanes: Triton's interpreter does not spread a scalar condition over a tile."""
    row = row + tl.zeros((LANES,), tl.int32)
    return (row >= 0) & (row < rows)
