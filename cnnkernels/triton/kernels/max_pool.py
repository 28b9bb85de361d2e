"""Max pooling with fixed and adaptive windows (windows.py), its gradient, and the gradient's derivative.

    y[n, c, p, q]   = max of x[n, c, .] over window (p, q)        index[n, c, p, q]: where in it that maximum is
    dx[n, c, h, w]  = sum over the windows (p, q) that hold (h, w) and whose index is of it, of  dy[n, c, p, q]
    y[n, c, p, q]   = x[n, c, .] at the index                     0 where that lies in no image

An index is the tap r * S + s of the window, uint8, or the pixel h * W + w of the image, int64; the tensor's dtype tells. A window is walked in
row-major order, and a value is taken where it is greater than the maximum so far or NaN: the first of equal values, the last of several NaNs.
Before the first value the maximum is -inf at the window's first pixel. A window without a pixel has tap 0, which lies outside the image.

          BLOCK_CHANNELS
         +------------+
  BLOCK  |            |   maxima or sums, in registers       program = (tile of pixels of the result) x (tile of channels)
  PIXELS |            |   taps: some at a time, with their loads in flight together
         +------------+

PIXELS_LAST is the orientation of the tile, pixels along its last axis: neighbouring lanes then have neighbouring pixels of a plane (NCHW),
else neighbouring channels (channels_last), in 16-byte accesses.

Bytes: the read tensors once, and again from L1 for each window that overlaps; the results once. Per tap: two comparisons, two moves;
backward one comparison and one addition. No FMA.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cnnkernels.triton.kernels.arithmetic import narrow
from cnnkernels.triton.kernels.windows import tile_of_program, window_of_axis, window_of_pixel, windows_of_axis


@triton.jit
def take(best, tap, value, number):
    """The maximum so far, `best` at `tap`, and a value that comes after it."""
    better = (value > best) | (value != value)
    return tl.where(better, value, best), tl.where(better, number, tap)


@triton.jit
def index_of_tap(
    tap, S, first_h, first_w, count_h, count_w, p, q, x_w, pad_h, pad_w,
    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """The index of `tap`, which is counted in rows of S from the window's first pixel in the image, of dtype INDEX."""
    if INDEX.is_uint8():
        before_h = (first_h + pad_h - p * STRIDE_H) // DILATION_H  # taps that lie before the image
        before_w = (first_w + pad_w - q * STRIDE_W) // DILATION_W
        index = tl.where((count_h > 0) & (count_w > 0), tap + before_h * S + before_w, 0)
    else:
        index = (first_h + tap // S * DILATION_H) * x_w + first_w + tap % S * DILATION_W
    return index.to(INDEX)


@triton.jit
def max_pool2d_kernel(
    x, out, index,  # index: as out, or None
    images, channels, x_h, x_w, x_n_stride, x_c_stride, x_h_stride, x_w_stride,
    out_h, out_w, out_plane, out_n_stride, out_c_stride, out_pixel_stride,
    pad_h, pad_w, inner_tiles,
    R: tl.constexpr, S: tl.constexpr,  # of adaptive windows: at most
    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    ADAPTIVE: tl.constexpr, TAPS_AT_ONCE: tl.constexpr, PIXELS_LAST: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    ALONG_PIXELS: tl.constexpr = 0 if PIXELS_LAST else 1  # the axis that a vector of pixels is expanded by
    ALONG_CHANNELS: tl.constexpr = 1 if PIXELS_LAST else 0
    ACCUMULATOR: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    n, pixel, channel = tile_of_program(out_plane, inner_tiles, PIXELS_LAST, WIDE, BLOCK_PIXELS, BLOCK_CHANNELS)
    p, q = pixel // out_w, pixel % out_w
    first_h, count_h = window_of_axis(p, x_h, out_h, R, STRIDE_H, pad_h, DILATION_H, ADAPTIVE)
    first_w, count_w = window_of_axis(q, x_w, out_w, S, STRIDE_W, pad_w, DILATION_W, ADAPTIVE)
    pixel_exists = n < images
    channel_exists = tl.expand_dims(channel < channels, ALONG_CHANNELS)
    rows = tl.where(pixel_exists, count_h, 0)
    x_at = tl.expand_dims(n * x_n_stride + first_h * x_h_stride + first_w * x_w_stride, ALONG_PIXELS)
    x_at += tl.expand_dims(channel * x_c_stride, ALONG_CHANNELS)

    best = tl.full(x_at.shape, float("-inf"), ACCUMULATOR)
    tap = tl.zeros(x_at.shape, tl.int32)
    for number in tl.range(0, R * S, loop_unroll_factor=TAPS_AT_ONCE):
        r, s = number // S, number % S
        if WIDE:
            r, s = tl.cast(r, tl.int64), tl.cast(s, tl.int64)
        along_tap = r * DILATION_H * x_h_stride + s * DILATION_W * x_w_stride
        reads = tl.expand_dims((r < rows) & (s < count_w), ALONG_PIXELS) & channel_exists
        value = tl.load(x + (x_at + along_tap), mask=reads, other=float("-inf")).to(ACCUMULATOR)
        best, tap = take(best, tap, value, number)

    exists = tl.expand_dims(pixel_exists, ALONG_PIXELS) & channel_exists
    out_at = tl.expand_dims(n * out_n_stride + pixel * out_pixel_stride, ALONG_PIXELS)
    out_at += tl.expand_dims(channel * out_c_stride, ALONG_CHANNELS)
    tl.store(out + out_at, narrow(best, out.dtype.element_ty), mask=exists)
    if index is not None:
        where = index_of_tap(
            tap, S, tl.expand_dims(first_h, ALONG_PIXELS), tl.expand_dims(first_w, ALONG_PIXELS),
            tl.expand_dims(count_h, ALONG_PIXELS), tl.expand_dims(count_w, ALONG_PIXELS),
            tl.expand_dims(p, ALONG_PIXELS), tl.expand_dims(q, ALONG_PIXELS), x_w, pad_h, pad_w,
            STRIDE_H, STRIDE_W, DILATION_H, DILATION_W, index.dtype.element_ty,
        )  # fmt: skip
        tl.store(index + out_at, where, mask=exists)


@triton.jit
def max_pool2d_backward_kernel(
    dy, index, out,
    images, channels,
    dy_h, dy_w, dy_n_stride, dy_c_stride, dy_h_stride, dy_w_stride,
    index_n_stride, index_c_stride, index_h_stride, index_w_stride,
    out_h, out_w, out_plane, out_n_stride, out_c_stride, out_pixel_stride,
    pad_h, pad_w, inner_tiles,
    R: tl.constexpr, S: tl.constexpr,
    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    TAP_STEP_H: tl.constexpr, TAP_STEP_W: tl.constexpr, INVERSE_H: tl.constexpr, INVERSE_W: tl.constexpr,
    WINDOWS_H: tl.constexpr, WINDOWS_W: tl.constexpr,  # that hold a pixel, at most
    ADAPTIVE: tl.constexpr, WINDOWS_AT_ONCE: tl.constexpr, PIXELS_LAST: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    ALONG_PIXELS: tl.constexpr = 0 if PIXELS_LAST else 1
    ALONG_CHANNELS: tl.constexpr = 1 if PIXELS_LAST else 0
    ACCUMULATOR: tl.constexpr = tl.float64 if dy.dtype.element_ty == tl.float64 else tl.float32
    n, pixel, channel = tile_of_program(out_plane, inner_tiles, PIXELS_LAST, WIDE, BLOCK_PIXELS, BLOCK_CHANNELS)
    h, w = pixel // out_w, pixel % out_w
    first_h, tap_h, count_h = windows_of_axis(
        h, out_h, dy_h, pad_h, R, STRIDE_H, DILATION_H, TAP_STEP_H, INVERSE_H, WINDOWS_H, ADAPTIVE
    )
    first_w, tap_w, count_w = windows_of_axis(
        w, out_w, dy_w, pad_w, S, STRIDE_W, DILATION_W, TAP_STEP_W, INVERSE_W, WINDOWS_W, ADAPTIVE
    )
    exists = tl.expand_dims(n < images, ALONG_PIXELS) & tl.expand_dims(channel < channels, ALONG_CHANNELS)
    dy_at = tl.expand_dims(n * dy_n_stride, ALONG_PIXELS) + tl.expand_dims(channel * dy_c_stride, ALONG_CHANNELS)
    index_at = tl.expand_dims(n * index_n_stride, ALONG_PIXELS)
    index_at += tl.expand_dims(channel * index_c_stride, ALONG_CHANNELS)

    sums = tl.zeros(dy_at.shape, ACCUMULATOR)
    for number in tl.range(0, WINDOWS_H * WINDOWS_W, loop_unroll_factor=WINDOWS_AT_ONCE):
        p, r, p_exists = window_of_pixel(
            number // WINDOWS_W, first_h, tap_h, count_h, dy_h, STRIDE_H, DILATION_H, TAP_STEP_H, WINDOWS_H, ADAPTIVE
        )
        q, s, q_exists = window_of_pixel(
            number % WINDOWS_W, first_w, tap_w, count_w, dy_w, STRIDE_W, DILATION_W, TAP_STEP_W, WINDOWS_W, ADAPTIVE
        )
        reads = tl.expand_dims(p_exists & q_exists, ALONG_PIXELS) & exists
        at = tl.expand_dims(p * index_h_stride + q * index_w_stride, ALONG_PIXELS)
        taken = tl.load(index + (index_at + at), mask=reads, other=0)
        at = tl.expand_dims(p * dy_h_stride + q * dy_w_stride, ALONG_PIXELS)
        gradient = tl.load(dy + (dy_at + at), mask=reads, other=0.0).to(ACCUMULATOR)
        if index.dtype.element_ty.is_uint8():
            is_here = taken.to(tl.int32) == tl.expand_dims(r * S + s, ALONG_PIXELS)
        else:
            is_here = taken == tl.expand_dims(pixel, ALONG_PIXELS)
        sums += tl.where(is_here, gradient, 0.0)

    out_at = tl.expand_dims(n * out_n_stride + pixel * out_pixel_stride, ALONG_PIXELS)
    out_at += tl.expand_dims(channel * out_c_stride, ALONG_CHANNELS)
    tl.store(out + out_at, narrow(sums, out.dtype.element_ty), mask=exists)


@triton.jit
def max_pool2d_gather_kernel(
    x, index, out,
    images, channels,
    x_h, x_w, x_plane, x_n_stride, x_c_stride, x_h_stride, x_w_stride,
    index_n_stride, index_c_stride, index_h_stride, index_w_stride,
    out_w, out_plane, out_n_stride, out_c_stride, out_pixel_stride,
    pad_h, pad_w, inner_tiles,
    S: tl.constexpr,
    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    PIXELS_LAST: tl.constexpr, WIDE: tl.constexpr, BLOCK_PIXELS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    ALONG_PIXELS: tl.constexpr = 0 if PIXELS_LAST else 1
    ALONG_CHANNELS: tl.constexpr = 1 if PIXELS_LAST else 0
    n, pixel, channel = tile_of_program(out_plane, inner_tiles, PIXELS_LAST, WIDE, BLOCK_PIXELS, BLOCK_CHANNELS)
    p, q = pixel // out_w, pixel % out_w
    exists = tl.expand_dims(n < images, ALONG_PIXELS) & tl.expand_dims(channel < channels, ALONG_CHANNELS)
    at = tl.expand_dims(n * index_n_stride + p * index_h_stride + q * index_w_stride, ALONG_PIXELS)
    where = tl.load(index + (at + tl.expand_dims(channel * index_c_stride, ALONG_CHANNELS)), mask=exists, other=0)
    if index.dtype.element_ty.is_uint8():
        tap = where.to(tl.int32)
        h = tl.expand_dims(p * STRIDE_H - pad_h, ALONG_PIXELS) + tap // S * DILATION_H
        w = tl.expand_dims(q * STRIDE_W - pad_w, ALONG_PIXELS) + tap % S * DILATION_W
        inside = (h >= 0) & (h < x_h) & (w >= 0) & (w < x_w)
    else:
        inside = (where >= 0) & (where < x_plane)
        if not WIDE:
            where = where.to(tl.int32)
        h, w = where // x_w, where % x_w
    x_at = tl.expand_dims(n * x_n_stride, ALONG_PIXELS) + tl.expand_dims(channel * x_c_stride, ALONG_CHANNELS)
    value = tl.load(x + (x_at + h * x_h_stride + w * x_w_stride), mask=exists & inside, other=0.0)
    out_at = tl.expand_dims(n * out_n_stride + pixel * out_pixel_stride, ALONG_PIXELS)
    out_at += tl.expand_dims(channel * out_c_stride, ALONG_CHANNELS)
    tl.store(out + out_at, value, mask=exists)
