"""Problems for the grouped kernels: their tile edges, and what they have that no other family has.

PROBLEMS are tried by `cnnkernels verify`, CHECK_PROBLEMS under every check of the checked emulator by `cnnkernels check`.
"""

from __future__ import annotations

from typing import Any

from cnnkernels.testing.problem import Conv2dProblem, conv2d_group, sizes

_LAST: dict[str, Any] = {"layout": "channels_last"}
_PAD: dict[str, Any] = {"padding": (1, 1)}
_PASSES: dict[str, Any] = {"passes": ("fprop", "dgrad", "wgrad")}


def _both(*args: Any, **rest: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The problem in both layouts."""
    planar = sizes(*args, **(rest | _PASSES))
    return planar, planar | _LAST


PROBLEMS: tuple[Conv2dProblem, ...] = (
    *conv2d_group(
        "grouped: every width of the layer sets, in whole tiles and not",
        *_both(1, 32, 16, 16, 32, 3, 3, groups=8, **_PAD),
        *_both(2, 32, 9, 11, 32, 3, 3, groups=4, **_PAD),
        *_both(1, 64, 14, 14, 64, 3, 3, groups=4, **_PAD),
        *_both(2, 64, 7, 7, 64, 3, 3, groups=2, **_PAD),
        *_both(1, 96, 6, 7, 96, 3, 3, groups=2, **_PAD),
        *_both(1, 128, 5, 6, 128, 3, 3, groups=2, **_PAD),
    ),
    *conv2d_group(
        "grouped: unequal channels and filters, widths that are no power of two, slabs of a few groups",
        *_both(1, 16, 9, 9, 32, 3, 3, groups=4, **_PAD),
        *_both(1, 32, 8, 9, 16, 3, 3, groups=4, **_PAD),
        *_both(1, 24, 7, 8, 40, 3, 3, groups=2, **_PAD),
        *_both(1, 36, 7, 5, 60, 3, 3, groups=3, **_PAD),
        *_both(2, 28, 6, 7, 28, 3, 3, groups=7, **_PAD),
        *_both(1, 20, 6, 7, 20, 3, 3, groups=5, **_PAD),
        *_both(1, 40, 6, 5, 8, 3, 3, groups=2, **_PAD),
    ),
    *conv2d_group(
        "grouped: a tile exactly, one row or column less, one more",
        *(
            sizes(1, 32, H, W, 32, 3, 3, groups=8, padding=(1, 1), layout=layout, **_PASSES)
            for H, W in ((16, 32), (15, 32), (17, 32), (16, 31), (16, 33))
            for layout in ("contiguous", "channels_last")
        ),
        *_both(9, 32, 7, 7, 32, 3, 3, groups=8, **_PAD),
        *_both(11, 32, 7, 7, 32, 3, 3, groups=4, **_PAD),
    ),
    *conv2d_group(
        "grouped: stride 2 and more, with and without a remainder",
        *_both(1, 32, 16, 16, 32, 3, 3, groups=8, stride=(2, 2), **_PAD),
        *_both(2, 32, 13, 15, 32, 3, 3, groups=4, stride=(2, 2), **_PAD),
        *_both(2, 48, 9, 12, 48, 3, 3, groups=1 * 2, stride=(2, 1), **_PAD),
        *_both(1, 96, 9, 8, 96, 3, 3, groups=2, stride=(2, 2), **_PAD),
        *_both(1, 64, 10, 9, 64, 3, 3, groups=4, stride=(1, 2), **_PAD),
        *_both(1, 128, 8, 9, 128, 3, 3, groups=2, stride=(2, 2), **_PAD),
        *_both(2, 32, 7, 7, 64, 3, 3, groups=2, **_PAD),
        *_both(1, 16, 13, 14, 16, 3, 3, groups=2, stride=(4, 3), padding=(0, 1)),
        *_both(1, 16, 9, 9, 16, 2, 2, groups=4, stride=(3, 3)),
    ),
    *conv2d_group(
        "grouped: dilation, other filters, a halo that is wider than the image",
        *_both(1, 32, 11, 12, 32, 3, 3, groups=4, dilation=(2, 3), padding=(2, 3)),
        *_both(1, 16, 12, 13, 16, 3, 3, groups=4, dilation=(2, 4), stride=(2, 2), padding=(2, 1)),
        *_both(1, 16, 13, 11, 16, 3, 3, groups=4, dilation=(3, 1), stride=(2, 2), padding=(2, 1)),
        *_both(1, 32, 9, 10, 32, 5, 5, groups=4, padding=(2, 2)),
        *_both(1, 16, 6, 9, 16, 1, 5, groups=2, padding=(0, 2)),
        *_both(1, 16, 7, 6, 16, 4, 2, groups=4, padding=(1, 1)),
        *_both(2, 16, 2, 3, 16, 3, 3, groups=2, padding=(4, 3)),
        *_both(1, 16, 1, 1, 16, 3, 3, groups=4, **_PAD),
        *_both(1, 32, 6, 6, 32, 5, 5, groups=1 * 2, padding=(2, 2)),
    ),
    *conv2d_group(
        "grouped: slices of a larger tensor, rows that are not dense, addresses that are not aligned",
        *(
            sizes(2, 32, 9, 10, 32, 3, 3, groups=groups, padding=(1, 1), layout=layout, **_PASSES)
            for groups in (4, 8)
            for layout in (
                "sliced",
                "channels_last_sliced_start",
                "channels_last_sliced_pixels",
                "channels_last_sliced_rows",
                "channels_last_sliced_images",
            )
        ),
    ),
    *conv2d_group(
        "grouped: several tiles of a block, and a sum over many slabs",
        *_both(5, 32, 20, 33, 32, 3, 3, groups=8, **_PAD),
        *_both(3, 64, 21, 17, 64, 3, 3, groups=2, **_PAD),
        sizes(1, 32, 3, 300, 32, 3, 3, groups=8, **_PAD, **_PASSES),
        sizes(1, 32, 3, 600, 32, 3, 3, groups=4, **_PAD, **_PASSES),
    ),
)

PROBLEMS += conv2d_group(
    "grouped: stacks of groups side by side, the last of one, groups with gaps between them",
    *(
        sizes(2, C, 9, 17, K, 3, 3, groups=groups, padding=(1, 1), **_PASSES, **rest, layout=layout)
        for C, K, groups, rest in (
            (128, 128, 16, {}),
            (24, 24, 3, {}),
            (128, 128, 8, {}),
            (128, 128, 4, {}),
            (96, 96, 3, {}),
            (128, 128, 2, {}),
            (96, 96, 2, {}),
            (48, 96, 2, {"stride": (2, 2)}),
            (72, 48, 3, {"stride": (3, 2)}),
            (64, 64, 8, {"stride": (2, 3)}),
            (64, 64, 4, {"dilation": (2, 3)}),
            (32, 64, 4, {"stride": (2, 2)}),
            (96, 72, 3, {"stride": (1, 2)}),
            (60, 36, 3, {}),
        )
        for layout in ("contiguous", "channels_last")
    ),
)
CHECK_PROBLEMS: tuple[Conv2dProblem, ...] = (
    *conv2d_group(
        "grouped: halos on all sides, a last tile that is not full, two slabs",
        *_both(1, 40, 5, 6, 40, 3, 3, groups=5, **_PAD),
        *_both(1, 48, 5, 6, 48, 3, 3, groups=12, **_PAD),
        *_both(2, 16, 5, 7, 16, 3, 3, groups=4, stride=(2, 2), **_PAD),
        *_both(2, 16, 5, 7, 16, 3, 3, groups=2, stride=(2, 2), **_PAD),
        *_both(1, 32, 3, 9, 32, 3, 3, groups=2, **_PAD),
    ),
    *conv2d_group(
        "grouped: channels in slices, results staged meanwhile",
        *_both(1, 96, 3, 4, 96, 3, 3, groups=2, stride=(2, 2), **_PAD),
    ),
    *conv2d_group(
        "grouped: odd addresses and gaps between rows",
        sizes(1, 16, 4, 5, 16, 3, 3, groups=2, padding=(1, 1), layout="channels_last_sliced_start", **_PASSES),
        sizes(1, 16, 4, 5, 16, 3, 3, groups=4, padding=(1, 1), layout="channels_last_sliced_pixels", **_PASSES),
        sizes(1, 16, 4, 5, 16, 3, 3, groups=4, dilation=(2, 2), padding=(2, 2), **_PASSES),
    ),
)
