"""What torch.utils.flop_counter needs to know of our operators: importing this module tells it.

cnnkernels.convert does. It is not part of `import cnnkernels`, because torch's counter imports Triton.
A multiplication and the addition after it count as two, poolings and biases nothing, as in torch's own formulas.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from cnnkernels import ops

Shape = Sequence[int]


def _convolution(maps: Shape, weight: Shape) -> int:
    """Operations of any pass: each filter, [K, C / groups, R, S], at each pixel of the convolution's [N, K, P, Q]."""
    return 2 * maps[0] * prod(maps[2:]) * prod(weight)


def _fprop(input: Shape, weight: Shape, *_: Any, out_shape: Shape, **__: Any) -> int:
    return _convolution(out_shape, weight)


def _dgrad(grad_output: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    return _convolution(grad_output, weight)


def _wgrad(grad_output: Shape, input: Shape, *_: Any, out_shape: Shape, **__: Any) -> int:
    return _convolution(grad_output, out_shape)


_FORMULAS: dict[str, Any] = {
    "conv2d_fprop": _fprop,
    "conv2d_fused": _fprop,
    "conv2d_dgrad": _dgrad,
    "conv2d_wgrad": _wgrad,
}

if ops.EMULATOR_MISSING is None:
    for _operator, _formula in _FORMULAS.items():
        register_flop_formula(getattr(torch.ops.cnnkernels, _operator))(_formula)
