"""Problems for the first layer kernels: their tile edges, and what they have that no other family has.

PROBLEMS are tried by `cnnkernels verify`, CHECK_PROBLEMS under every check of the checked emulator by `cnnkernels check`.
"""

from __future__ import annotations

from typing import Any

from cnnkernels.testing.problem import Conv2dProblem, conv2d_group, sizes

_LAST: dict[str, Any] = {"layout": "channels_last"}
_PAD: dict[str, Any] = {"padding": (1, 1)}
_PASSES: dict[str, Any] = {"passes": ("fprop", "wgrad")}


def _both(*args: Any, **rest: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The problem in both layouts."""
    planar = sizes(*args, **(rest | _PASSES))
    return planar, planar | _LAST


PROBLEMS: tuple[Conv2dProblem, ...] = (
    *conv2d_group(
        "first layer: the filters of the layer sets",
        *_both(2, 3, 33, 30, 64, 7, 7, stride=(2, 2), padding=(3, 3)),
        *_both(1, 3, 35, 39, 64, 11, 11, stride=(4, 4), padding=(2, 2)),
        *_both(1, 3, 16, 20, 96, 4, 4, stride=(4, 4)),
        *_both(1, 3, 17, 18, 64, 3, 3, **_PAD),
        *_both(2, 3, 12, 10, 64, 4, 4, stride=(2, 2), **_PAD),
        *_both(1, 1, 20, 21, 64, 3, 3),
        *_both(2, 3, 13, 15, 32, 3, 3, stride=(2, 2), **_PAD),
        *_both(1, 3, 20, 18, 32, 6, 6, stride=(2, 2), padding=(2, 2)),
    ),
    *conv2d_group(
        "first layer: one to four channels, filters that are no multiple of 8 or in several slabs",
        *_both(1, 1, 12, 13, 6, 3, 3),
        *_both(2, 1, 11, 12, 20, 4, 4, stride=(2, 1), **_PAD),
        *_both(1, 1, 13, 14, 16, 5, 6, padding=(2, 3), dilation=(1, 2)),
        *_both(1, 1, 12, 17, 8, 2, 8, padding=(0, 3)),
        *_both(2, 1, 14, 13, 6, 5, 5),
        *_both(1, 1, 11, 12, 8, 3, 7, padding=(1, 3), stride=(1, 2)),
        *_both(1, 1, 9, 10, 8, 3, 1, padding=(1, 0)),
        *_both(1, 1, 10, 9, 8, 2, 2, dilation=(1, 2)),
        *_both(2, 2, 9, 10, 24, 3, 3, **_PAD),
        *_both(1, 2, 9, 10, 16, 5, 5, stride=(2, 2), padding=(2, 2)),
        *_both(2, 4, 9, 11, 40, 3, 3, **_PAD),
        *_both(1, 4, 12, 11, 100, 3, 3, stride=(2, 2), **_PAD),
        *_both(1, 3, 9, 10, 200, 3, 3, **_PAD),
        *_both(1, 3, 8, 9, 5, 3, 3, **_PAD),
        *_both(1, 3, 8, 9, 1, 3, 3, **_PAD),
    ),
    *conv2d_group(
        "first layer: a tile exactly, one row or column less, one more",
        *(
            sizes(1, 3, H, W, 64, 3, 3, padding=(1, 1), layout=layout, **_PASSES)
            for H, W in ((8, 28), (7, 28), (9, 28), (8, 27), (8, 29), (4, 224), (3, 225))
            for layout in ("contiguous", "channels_last")
        ),
        *_both(7, 3, 7, 7, 32, 3, 3, **_PAD),
    ),
    *conv2d_group(
        "first layer: dilation, unequal strides, a halo that is wider than the image",
        *_both(1, 3, 14, 15, 16, 3, 3, dilation=(2, 3), padding=(2, 3)),
        *_both(1, 3, 14, 15, 16, 3, 2, dilation=(1, 2), stride=(3, 2), padding=(2, 1)),
        *_both(1, 3, 3, 2, 16, 3, 3, padding=(4, 5)),
        *_both(1, 1, 2, 3, 8, 3, 3, padding=(3, 4), stride=(1, 2)),
        *_both(1, 3, 1, 1, 8, 3, 3, **_PAD),
        *_both(1, 3, 15, 13, 8, 1, 7, stride=(5, 1), padding=(0, 3)),
    ),
    *conv2d_group(
        "first layer: slices of a larger tensor, addresses that are not aligned",
        *(
            sizes(2, channels, 9, 10, 16, 3, 3, padding=(1, 1), layout=layout, **_PASSES)
            for channels in (1, 3)
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
        "first layer: strips of every stride, filters of every width",
        *(
            sizes(1, 3, 19, 37, 24, 3, S, stride=(2, stride), padding=(1, S // 2), layout=layout, **_PASSES)
            for S, stride in ((3, 1), (4, 3), (5, 2), (6, 4), (9, 5), (8, 6), (2, 8))
            for layout in ("contiguous", "channels_last")
        ),
        *_both(1, 3, 9, 10, 65, 3, 3, **_PAD),
        *_both(1, 4, 9, 10, 130, 5, 5, padding=(2, 2)),
    ),
    *conv2d_group(
        "first layer: several tiles of a block, a sum over many slabs",
        *_both(3, 3, 40, 44, 32, 3, 3, **_PAD),
        *_both(1, 1, 60, 61, 16, 3, 3, **_PAD),
    ),
)

CHECK_PROBLEMS: tuple[Conv2dProblem, ...] = (
    *conv2d_group(
        "first layer: halos on all sides, a last tile that is not full, filters in slabs",
        *_both(1, 3, 6, 9, 8, 3, 3, stride=(2, 2), **_PAD),
        *_both(1, 3, 4, 5, 104, 3, 3, **_PAD),
        *_both(1, 4, 5, 6, 10, 3, 3, **_PAD),
        *_both(1, 2, 5, 6, 8, 2, 3, **_PAD),
    ),
    *conv2d_group(
        "first layer: taps for channels, odd addresses, gaps between rows",
        *_both(1, 1, 5, 9, 8, 2, 4, stride=(1, 2), padding=(0, 1)),
        sizes(2, 1, 5, 6, 8, 3, 3, dilation=(1, 2), padding=(1, 2), **_PASSES),
        *_both(1, 1, 6, 7, 6, 2, 5, padding=(0, 1)),
        sizes(2, 3, 4, 5, 8, 3, 3, padding=(1, 1), layout="channels_last_sliced_start", **_PASSES),
        sizes(2, 3, 4, 5, 8, 3, 3, padding=(1, 1), layout="channels_last_sliced_rows", **_PASSES),
    ),
)
