"""Convolution as an implicit matrix product, fprop and dgrad: one kernel, because both gather.

    fprop:  y[n, k, p, q] = sum over c, r, s of  x[n, c, p * stride - pad + r * dilation, (alike)] * w[k, c, r, s]
    dgrad:  x[n, c, h, w] = sum over k, r, s of  y[n, k, (h + pad - r * dilation) / stride, (alike)] * w[k, c, r, s]

`out` is what is written, `source` the image that is read. Rows of dgrad's result fall into residue classes modulo the stride. Within a class
the taps that contribute are the same ones, TAP_STEP apart, and each reads one row per row of the class: no multiplication by an
inserted zero, and rows that no tap reaches are written all the same.

           BLOCK_OUT channels of out                  program = (class, tile of pixels) x (tile of channels) x slab
          +---------+
  BLOCK   |         |   sums, in registers             reduction: BLOCK_IN channels of source and a tap at a time. The taps of the same
  PIXELS  |         |                                  channels follow each other, since they read nearly the same pixels. With few
          +---------+                                  channels (FLAT) both are one index, so that a step holds several taps.

A tile of channels lies within a group. Several narrow groups to a tile, with zeros off the diagonal of their filters, would let an infinity or a
NaN of one group's image into the others' results, and multiply as many zeros as wide tiles leave columns empty.

PIXELS_LAST is the orientation of the tile, pixels along its last axis: neighbouring lanes then have neighbouring pixels of a plane (NCHW),
else neighbouring channels (channels_last). *_VECTOR: how many neighbours along that axis are neighbours in memory, the first at a multiple of
as many, and exist together. The compiler sees this by itself where sizes and strides are multiples of 16, and is told it elsewhere.

Bytes: source once per tap and tile of channels, most of it from caches; filters once per tile of pixels; out once. FMAs: pixels * channels of
out * reduction, all on the matrix units but in fp32 with "ieee" and in fp64 where the GPU has none for it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cnnkernels.triton.kernels.arithmetic import multiply_add
from cnnkernels.triton.kernels.epilogue import finish, per_channel
from cnnkernels.triton.kernels.tiles import channels_of_tile, in_vectors, inside_image, pixels_of_tile


@triton.jit
def conv2d_gather_kernel(
    source, filter, out, partial,  # partial: sums of each slab, or None
    bias, bias_stride, mean, variance, scale, shift, eps, residual, slope,
    images, source_h, source_w, source_n_stride, source_c_stride, source_h_stride, source_w_stride,
    out_h, out_w, out_n_stride, out_c_stride, out_h_stride, out_w_stride, out_numel,
    group_in, group_out,  # channels of a group, read and written
    filter_group_stride, filter_in_stride, filter_out_stride, filter_r_stride, filter_s_stride,
    pad_h, pad_w,
    R: tl.constexpr, S: tl.constexpr,
    DGRAD: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    TAP_STEP_H: tl.constexpr, TAP_STEP_W: tl.constexpr, INVERSE_H: tl.constexpr, INVERSE_W: tl.constexpr,
    PADDING_MODE: tl.constexpr, ACTIVATION: tl.constexpr,
    FLAT: tl.constexpr, PIXELS_LAST: tl.constexpr, LINEAR: tl.constexpr,
    SOURCE_VECTOR: tl.constexpr, FILTER_VECTOR: tl.constexpr, OUT_VECTOR: tl.constexpr, OUT_CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr, SLABS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr, BLOCK_OUT: tl.constexpr, BLOCK_IN: tl.constexpr,
):  # fmt: skip
    # Axes of the tiles: [pixels, channels], or the other way round.
    ALONG_PIXELS: tl.constexpr = 0 if PIXELS_LAST else 1  # the axis that a vector of pixels is expanded by
    ALONG_CHANNELS: tl.constexpr = 1 if PIXELS_LAST else 0
    ACCUMULATOR: tl.constexpr = tl.float64 if source.dtype.element_ty == tl.float64 else tl.float32

    # Which results.
    tile = tl.program_id(0)
    if WIDE:
        tile = tile.to(tl.int64)
    n, pixel, h, w, row0, column0, pixel_exists, first_r, first_s, taps_r, taps_s = pixels_of_tile(
        tile, images, out_h, out_w, pad_h, pad_w, R, S,
        DGRAD, STRIDE_H, STRIDE_W, DILATION_H, DILATION_W, TAP_STEP_H, TAP_STEP_W, INVERSE_H, INVERSE_W, BLOCK_PIXELS,
    )  # fmt: skip
    # Of source, from tap to tap.
    STEP_H: tl.constexpr = -(DILATION_H * TAP_STEP_H // STRIDE_H) if DGRAD else DILATION_H
    STEP_W: tl.constexpr = -(DILATION_W * TAP_STEP_W // STRIDE_W) if DGRAD else DILATION_W

    # Which channels.
    group, o, channel, channel_exists = channels_of_tile(tl.program_id(1), group_out, WIDE, BLOCK_OUT)
    first_in = group * group_in
    filter_at = group * filter_group_stride + o * filter_out_stride

    # Sum.
    if LINEAR:  # 1x1, without stride or padding, of planes or pixels without gaps
        source_at = n * source_n_stride + pixel * source_w_stride
    else:
        source_at = n * source_n_stride + row0 * source_h_stride + column0 * source_w_stride
    if FLAT:
        steps = (taps_r * taps_s * group_in + BLOCK_IN - 1) // BLOCK_IN
    else:
        blocks = (group_in + BLOCK_IN - 1) // BLOCK_IN
        steps = taps_r * taps_s * blocks
    first, last = 0, steps
    if SLABS > 1:
        steps_of_slab = (steps + SLABS - 1) // SLABS
        first = tl.program_id(2) * steps_of_slab
        last = tl.minimum(first + steps_of_slab, steps)
    if PIXELS_LAST:
        sums = tl.zeros((BLOCK_OUT, BLOCK_PIXELS), ACCUMULATOR)
    else:
        sums = tl.zeros((BLOCK_PIXELS, BLOCK_OUT), ACCUMULATOR)
    for step in range(first, last):
        if FLAT:
            e = step * BLOCK_IN + tl.arange(0, BLOCK_IN)
            tap, c = e // group_in, e % group_in
            c_exists = tap < taps_r * taps_s
        else:
            tap = step % (taps_r * taps_s)
            c = step // (taps_r * taps_s) * BLOCK_IN + tl.arange(0, BLOCK_IN)
            c_exists = c < group_in
        tap_r, tap_s = tap // taps_s, tap % taps_s
        if LINEAR:
            at = tl.expand_dims(source_at, ALONG_PIXELS)
            exists = tl.expand_dims(pixel_exists, ALONG_PIXELS)
        else:
            if FLAT:
                row = tl.expand_dims(row0, ALONG_PIXELS) + tl.expand_dims(tap_r * STEP_H, ALONG_CHANNELS)
                column = tl.expand_dims(column0, ALONG_PIXELS) + tl.expand_dims(tap_s * STEP_W, ALONG_CHANNELS)
            else:
                row = tl.expand_dims(row0 + tap_r * STEP_H, ALONG_PIXELS)
                column = tl.expand_dims(column0 + tap_s * STEP_W, ALONG_PIXELS)
            exists = tl.expand_dims(pixel_exists, ALONG_PIXELS)
            if PADDING_MODE == "zeros":
                exists = exists & (row >= 0) & (row < source_h) & (column >= 0) & (column < source_w)
                along_tap = tap_r * (STEP_H * source_h_stride) + tap_s * (STEP_W * source_w_stride)
                if FLAT:
                    at = tl.expand_dims(source_at, ALONG_PIXELS) + tl.expand_dims(along_tap, ALONG_CHANNELS)
                else:
                    at = tl.expand_dims(source_at + along_tap, ALONG_PIXELS)
            else:
                row, column = inside_image(row, source_h, PADDING_MODE), inside_image(column, source_w, PADDING_MODE)
                at = (
                    tl.expand_dims(n * source_n_stride, ALONG_PIXELS) + row * source_h_stride + column * source_w_stride
                )
        at, exists = in_vectors(
            at, tl.expand_dims((first_in + c) * source_c_stride, ALONG_CHANNELS),
            exists, tl.expand_dims(c_exists, ALONG_CHANNELS),
            SOURCE_VECTOR, 1,
        )  # fmt: skip
        x = tl.load(source + at, mask=exists, other=0.0)
        if DGRAD:
            r, s = first_r + tap_r * TAP_STEP_H, first_s + tap_s * TAP_STEP_W
        else:
            r, s = tap_r, tap_s
        in_at = c * filter_in_stride + r * filter_r_stride + s * filter_s_stride
        # filter[out, in] is contiguous along `in`, so dgrad's runs are along the channels that it writes
        at, exists = in_vectors(
            tl.expand_dims(filter_at, ALONG_CHANNELS), tl.expand_dims(in_at, ALONG_PIXELS),
            tl.expand_dims(c_exists, ALONG_PIXELS), tl.expand_dims(channel_exists, ALONG_CHANNELS),
            FILTER_VECTOR, ALONG_PIXELS if DGRAD else ALONG_CHANNELS,
        )  # fmt: skip
        f = tl.load(filter + at, mask=exists, other=0.0)
        if PIXELS_LAST:
            sums = multiply_add(f, x, sums, PRECISION)
        else:
            sums = multiply_add(x, f, sums, PRECISION)

    # Store.
    if LINEAR:
        out_at = n * out_n_stride + pixel * out_w_stride
    else:
        out_at = n * out_n_stride + h * out_h_stride + w * out_w_stride
    if SLABS > 1:  # the result has no gaps, so neither has a slab
        slab = tl.program_id(2)
        if WIDE:
            slab = slab.to(tl.int64)
        out_at += slab * out_numel
    at, exists = in_vectors(
        tl.expand_dims(out_at, ALONG_PIXELS), tl.expand_dims(channel * out_c_stride, ALONG_CHANNELS),
        tl.expand_dims(pixel_exists, ALONG_PIXELS), tl.expand_dims(channel_exists, ALONG_CHANNELS),
        OUT_VECTOR, ALONG_PIXELS if OUT_CHANNELS_LAST else ALONG_CHANNELS,
    )  # fmt: skip
    if SLABS > 1:  # sum_slabs has the epilogue
        tl.store(partial + at, sums, mask=exists)
    else:
        factor, offset = per_channel(
            channel, channel_exists, bias, bias_stride, mean, variance, scale, shift, eps, ACCUMULATOR
        )
        z = sums * tl.expand_dims(factor, ALONG_CHANNELS) + tl.expand_dims(offset, ALONG_CHANNELS)
        finish(z, out, at, exists, residual, slope, ACTIVATION)
