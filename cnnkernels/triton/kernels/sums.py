"""Sums in a fixed order: of the slabs that a reduction was cut into, and of a gradient over its pixels.

    out[e] = epilogue(sum over slabs of  partial[slab, e])
    db[k]  = sum over n, p, q of  dy[n, k, p, q]

sum_slabs: program = BLOCK neighbouring elements, of BLOCK_SLABS slabs at a time: each of these adds up every so-many-th slab, and a tree them.
Bytes: slabs * 4 per element read, one element written.
bias_grad: program = (BLOCK_CHANNELS channels) x slab, which it goes through BLOCK_PIXELS at a time. Bytes: dy once.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cnnkernels.triton.kernels.arithmetic import narrow
from cnnkernels.triton.kernels.epilogue import finish, per_channel
from cnnkernels.triton.kernels.tiles import in_vectors


@triton.jit
def sum_slabs_kernel(
    partial, out, bias, bias_stride, mean, variance, scale, shift, eps, residual, slope,
    numel, slabs, channel_stride, channels,
    ACTIVATION: tl.constexpr, WIDE: tl.constexpr, BLOCK_SLABS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program, slab = tl.program_id(0), tl.arange(0, BLOCK_SLABS)
    if WIDE:
        program, slab = program.to(tl.int64), slab.to(tl.int64)
    e = program * BLOCK + tl.arange(0, BLOCK)
    exists = e < numel
    at = partial + (slab * numel)[:, None] + e[None, :]
    sums = tl.load(at, mask=(slab < slabs)[:, None] & exists[None, :], other=0.0)
    for first in range(BLOCK_SLABS, slabs, BLOCK_SLABS):
        at += BLOCK_SLABS * numel
        sums += tl.load(at, mask=(first + slab < slabs)[:, None] & exists[None, :], other=0.0)
    total = tl.sum(sums, axis=0)
    channel = e // channel_stride % channels
    factor, offset = per_channel(channel, exists, bias, bias_stride, mean, variance, scale, shift, eps, total.dtype)
    finish(total * factor + offset, out, e, exists, residual, slope, ACTIVATION)


@triton.jit
def bias_grad_kernel(
    dy, out, images, channels, height, width, n_stride, c_stride, h_stride, w_stride, pixels_of_slab,
    PIXELS_LAST: tl.constexpr, VECTOR: tl.constexpr, WIDE: tl.constexpr, BLOCK_CHANNELS: tl.constexpr, BLOCK_PIXELS: tl.constexpr,
):  # fmt: skip
    ALONG_PIXELS: tl.constexpr = 0 if PIXELS_LAST else 1
    ALONG_CHANNELS: tl.constexpr = 1 if PIXELS_LAST else 0
    ACCUMULATOR: tl.constexpr = tl.float64 if dy.dtype.element_ty == tl.float64 else tl.float32
    slab = tl.program_id(1)
    if WIDE:
        slab = slab.to(tl.int64)
    k = tl.program_id(0) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    first = slab * pixels_of_slab
    last = tl.minimum(first + pixels_of_slab, images * height * width)
    if PIXELS_LAST:
        sums = tl.zeros((BLOCK_CHANNELS, BLOCK_PIXELS), ACCUMULATOR)
    else:
        sums = tl.zeros((BLOCK_PIXELS, BLOCK_CHANNELS), ACCUMULATOR)
    for start in range(first, last, BLOCK_PIXELS):
        m = start + tl.arange(0, BLOCK_PIXELS)
        if WIDE:
            m = m.to(tl.int64)  # which start is already, but under the interpreter
        pixel = m % (height * width)
        at = m // (height * width) * n_stride + pixel // width * h_stride + pixel % width * w_stride
        at, exists = in_vectors(
            tl.expand_dims(at, ALONG_PIXELS), tl.expand_dims(k * c_stride, ALONG_CHANNELS),
            tl.expand_dims(m < last, ALONG_PIXELS), tl.expand_dims(k < channels, ALONG_CHANNELS),
            VECTOR, 1,
        )  # fmt: skip
        sums += tl.load(dy + at, mask=exists, other=0.0).to(ACCUMULATOR)
    total = tl.sum(sums, axis=ALONG_CHANNELS)
    tl.store(out + slab * channels + k, narrow(total, out.dtype.element_ty), mask=k < channels)
