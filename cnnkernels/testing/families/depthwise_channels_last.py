"""Problems for the depthwise kernels of channels_last tensors: their tile edges, and what they have that no other family has.

PROBLEMS are tried by `cnnkernels verify`, CHECK_PROBLEMS under every check of the checked emulator by `cnnkernels check`. A block takes
chunks of 16 bytes of channels (8 halves, 4 floats) and strips of 4 columns (7 for 7x7 filters); slabs of rows follow from the problem.
"""

from __future__ import annotations

from typing import Any

from cnnkernels.testing.problem import Conv2dProblem, conv2d_group, sizes

_PASSES = ("fprop", "dgrad", "wgrad")


def _depthwise(N: int, C: int, H: int, W: int, taps: int, multiplier: int = 1, **rest: Any) -> dict[str, Any]:
    rest = {"layout": "channels_last", "passes": _PASSES, "groups": C} | rest
    return sizes(N, C, H, W, multiplier * C, taps, taps, **rest)


def _same(N: int, C: int, H: int, W: int, taps: int, **rest: Any) -> dict[str, Any]:
    return _depthwise(N, C, H, W, taps, padding=(taps // 2, taps // 2), **rest)


_CROOKED = _depthwise(2, 16, 9, 11, 3, padding=(2, 1), stride=(2, 2))
_LAYOUTS = (
    "channels_last_sliced_start",
    "channels_last_sliced_pixels",
    "channels_last_sliced_rows",
    "channels_last_sliced_images",
)

PROBLEMS: tuple[Conv2dProblem, ...] = (
    *conv2d_group(
        "depthwise: a strip of columns, one less and one more; rows fewer than taps and more",
        _same(1, 8, 1, 3, 3),
        _same(1, 8, 2, 4, 3),
        _same(2, 8, 6, 5, 3),
        _same(1, 8, 9, 9, 5),
        _same(1, 8, 11, 7, 7),
        _same(2, 8, 5, 8, 7),
    ),
    *conv2d_group(
        "depthwise with stride 2: even and odd sizes, padding even and odd, on one side more than on the other",
        _same(2, 8, 8, 8, 3, stride=(2, 2)),
        _same(1, 8, 9, 11, 3, stride=(2, 2)),
        _depthwise(1, 8, 8, 9, 3, stride=(2, 2)),
        _depthwise(1, 8, 12, 7, 3, stride=(2, 2), padding=(2, 0)),
        _same(1, 16, 13, 14, 5, stride=(2, 2)),
        _depthwise(1, 8, 10, 11, 5, stride=(2, 2), padding=(1, 3)),
        _same(1, 8, 14, 15, 7, stride=(2, 2)),
        _depthwise(1, 8, 17, 18, 7, stride=(2, 2), padding=(2, 0)),
    ),
    *conv2d_group(
        "depthwise channels: a chunk, parts of one, several, more than a block",
        _same(1, 4, 5, 6, 3),
        _same(1, 10, 6, 5, 3),
        _same(1, 33, 5, 5, 3),
        _same(1, 76, 6, 7, 3, stride=(2, 2)),
        _same(1, 144, 7, 9, 3),
        _same(1, 72, 6, 9, 5),
        _same(1, 25, 7, 7, 5, stride=(2, 2)),
        _same(1, 96, 7, 7, 7),
        _same(1, 11, 8, 9, 7),
        _same(3, 200, 3, 3, 3),
    ),
    *conv2d_group(
        "depthwise: tiles of columns, slabs of rows, several images to a block and to a slab",
        _same(1, 8, 3, 270, 3),
        _same(1, 64, 40, 70, 3, stride=(2, 2)),
        _same(5, 8, 7, 7, 3),
        _same(21, 16, 4, 4, 5),
        _same(9, 16, 7, 7, 7),
        _same(40, 40, 8, 8, 3),
        _same(1, 8, 75, 9, 5),
    ),
    *conv2d_group(
        "depthwise: padding over the filter, none, and images smaller than it",
        _depthwise(1, 8, 4, 5, 3, padding=(5, 4)),
        _depthwise(2, 8, 7, 8, 3),
        _depthwise(1, 8, 4, 4, 3, padding=(5, 6), stride=(2, 2)),
        _depthwise(1, 8, 3, 2, 5, padding=(3, 4)),
        _depthwise(1, 8, 9, 8, 7),
        _depthwise(1, 8, 2, 3, 7, padding=(7, 8)),
        _depthwise(1, 8, 9, 7, 3, padding="same", dilation=(2, 1)),
    ),
    *conv2d_group(
        "depthwise, dilated: classes of rows and columns, larger ones and smaller ones, and more classes than rows",
        _depthwise(1, 16, 11, 13, 3, padding=(2, 2), dilation=(2, 2)),
        _depthwise(2, 8, 10, 9, 3, padding=(3, 1), dilation=(3, 2)),
        _depthwise(1, 8, 7, 6, 3, padding=(12, 12), dilation=(12, 12)),
        _depthwise(1, 8, 12, 13, 5, padding=(4, 2), dilation=(2, 1)),
        _depthwise(1, 8, 15, 16, 7, padding=(6, 9), dilation=(2, 3)),
    ),
    *conv2d_group(
        "depthwise with several filters for each channel",
        _same(2, 8, 6, 7, 3, multiplier=2),
        _same(1, 5, 7, 6, 3, multiplier=3, stride=(2, 2)),
        _same(1, 6, 9, 8, 5, multiplier=4),
        _same(1, 4, 8, 8, 7, multiplier=2),
    ),
    *conv2d_group(
        "depthwise: every alignment of addresses and strides",
        _CROOKED,
        *(_CROOKED | {"layout": layout} for layout in _LAYOUTS),
        *(_same(2, 16, 7, 9, 5) | {"layout": layout} for layout in _LAYOUTS),
        *(_same(2, 12, 7, 9, 7) | {"layout": layout} for layout in _LAYOUTS[:2]),
    ),
    *conv2d_group(
        "depthwise transposed, with output_padding",
        _depthwise(1, 8, 12, 11, 3, stride=(2, 2), padding=(1, 1), transposed=True),
        _depthwise(2, 8, 10, 12, 5, stride=(2, 2), padding=(2, 2), transposed=True),
        _depthwise(1, 8, 6, 7, 3, padding=(1, 1), transposed=True),
    ),
)

CHECK_PROBLEMS: tuple[Conv2dProblem, ...] = (
    *conv2d_group(
        "depthwise rings: more rows than stages, tails of strips and of chunks",
        _same(1, 12, 9, 5, 3),
        _same(1, 8, 9, 6, 5),
        _same(1, 10, 10, 8, 7),
    ),
    *conv2d_group(
        "depthwise rings with stride 2, odd sizes",
        _same(1, 8, 11, 9, 3, stride=(2, 2)),
        _same(1, 8, 9, 8, 5, stride=(2, 2)),
        _same(1, 8, 10, 9, 7, stride=(2, 2)),
    ),
    *conv2d_group(
        "depthwise: several units side by side and one after the other, of which the last are missing",
        _same(5, 8, 3, 3, 3),
        _same(35, 8, 3, 3, 3, passes=("wgrad",)),
    ),
    *conv2d_group(
        "depthwise: classes of a dilation, filters that share a channel, odd addresses",
        _depthwise(1, 8, 7, 5, 3, padding=(2, 2), dilation=(2, 2)),
        _same(1, 3, 5, 5, 3, multiplier=3),
        _same(1, 8, 4, 5, 3, layout="channels_last_sliced_start"),
        _same(1, 8, 4, 5, 5, layout="channels_last_sliced_pixels"),
    ),
)
