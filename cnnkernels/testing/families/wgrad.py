"""Problems for the tiled weight gradients (pointwise, dilated and strided filters): tiles, stages, slabs, units of copying.

PROBLEMS are tried by `cnnkernels verify`, CHECK_PROBLEMS under every check of the checked emulator by `cnnkernels check`.
"""

from __future__ import annotations

from typing import Any

from cnnkernels.testing.problem import Conv2dProblem, conv2d_group, sizes

_WGRAD: dict[str, Any] = {"passes": ("wgrad",)}
_LAST: dict[str, Any] = _WGRAD | {"layout": "channels_last"}

# Multiples of every unit of copying: whether they are copied in units is the layout's doing alone.
_EVEN = sizes(2, 16, 8, 8, 16, 1, 1)
_DILATED = sizes(2, 16, 16, 16, 8, 3, 3, padding=(4, 4), dilation=(4, 4))
_STRIDED = sizes(2, 16, 8, 8, 8, 4, 4, stride=(2, 2), padding=(1, 1))
# Every size odd and every pair unequal.
_CROOKED = sizes(2, 18, 11, 19, 10, 2, 5, stride=(3, 2), padding=(1, 3), dilation=(2, 1), groups=2)
_CROOKED_POINTWISE = sizes(2, 20, 11, 19, 10, 1, 1, stride=(3, 2), padding=(1, 3), groups=2)
_SLICED_LAST = (
    "channels_last_sliced_start",
    "channels_last_sliced_pixels",
    "channels_last_sliced_rows",
    "channels_last_sliced_images",
)


def _both(*problems: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Each problem in both layouts."""
    return tuple(problem | layout for problem in problems for layout in (_WGRAD, _LAST))


PROBLEMS: tuple[Conv2dProblem, ...] = (
    *conv2d_group(
        "tiles of filters and channels: exactly one, one less, one more",
        *_both(
            sizes(1, 128, 8, 8, 128, 1, 1),
            sizes(1, 127, 7, 9, 129, 1, 1),
            sizes(1, 129, 5, 13, 127, 1, 1),
            sizes(1, 64, 16, 16, 64, 1, 1),
            sizes(1, 65, 9, 15, 63, 1, 1),
            sizes(2, 32, 12, 12, 16, 1, 1),
            sizes(2, 24, 10, 14, 96, 1, 1),
            sizes(2, 96, 10, 14, 24, 1, 1),
            sizes(1, 64, 18, 18, 2, 1, 1),
            sizes(1, 8, 18, 18, 100, 1, 1),
            sizes(1, 21, 18, 18, 21, 1, 1),
            sizes(3, 40, 6, 6, 1, 1, 1),
        ),
    ),
    *conv2d_group(
        "each tile: from 16 x 128 over 64 x 64 to 128 x 128, in one slab and in many, ragged in both directions",
        *_both(
            sizes(1, 72, 28, 28, 64, 1, 1),
            sizes(1, 64, 28, 28, 72, 1, 1),
            sizes(1, 264, 28, 28, 64, 1, 1),
            sizes(1, 136, 27, 28, 132, 1, 1),
            sizes(1, 100, 56, 56, 124, 1, 1),
            sizes(1, 72, 56, 56, 64, 1, 1),
            sizes(1, 384, 6, 6, 136, 4, 4, stride=(2, 2), padding=(1, 1)),
            sizes(1, 192, 10, 9, 72, 4, 4, stride=(2, 2), padding=(1, 1)),
            sizes(1, 384, 6, 6, 72, 4, 4, stride=(2, 2), padding=(1, 1)),
            sizes(1, 128, 6, 6, 264, 4, 4, stride=(2, 2), padding=(1, 1)),
            sizes(1, 136, 16, 16, 264, 3, 3, padding=(6, 6), dilation=(6, 6)),
        ),
    ),
    *conv2d_group(
        "stages of pixels: exactly one, one less, one more, fewer than are prefetched, many slabs with a short last one",
        *_both(
            sizes(1, 32, 8, 16, 32, 1, 1),
            sizes(1, 32, 1, 127, 32, 1, 1),
            sizes(1, 32, 3, 43, 32, 1, 1),
            sizes(3, 33, 5, 5, 35, 1, 1),
            sizes(5, 24, 31, 29, 16, 1, 1),
            sizes(2, 16, 64, 64, 24, 1, 1),
        ),
    ),
    *conv2d_group(
        "1x1 with a stride, with a border, of one pixel per image, in wide groups",
        *_both(
            sizes(2, 24, 9, 11, 16, 1, 1, stride=(2, 2)),
            sizes(2, 16, 9, 8, 24, 1, 1, stride=(3, 1), padding=(2, 1)),
            sizes(9, 48, 1, 1, 40, 1, 1),
            sizes(1, 240, 6, 8, 240, 1, 1, groups=3),
            sizes(2, 36, 7, 5, 20, 1, 1, groups=4),
            _CROOKED_POINTWISE,
        ),
    ),
    *conv2d_group(
        "dilated: taps that reach part of the image, one pixel of it, none; several taps in one tile and one tap in several",
        *_both(
            _DILATED,
            sizes(1, 160, 9, 9, 24, 3, 3, padding=(6, 6), dilation=(6, 6)),
            sizes(1, 130, 8, 12, 17, 3, 3, padding=(12, 8), dilation=(12, 8)),
            sizes(1, 20, 15, 15, 8, 3, 3, padding=(14, 14), dilation=(14, 14)),
            sizes(2, 21, 13, 17, 19, 3, 2, padding=(5, 0), dilation=(3, 4)),
            sizes(1, 16, 13, 11, 12, 3, 3, stride=(2, 1), padding=(4, 2), dilation=(4, 2)),
            sizes(2, 32, 12, 9, 24, 3, 3, padding=(2, 2), dilation=(2, 2), groups=2),
            _CROOKED,
        ),
    ),
    *conv2d_group(
        "strided: filters as large as the stride, larger, smaller; a filter that covers the image",
        *_both(
            _STRIDED,
            sizes(1, 24, 12, 8, 40, 2, 2, stride=(2, 2), transposed=True),
            sizes(2, 10, 9, 9, 12, 5, 5, stride=(2, 2), padding=(2, 2), transposed=True),
            sizes(1, 48, 13, 15, 20, 3, 3, stride=(2, 2), padding=(1, 1)),
            sizes(1, 21, 32, 24, 21, 16, 16, stride=(8, 8), transposed=True),
            sizes(2, 12, 17, 13, 9, 2, 3, stride=(4, 5), padding=(1, 1)),
            sizes(5, 32, 4, 4, 100, 4, 4, transposed=True),
            sizes(1, 96, 8, 8, 64, 3, 3, stride=(2, 2), padding=(1, 1), groups=2),
        ),
    ),
    *conv2d_group(
        "one row, one column, a filter larger than the image",
        *_both(
            sizes(2, 9, 1, 35, 12, 1, 3, stride=(1, 2), padding=(0, 1)),
            sizes(1, 10, 29, 1, 12, 4, 1, stride=(2, 1)),
            sizes(2, 16, 3, 3, 8, 3, 3, padding=(5, 4), dilation=(2, 2)),
        ),
    ),
    *conv2d_group(
        "pixels apart by other than the channels, or an odd address: units of copying become narrower",
        *(
            problem | _WGRAD | {"layout": layout}
            for problem in (_EVEN, _DILATED, _STRIDED)
            for layout in (*_SLICED_LAST, "expanded")
        ),
    ),
)

CHECK_PROBLEMS: tuple[Conv2dProblem, ...] = (
    *conv2d_group(
        "weight gradients of 1x1 filters: whole units, ragged tiles, a stride, slabs, several stages",
        *_both(
            sizes(1, 16, 8, 16, 16, 1, 1),
            sizes(1, 33, 5, 9, 17, 1, 1),
            sizes(1, 20, 5, 9, 10, 1, 1, stride=(2, 2), padding=(1, 0), groups=2),
            sizes(2, 8, 24, 25, 8, 1, 1),
        ),
        _EVEN | _WGRAD | {"layout": "channels_last_sliced_start"},
    ),
    *conv2d_group(
        "weight gradients of dilated filters: taps inside in part, and nowhere",
        *_both(
            sizes(1, 8, 8, 8, 8, 3, 3, padding=(4, 4), dilation=(4, 4)),
            sizes(1, 18, 5, 6, 5, 3, 2, padding=(5, 4), dilation=(5, 4)),
        ),
    ),
    *conv2d_group(
        "weight gradients of strided filters: with a border, in groups, covering the image",
        *_both(
            sizes(1, 8, 8, 8, 8, 4, 4, stride=(2, 2), padding=(1, 1)),
            sizes(1, 18, 7, 6, 4, 3, 2, stride=(2, 3), padding=(1, 0), groups=2),
            sizes(3, 9, 2, 3, 5, 2, 3),
            sizes(1, 6, 12, 14, 4, 3, 4, stride=(3, 4), padding=(1, 0)),
        ),
    ),
    *conv2d_group(
        "weight gradients in larger tiles: fewer slices than threads of a warp, rows of 128 columns and of 128 filters",
        *_both(
            sizes(1, 128, 6, 6, 64, 4, 4, stride=(2, 2), padding=(1, 1)),
            sizes(1, 64, 6, 6, 72, 4, 4, stride=(2, 2), padding=(1, 1)),
        ),
    ),
)
