"""Depthwise convolution, fprop and dgrad: filter k has channel k / MULTIPLIER alone.

    fprop:  y[n, k, p, q] = sum over r, s of     x[n, k / M, p * stride - pad + r * dilation, (alike)] * w[k, r, s]
    dgrad:  x[n, c, h, w] = sum over i, r, s of  y[n, c * M + i, (h + pad - r * dilation) / stride, (alike)] * w[c * M + i, r, s]

Nothing is shared by channels, so there is no matrix product: sums are FMAs, and the memory is what limits small filters. `out` is what is
written, `source` the image that is read. Both kernels have tiles of columns (or pixels) and channels, the orientation as in gather.py:
PIXELS_LAST puts pixels along the last axis.

slide: filters whose weights and open sums fit into registers (3x3 to 7x7). A program has a slab of rows, and slides down it:

              BLOCK_COLUMNS x BLOCK_CHANNELS                 program = (image, row class, slab of rows, tile of columns) x (tile of channels)
    row t     | each pixel once for each of S columns,  |
              | times the taps of each sum it is part of|
    sums of   | row t          1 tap row done           |    registers: weights R * S for each channel of a thread, sums R / stride tiles
              | row t - 1      2 tap rows done          |
              | row t - 2      complete: written        |

    Bytes: source S times from L1, once from beyond but for R - stride rows for each slab; filters once for each program; out once. FMAs: R * S
    for each element.
    dgrad is the mirror image: row t of dy is added to the rows of dx that it is part of, STRIDE_H of which are complete then. For each column
    of dy a program has STRIDE_W columns of dx. Which taps meet which columns depends on constants alone: no modulo is computed.
    Dilated rows (stride 1) fall into DILATION_H row classes, of which each is a convolution without dilation.

taps: any filter, stride, dilation, padding mode and multiplier. A tile of pixels of all images, taps in a loop; dgrad in residue classes
    modulo the stride as in gather.py.
    Bytes: source R * S times from L1, filters R * S times for each program, out once. FMAs: R * S * (dgrad: M) for each element.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cnnkernels.triton.kernels.epilogue import finish, per_channel
from cnnkernels.triton.kernels.tiles import in_elements, inside_image, pixels_of_tile, within


@triton.jit
def add_product(sums, INDEX: tl.constexpr, x, w):
    """The tuple `sums`, to one of which x * w is added. Tuples here have one element for each tap or row: their indices are constants."""
    return sums[:INDEX] + (sums[INDEX] + x * w,) + sums[INDEX + 1 :]  # noqa: RUF005


@triton.jit
def conv2d_depthwise_slide_kernel(
    source, filter, out,
    bias, bias_stride, mean, variance, scale, shift, eps, residual, slope,
    # Strides but that of neighbours in memory, and the extent that a vector lies along, are given in vectors (in_elements).
    source_h, source_w, source_n_stride, source_c_stride, source_h_stride, source_w_stride,
    out_channels, out_h, out_w, out_n_stride, out_c_stride, out_h_stride, out_w_stride,
    filter_k_stride, filter_r_stride, filter_s_stride,
    pad_h, pad_w, first_unit, units, slabs, units_of_slab, column_tiles,
    R: tl.constexpr, S: tl.constexpr, DGRAD: tl.constexpr, MULTIPLIER: tl.constexpr,
    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    PHASE_W: tl.constexpr, FIRST_SHIFT: tl.constexpr, SHIFTS: tl.constexpr,  # dgrad: pad_w % STRIDE_W; columns of dy that a column of dx reads
    ACTIVATION: tl.constexpr, PIXELS_LAST: tl.constexpr, WIDE: tl.constexpr,
    SOURCE_VECTOR: tl.constexpr, OUT_VECTOR: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    ALONG_PIXELS: tl.constexpr = 0 if PIXELS_LAST else 1
    ALONG_CHANNELS: tl.constexpr = 1 if PIXELS_LAST else 0
    ACCUMULATOR: tl.constexpr = tl.float64 if source.dtype.element_ty == tl.float64 else tl.float32
    OPEN: tl.constexpr = (R + STRIDE_H - 1) // STRIDE_H  # rows, in dgrad STRIDE_H of them each, that are being summed
    source_n_stride, source_c_stride, source_h_stride, source_w_stride, _, _ = in_elements(
        source_n_stride, source_c_stride, source_h_stride, source_w_stride, 0, 0, SOURCE_VECTOR, PIXELS_LAST
    )
    out_n_stride, out_c_stride, out_h_stride, out_w_stride, out_channels, out_w = in_elements(
        out_n_stride, out_c_stride, out_h_stride, out_w_stride, out_channels, out_w, OUT_VECTOR, PIXELS_LAST
    )

    # Which results.
    program = tl.program_id(0)
    k = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    if WIDE:
        program, k = program.to(tl.int64), k.to(tl.int64)
    column_tile = program % column_tiles
    j = column_tile * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    program = program // column_tiles
    first = first_unit + program % slabs * units_of_slab
    last = tl.minimum(first + units_of_slab, first_unit + units)
    program = program // slabs
    row_class, n = program % DILATION_H, program // DILATION_H
    k_exists = k < out_channels
    channel = k // MULTIPLIER
    if MULTIPLIER == 1:
        channel = k
    source += n * source_n_stride
    out_at = n * out_n_stride + tl.expand_dims(k * out_c_stride, ALONG_CHANNELS)
    factor, offset = per_channel(k, k_exists, bias, bias_stride, mean, variance, scale, shift, eps, ACCUMULATOR)
    factor, offset = tl.expand_dims(factor, ALONG_CHANNELS), tl.expand_dims(offset, ALONG_CHANNELS)
    k_exists = tl.expand_dims(k_exists, ALONG_CHANNELS)

    weights = ()
    for r in tl.static_range(R):
        for s in tl.static_range(S):
            at = k * filter_k_stride + r * filter_r_stride + s * filter_s_stride
            f = tl.load(filter + at, mask=k < out_channels, other=0.0).to(ACCUMULATOR)
            weights = weights + (tl.expand_dims(f, ALONG_CHANNELS),)  # noqa: RUF005
    if PIXELS_LAST:
        zero = tl.zeros((BLOCK_CHANNELS, BLOCK_COLUMNS), ACCUMULATOR)
    else:
        zero = tl.zeros((BLOCK_COLUMNS, BLOCK_CHANNELS), ACCUMULATOR)
    along_channels = tl.expand_dims(channel * source_c_stride, ALONG_CHANNELS)

    if not DGRAD:
        sums = (zero,) * OPEN
        column0 = j * STRIDE_W - pad_w
        source_at = tl.expand_dims(column0 * source_w_stride, ALONG_PIXELS) + along_channels
        out_at = out_at + tl.expand_dims(j * out_w_stride, ALONG_PIXELS)
        first_p = first * DILATION_H + row_class
        for t in range(first, last + OPEN - 1):
            for u in tl.static_range(STRIDE_H):
                h = (t * STRIDE_H + u) * DILATION_H + row_class - pad_h
                h_exists = within(h, source_h, BLOCK_COLUMNS)
                for s in tl.static_range(S):
                    column = column0 + s * DILATION_W
                    x = tl.load(
                        source + h * source_h_stride + s * DILATION_W * source_w_stride + source_at,
                        mask=tl.expand_dims((column >= 0) & (column < source_w) & h_exists, ALONG_PIXELS) & k_exists,
                        other=0.0,
                    ).to(ACCUMULATOR)
                    for a in tl.static_range(OPEN):
                        if a * STRIDE_H + u < R:
                            sums = add_product(sums, a, x, weights[(a * STRIDE_H + u) * S + s])
            p = (t - OPEN + 1) * DILATION_H + row_class
            z = sums[OPEN - 1] * factor + offset
            exists = (
                tl.expand_dims((j < out_w) & within(p - first_p, out_h - first_p, BLOCK_COLUMNS), ALONG_PIXELS)
                & k_exists
            )
            finish(z, out, p * out_h_stride + out_at, exists, residual, slope, ACTIVATION)
            sums = (zero,) + sums[: OPEN - 1]  # noqa: RUF005
    else:
        # Sum of row b_h and column b_w of the a-th row of dy ahead: at (a * STRIDE_H + b_h) * STRIDE_W + b_w.
        OF_ROW: tl.constexpr = STRIDE_H * STRIDE_W
        first_h = tl.maximum(first * (STRIDE_H * DILATION_H) + row_class - pad_h, 0)
        sums = (zero,) * (OPEN * OF_ROW)
        column0 = j + pad_w // STRIDE_W
        source_at = tl.expand_dims(column0 * source_w_stride, ALONG_PIXELS) + along_channels
        for t in range(first - OPEN + 1, last):
            p = t * DILATION_H + row_class
            p_exists = within(p, source_h, BLOCK_COLUMNS)
            for shift_index in tl.static_range(SHIFTS):
                column = column0 + (FIRST_SHIFT + shift_index)
                y = tl.load(
                    source + p * source_h_stride + (FIRST_SHIFT + shift_index) * source_w_stride + source_at,
                    mask=tl.expand_dims((column >= 0) & (column < source_w) & p_exists, ALONG_PIXELS) & k_exists,
                    other=0.0,
                ).to(ACCUMULATOR)
                for b_w in tl.static_range(STRIDE_W):
                    for s in tl.static_range(S):
                        if b_w + PHASE_W - s * DILATION_W == (FIRST_SHIFT + shift_index) * STRIDE_W:
                            for r in tl.static_range(R):
                                sums = add_product(sums, r * STRIDE_W + b_w, y, weights[r * S + s])
            for b_h in tl.static_range(STRIDE_H):
                h = (t * STRIDE_H + b_h) * DILATION_H + row_class - pad_h
                if PIXELS_LAST and STRIDE_W == 2:  # both columns in one row of neighbours
                    h_exists = within(h - first_h, out_h - first_h, 2 * BLOCK_COLUMNS)
                    w = column_tile * (2 * BLOCK_COLUMNS) + tl.arange(0, 2 * BLOCK_COLUMNS)
                    z = tl.interleave(sums[b_h * 2], sums[b_h * 2 + 1]) * factor + offset
                    finish(
                        z, out, h * out_h_stride + out_at + tl.expand_dims(w * out_w_stride, ALONG_PIXELS),
                        tl.expand_dims((w < out_w) & h_exists, ALONG_PIXELS) & k_exists, residual, slope, ACTIVATION,
                    )  # fmt: skip
                else:
                    h_exists = within(h - first_h, out_h - first_h, BLOCK_COLUMNS)
                    for b_w in tl.static_range(STRIDE_W):
                        w = j * STRIDE_W + b_w
                        z = sums[b_h * STRIDE_W + b_w] * factor + offset
                        finish(
                            z, out, h * out_h_stride + out_at + tl.expand_dims(w * out_w_stride, ALONG_PIXELS),
                            tl.expand_dims((w < out_w) & h_exists, ALONG_PIXELS) & k_exists, residual, slope, ACTIVATION,
                        )  # fmt: skip
            sums = sums[OF_ROW:] + (zero,) * OF_ROW


@triton.jit
def conv2d_depthwise_taps_kernel(
    source, filter, out,
    bias, bias_stride, mean, variance, scale, shift, eps, residual, slope,
    images, source_h, source_w, source_n_stride, source_c_stride, source_h_stride, source_w_stride,
    out_channels, out_h, out_w, out_n_stride, out_c_stride, out_h_stride, out_w_stride,
    filter_k_stride, filter_r_stride, filter_s_stride,
    pad_h, pad_w, R, S, multiplier,
    DGRAD: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    TAP_STEP_H: tl.constexpr, TAP_STEP_W: tl.constexpr, INVERSE_H: tl.constexpr, INVERSE_W: tl.constexpr,
    PADDING_MODE: tl.constexpr, ACTIVATION: tl.constexpr, PIXELS_LAST: tl.constexpr, DENSE: tl.constexpr, WIDE: tl.constexpr,
    SOURCE_VECTOR: tl.constexpr, OUT_VECTOR: tl.constexpr, BLOCK_PIXELS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    ALONG_PIXELS: tl.constexpr = 0 if PIXELS_LAST else 1
    ALONG_CHANNELS: tl.constexpr = 1 if PIXELS_LAST else 0
    ACCUMULATOR: tl.constexpr = tl.float64 if source.dtype.element_ty == tl.float64 else tl.float32
    source_n_stride, source_c_stride, source_h_stride, source_w_stride, _, _ = in_elements(
        source_n_stride, source_c_stride, source_h_stride, source_w_stride, 0, 0, SOURCE_VECTOR, PIXELS_LAST
    )
    out_n_stride, out_c_stride, out_h_stride, out_w_stride, out_channels, out_w = in_elements(
        out_n_stride, out_c_stride, out_h_stride, out_w_stride, out_channels, out_w, OUT_VECTOR, PIXELS_LAST
    )

    # Which results.
    tile = tl.program_id(0)
    k = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    if WIDE:
        tile, k = tile.to(tl.int64), k.to(tl.int64)
    n, pixel, h, w, row0, column0, pixel_exists, first_r, first_s, taps_r, taps_s = pixels_of_tile(
        tile, images, out_h, out_w, pad_h, pad_w, R, S,
        DGRAD, STRIDE_H, STRIDE_W, DILATION_H, DILATION_W, TAP_STEP_H, TAP_STEP_W, INVERSE_H, INVERSE_W, BLOCK_PIXELS,
    )  # fmt: skip
    # Of source, from tap to tap.
    STEP_H: tl.constexpr = -(DILATION_H * TAP_STEP_H // STRIDE_H) if DGRAD else DILATION_H
    STEP_W: tl.constexpr = -(DILATION_W * TAP_STEP_W // STRIDE_W) if DGRAD else DILATION_W
    k_exists = k < out_channels
    exists = tl.expand_dims(pixel_exists, ALONG_PIXELS) & tl.expand_dims(k_exists, ALONG_CHANNELS)

    # Sum.
    if PIXELS_LAST:
        sums = tl.zeros((BLOCK_CHANNELS, BLOCK_PIXELS), ACCUMULATOR)
    else:
        sums = tl.zeros((BLOCK_PIXELS, BLOCK_CHANNELS), ACCUMULATOR)
    filters = multiplier if DGRAD else 1  # that a sum has terms of
    for tap in range(taps_r * taps_s * filters):
        tap_r, tap_s = tap // filters // taps_s, tap // filters % taps_s
        row, column = row0 + tap_r * STEP_H, column0 + tap_s * STEP_W
        if DGRAD:
            filter_at = k * multiplier + tap % filters
            channel = filter_at
            r, s = first_r + tap_r * TAP_STEP_H, first_s + tap_s * TAP_STEP_W
        else:
            filter_at, channel = k, k // multiplier
            r, s = tap_r, tap_s
        if PADDING_MODE == "zeros":
            x_exists = (row >= 0) & (row < source_h) & (column >= 0) & (column < source_w)
            x_exists = exists & tl.expand_dims(x_exists, ALONG_PIXELS)
        else:
            row, column = inside_image(row, source_h, PADDING_MODE), inside_image(column, source_w, PADDING_MODE)
            x_exists = exists
        at = n * source_n_stride + row * source_h_stride + column * source_w_stride
        x = tl.load(
            source + tl.expand_dims(at, ALONG_PIXELS) + tl.expand_dims(channel * source_c_stride, ALONG_CHANNELS),
            mask=x_exists,
            other=0.0,
        )
        f = tl.load(
            filter + filter_at * filter_k_stride + r * filter_r_stride + s * filter_s_stride, mask=k_exists, other=0.0
        )
        sums += x.to(ACCUMULATOR) * tl.expand_dims(f.to(ACCUMULATOR), ALONG_CHANNELS)

    # Store.
    if DENSE:  # pixels of a plane without gaps, in order
        out_at = n * out_n_stride + pixel * out_w_stride
    else:
        out_at = n * out_n_stride + h * out_h_stride + w * out_w_stride
    factor, offset = per_channel(k, k_exists, bias, bias_stride, mean, variance, scale, shift, eps, ACCUMULATOR)
    z = sums * tl.expand_dims(factor, ALONG_CHANNELS) + tl.expand_dims(offset, ALONG_CHANNELS)
    at = tl.expand_dims(out_at, ALONG_PIXELS) + tl.expand_dims(k * out_c_stride, ALONG_CHANNELS)
    finish(z, out, at, exists, residual, slope, ACTIVATION)
