"""The problems of the tuned families, a module each: see cnnkernels/testing/problems.py and check_problems.py."""

from __future__ import annotations

from cnnkernels.testing.families import (
    adaptive,
    dense,
    depthwise_channels_last,
    depthwise_large,
    depthwise_planar,
    dilated,
    first_layer,
    grouped,
    pointwise,
    pool_windows,
    transposed,
    wgrad,
)
from cnnkernels.testing.problem import AdaptivePool2dProblem, Conv2dProblem, Pool2dProblem

_MATRIX_PRODUCTS = ("pointwise", "dense", "dilated", "transposed")
# Each module and the families of kernels that its problems are for.
_CONV2D = {
    depthwise_channels_last: ("depthwise",),
    depthwise_planar: ("depthwise",),
    depthwise_large: ("depthwise",),
    pointwise: _MATRIX_PRODUCTS,
    dense: _MATRIX_PRODUCTS,
    dilated: _MATRIX_PRODUCTS,
    transposed: _MATRIX_PRODUCTS,
    wgrad: _MATRIX_PRODUCTS,
    grouped: ("grouped",),
    first_layer: ("first_layer",),
}
_POOL2D = {pool_windows: ("windows",)}

CONV2D_PROBLEMS: tuple[Conv2dProblem, ...] = tuple(problem for family in _CONV2D for problem in family.PROBLEMS)
POOL2D_PROBLEMS: tuple[Pool2dProblem, ...] = tuple(problem for family in _POOL2D for problem in family.PROBLEMS)
ADAPTIVE_PROBLEMS: tuple[AdaptivePool2dProblem, ...] = adaptive.PROBLEMS
CHECK_PROBLEMS: tuple[Conv2dProblem | Pool2dProblem | AdaptivePool2dProblem, ...] = (
    *(problem for family in _CONV2D for problem in family.CHECK_PROBLEMS),
    *(problem for family in _POOL2D for problem in family.CHECK_PROBLEMS),
    *adaptive.CHECK_PROBLEMS,
)

_KERNEL_FAMILIES: dict[object, tuple[str, ...]] = {
    problem: names
    for family, names in (_CONV2D | _POOL2D).items()
    for problem in (*family.PROBLEMS, *family.CHECK_PROBLEMS)
}


def is_for(problem: object, kernel_family: str) -> bool:
    """Whether kernels of `kernel_family` are tried on `problem`: on a family's own they alone, on all others every kernel."""
    names = _KERNEL_FAMILIES.get(problem)
    return names is None or kernel_family in names
