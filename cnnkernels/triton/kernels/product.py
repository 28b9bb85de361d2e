"""The product of two tiles."""

from __future__ import annotations

import triton
import triton.language as tl

from cnnkernels.backends import triton as backend

_INTERPRETED = tl.constexpr(backend.INTERPRETED)


@triton.jit
def multiply_add(a, b, sums, PRECISION: tl.constexpr):
    """sums + a @ b. PRECISION: of fp32, "tf32" or "ieee"."""
    if _INTERPRETED and a.dtype == tl.bfloat16:
        # Triton's interpreter keeps a bfloat16 as an integer, and tl.dot multiplies those. As floats they are the same numbers.
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, sums, input_precision=PRECISION, out_dtype=sums.dtype)
