"""Max and average pooling of large windows, whose pixels lie side by side; max_pool.py and avg_pool.py walk them.

    y[n, c, p, q]  = max of x[n, c, .] over window (p, q), and its index;  or their sum / divisor(p, q)

            BLOCK_WINDOW pixels of the window at a time              program = (tile of results) x part of the windows
           +--------------+
  BLOCK    |              |  a maximum or sum for each place of the tile;   results: in the order of the result's memory
  RESULTS  |              |  at the end those of a window become one        part: some of the steps, where there are few
           +--------------+                                                results; merge_parts_kernel joins them

WINDOW_LAST is the orientation of the tile: neighbouring lanes have neighbouring pixels of a plane (NCHW), else
neighbouring channels (channels_last). Pixels of a window are numbered in rows of S. Where the one window is the whole
plane, without gaps (WHOLE), the plane is stated as one row of x_w pixels, whose numbers are offsets: planes of a
multiple of 16 pixels are read in 16-byte accesses. If such planes lie at even distances (EVEN), a result's number says
where its plane is, without a division.

A place sees its pixels in ascending order, and which of equal maxima is the first is asked of their numbers: the result
is that of a walk. Sums have an order of their own, which the tile and the number of parts give.

Bytes: x once for each window that it lies in, the result once; parts twice, 4 bytes each (and 4 to 8 of the number).
Per pixel: one addition, or two comparisons and two moves; per result a tree over BLOCK_WINDOW places, one division.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cnnkernels.triton.kernels.arithmetic import narrow
from cnnkernels.triton.kernels.avg_pool import divided
from cnnkernels.triton.kernels.max_pool import index_of_tap, take
from cnnkernels.triton.kernels.windows import extent_of_axis, window_of_axis


@triton.jit
def results_of_program(
    channels, out_h, out_w, CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr, BLOCK_RESULTS: tl.constexpr
):
    """Each result's number in the order of memory, its image, channel, row and column."""
    tile = tl.program_id(0)
    if WIDE:
        tile = tile.to(tl.int64)
    e = tile * BLOCK_RESULTS + tl.arange(0, BLOCK_RESULTS)
    if CHANNELS_LAST:
        c, pixel = e % channels, e // channels
        q, row = pixel % out_w, pixel // out_w
        n, p = row // out_h, row % out_h
    else:
        q, row = e % out_w, e // out_w
        p, plane = row % out_h, row // out_h
        n, c = plane // channels, plane % channels
    return e, n, c, p, q


@triton.jit
def store_maximum(
    best, tap, e, exists, out, index, p, q, x_h, x_w, out_h, out_w, pad_h, pad_w, R, S,
    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    ADAPTIVE: tl.constexpr,
):  # fmt: skip
    tl.store(out + e, narrow(best, out.dtype.element_ty), mask=exists)
    if index is not None:
        first_h, count_h = window_of_axis(p, x_h, out_h, R, STRIDE_H, pad_h, DILATION_H, ADAPTIVE)
        first_w, count_w = window_of_axis(q, x_w, out_w, S, STRIDE_W, pad_w, DILATION_W, ADAPTIVE)
        where = index_of_tap(
            tap, S, first_h, first_w, count_h, count_w, p, q, x_w, pad_h, pad_w,
            STRIDE_H, STRIDE_W, DILATION_H, DILATION_W, index.dtype.element_ty,
        )  # fmt: skip
        tl.store(index + e, where, mask=exists)


@triton.jit
def store_mean(
    sums, e, exists, out, p, q, x_h, x_w, out_h, out_w, pad_h, pad_w, divisor, R, S,
    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, DIVISOR: tl.constexpr, ADAPTIVE: tl.constexpr,
):  # fmt: skip
    if DIVISOR != "same":
        _, count_h = window_of_axis(p, x_h, out_h, R, STRIDE_H, pad_h, 1, ADAPTIVE)
        _, count_w = window_of_axis(q, x_w, out_w, S, STRIDE_W, pad_w, 1, ADAPTIVE)
        extent_h = extent_of_axis(p, count_h, x_h, R, STRIDE_H, pad_h, DIVISOR == "padded")
        extent_w = extent_of_axis(q, count_w, x_w, S, STRIDE_W, pad_w, DIVISOR == "padded")
        divisor = extent_h * extent_w
    tl.store(out + e, narrow(divided(sums, divisor), out.dtype.element_ty), mask=exists)


@triton.jit
def pool2d_reduction_kernel(
    x, out, index, partial, partial_tap,  # partial: sums or maxima of each part, or None; partial_tap: where these are
    results, channels, x_h, x_w, x_n_stride, x_c_stride, x_h_stride, x_w_stride, out_h, out_w,
    pad_h, pad_w, divisor, R, S, taps_of_window, taps_of_part,  # a part is a multiple of BLOCK_WINDOW
    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    MAX: tl.constexpr, DIVISOR: tl.constexpr, ADAPTIVE: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, WINDOW_LAST: tl.constexpr, WHOLE: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_RESULTS: tl.constexpr, BLOCK_WINDOW: tl.constexpr,
):  # fmt: skip
    ALONG_RESULTS: tl.constexpr = 1 if WINDOW_LAST else 0  # the axis that a vector of results is expanded by
    ALONG_WINDOW: tl.constexpr = 0 if WINDOW_LAST else 1
    ACCUMULATOR: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    e, n, c, p, q = results_of_program(channels, out_h, out_w, CHANNELS_LAST, WIDE, BLOCK_RESULTS)
    exists = e < results
    x_at = e * x_c_stride if EVEN else n * x_n_stride + c * x_c_stride
    if not WHOLE:
        first_h, count_h = window_of_axis(p, x_h, out_h, R, STRIDE_H, pad_h, DILATION_H, ADAPTIVE)
        first_w, count_w = window_of_axis(q, x_w, out_w, S, STRIDE_W, pad_w, DILATION_W, ADAPTIVE)
        rows = tl.expand_dims(tl.where(exists, count_h, 0), ALONG_RESULTS)
        columns = tl.expand_dims(count_w, ALONG_RESULTS)
        x_at += first_h * x_h_stride + first_w * x_w_stride
    x_at = tl.expand_dims(x_at, ALONG_RESULTS)

    part = tl.program_id(1)
    if WIDE:
        part = part.to(tl.int64)
    if WINDOW_LAST:
        values = tl.full((BLOCK_RESULTS, BLOCK_WINDOW), float("-inf") if MAX else 0.0, ACCUMULATOR)
    else:
        values = tl.full((BLOCK_WINDOW, BLOCK_RESULTS), float("-inf") if MAX else 0.0, ACCUMULATOR)
    taps = tl.zeros(values.shape, part.dtype)
    first = part * taps_of_part
    last = tl.minimum(first + taps_of_part, taps_of_window)
    for start in range(first, last, BLOCK_WINDOW):
        number = start + tl.arange(0, BLOCK_WINDOW)
        if WHOLE:
            at = number * x_w_stride
            reads = tl.expand_dims(number < x_w, ALONG_WINDOW) & tl.expand_dims(exists, ALONG_RESULTS)
        else:
            r, s = number // S, number % S
            at = r * DILATION_H * x_h_stride + s * DILATION_W * x_w_stride
            reads = (tl.expand_dims(r, ALONG_WINDOW) < rows) & (tl.expand_dims(s, ALONG_WINDOW) < columns)
        value = tl.load(x + (x_at + tl.expand_dims(at, ALONG_WINDOW)), mask=reads, other=float("-inf") if MAX else 0.0)
        if MAX:
            values, taps = take(values, taps, value.to(ACCUMULATOR), tl.expand_dims(number, ALONG_WINDOW))
        else:
            values += value.to(ACCUMULATOR)

    AXIS: tl.constexpr = 1 if WINDOW_LAST else 0
    at_part = part * results + e
    if MAX:
        # NaN is greater than everything, and of several the last counts; of equal maxima the first.
        is_nan = values != values
        last_nan = tl.max(tl.where(is_nan, taps, -1), axis=AXIS)
        best = tl.max(tl.where(is_nan, float("-inf"), values), axis=AXIS)
        tap = tl.min(tl.where(values == tl.expand_dims(best, ALONG_RESULTS), taps, taps_of_window), axis=AXIS)
        best = tl.where(last_nan >= 0, float("nan"), best)
        tap = tl.where(last_nan >= 0, last_nan, tap)
        if partial is not None:
            tl.store(partial + at_part, best, mask=exists)
            tl.store(partial_tap + at_part, tap, mask=exists)
        else:
            store_maximum(
                best, tap, e, exists, out, index, p, q, x_h, x_w, out_h, out_w, pad_h, pad_w, R, S,
                STRIDE_H, STRIDE_W, DILATION_H, DILATION_W, ADAPTIVE,
            )  # fmt: skip
    else:
        sums = tl.sum(values, axis=AXIS)
        if partial is not None:
            tl.store(partial + at_part, sums, mask=exists)
        else:
            store_mean(
                sums, e, exists, out, p, q, x_h, x_w, out_h, out_w, pad_h, pad_w, divisor, R, S,
                STRIDE_H, STRIDE_W, DIVISOR, ADAPTIVE,
            )  # fmt: skip


@triton.jit
def merge_parts_kernel(
    partial, partial_tap, parts, out, index,
    results, channels, x_h, x_w, out_h, out_w, pad_h, pad_w, divisor, R, S,
    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    MAX: tl.constexpr, DIVISOR: tl.constexpr, ADAPTIVE: tl.constexpr, CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_RESULTS: tl.constexpr,
):  # fmt: skip
    e, _, _, p, q = results_of_program(channels, out_h, out_w, CHANNELS_LAST, WIDE, BLOCK_RESULTS)
    exists = e < results
    value = tl.load(partial + e, mask=exists, other=0.0)
    at = partial
    if MAX:
        tap = tl.load(partial_tap + e, mask=exists, other=0)
        at_tap = partial_tap
        for _ in range(1, parts):
            at += results
            at_tap += results
            # A later part's taps come after an earlier one's.
            value, tap = take(
                value, tap, tl.load(at + e, mask=exists, other=0.0), tl.load(at_tap + e, mask=exists, other=0)
            )
        store_maximum(
            value, tap, e, exists, out, index, p, q, x_h, x_w, out_h, out_w, pad_h, pad_w, R, S,
            STRIDE_H, STRIDE_W, DILATION_H, DILATION_W, ADAPTIVE,
        )  # fmt: skip
    else:
        for _ in range(1, parts):
            at += results
            value += tl.load(at + e, mask=exists, other=0.0)
        store_mean(
            value, e, exists, out, p, q, x_h, x_w, out_h, out_w, pad_h, pad_w, divisor, R, S,
            STRIDE_H, STRIDE_W, DIVISOR, ADAPTIVE,
        )  # fmt: skip
