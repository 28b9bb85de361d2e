"""Problems for the depthwise kernels of any filter size: their tile edges, and what they have that no other family has.

PROBLEMS are tried by `cnnkernels verify`, CHECK_PROBLEMS under every check of the checked emulator by `cnnkernels check`. A thread has 7 x 7
results and takes 4 taps at a time; a block has a power of two of planes and some groups of 7 rows; a stage some rows of the image.
"""

from __future__ import annotations

from typing import Any

from cnnkernels.testing.problem import Conv2dProblem, conv2d_group, sizes

PASSES = ("fprop", "dgrad", "wgrad")


def depthwise(N: int, C: int, H: int, W: int, R: int, S: int, **rest: Any) -> dict[str, Any]:
    """A depthwise convolution with the padding that keeps the plane's size, unless another is given."""
    return sizes(N, C, H, W, C, R, S, groups=C, **{"padding": (R // 2, S // 2), "passes": PASSES, **rest})


def in_both_layouts(*problems: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Each of them in NHWC and in NCHW."""
    return tuple(problem | {"layout": layout} for problem in problems for layout in ("channels_last", "contiguous"))


PROBLEMS: tuple[Conv2dProblem, ...] = (
    *conv2d_group(
        "large filters: planes of exactly a thread's tile, one less, one more",
        *in_both_layouts(
            depthwise(2, 8, 7, 7, 9, 9),
            depthwise(1, 16, 14, 14, 11, 11),
            depthwise(2, 5, 6, 8, 9, 9),
            depthwise(3, 8, 8, 15, 13, 13),
        ),
    ),
    *conv2d_group(
        "filters of unequal sides, of one row, of one column, even",
        *in_both_layouts(
            depthwise(2, 8, 12, 17, 3, 7),
            depthwise(2, 4, 17, 12, 9, 2),
            depthwise(1, 16, 9, 20, 1, 11),
            depthwise(2, 3, 20, 9, 12, 1),
        ),
    ),
    *conv2d_group(
        "most taps in the padding",
        *in_both_layouts(
            depthwise(2, 8, 7, 7, 31, 31),
            depthwise(33, 2, 7, 7, 13, 13),
            depthwise(5, 4, 14, 14, 27, 27),
        ),
    ),
    *conv2d_group(
        "several stages of rows and blocks to a plane; more channels and images than a block has",
        *in_both_layouts(
            depthwise(1, 4, 40, 56, 15, 13),
            depthwise(3, 37, 10, 9, 5, 4),
            depthwise(2, 24, 30, 23, 9, 10),
            depthwise(1, 2, 9, 130, 9, 33),
        ),
    ),
    *conv2d_group(
        "other paddings than half the filter: none, more than the filter, unequal",
        *in_both_layouts(
            depthwise(2, 8, 16, 19, 9, 8, padding=(0, 0)),
            depthwise(1, 4, 8, 7, 4, 5, padding=(6, 9)),
            depthwise(1, 8, 16, 15, 10, 10, padding="same"),
        ),
    ),
    *conv2d_group(
        "large filters on tensors of other kinds: repeated, channels from odd addresses or between others",
        depthwise(3, 4, 14, 9, 9, 9, layout="expanded"),
        depthwise(2, 8, 10, 9, 9, 9, layout="channels_last_sliced_start"),
        depthwise(2, 8, 10, 9, 9, 9, layout="channels_last_sliced_pixels"),
        depthwise(2, 8, 10, 9, 9, 9, layout="channels_last_sliced_rows"),
        depthwise(2, 8, 10, 9, 9, 9, layout="channels_last_sliced_images"),
    ),
)

CHECK_PROBLEMS: tuple[Conv2dProblem, ...] = (
    *conv2d_group(
        "large filters: ragged planes, channels and images",
        *in_both_layouts(
            depthwise(3, 5, 8, 9, 9, 8),
            depthwise(2, 8, 7, 7, 9, 9),
        ),
    ),
    *conv2d_group(
        "large filters: several stages of rows, several blocks to a plane",
        *in_both_layouts(depthwise(1, 8, 40, 30, 9, 4)),
        depthwise(1, 8, 9, 8, 9, 9, layout="channels_last_sliced_start"),
        depthwise(2, 2, 9, 8, 9, 9, layout="expanded"),
    ),
)
