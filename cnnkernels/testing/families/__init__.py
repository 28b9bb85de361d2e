"""The problems of the tuned families, a module each: see cnnkernels/testing/problems.py and check_problems.py."""

from __future__ import annotations

from cnnkernels.testing.families import (
    adaptive,
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

_CONV2D = (
    depthwise_channels_last,
    depthwise_planar,
    depthwise_large,
    pointwise,
    grouped,
    dilated,
    transposed,
    first_layer,
    wgrad,
)
_POOL2D = (pool_windows,)

CONV2D_PROBLEMS: tuple[Conv2dProblem, ...] = tuple(problem for family in _CONV2D for problem in family.PROBLEMS)
POOL2D_PROBLEMS: tuple[Pool2dProblem, ...] = tuple(problem for family in _POOL2D for problem in family.PROBLEMS)
ADAPTIVE_PROBLEMS: tuple[AdaptivePool2dProblem, ...] = adaptive.PROBLEMS
CHECK_PROBLEMS: tuple[Conv2dProblem | Pool2dProblem | AdaptivePool2dProblem, ...] = (
    *(problem for family in _CONV2D for problem in family.CHECK_PROBLEMS),
    *(problem for family in _POOL2D for problem in family.CHECK_PROBLEMS),
    *adaptive.CHECK_PROBLEMS,
)
