"""Problems for the pool windows kernels: their tile edges, and what they have that no other family has.

PROBLEMS are tried by `cnnkernels verify`, CHECK_PROBLEMS under every check of the checked emulator by `cnnkernels check`.
"""

from __future__ import annotations

from typing import Any

from cnnkernels.testing.problem import Pool2dProblem, image, pool2d_group

# The windows with code of their own.
_2X2: dict[str, Any] = {"window": (2, 2)}
_3X3: dict[str, Any] = {"window": (3, 3), "stride": (2, 2)}
_DENSE: dict[str, Any] = {"window": (3, 3), "stride": (1, 1), "padding": (1, 1)}
_PADDED: dict[str, Any] = {"padding": (1, 1)}
_LAST: dict[str, Any] = {"layout": "channels_last"}
_SLICES = ("start", "pixels", "rows", "images")

PROBLEMS: tuple[Pool2dProblem, ...] = (
    *pool2d_group(
        "windows, channels dense: groups of columns and strips of rows that end early, one less and one more",
        *(
            image(2, 8, height, width, **window, **_LAST)
            for window in (_2X2, _3X3, _3X3 | _PADDED, _DENSE)
            for height, width in ((8, 8), (7, 9), (17, 5), (35, 4))
        ),
        image(1, 24, 11, 3, **_DENSE, **_LAST),
        image(3, 40, 3, 3, **_3X3, **_LAST),
    ),
    *pool2d_group(
        "windows, channels dense but for an odd address, or pixels, rows or images an odd number of elements apart",
        *(
            image(2, 8, 9, 9, **window, layout=f"channels_last_sliced_{what}")
            for window in (_3X3 | _PADDED, _DENSE)
            for what in _SLICES
        ),
    ),
    *pool2d_group(
        "windows, columns dense: one plane in bands, many planes in a block, an odd number of columns",
        *(
            image(2, 3, height, width, **window)
            for window in (_2X2, _3X3, _3X3 | _PADDED, _DENSE)
            for height, width in ((16, 16), (13, 27), (7, 7), (35, 3))
        ),
        image(1, 600, 6, 5, **_3X3 | _PADDED),
        image(2, 300, 4, 4, **_DENSE),
        image(1, 550, 5, 7, **_2X2),
        image(2, 70, 14, 14, **_2X2),
        image(1, 9, 17, 17, **_DENSE),
        image(1, 20, 13, 13, **_3X3),
        image(1, 1, 3, 3000, **_3X3 | _PADDED),
    ),
    *pool2d_group(
        "windows of two rows of whole sectors: no shared memory; and where that is just not so",
        image(2, 3, 8, 32, **_2X2),
        image(2, 3, 9, 32, **_2X2),
        image(2, 3, 8, 32, **_2X2, ceil_mode=True, padding=(0, 1)),
        image(1, 5, 4, 48, **_2X2),
    ),
    *pool2d_group(
        "windows of two rows of pixels whose channels are no whole vectors",
        *(
            problem | {"layout": "channels_last", "values": values}
            for values in ("normal", "special")
            for problem in (image(3, 6, 28, 28, **_2X2), image(2, 3, 8, 10, **_2X2), image(5, 7, 2, 6, **_2X2))
        ),
        image(2, 6, 9, 10, **_2X2, **_LAST),
    ),
    *pool2d_group(
        "windows, columns dense in a larger tensor, repeated",
        image(2, 3, 9, 11, **_3X3, layout="expanded"),
        image(2, 3, 8, 32, **_2X2, layout="expanded"),
        image(2, 3, 9, 11, **_DENSE, layout="sliced"),
    ),
    *pool2d_group(
        "windows without code of their own: strides, dilation and shapes of all kinds, forward",
        *(
            problem | {"layout": layout, "C": 8}
            for layout in ("contiguous", "channels_last")
            for problem in (
                image(1, 8, 15, 13, (3, 2), stride=(1, 2), padding=(1, 0)),
                image(1, 8, 15, 13, (2, 5), stride=(4, 3), padding=(1, 2), dilation=(3, 2), kinds=("max",)),
                image(1, 8, 12, 13, (5, 5), stride=(1, 1), padding=(2, 2)),
                image(1, 8, 10, 11, (4, 4), stride=(3, 5), padding=(2, 1), ceil_mode=True, count_include_pad=False),
            )
        ),
    ),
    *pool2d_group(
        "windows that ceil_mode cuts off, and divisors that count or do not count the padding",
        *(
            problem | {"layout": layout, "C": 8}
            for layout in ("contiguous", "channels_last")
            for problem in (
                image(1, 8, 10, 12, **_3X3, ceil_mode=True),
                image(1, 8, 8, 10, **_3X3, padding=(1, 1), ceil_mode=True, count_include_pad=False),
                image(1, 8, 7, 5, **_2X2, ceil_mode=True, padding=(1, 0), count_include_pad=False),
                image(1, 8, 9, 7, **_DENSE, count_include_pad=False, kinds=("avg",)),
                image(1, 8, 9, 7, **_DENSE, divisor_override=-7, kinds=("avg",)),
            )
        ),
    ),
    *pool2d_group(
        "windows of equal values, NaN and infinities, and without indices",
        *(
            image(2, 8, 9, 10, **window, values=values, layout=layout, kinds=("max",))
            for window in (_2X2, _3X3 | _PADDED, _DENSE)
            for values in ("integers", "special")
            for layout in ("contiguous", "channels_last")
        ),
        image(2, 8, 8, 32, **_2X2, values="special", kinds=("max",)),
        *(
            image(2, 8, 9, 10, **window, layout=layout, passes=("max",), indices="none")
            for window in (_2X2, _3X3 | _PADDED)
            for layout in ("contiguous", "channels_last")
        ),
        image(2, 8, 8, 32, **_2X2, passes=("max",), indices="none"),
    ),
)

_ODD: dict[str, Any] = {"stride": (1, 1), "kinds": ("max",)}
_SEPARABLE: dict[str, Any] = {"stride": (1, 1), "indices": "none", "passes": ("max",)}
_PYRAMID: dict[str, Any] = {"window": (5, 5), "padding": (2, 2), "levels": 3, **_SEPARABLE}

PROBLEMS += (
    *pool2d_group(
        "odd windows at stride 1, rows first and then columns: larger than the image, of one row, in one plane and in many",
        *(
            problem | {"layout": layout}
            for layout in ("contiguous", "channels_last")
            for problem in (
                image(1, 8, 20, 20, (5, 5), padding=(2, 2), **_SEPARABLE),
                image(2, 24, 9, 7, (13, 13), padding=(6, 6), **_SEPARABLE, values="special"),
                image(1, 16, 11, 13, (9, 1), padding=(4, 0), **_SEPARABLE),
            )
        ),
        image(1, 1100, 4, 3, (3, 5), padding=(1, 2), **_SEPARABLE),
        image(2, 3, 11, 13, (5, 5), padding=(2, 2), **_SEPARABLE, layout="expanded"),
    ),
    *pool2d_group(
        "odd windows at stride 1, with indices and their gradients",
        *(
            problem | {"layout": layout}
            for layout in ("contiguous", "channels_last")
            for problem in (
                image(1, 8, 20, 20, (5, 5), padding=(2, 2), **_ODD),
                image(2, 24, 9, 7, (13, 13), padding=(6, 6), **_ODD, values="special"),
                image(2, 32, 6, 5, (3, 9), padding=(1, 4), **_ODD, values="integers"),
                image(1, 64, 11, 13, (9, 1), padding=(4, 0), **_ODD),
                image(1, 8, 3, 20, (1, 17), padding=(0, 8), **_ODD),
                image(1, 8, 5, 1, (5, 3), padding=(2, 1), **_ODD, values="special"),
            )
        ),
        image(1, 530, 4, 3, (3, 5), padding=(1, 2), **_ODD),
        image(2, 3, 11, 13, (5, 5), padding=(2, 2), **_ODD, layout="expanded"),
        image(2, 3, 11, 13, (5, 5), padding=(2, 2), **_ODD, layout="sliced"),
        *(image(2, 8, 7, 9, (5, 5), padding=(2, 2), **_ODD, layout=f"channels_last_sliced_{what}") for what in _SLICES),
    ),
    *pool2d_group(
        "chains of poolings: both layouts, sliced, infinities and NaN",
        image(1, 16, 20, 20, **_PYRAMID, **_LAST),
        image(2, 8, 7, 9, **_PYRAMID, **_LAST, values="special"),
        image(2, 8, 7, 9, **_PYRAMID, layout="channels_last_sliced_start"),
        image(1, 5, 20, 20, **_PYRAMID),
        image(2, 550, 3, 5, **_PYRAMID),
        image(2, 3, 7, 9, **_PYRAMID, values="special"),
        image(2, 3, 7, 9, **_PYRAMID, layout="sliced"),
    ),
)

CHECK_PROBLEMS: tuple[Pool2dProblem, ...] = (
    *pool2d_group(
        "windows: strips and groups of columns that end early, with padding on all sides",
        *(image(1, 8, 11, 9, **window, **_LAST) for window in (_2X2, _3X3 | _PADDED, _DENSE)),
        image(2, 8, 6, 5, **_3X3, layout="channels_last_sliced_start"),
    ),
    *pool2d_group(
        "windows: a plane in bands, planes together, an odd number of columns, no shared memory",
        *(image(1, 3, 12, 13, **window) for window in (_2X2, _3X3 | _PADDED, _DENSE)),
        image(1, 530, 3, 5, **_3X3 | _PADDED),
        image(1, 2, 4, 32, **_2X2),
        image(1, 3, 5, 7, **_3X3, ceil_mode=True),
        image(2, 3, 5, 6, **_DENSE, layout="expanded"),
        image(2, 5, 6, 10, **_2X2),
        image(2, 6, 6, 4, **_2X2, **_LAST),
        image(1, 3, 12, 13, **_2X2, passes=("max",), indices="none"),
    ),
    *pool2d_group(
        "windows without code of their own",
        image(1, 8, 9, 8, (3, 2), stride=(1, 3), padding=(1, 0), dilation=(2, 1), kinds=("max",)),
        image(1, 8, 9, 8, (3, 2), stride=(1, 3), padding=(1, 0), dilation=(2, 1), kinds=("max",), **_LAST),
    ),
    *pool2d_group(
        "chains of poolings, rows first and then columns",
        image(1, 16, 6, 7, **_PYRAMID, **_LAST),
        image(1, 5, 7, 9, **_PYRAMID),
        image(1, 3, 7, 9, (5, 3), padding=(2, 1), **_SEPARABLE),
    ),
    *pool2d_group(
        "odd windows, rows first and then columns, with indices and their gradients",
        image(1, 8, 6, 7, (5, 3), padding=(2, 1), **_ODD, **_LAST),
        image(2, 8, 5, 6, (3, 3), padding=(1, 1), **_ODD, layout="channels_last_sliced_start"),
        image(1, 5, 7, 9, (5, 5), padding=(2, 2), **_ODD),
        image(2, 3, 5, 6, (3, 5), padding=(1, 2), **_ODD, layout="expanded"),
    ),
)
