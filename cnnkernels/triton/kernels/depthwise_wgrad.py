"""Gradient of depthwise filters: filter k has channel k / MULTIPLIER alone.

    dw[k, r, s] = sum over n, p, q of  dy[n, k, p, q] * x[n, k / M, p * stride - pad + r * dilation, q * stride - pad + s * dilation]

A long sum for each of a few results. Programs keep sums of several pixels in a lane's registers and add up lanes at their end; sum_slabs adds
the programs' sums in order. Tiles and PIXELS_LAST as in depthwise.py.

slide: filters of which R * S sums for each element of a tile fit into registers (3x3 to 7x7). A program slides down a slab of rows of x, and
    then of the next image's, if a slab has several images.

        row t of x, in S shifts   times   rows t / stride, t / stride - 1, ... of dy, which stay in registers
                                          -> R * S tiles of sums

    program = (tile of columns) x (slab of images and rows) x (tile of channels).
    Bytes: x S times from L1, once from beyond, dy once but for R / stride rows for each slab; 4 R * S for each filter and slab, twice. FMAs: R * S
    for each element.

taps: any filter, stride, dilation, padding mode and multiplier. program = (TAPS taps) x (slab of pixels) x (tile of channels).
    Bytes: x R * S times, dy R * S / TAPS times, both mostly from caches. FMAs: as above.

A product of which either factor does not exist is not made, so that an infinity reaches the sums that it is part of, and no others.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cnnkernels.triton.kernels.arithmetic import narrow
from cnnkernels.triton.kernels.depthwise import add_product
from cnnkernels.triton.kernels.tiles import in_elements, inside_image, within


@triton.jit
def conv2d_depthwise_wgrad_slide_kernel(
    x, dy, out,  # out: dw, or the slabs' sums as floats
    # Strides but that of neighbours in memory, and the extent that a vector lies along, are given in vectors (in_elements).
    images, x_h, x_w, x_n_stride, x_c_stride, x_h_stride, x_w_stride,
    filters, dy_h, dy_w, dy_n_stride, dy_k_stride, dy_h_stride, dy_w_stride,
    dw_k_stride, dw_r_stride, dw_s_stride, dw_numel,
    pad_h, pad_w, units, slabs, units_of_slab, images_of_slab, column_tiles,
    R: tl.constexpr, S: tl.constexpr, MULTIPLIER: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, PIXELS_LAST: tl.constexpr, WIDE: tl.constexpr,
    X_VECTOR: tl.constexpr, DY_VECTOR: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    ALONG_PIXELS: tl.constexpr = 0 if PIXELS_LAST else 1
    ALONG_CHANNELS: tl.constexpr = 1 if PIXELS_LAST else 0
    ACCUMULATOR: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    OPEN: tl.constexpr = (R + STRIDE_H - 1) // STRIDE_H  # rows of dy that a row of x meets
    x_n_stride, x_c_stride, x_h_stride, x_w_stride, _, _ = in_elements(
        x_n_stride, x_c_stride, x_h_stride, x_w_stride, 0, 0, X_VECTOR, PIXELS_LAST
    )
    dy_n_stride, dy_k_stride, dy_h_stride, dy_w_stride, filters, dy_w = in_elements(
        dy_n_stride, dy_k_stride, dy_h_stride, dy_w_stride, filters, dy_w, DY_VECTOR, PIXELS_LAST
    )

    # Which sums, and of what.
    program = tl.program_id(0)
    k = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    if WIDE:
        program, k = program.to(tl.int64), k.to(tl.int64)
    j = program % column_tiles * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    rest = program // column_tiles
    first = rest % slabs * units_of_slab
    last = tl.minimum(first + units_of_slab, units)
    rest = rest // slabs
    row_class, first_n = rest % DILATION_H, rest // DILATION_H * images_of_slab
    last_n = tl.minimum(first_n + images_of_slab, images)
    channel = k // MULTIPLIER
    if MULTIPLIER == 1:
        channel = k
    column0 = j * STRIDE_W - pad_w
    k_exists = tl.expand_dims(k < filters, ALONG_CHANNELS)
    x_at = tl.expand_dims(column0 * x_w_stride, ALONG_PIXELS) + tl.expand_dims(channel * x_c_stride, ALONG_CHANNELS)
    dy_at = tl.expand_dims(j * dy_w_stride, ALONG_PIXELS) + tl.expand_dims(k * dy_k_stride, ALONG_CHANNELS)

    # Sum. Step t brings in row t of dy and STRIDE_H rows of x, of which row u meets row t - a of dy in tap a * STRIDE_H + u.
    if PIXELS_LAST:
        zero = tl.zeros((BLOCK_CHANNELS, BLOCK_COLUMNS), ACCUMULATOR)
    else:
        zero = tl.zeros((BLOCK_COLUMNS, BLOCK_CHANNELS), ACCUMULATOR)
    sums = (zero,) * (R * S)
    for image in range(first_n, last_n):
        n = tl.cast(image, tl.int64) if WIDE else image  # which it is already, but under the interpreter
        # Rows of dy before the slab, which its first rows of x meet.
        open_rows = ()
        for a in tl.static_range(OPEN - 1):
            p = (first - 1 - a) * DILATION_H + row_class
            exists = tl.expand_dims((j < dy_w) & within(p, dy_h, BLOCK_COLUMNS), ALONG_PIXELS) & k_exists
            y = tl.load(dy + n * dy_n_stride + p * dy_h_stride + dy_at, mask=exists, other=0.0)
            open_rows = open_rows + (y.to(ACCUMULATOR),)  # noqa: RUF005
        for t in range(first, last):
            p = t * DILATION_H + row_class
            exists = tl.expand_dims((j < dy_w) & within(p, dy_h, BLOCK_COLUMNS), ALONG_PIXELS) & k_exists
            y = tl.load(dy + n * dy_n_stride + p * dy_h_stride + dy_at, mask=exists, other=0.0)
            open_rows = (y.to(ACCUMULATOR),) + open_rows  # noqa: RUF005
            for u in tl.static_range(STRIDE_H):
                h = (t * STRIDE_H + u) * DILATION_H + row_class - pad_h
                h_exists = (j < dy_w) & within(h, x_h, BLOCK_COLUMNS)
                row = ()
                for s in tl.static_range(S):
                    column = column0 + s * DILATION_W
                    b = tl.load(
                        x + n * x_n_stride + h * x_h_stride + s * DILATION_W * x_w_stride + x_at,
                        mask=tl.expand_dims((column >= 0) & (column < x_w) & h_exists, ALONG_PIXELS) & k_exists,
                        other=0.0,
                    ).to(ACCUMULATOR)
                    row = row + (b,)  # noqa: RUF005
                for a in tl.static_range(OPEN):
                    if a * STRIDE_H + u < R:
                        q = (t - a) * DILATION_H + row_class
                        if (q >= 0) & (q < dy_h):
                            for s in tl.static_range(S):
                                sums = add_product(sums, (a * STRIDE_H + u) * S + s, row[s], open_rows[a])
            open_rows = open_rows[: OPEN - 1]

    # Store.
    at = program * dw_numel + k * dw_k_stride
    for r in tl.static_range(R):
        for s in tl.static_range(S):
            total = tl.sum(sums[r * S + s], axis=ALONG_CHANNELS)
            tl.store(
                out + at + r * dw_r_stride + s * dw_s_stride, narrow(total, out.dtype.element_ty), mask=k < filters
            )


@triton.jit
def conv2d_depthwise_wgrad_taps_kernel(
    x, dy, out,  # out: dw, or the slabs' sums as floats
    images, x_h, x_w, x_n_stride, x_c_stride, x_h_stride, x_w_stride,
    filters, dy_h, dy_w, dy_n_stride, dy_k_stride, dy_h_stride, dy_w_stride,
    dw_k_stride, dw_r_stride, dw_s_stride, dw_numel,
    pad_h, pad_w, R, S, multiplier, pixels_of_slab,
    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    PADDING_MODE: tl.constexpr, PIXELS_LAST: tl.constexpr, WIDE: tl.constexpr,
    X_VECTOR: tl.constexpr, DY_VECTOR: tl.constexpr, TAPS: tl.constexpr, BLOCK_PIXELS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    ALONG_PIXELS: tl.constexpr = 0 if PIXELS_LAST else 1
    ALONG_CHANNELS: tl.constexpr = 1 if PIXELS_LAST else 0
    ACCUMULATOR: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    x_n_stride, x_c_stride, x_h_stride, x_w_stride, _, _ = in_elements(
        x_n_stride, x_c_stride, x_h_stride, x_w_stride, 0, 0, X_VECTOR, PIXELS_LAST
    )
    dy_n_stride, dy_k_stride, dy_h_stride, dy_w_stride, filters, dy_w = in_elements(
        dy_n_stride, dy_k_stride, dy_h_stride, dy_w_stride, filters, dy_w, DY_VECTOR, PIXELS_LAST
    )

    # Which sums, and of what.
    slab = tl.program_id(2)
    k = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    if WIDE:
        slab, k = slab.to(tl.int64), k.to(tl.int64)
    first_tap = tl.program_id(0) * TAPS
    k_exists = k < filters
    along_dy = tl.expand_dims(k * dy_k_stride, ALONG_CHANNELS)
    along_x = tl.expand_dims(k // multiplier * x_c_stride, ALONG_CHANNELS)

    # Sum.
    if PIXELS_LAST:
        zero = tl.zeros((BLOCK_CHANNELS, BLOCK_PIXELS), ACCUMULATOR)
    else:
        zero = tl.zeros((BLOCK_PIXELS, BLOCK_CHANNELS), ACCUMULATOR)
    sums = (zero,) * TAPS
    first = slab * pixels_of_slab
    last = tl.minimum(first + pixels_of_slab, images * dy_h * dy_w)
    for start in range(first, last, BLOCK_PIXELS):
        m = start + tl.arange(0, BLOCK_PIXELS)
        if WIDE:
            m = m.to(tl.int64)  # which start is already, but under the interpreter
        pixel = m % (dy_h * dy_w)
        n, p, q = m // (dy_h * dy_w), pixel // dy_w, pixel % dy_w
        exists = tl.expand_dims(m < last, ALONG_PIXELS) & tl.expand_dims(k_exists, ALONG_CHANNELS)
        dy_at = n * dy_n_stride + p * dy_h_stride + q * dy_w_stride
        y = tl.load(dy + tl.expand_dims(dy_at, ALONG_PIXELS) + along_dy, mask=exists, other=0.0).to(ACCUMULATOR)
        for i in tl.static_range(TAPS):
            r, s = (first_tap + i) // S, (first_tap + i) % S
            row, column = p * STRIDE_H - pad_h + r * DILATION_H, q * STRIDE_W - pad_w + s * DILATION_W
            b_exists = exists & tl.expand_dims(within(r, R, BLOCK_PIXELS), ALONG_PIXELS)
            if PADDING_MODE == "zeros":
                inside = (row >= 0) & (row < x_h) & (column >= 0) & (column < x_w)
                b_exists = b_exists & tl.expand_dims(inside, ALONG_PIXELS)
            else:
                row, column = inside_image(row, x_h, PADDING_MODE), inside_image(column, x_w, PADDING_MODE)
            x_at = n * x_n_stride + row * x_h_stride + column * x_w_stride
            b = tl.load(x + tl.expand_dims(x_at, ALONG_PIXELS) + along_x, mask=b_exists, other=0.0).to(ACCUMULATOR)
            sums = add_product(sums, i, b, y)

    # Store.
    at = slab * dw_numel + k * dw_k_stride
    for i in tl.static_range(TAPS):
        r, s = (first_tap + i) // S, (first_tap + i) % S
        total = narrow(tl.sum(sums[i], axis=ALONG_CHANNELS), out.dtype.element_ty)
        tl.store(out + at + r * dw_r_stride + s * dw_s_stride, total, mask=k_exists & within(r, R, BLOCK_CHANNELS))
