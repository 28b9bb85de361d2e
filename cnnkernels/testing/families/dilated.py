"""Problems for the dilated kernels: their tile edges, and what they have that no other family has.

PROBLEMS are tried by `cnnkernels verify`, CHECK_PROBLEMS under every check of the checked emulator by `cnnkernels check`.
"""

from __future__ import annotations

from cnnkernels.testing.problem import Conv2dProblem, conv2d_group, sizes

_PASSES = ("fprop", "dgrad")

PROBLEMS: tuple[Conv2dProblem, ...] = (
    *conv2d_group(
        "dilated: taps that fall on padding for some tiles, for all, and the middle one alone",
        sizes(1, 40, 20, 21, 24, 3, 3, padding=(4, 4), dilation=(4, 4), passes=_PASSES, layout="channels_last"),
        sizes(1, 40, 20, 21, 24, 3, 3, padding=(4, 4), dilation=(4, 4), passes=_PASSES),
        sizes(2, 20, 33, 18, 24, 3, 3, padding=(18, 18), dilation=(18, 18), passes=_PASSES, layout="channels_last"),
        sizes(2, 20, 33, 18, 24, 3, 3, padding=(18, 18), dilation=(18, 18), passes=_PASSES),
        sizes(2, 20, 5, 6, 70, 3, 3, padding=(12, 12), dilation=(12, 12), passes=_PASSES, layout="channels_last"),
        sizes(2, 20, 5, 6, 70, 3, 3, padding=(12, 12), dilation=(12, 12), passes=_PASSES),
    ),
    *conv2d_group(
        "dilated: pixels in vectors of 16 and 8 bytes, shifted by whole ones; and not",
        sizes(1, 20, 32, 32, 16, 3, 3, padding=(8, 8), dilation=(8, 8), passes=_PASSES),
        sizes(1, 20, 32, 32, 16, 3, 3, padding=(12, 12), dilation=(12, 12), passes=_PASSES),
        sizes(1, 20, 16, 14, 16, 3, 3, padding=(2, 2), dilation=(2, 2), passes=_PASSES),
    ),
    *conv2d_group(
        "dilated: unequal, one-sided, without padding, channels of no vector",
        sizes(2, 21, 14, 17, 11, 2, 3, padding=(1, 3), dilation=(3, 2), passes=_PASSES, layout="channels_last"),
        sizes(2, 21, 14, 17, 11, 2, 3, padding=(1, 3), dilation=(3, 2), passes=_PASSES),
        sizes(1, 18, 15, 16, 65, 3, 3, dilation=(5, 4), passes=_PASSES, layout="channels_last"),
        sizes(1, 17, 12, 13, 33, 4, 2, padding="same", dilation=(2, 3), passes=_PASSES),
        sizes(1, 16, 1, 300, 16, 1, 5, padding=(0, 8), dilation=(1, 4), passes=_PASSES, layout="channels_last"),
    ),
    *conv2d_group(
        "dilated: few tiles, a reduction cut into slabs",
        sizes(1, 320, 9, 9, 24, 3, 3, padding=(4, 4), dilation=(4, 4), passes=_PASSES, layout="channels_last"),
        sizes(1, 320, 9, 9, 24, 3, 3, padding=(4, 4), dilation=(4, 4), passes=_PASSES),
    ),
    *conv2d_group(
        "dilated: inside larger tensors, and in the opposite order",
        sizes(2, 16, 9, 8, 24, 3, 3, padding=(2, 2), dilation=(2, 2), passes=_PASSES, layout="sliced"),
        sizes(2, 16, 9, 8, 24, 3, 3, padding=(2, 2), dilation=(2, 2), passes=_PASSES, layout="permuted"),
        sizes(
            2, 16, 9, 8, 24, 3, 3, padding=(2, 2), dilation=(2, 2), passes=_PASSES, layout="channels_last_sliced_start"
        ),
    ),
)

CHECK_PROBLEMS: tuple[Conv2dProblem, ...] = (
    *conv2d_group(
        "dilated: taps on padding, tails of tiles",
        sizes(1, 20, 13, 15, 24, 3, 3, padding=(4, 4), dilation=(4, 4), passes=_PASSES, layout="channels_last"),
        sizes(1, 20, 13, 15, 24, 3, 3, padding=(4, 4), dilation=(4, 4), passes=_PASSES),
    ),
    *conv2d_group(
        "dilated: a reduction cut into slabs",
        sizes(1, 130, 5, 5, 6, 3, 3, padding=(2, 2), dilation=(2, 2), passes=_PASSES, layout="channels_last"),
        sizes(1, 130, 5, 5, 6, 3, 3, padding=(2, 2), dilation=(2, 2), passes=_PASSES),
    ),
)
