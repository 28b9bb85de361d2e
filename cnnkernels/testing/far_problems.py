"""Problems whose images lie so far apart that no kernel with offsets of 31 bits can take them at once.

Three images run in two batches, of two images and one; five in four. Each operand has gigabytes of address space, of which next
to nothing is touched on the CPU: on a GPU it is memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cnnkernels.testing.operands import Layout
from cnnkernels.testing.problem import (
    AdaptivePool2dProblem,
    Conv2dProblem,
    Pool2dProblem,
    adaptive_group,
    conv2d_group,
    image,
    pool2d_group,
    sizes,
    to,
)

_LAYOUTS: tuple[Layout, ...] = ("far", "channels_last_far")


def _in_both(make: Callable[..., dict[str, Any]], *numbers: Any, **rest: Any) -> tuple[dict[str, Any], ...]:
    return tuple(make(*numbers, layout=layout, **rest) for layout in _LAYOUTS)


_CHAIN: dict[str, Any] = {"kinds": ("max",), "passes": ("max",), "indices": "none"}

FAR_CONV2D_PROBLEMS: tuple[Conv2dProblem, ...] = conv2d_group(
    "images far apart",
    *_in_both(sizes, 3, 16, 7, 9, 24, 3, 3, padding=(1, 1)),
    *_in_both(sizes, 5, 8, 6, 5, 8, 3, 3, padding=(1, 1)),
    *_in_both(sizes, 3, 72, 4, 6, 40, 1, 1),
    *_in_both(sizes, 3, 16, 9, 8, 16, 3, 3, padding=(2, 2), dilation=(2, 2)),
    *_in_both(sizes, 3, 16, 9, 11, 24, 3, 3, stride=(2, 2), padding=(1, 1)),
    *_in_both(sizes, 3, 16, 5, 6, 24, 4, 4, stride=(2, 2), padding=(1, 1), transposed=True),
    *_in_both(sizes, 3, 32, 7, 6, 32, 3, 3, padding=(1, 1), groups=4),
    *_in_both(sizes, 3, 3, 15, 16, 24, 7, 7, stride=(2, 2), padding=(3, 3)),
    *_in_both(sizes, 3, 4, 9, 10, 8, 5, 5, padding=(2, 2)),
    *_in_both(sizes, 3, 16, 9, 8, 16, 3, 3, padding=(1, 1), groups=16),
    *_in_both(sizes, 3, 16, 9, 8, 16, 5, 5, stride=(2, 2), padding=(2, 2), groups=16),
    *_in_both(sizes, 3, 16, 9, 8, 16, 7, 7, padding=(3, 3), groups=16),
    *_in_both(sizes, 3, 16, 14, 9, 16, 13, 13, padding=(6, 6), groups=16),
)

FAR_POOL2D_PROBLEMS: tuple[Pool2dProblem, ...] = pool2d_group(
    "images far apart",
    *_in_both(image, 3, 16, 8, 10, (2, 2)),
    *_in_both(image, 3, 16, 9, 8, (3, 3), stride=(2, 2), padding=(1, 1), indices="flat"),
    *_in_both(image, 5, 8, 9, 8, (3, 3), stride=(2, 2), padding=(1, 1), indices="window"),
    *_in_both(image, 3, 8, 9, 10, (3, 3), stride=(1, 1), padding=(1, 1), kinds=("max",)),
    *_in_both(image, 3, 8, 9, 10, (5, 5), stride=(1, 1), padding=(2, 2), levels=3, **_CHAIN),
)

FAR_ADAPTIVE_PROBLEMS: tuple[AdaptivePool2dProblem, ...] = adaptive_group(
    "images far apart",
    *_in_both(to, 3, 16, 8, 8, (1, 1)),
    *_in_both(to, 3, 16, 12, 8, (3, 2)),
)

FAR_PROBLEMS = (*FAR_CONV2D_PROBLEMS, *FAR_POOL2D_PROBLEMS, *FAR_ADAPTIVE_PROBLEMS)
