"""Problems for the depthwise planar kernels: their tile edges, and what they have that no other family has.

PROBLEMS are tried by `cnnkernels verify`, CHECK_PROBLEMS under every check of the checked emulator by `cnnkernels check`. A thread has 7 x 7
positions (dgrad of stride 2: 2 x 7 blocks of 2 x 2 results), a block at most 256 threads.
"""

from __future__ import annotations

from typing import Any

from cnnkernels.testing.problem import Conv2dProblem, conv2d_group, sizes

PASSES = ("fprop", "dgrad", "wgrad")


def depthwise(N: int, C: int, H: int, W: int, taps: int, multiplier: int = 1, **rest: Any) -> dict[str, Any]:
    """A depthwise convolution with the padding that keeps the plane's size, unless another is given."""
    rest = {"padding": (taps // 2, taps // 2), "passes": PASSES, **rest}
    return sizes(N, C, H, W, C * multiplier, taps, taps, groups=C, **rest)


PROBLEMS: tuple[Conv2dProblem, ...] = (
    *conv2d_group(
        "depthwise planes of exactly a thread's tile, one more, one less; rows unlike columns",
        *(depthwise(2, 3, *size, taps) for size in ((7, 7), (6, 8), (8, 6), (14, 21)) for taps in (3, 5, 7)),
    ),
    *conv2d_group(
        "depthwise with stride 2: even and odd planes",
        *(
            depthwise(2, 3, *size, taps, stride=(2, 2))
            for size in ((14, 14), (28, 14), (13, 15), (16, 13))
            for taps in (3, 5, 7)
        ),
    ),
    *conv2d_group(
        "more planes than a block has, the last block ragged; runs that begin at odd addresses",
        depthwise(3, 67, 7, 7, 3),
        depthwise(5, 43, 5, 3, 5),
        depthwise(2, 131, 7, 7, 3, stride=(2, 2)),
        depthwise(1, 5, 14, 14, 7),
    ),
    *conv2d_group(
        "planes of several bands of rows, the last one short",
        depthwise(2, 2, 115, 112, 3),
        depthwise(1, 2, 60, 300, 5),
        depthwise(1, 2, 122, 140, 3, stride=(2, 2)),
        depthwise(1, 2, 90, 127, 7, stride=(2, 2)),
        depthwise(1, 2, 61, 200, 3, dilation=(3, 2), padding=(3, 2)),
    ),
    *conv2d_group(
        "other paddings than half the filter: none, more than the filter, one-sided",
        depthwise(2, 3, 16, 19, 3, padding=(0, 0)),
        depthwise(2, 3, 16, 19, 3, padding=(0, 0), stride=(2, 2)),
        depthwise(2, 3, 15, 16, 5, padding=(1, 3), stride=(2, 2)),
        depthwise(2, 3, 9, 7, 3, padding=(5, 4)),
        depthwise(1, 2, 6, 5, 7, padding=(9, 8), stride=(2, 2)),
        depthwise(2, 3, 13, 9, 7, padding=(2, 5)),
        depthwise(2, 3, 8, 8, 3, padding="same"),
    ),
    *conv2d_group(
        "depthwise and dilated",
        depthwise(2, 3, 17, 23, 3, dilation=(2, 2), padding=(2, 2)),
        depthwise(2, 3, 16, 15, 5, dilation=(1, 3), padding=(2, 6)),
        depthwise(1, 3, 27, 13, 7, dilation=(4, 3), padding=(0, 9)),
        depthwise(1, 3, 9, 9, 3, dilation=(12, 11), padding=(12, 11)),
    ),
    *conv2d_group(
        "several filters to a channel",
        depthwise(2, 5, 14, 14, 3, multiplier=3),
        depthwise(2, 5, 9, 10, 5, multiplier=2, stride=(2, 2)),
        depthwise(1, 2, 115, 112, 3, multiplier=2),
        depthwise(1, 3, 7, 7, 7, multiplier=2),
    ),
    *conv2d_group(
        "depthwise planes in memory of other kinds: repeated, one row, one column",
        depthwise(3, 5, 14, 14, 3, layout="expanded"),
        depthwise(2, 5, 1, 19, 3),
        depthwise(2, 5, 19, 1, 5),
        depthwise(1, 3, 15, 11, 3, batched=False),
    ),
)

CHECK_PROBLEMS: tuple[Conv2dProblem, ...] = (
    *conv2d_group(
        "runs of planes: several to a block, at odd addresses, the last block ragged",
        *(depthwise(2, 5, 7, 7, taps) for taps in (3, 5, 7)),
        *(depthwise(2, 3, 9, 11, taps, stride=(2, 2)) for taps in (3, 5, 7)),
        depthwise(2, 2, 14, 14, 3, stride=(2, 2)),
    ),
    *conv2d_group(
        "planes of several bands of rows",
        depthwise(1, 1 + 1, 23, 560, 3),
        depthwise(1, 2, 18, 1120, 3, stride=(2, 2)),
    ),
    *conv2d_group(
        "planes that are not in runs, and dilated ones",
        depthwise(2, 2, 9, 8, 3, multiplier=2),
        depthwise(2, 3, 7, 9, 5, layout="expanded"),
        depthwise(1, 2, 15, 11, 3, dilation=(3, 2), padding=(3, 2)),
    ),
)
