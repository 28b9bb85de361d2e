"""Problems for the transposed kernels: their tile edges, and what they have that no other family has.

PROBLEMS are tried by `cnnkernels verify`, CHECK_PROBLEMS under every check of the checked emulator by `cnnkernels check`.
"""

from __future__ import annotations

from typing import Any

from cnnkernels.testing.problem import Conv2dProblem, conv2d_group, sizes


def _dgrad(N: int, C: int, H: int, W: int, K: int, R: int, S: int, **rest: Any) -> dict[str, Any]:
    return sizes(N, C, H, W, K, R, S, **{"passes": ("dgrad",), **rest})


PROBLEMS: tuple[Conv2dProblem, ...] = (
    *conv2d_group(
        "transposed: classes of as many taps, of different ones, of none",
        _dgrad(2, 40, 16, 16, 24, 4, 4, stride=(2, 2), padding=(1, 1), layout="channels_last"),
        _dgrad(2, 40, 16, 16, 24, 4, 4, stride=(2, 2), padding=(1, 1)),
        _dgrad(2, 24, 13, 18, 40, 3, 3, stride=(2, 2), padding=(1, 1), layout="channels_last"),
        _dgrad(2, 24, 13, 18, 40, 3, 3, stride=(2, 2), padding=(1, 1)),
        _dgrad(1, 24, 14, 11, 40, 1, 1, stride=(2, 2), layout="channels_last"),
        _dgrad(1, 24, 14, 11, 40, 1, 1, stride=(2, 2)),
        _dgrad(1, 9, 19, 23, 12, 2, 3, stride=(4, 5), padding=(1, 2)),
        _dgrad(1, 9, 19, 23, 12, 2, 3, stride=(4, 5), padding=(1, 2), layout="channels_last"),
    ),
    *conv2d_group(
        "transposed: few channels, whose classes interleave",
        _dgrad(2, 3, 16, 20, 24, 4, 4, stride=(2, 2), padding=(1, 1), layout="channels_last"),
        _dgrad(2, 3, 16, 20, 24, 5, 5, stride=(2, 2), padding=(2, 2)),
        _dgrad(1, 21, 40, 24, 21, 16, 16, stride=(8, 8), padding=(4, 4), layout="channels_last"),
        _dgrad(1, 21, 40, 24, 21, 16, 16, stride=(8, 8), padding=(4, 4)),
        _dgrad(1, 21, 18, 14, 21, 4, 4, stride=(2, 2)),
        _dgrad(1, 5, 3, 3, 7, 3, 3, stride=(4, 4), padding=(1, 1)),
    ),
    *conv2d_group(
        "transposed: taps that do not meet, as columns of one product",
        _dgrad(2, 40, 12, 16, 24, 2, 2, stride=(2, 2), layout="channels_last"),
        _dgrad(2, 40, 12, 16, 24, 2, 2, stride=(2, 2)),
        _dgrad(1, 7, 6, 12, 9, 2, 4, stride=(2, 4), layout="channels_last"),
        _dgrad(1, 7, 6, 12, 9, 2, 4, stride=(2, 4)),
        _dgrad(1, 7, 6, 12, 9, 2, 3, stride=(2, 3)),
        _dgrad(1, 10, 7, 9, 9, 2, 2, stride=(2, 2)),
        _dgrad(2, 32, 8, 6, 32, 2, 2, stride=(2, 2), groups=2, layout="channels_last"),
        _dgrad(2, 32, 8, 6, 32, 2, 2, stride=(2, 2), groups=2),
        _dgrad(1, 16, 6, 8, 8, 2, 2, stride=(2, 2), layout="sliced"),
        _dgrad(1, 16, 6, 8, 8, 2, 2, stride=(2, 2), layout="channels_last_sliced_pixels"),
        _dgrad(1, 16, 264, 520, 8, 2, 2, stride=(2, 2), bias=False),
        _dgrad(1, 16, 264, 520, 8, 2, 2, stride=(2, 2), bias=False, layout="channels_last"),
    ),
    *conv2d_group(
        "transposed: from a pixel, with output_padding, with dilation, with groups, larger than its source",
        _dgrad(3, 40, 4, 4, 100, 4, 4, layout="channels_last"),
        _dgrad(3, 40, 4, 4, 100, 4, 4),
        _dgrad(2, 24, 8, 8, 20, 5, 5, stride=(2, 2), padding=(2, 2), transposed=True),
        _dgrad(2, 12, 15, 13, 10, 3, 3, stride=(2, 3), padding=(2, 1), dilation=(2, 2)),
        _dgrad(2, 12, 15, 13, 10, 3, 3, stride=(2, 4), padding=(2, 1), dilation=(3, 2), layout="channels_last"),
        _dgrad(2, 32, 9, 10, 48, 3, 3, stride=(2, 2), padding=(1, 1), groups=2, layout="channels_last"),
        _dgrad(2, 32, 9, 10, 48, 3, 3, stride=(2, 2), padding=(1, 1), groups=2),
        _dgrad(1, 300, 4, 5, 400, 3, 3, layout="channels_last"),
    ),
    *conv2d_group(
        "transposed: inside larger tensors, and in the opposite order",
        _dgrad(2, 24, 9, 8, 40, 3, 3, stride=(2, 2), padding=(1, 1), layout="sliced"),
        _dgrad(2, 24, 9, 8, 40, 3, 3, stride=(2, 2), padding=(1, 1), layout="permuted"),
        _dgrad(1, 16, 9, 8, 24, 3, 3, stride=(2, 2), layout="channels_last_sliced_start"),
        _dgrad(2, 16, 9, 8, 24, 3, 3, stride=(2, 2), layout="channels_last_sliced_rows"),
    ),
    *conv2d_group(
        "transposed: images or weights alone channels_last",
        _dgrad(2, 24, 12, 16, 40, 2, 2, stride=(2, 2), layout="channels_last_images"),
        _dgrad(2, 24, 12, 16, 40, 2, 2, stride=(2, 2), layout="channels_last_weights"),
        _dgrad(1, 40, 8, 8, 512, 2, 2, stride=(2, 2), layout="channels_last_images"),
        _dgrad(1, 40, 8, 8, 512, 2, 2, stride=(2, 2)),
        _dgrad(2, 24, 13, 18, 40, 3, 3, stride=(2, 2), padding=(1, 1), layout="channels_last_images"),
        _dgrad(2, 24, 13, 18, 40, 3, 3, stride=(2, 2), padding=(1, 1), layout="channels_last_weights"),
        _dgrad(1, 40, 9, 8, 300, 3, 3, stride=(2, 2), padding=(1, 1)),
        _dgrad(1, 9, 6, 12, 7, 2, 4, stride=(2, 4), layout="channels_last_images"),
    ),
)

CHECK_PROBLEMS: tuple[Conv2dProblem, ...] = (
    *conv2d_group(
        "transposed: classes with and without taps, tails of tiles",
        _dgrad(1, 20, 13, 18, 40, 3, 3, stride=(2, 2), padding=(1, 1), layout="channels_last"),
        _dgrad(1, 20, 13, 18, 12, 3, 3, stride=(2, 2), padding=(1, 1)),
        _dgrad(1, 3, 16, 9, 12, 4, 4, stride=(2, 2), padding=(1, 1), layout="channels_last"),
        _dgrad(1, 5, 9, 7, 6, 1, 1, stride=(2, 3)),
    ),
    *conv2d_group(
        "transposed: taps that do not meet, as columns of one product",
        _dgrad(1, 20, 8, 12, 9, 2, 2, stride=(2, 2), layout="channels_last"),
        _dgrad(1, 20, 8, 12, 9, 2, 2, stride=(2, 2)),
    ),
)
