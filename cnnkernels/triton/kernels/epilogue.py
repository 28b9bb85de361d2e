"""What becomes of a convolution's sums before they are written; the steps and roundings of csrc/conv2d/epilogue.cuh.

    z = factor[k] * sum + offset[k]             bias, and BatchNorm with running statistics:
                                                factor = scale / sqrt(variance + eps), offset = shift + factor * (bias - mean)
    y = activation(round(z) + residual)         round(): to the tensors' type

Per result: one FMA, and what the activation takes. Bytes: the residual once.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cnnkernels.triton.kernels.arithmetic import narrow


@triton.jit
def per_channel(channel, exists, bias, bias_stride, mean, variance, scale, shift, eps, ACCUMULATOR: tl.constexpr):
    """Factor and offset of each of `channel`; of tensors that are None nothing is read."""
    offset = tl.zeros(channel.shape, ACCUMULATOR)
    if bias is not None:
        offset = tl.load(bias + channel * bias_stride, mask=exists, other=0.0).to(ACCUMULATOR)
    factor = tl.full(channel.shape, 1.0, ACCUMULATOR)
    if variance is not None:
        if scale is not None:
            factor = tl.load(scale + channel, mask=exists, other=1.0).to(ACCUMULATOR)
        factor = factor / tl.sqrt(tl.load(variance + channel, mask=exists, other=1.0).to(ACCUMULATOR) + eps)
        offset = factor * (offset - tl.load(mean + channel, mask=exists, other=0.0).to(ACCUMULATOR))
        if shift is not None:
            offset += tl.load(shift + channel, mask=exists, other=0.0).to(ACCUMULATOR)
    return factor, offset


@triton.jit
def activate(x, slope, ACTIVATION: tl.constexpr):
    """torch's function of that name; a NaN stays one."""
    if ACTIVATION == "relu":
        x = tl.where(x < 0, 0.0, x)
    elif ACTIVATION == "relu6":
        x = tl.where(x < 0, 0.0, tl.where(x > 6, 6.0, x))
    elif ACTIVATION == "leaky_relu":
        x = tl.where(x < 0, x * slope, x)
    elif ACTIVATION == "silu":
        x = x / (1 + tl.exp(-x))
    elif ACTIVATION == "gelu":
        x = x * (0.5 + 0.5 * tl.erf(x * 0.7071067811865476))  # 1 / sqrt(2)
    elif ACTIVATION == "gelu_tanh":
        # (1 + tanh(u)) / 2 is the sigmoid of 2 u, u = sqrt(2 / pi) (x + 0.044715 x^3)
        x = x / (1 + tl.exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)))
    elif ACTIVATION == "hardswish":
        x = x * tl.where(x > 3, 1.0, tl.where(x < -3, 0.0, x * (1.0 / 6) + 0.5))
    return x


@triton.jit
def finish(z, out, at, exists, residual, slope, ACTIVATION: tl.constexpr):
    """Write activation(round(z) + residual) to out + at; the residual lies as the result does."""
    z = narrow(z, out.dtype.element_ty)
    if residual is not None or ACTIVATION != "none":
        ACCUMULATOR: tl.constexpr = tl.float64 if out.dtype.element_ty == tl.float64 else tl.float32
        y = z.to(ACCUMULATOR)
        if residual is not None:
            y += tl.load(residual + at, mask=exists, other=0.0).to(ACCUMULATOR)
        z = narrow(activate(y, slope, ACTIVATION), out.dtype.element_ty)
    tl.store(out + at, z, mask=exists)
