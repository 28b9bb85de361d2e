"""Problems for the pointwise kernels: their tile edges, and what they have that no other family has.

Tiles are 256 or 128 pixels by 64 or 16 filters, and 16 or 32 channels at a time. PROBLEMS are tried by `cnnkernels verify`, CHECK_PROBLEMS
under every check of the checked emulator by `cnnkernels check`.
"""

from __future__ import annotations

from cnnkernels.testing.problem import Conv2dProblem, conv2d_group, sizes

PROBLEMS: tuple[Conv2dProblem, ...] = (
    *conv2d_group(
        "pointwise: exactly a tile, one less and one more, in pixels, filters and channels",
        sizes(1, 32, 16, 16, 64, 1, 1, layout="channels_last"),
        sizes(1, 32, 16, 16, 64, 1, 1),
        sizes(1, 31, 15, 17, 63, 1, 1, layout="channels_last"),
        sizes(1, 31, 15, 17, 63, 1, 1),
        sizes(1, 33, 1, 257, 65, 1, 1, layout="channels_last"),
        sizes(1, 33, 1, 257, 65, 1, 1),
        sizes(3, 17, 11, 12, 15, 1, 1, layout="channels_last"),
        sizes(3, 17, 11, 12, 17, 1, 1),
        sizes(3, 33, 8, 19, 65, 1, 1),
    ),
    *conv2d_group(
        "pointwise: channels and planes in vectors of 16, 8, 4 and 2 bytes",
        sizes(2, 24, 12, 12, 40, 1, 1, layout="channels_last"),
        sizes(2, 24, 12, 12, 40, 1, 1),
        sizes(2, 100, 6, 6, 20, 1, 1, layout="channels_last"),
        sizes(2, 20, 6, 14, 100, 1, 1),
        sizes(2, 22, 7, 10, 6, 1, 1, layout="channels_last"),
        sizes(2, 21, 7, 10, 3, 1, 1),
        sizes(2, 21, 7, 7, 2, 1, 1, layout="channels_last"),
    ),
    *conv2d_group(
        "pointwise: strides, padding, images smaller than a tile",
        sizes(2, 40, 11, 14, 24, 1, 1, stride=(2, 2), layout="channels_last"),
        sizes(2, 40, 11, 14, 24, 1, 1, stride=(2, 2)),
        sizes(3, 16, 9, 7, 24, 1, 1, stride=(3, 2), padding=(1, 2), layout="channels_last"),
        sizes(9, 16, 3, 5, 24, 1, 1, padding=(1, 0)),
    ),
    *conv2d_group(
        "pointwise: groups, whose channels are vectors and not",
        sizes(2, 48, 6, 8, 24, 1, 1, groups=3, layout="channels_last"),
        sizes(2, 48, 6, 8, 24, 1, 1, groups=3),
        sizes(2, 21, 6, 7, 9, 1, 1, groups=3, layout="channels_last"),
        sizes(2, 21, 6, 7, 9, 1, 1, groups=3),
    ),
    *conv2d_group(
        "pointwise: inside larger tensors, and in the opposite order",
        sizes(2, 24, 9, 8, 40, 1, 1, layout="sliced"),
        sizes(2, 24, 9, 8, 40, 1, 1, layout="permuted"),
        sizes(1, 16, 4, 8, 24, 1, 1, layout="channels_last_sliced_start"),
        sizes(1, 16, 4, 8, 24, 1, 1, layout="channels_last_sliced_pixels"),
        sizes(2, 16, 4, 8, 24, 1, 1, layout="channels_last_sliced_rows"),
        sizes(2, 16, 4, 8, 24, 1, 1, layout="channels_last_sliced_images"),
    ),
    *conv2d_group(
        "pointwise: one item does all filters of its pixels, and a block several items with the filter in place",
        sizes(1, 8, 136, 250, 72, 1, 1, passes=("fprop",), layout="channels_last"),
        sizes(1, 8, 136, 250, 72, 1, 1, passes=("fprop",)),
        sizes(1, 100, 4, 35000, 80, 1, 1, passes=("fprop",), bias=False),
    ),
    *conv2d_group(
        "pointwise: few tiles, a reduction cut into slabs",
        sizes(1, 700, 7, 7, 40, 1, 1, layout="channels_last"),
        sizes(1, 700, 7, 7, 600, 1, 1),
    ),
    *conv2d_group(
        "pointwise: the gradient of the filter from the planes of more images than an axis has taps, and of 34, which are no rectangle of taps",
        sizes(18, 24, 4, 6, 40, 1, 1, passes=("wgrad",)),
        sizes(32, 9, 3, 8, 70, 1, 1, passes=("wgrad",)),
        sizes(48, 72, 5, 8, 16, 1, 1, passes=("wgrad",)),
        sizes(34, 16, 3, 4, 8, 1, 1, passes=("wgrad",)),
    ),
)

CHECK_PROBLEMS: tuple[Conv2dProblem, ...] = (
    *conv2d_group(
        "pointwise: several steps and tiles, and tails of all of them",
        sizes(1, 72, 13, 21, 70, 1, 1, layout="channels_last"),
        sizes(1, 72, 13, 21, 70, 1, 1),
        sizes(1, 72, 12, 24, 24, 1, 1),
        sizes(17, 10, 4, 6, 70, 1, 1, passes=("wgrad",)),
        sizes(18, 20, 4, 10, 12, 1, 1, passes=("wgrad",)),
        sizes(2, 21, 4, 6, 9, 1, 1),
    ),
    *conv2d_group(
        "pointwise: units of 2 and 4 bytes, groups, strides",
        sizes(1, 21, 5, 7, 9, 1, 1, groups=3, layout="channels_last"),
        sizes(1, 22, 9, 7, 6, 1, 1, stride=(2, 2)),
        sizes(1, 12, 5, 7, 6, 1, 1, padding=(1, 1), layout="channels_last_sliced_start"),
    ),
    *conv2d_group(
        "pointwise: a reduction cut into slabs",
        sizes(1, 560, 3, 3, 9, 1, 1, layout="channels_last"),
    ),
)
