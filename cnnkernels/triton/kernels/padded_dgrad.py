"""dgrad with a padding mode: an implicit matrix product as in gather.py, over every position that stands for a pixel.

    dx[n, c, h, w] = sum over positions a of h, b of w, k, r, s of  y[n, k, (a + pad - r * dilation) / stride, (b ...) / stride] * w[k, c, r, s]

    reflect    h, -h, 2 (H - 1) - h            a border's own row is its mirror: no second position
    circular   h, h - H, h + H
    replicate  h, and for the first row all above it, for the last one all below

A padding mode is an index mapping, of which this is the adjoint: no image with its border is made, and none is folded back. Positions are
numbered from -before to after, 0 being the pixel itself; of the others a program goes through those that any pixel of its tile has, which
away from the border is none. Where the division by the stride has a remainder a tap is not read.

           BLOCK_OUT channels of dx                   program = (tile of pixels) x (tile of channels)
          +---------+
  BLOCK   |         |   sums, in registers            reduction: positions x taps x channels of dy, BLOCK_IN at a time
  PIXELS  |         |
          +---------+

Tiles are turned as in gather.py. Bytes and FMAs: gather.py's, times the positions, and times stride_h * stride_w, since two
positions of a pixel may fall into two residue classes: strides under a padding mode are rare.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cnnkernels.triton.kernels.arithmetic import multiply_add
from cnnkernels.triton.kernels.epilogue import finish, per_channel
from cnnkernels.triton.kernels.tiles import channels_of_tile


@triton.jit
def position_of(row, rows, number, MODE: tl.constexpr):
    """The position of that number which stands for each of `row`, and whether there is one."""
    if MODE == "reflect":
        at = tl.where(number < 0, -row, tl.where(number > 0, 2 * (rows - 1) - row, row))
        exists = (number == 0) | (at != row)
    elif MODE == "circular":
        at = row + number * rows
        exists = at == at
    else:
        at = row + number
        exists = (number == 0) | ((number < 0) & (row == 0)) | ((number > 0) & (row == rows - 1))
    return at, exists


@triton.jit
def conv2d_padded_dgrad_kernel(
    source, filter, out, bias, bias_stride,
    images, source_h, source_w, source_n_stride, source_c_stride, source_h_stride, source_w_stride,
    out_h, out_w, out_n_stride, out_c_stride, out_h_stride, out_w_stride,
    group_in, group_out,  # channels of a group, read and written
    filter_group_stride, filter_in_stride, filter_out_stride, filter_r_stride, filter_s_stride,
    pad_h, pad_w, before_h, after_h, before_w, after_w,  # numbers of the first and last position
    R, S, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    PADDING_MODE: tl.constexpr, PIXELS_LAST: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr, BLOCK_OUT: tl.constexpr, BLOCK_IN: tl.constexpr,
):  # fmt: skip
    ALONG_PIXELS: tl.constexpr = 0 if PIXELS_LAST else 1
    ALONG_CHANNELS: tl.constexpr = 1 if PIXELS_LAST else 0
    ACCUMULATOR: tl.constexpr = tl.float64 if source.dtype.element_ty == tl.float64 else tl.float32

    # Which results.
    tile = tl.program_id(0)
    if WIDE:
        tile = tile.to(tl.int64)
    m = tile * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    pixel = m % (out_h * out_w)
    n, h, w = m // (out_h * out_w), pixel // out_w, pixel % out_w
    pixel_exists = n < images

    # Which channels.
    group, o, channel, channel_exists = channels_of_tile(tl.program_id(1), group_out, WIDE, BLOCK_OUT)
    first_in = group * group_in
    filter += group * filter_group_stride + tl.expand_dims(o * filter_out_stride, ALONG_CHANNELS)
    source += first_in * source_c_stride

    # Sum.
    blocks = (group_in + BLOCK_IN - 1) // BLOCK_IN
    if PIXELS_LAST:
        sums = tl.zeros((BLOCK_OUT, BLOCK_PIXELS), ACCUMULATOR)
    else:
        sums = tl.zeros((BLOCK_PIXELS, BLOCK_OUT), ACCUMULATOR)
    for number_h in range(before_h, after_h + 1):
        a, a_exists = position_of(h, out_h, number_h, PADDING_MODE)
        for number_w in range(before_w, after_w + 1):
            b, b_exists = position_of(w, out_w, number_w, PADDING_MODE)
            has_both = pixel_exists & a_exists & b_exists
            steps = tl.where(tl.max(has_both.to(tl.int32), axis=0) != 0, R * S * blocks, 0)
            for step in range(steps):
                tap = step // blocks
                r, s = tap // S, tap % S
                c = step % blocks * BLOCK_IN + tl.arange(0, BLOCK_IN)
                c_exists = c < group_in
                # Of what is negative neither quotient nor remainder is looked at.
                from_row, from_column = a + pad_h - r * DILATION_H, b + pad_w - s * DILATION_W
                row, column = from_row // STRIDE_H, from_column // STRIDE_W
                exists = has_both & (from_row >= 0) & (row < source_h) & (from_column >= 0) & (column < source_w)
                exists = exists & (row * STRIDE_H == from_row) & (column * STRIDE_W == from_column)
                at = n * source_n_stride + row * source_h_stride + column * source_w_stride
                y = tl.load(
                    source + tl.expand_dims(at, ALONG_PIXELS) + tl.expand_dims(c * source_c_stride, ALONG_CHANNELS),
                    mask=tl.expand_dims(exists, ALONG_PIXELS) & tl.expand_dims(c_exists, ALONG_CHANNELS),
                    other=0.0,
                )
                in_at = c * filter_in_stride + r * filter_r_stride + s * filter_s_stride
                w_exists = tl.expand_dims(c_exists, ALONG_PIXELS) & tl.expand_dims(channel_exists, ALONG_CHANNELS)
                f = tl.load(filter + tl.expand_dims(in_at, ALONG_PIXELS), mask=w_exists, other=0.0)
                if PIXELS_LAST:
                    sums = multiply_add(f, y, sums, PRECISION)
                else:
                    sums = multiply_add(y, f, sums, PRECISION)

    # Store.
    factor, offset = per_channel(
        channel, channel_exists, bias, bias_stride, None, None, None, None, 0.0, ACCUMULATOR
    )  # fmt: skip
    z = sums * tl.expand_dims(factor, ALONG_CHANNELS) + tl.expand_dims(offset, ALONG_CHANNELS)
    out_at = n * out_n_stride + h * out_h_stride + w * out_w_stride
    at = tl.expand_dims(out_at, ALONG_PIXELS) + tl.expand_dims(channel * out_c_stride, ALONG_CHANNELS)
    exists = tl.expand_dims(pixel_exists, ALONG_PIXELS) & tl.expand_dims(channel_exists, ALONG_CHANNELS)
    finish(z, out, at, exists, None, 0.0, "none")
