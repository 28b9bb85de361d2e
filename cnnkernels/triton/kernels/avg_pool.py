"""Average pooling with fixed and adaptive windows (windows.py), and its gradient.

    y[n, c, p, q]   = sum of x[n, c, .] over window (p, q) / divisor(p, q)
    dx[n, c, h, w]  = sum over the windows (p, q) that hold (h, w) of  dy[n, c, p, q] / divisor(p, q)

DIVISOR says what the divisor is: "same", one for all windows (what the caller gives; or no window is cut off, or all alike); else the window's
pixels "inside" the image, or "padded", those in the padding too, as far as it reaches. Where it is the same for all, the gradient is divided
once, after the sum.

Tile and orientation are those of max_pool.py. Sums run in row-major order of taps, or of windows. A quotient is rounded as IEEE 754 says.

Bytes: the read tensor once, and again from L1 for each window that overlaps; the result once. Per tap: one addition. Per result one division;
backward one per window, unless they are the same.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cnnkernels.triton.kernels.arithmetic import narrow
from cnnkernels.triton.kernels.windows import (
    extent_of_axis,
    tile_of_program,
    window_of_axis,
    window_of_pixel,
    windows_of_axis,
)


@triton.jit
def divided(sums, divisor):
    """sums / divisor, rounded correctly: for fp32 the operator / is not, for fp64 it is."""
    over = tl.zeros(sums.shape, sums.dtype) + divisor
    return sums / over if sums.dtype == tl.float64 else tl.div_rn(sums, over)


@triton.jit
def avg_pool2d_kernel(
    x, out,
    images, channels, x_h, x_w, x_n_stride, x_c_stride, x_h_stride, x_w_stride,
    out_h, out_w, out_plane, out_n_stride, out_c_stride, out_pixel_stride,
    pad_h, pad_w, divisor, inner_tiles,
    R: tl.constexpr, S: tl.constexpr,  # of adaptive windows: at most
    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, DIVISOR: tl.constexpr,
    ADAPTIVE: tl.constexpr, TAPS_AT_ONCE: tl.constexpr, PIXELS_LAST: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    ALONG_PIXELS: tl.constexpr = 0 if PIXELS_LAST else 1  # the axis that a vector of pixels is expanded by
    ALONG_CHANNELS: tl.constexpr = 1 if PIXELS_LAST else 0
    ACCUMULATOR: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    n, pixel, channel = tile_of_program(out_plane, inner_tiles, PIXELS_LAST, WIDE, BLOCK_PIXELS, BLOCK_CHANNELS)
    p, q = pixel // out_w, pixel % out_w
    first_h, count_h = window_of_axis(p, x_h, out_h, R, STRIDE_H, pad_h, 1, ADAPTIVE)
    first_w, count_w = window_of_axis(q, x_w, out_w, S, STRIDE_W, pad_w, 1, ADAPTIVE)
    pixel_exists = n < images
    channel_exists = tl.expand_dims(channel < channels, ALONG_CHANNELS)
    rows = tl.where(pixel_exists, count_h, 0)
    x_at = tl.expand_dims(n * x_n_stride + first_h * x_h_stride + first_w * x_w_stride, ALONG_PIXELS)
    x_at += tl.expand_dims(channel * x_c_stride, ALONG_CHANNELS)

    sums = tl.zeros(x_at.shape, ACCUMULATOR)
    for number in tl.range(0, R * S, loop_unroll_factor=TAPS_AT_ONCE):
        r, s = number // S, number % S
        if WIDE:
            r, s = tl.cast(r, tl.int64), tl.cast(s, tl.int64)
        reads = tl.expand_dims((r < rows) & (s < count_w), ALONG_PIXELS) & channel_exists
        sums += tl.load(x + (x_at + (r * x_h_stride + s * x_w_stride)), mask=reads, other=0.0).to(ACCUMULATOR)

    if DIVISOR != "same":
        extent_h = extent_of_axis(p, count_h, x_h, R, STRIDE_H, pad_h, DIVISOR == "padded")
        extent_w = extent_of_axis(q, count_w, x_w, S, STRIDE_W, pad_w, DIVISOR == "padded")
        divisor = tl.expand_dims(extent_h * extent_w, ALONG_PIXELS)
    y = divided(sums, divisor)
    out_at = tl.expand_dims(n * out_n_stride + pixel * out_pixel_stride, ALONG_PIXELS)
    out_at += tl.expand_dims(channel * out_c_stride, ALONG_CHANNELS)
    exists = tl.expand_dims(pixel_exists, ALONG_PIXELS) & channel_exists
    tl.store(out + out_at, narrow(y, out.dtype.element_ty), mask=exists)


@triton.jit
def avg_pool2d_backward_kernel(
    dy, out,
    images, channels, dy_h, dy_w, dy_n_stride, dy_c_stride, dy_h_stride, dy_w_stride,
    out_h, out_w, out_plane, out_n_stride, out_c_stride, out_pixel_stride,
    pad_h, pad_w, divisor, inner_tiles,
    R: tl.constexpr, S: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    WINDOWS_H: tl.constexpr, WINDOWS_W: tl.constexpr,  # that hold a pixel, at most
    DIVISOR: tl.constexpr, ADAPTIVE: tl.constexpr, WINDOWS_AT_ONCE: tl.constexpr, PIXELS_LAST: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    ALONG_PIXELS: tl.constexpr = 0 if PIXELS_LAST else 1
    ALONG_CHANNELS: tl.constexpr = 1 if PIXELS_LAST else 0
    ACCUMULATOR: tl.constexpr = tl.float64 if dy.dtype.element_ty == tl.float64 else tl.float32
    n, pixel, channel = tile_of_program(out_plane, inner_tiles, PIXELS_LAST, WIDE, BLOCK_PIXELS, BLOCK_CHANNELS)
    h, w = pixel // out_w, pixel % out_w
    first_h, tap_h, count_h = windows_of_axis(h, out_h, dy_h, pad_h, R, STRIDE_H, 1, STRIDE_H, 1, WINDOWS_H, ADAPTIVE)
    first_w, tap_w, count_w = windows_of_axis(w, out_w, dy_w, pad_w, S, STRIDE_W, 1, STRIDE_W, 1, WINDOWS_W, ADAPTIVE)
    exists = tl.expand_dims(n < images, ALONG_PIXELS) & tl.expand_dims(channel < channels, ALONG_CHANNELS)
    dy_at = tl.expand_dims(n * dy_n_stride, ALONG_PIXELS) + tl.expand_dims(channel * dy_c_stride, ALONG_CHANNELS)

    sums = tl.zeros(dy_at.shape, ACCUMULATOR)
    for number in tl.range(0, WINDOWS_H * WINDOWS_W, loop_unroll_factor=WINDOWS_AT_ONCE):
        p, _, p_exists = window_of_pixel(
            number // WINDOWS_W, first_h, tap_h, count_h, dy_h, STRIDE_H, 1, STRIDE_H, WINDOWS_H, ADAPTIVE
        )
        q, _, q_exists = window_of_pixel(
            number % WINDOWS_W, first_w, tap_w, count_w, dy_w, STRIDE_W, 1, STRIDE_W, WINDOWS_W, ADAPTIVE
        )
        reads = tl.expand_dims(p_exists & q_exists, ALONG_PIXELS) & exists
        at = tl.expand_dims(p * dy_h_stride + q * dy_w_stride, ALONG_PIXELS)
        gradient = tl.load(dy + (dy_at + at), mask=reads, other=0.0).to(ACCUMULATOR)
        if DIVISOR != "same":
            _, pixels_h = window_of_axis(p, out_h, dy_h, R, STRIDE_H, pad_h, 1, ADAPTIVE)
            _, pixels_w = window_of_axis(q, out_w, dy_w, S, STRIDE_W, pad_w, 1, ADAPTIVE)
            extent_h = extent_of_axis(p, pixels_h, out_h, R, STRIDE_H, pad_h, DIVISOR == "padded")
            extent_w = extent_of_axis(q, pixels_w, out_w, S, STRIDE_W, pad_w, DIVISOR == "padded")
            gradient = divided(gradient, tl.expand_dims(extent_h * extent_w, ALONG_PIXELS))
        sums += gradient

    if DIVISOR == "same":
        sums = divided(sums, divisor)
    out_at = tl.expand_dims(n * out_n_stride + pixel * out_pixel_stride, ALONG_PIXELS)
    out_at += tl.expand_dims(channel * out_c_stride, ALONG_CHANNELS)
    tl.store(out + out_at, narrow(sums, out.dtype.element_ty), mask=exists)
