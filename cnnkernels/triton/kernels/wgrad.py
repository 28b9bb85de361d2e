"""Gradient of the filters as an implicit matrix product.

    dw[k, c, r, s] = sum over n, p, q of  dy[n, k, p, q] * x[n, c, p * stride - pad + r * dilation, q * stride - pad + s * dilation]

          BLOCK_COLUMNS: channels and taps (c, r, s) of the filters, in the order of memory
         +---------+
  BLOCK  |         |   sums, in registers             reduction: pixels of dy, BLOCK_PIXELS at a time; it is cut into slabs, whose sums
  OUT    |         |                                  sum_slabs adds in order
         +---------+

program = (tile of filters) x (tile of columns) x slab. Narrow groups are stacked: of the product of STACK groups' filters and channels the
blocks on the diagonal are written. No result is part of two groups.

Bytes: dy once per tile of columns, x once per tap and tile of filters, most of it from caches; partial sums twice. FMAs: pixels * filters *
columns, times STACK where groups are stacked. *_VECTOR as in gather.py.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cnnkernels.triton.kernels.arithmetic import multiply_add, narrow
from cnnkernels.triton.kernels.tiles import in_vectors, inside_image


@triton.jit
def conv2d_wgrad_kernel(
    x, dy, out,  # out: dw, or the slabs' sums as floats
    images, x_h, x_w, x_n_stride, x_c_stride, x_h_stride, x_w_stride,
    out_h, out_w, dy_n_stride, dy_k_stride, dy_h_stride, dy_w_stride,
    filters, channels, group_in, group_out, dw_k_stride, dw_c_stride, dw_r_stride, dw_s_stride, dw_numel,
    pad_h, pad_w, pixels_of_slab,
    R: tl.constexpr, S: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, PADDING_MODE: tl.constexpr,
    STACK: tl.constexpr, TAPS_INNER: tl.constexpr, PIXELS_LAST: tl.constexpr, LINEAR: tl.constexpr,
    X_VECTOR: tl.constexpr, DY_VECTOR: tl.constexpr, OUT_VECTOR: tl.constexpr,
    WIDE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_OUT: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_PIXELS: tl.constexpr,
):  # fmt: skip
    # Tiles of x are [pixels, columns], or the other way round and transposed in registers: memory's order is the last axis'.
    ALONG_PIXELS: tl.constexpr = 0 if PIXELS_LAST else 1
    ALONG_COLUMNS: tl.constexpr = 1 if PIXELS_LAST else 0
    ACCUMULATOR: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32

    # Which filters and columns: tiles lie within a stack of groups.
    stack_out, stack_in = group_out * STACK, group_in * STACK
    tiles_of_stack = (stack_out + BLOCK_OUT - 1) // BLOCK_OUT
    stack = tl.program_id(0) // tiles_of_stack
    slab = tl.program_id(2)
    if WIDE:
        stack, slab = stack.to(tl.int64), slab.to(tl.int64)
    k = tl.program_id(0) % tiles_of_stack * BLOCK_OUT + tl.arange(0, BLOCK_OUT)  # within the stack
    e = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    if TAPS_INNER:
        c, tap = e // (R * S), e % (R * S)
    else:
        tap, c = e // stack_in, e % stack_in
    r, s = tap // S, tap % S
    filter, channel = stack * stack_out + k, stack * stack_in + c
    k_exists = (k < stack_out) & (filter < filters)
    column_exists = (c < stack_in) & (tap < R * S) & (channel < channels)
    tap_row, tap_column = r * DILATION_H - pad_h, s * DILATION_W - pad_w

    # Sum.
    first = slab * pixels_of_slab
    last = tl.minimum(first + pixels_of_slab, images * out_h * out_w)
    sums = tl.zeros((BLOCK_OUT, BLOCK_COLUMNS), ACCUMULATOR)
    for start in range(first, last, BLOCK_PIXELS):
        m = start + tl.arange(0, BLOCK_PIXELS)
        if WIDE:
            m = m.to(tl.int64)  # which start is already, but under the interpreter
        pixel = m % (out_h * out_w)
        n, p, q = m // (out_h * out_w), pixel // out_w, pixel % out_w
        m_exists = m < last
        if LINEAR:
            dy_at = n * dy_n_stride + pixel * dy_w_stride
            x_at = tl.expand_dims(n * x_n_stride + pixel * x_w_stride, ALONG_PIXELS)
            exists = tl.expand_dims(m_exists, ALONG_PIXELS)
        else:
            dy_at = n * dy_n_stride + p * dy_h_stride + q * dy_w_stride
            row = tl.expand_dims(p * STRIDE_H, ALONG_PIXELS) + tl.expand_dims(tap_row, ALONG_COLUMNS)
            column = tl.expand_dims(q * STRIDE_W, ALONG_PIXELS) + tl.expand_dims(tap_column, ALONG_COLUMNS)
            exists = tl.expand_dims(m_exists, ALONG_PIXELS)
            if PADDING_MODE == "zeros":
                exists = exists & (row >= 0) & (row < x_h) & (column >= 0) & (column < x_w)
            else:
                row, column = inside_image(row, x_h, PADDING_MODE), inside_image(column, x_w, PADDING_MODE)
            x_at = tl.expand_dims(n * x_n_stride, ALONG_PIXELS) + row * x_h_stride + column * x_w_stride
        x_at, exists = in_vectors(
            x_at, tl.expand_dims(channel * x_c_stride, ALONG_COLUMNS),
            exists, tl.expand_dims(column_exists, ALONG_COLUMNS),
            X_VECTOR, 1,
        )  # fmt: skip
        b = tl.load(x + x_at, mask=exists, other=0.0)
        dy_at, exists = in_vectors(
            dy_at[None, :], (filter * dy_k_stride)[:, None], m_exists[None, :], k_exists[:, None],
            DY_VECTOR, 1 if PIXELS_LAST else 0,
        )  # fmt: skip
        a = tl.load(dy + dy_at, mask=exists, other=0.0)
        if PIXELS_LAST:
            b = tl.trans(b)
        sums = multiply_add(a, b, sums, PRECISION)

    # Store.
    exists = k_exists[:, None]
    if STACK > 1:
        exists = exists & ((k // group_out)[:, None] == (c // group_in)[None, :])
        c = c % group_in
    at, exists = in_vectors(
        (slab * dw_numel + filter * dw_k_stride)[:, None], (c * dw_c_stride + r * dw_r_stride + s * dw_s_stride)[None, :],
        exists, column_exists[None, :],
        OUT_VECTOR, 1,
    )  # fmt: skip
    tl.store(out + at, narrow(sums, out.dtype.element_ty), mask=exists)
