"""The gradient of an activation of straight lines, from what it gave; csrc/conv2d/direct/activation_grad.cuh has the formula.

    dz = 0           where y is 6                           relu6
         dy          where y > 0
         slope * dy  elsewhere, where y <= 0                relu and relu6: 0

Program = BLOCK elements of dz, one after the other. Bytes: y and dy once, dz once.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cnnkernels.triton.kernels.arithmetic import narrow


@triton.jit
def activation_grad_kernel(
    y, dy, out, numel, inner, middle, outer, y_0, y_1, y_2, y_3, dy_0, dy_1, dy_2, dy_3, slope,
    ACTIVATION: tl.constexpr, ALIKE: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    if WIDE:
        program = program.to(tl.int64)
    e = program * BLOCK + tl.arange(0, BLOCK)
    exists = e < numel
    if ALIKE:
        y += e
        dy += e
    else:  # dimensions in the result's order, the last one innermost
        i_3, rest = e % inner, e // inner
        i_2, rest = rest % middle, rest // middle
        i_1, i_0 = rest % outer, rest // outer
        y += i_0 * y_0 + i_1 * y_1 + i_2 * y_2 + i_3 * y_3
        dy += i_0 * dy_0 + i_1 * dy_1 + i_2 * dy_2 + i_3 * dy_3
    ACCUMULATOR: tl.constexpr = tl.float64 if out.dtype.element_ty == tl.float64 else tl.float32
    value = tl.load(y, mask=exists, other=0.0).to(ACCUMULATOR)  # the interpreter would compare a bfloat16's bits
    gradient = tl.load(dy, mask=exists, other=0.0)
    if ACTIVATION == "leaky_relu":
        bent = narrow(gradient.to(ACCUMULATOR) * slope, out.dtype.element_ty)
        result = tl.where(value > 0, gradient, bent)
    elif ACTIVATION == "relu6":
        result = tl.where((value <= 0) | (value >= 6), 0.0, gradient)
    else:
        result = tl.where(value <= 0, 0.0, gradient)
    tl.store(out + e, result, mask=exists)
