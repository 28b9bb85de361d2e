"""Arithmetic in which Triton's interpreter, up to 3.9, differs from a GPU. It keeps a bfloat16 as an integer of its bits."""

from __future__ import annotations

import triton
import triton.language as tl

from cnnkernels.backends import triton as backend

_INTERPRETED = tl.constexpr(backend.INTERPRETED)


@triton.jit
def multiply_add(a, b, sums, PRECISION: tl.constexpr):
    """sums + a @ b. PRECISION: of fp32, "tf32" or "ieee"."""
    if _INTERPRETED and a.dtype == tl.bfloat16:
        a, b = a.to(tl.float32), b.to(tl.float32)  # the interpreter's tl.dot would multiply the integers
    return tl.dot(a, b, sums, input_precision=PRECISION, out_dtype=sums.dtype)


@triton.jit
def narrow(x, T: tl.constexpr):
    """x, rounded to the nearest T, to even between two."""
    if _INTERPRETED and tl.bfloat16 == T:  # the interpreter drops the digits that a bfloat16 does not have
        x = x.to(tl.float32)
        bits = x.to(tl.uint32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        x = tl.where(x == x, rounded.to(tl.uint32).to(tl.float32, bitcast=True), x)
    return x.to(T)
