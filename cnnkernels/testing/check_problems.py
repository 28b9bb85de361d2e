"""The compact list that every kernel runs on under every check of the checked emulator: data, as in problems.py.

There each memory access costs a hundred times what it costs in the fast emulator, and each problem is run once per
schedule. So these problems are chosen for what a kernel does with memory, and for nothing else: a title says which
accesses they provoke. The values are tried on the long list, by `cnnkernels verify`.
"""

from __future__ import annotations

from typing import Any

from cnnkernels.testing import families
from cnnkernels.testing.cases import Problem
from cnnkernels.testing.problems import conv2d_group, image, pool2d_group, sizes

# Odd sizes, unequal pairs, a remainder that the strides leave: whoever mixes up two strides leaves the tensor.
_CROOKED = sizes(2, 6, 9, 13, 10, 2, 5, stride=(3, 2), padding=(1, 3), dilation=(2, 1), groups=2)
_CROOKED_WINDOW = image(2, 5, 11, 17, (3, 2), stride=(2, 3), padding=(1, 0))
# As many windows as pixels, and their channels in one tile: the smallest problems whose gradients overfill it.
_DENSE: dict[str, Any] = {"stride": (1, 1), "layout": "channels_last"}

CHECK_PROBLEMS: tuple[Problem, ...] = (
    *conv2d_group(
        "whole tiles, and tails of tiles in rows, columns and reduction",
        sizes(1, 8, 8, 16, 64, 1, 1),
        sizes(1, 3, 3, 45, 65, 1, 3),
        sizes(1, 5, 4, 46, 20, 2, 3, layout="channels_last"),
    ),
    *conv2d_group(
        "a halo on all sides, alone and wider than the image",
        sizes(1, 3, 7, 7, 17, 3, 3, padding=(1, 1), bias=False),
        sizes(2, 2, 3, 3, 3, 3, 3, padding=(5, 4)),
        sizes(1, 3, 7, 9, 5, 4, 2, padding="same", dilation=(1, 3)),
    ),
    *conv2d_group(
        "several steps of the reduction: stages are filled again while others are read",
        sizes(1, 12, 5, 6, 10, 3, 3, padding=(1, 1)),
        sizes(1, 20, 4, 5, 12, 3, 2, padding=(1, 1), layout="channels_last"),
    ),
    *conv2d_group(
        "sums over pixels cut into slabs, the last of them shorter",
        sizes(2, 3, 12, 23, 5, 1, 2, passes=("wgrad",)),
        sizes(1, 4, 24, 45, 6, 1, 1, passes=("wgrad",), layout="channels_last"),
        sizes(3, 9, 27, 27, 10, 1, 1, passes=("bias_grad",)),
        sizes(1, 3, 46, 45, 34, 1, 1, passes=("bias_grad",), layout="channels_last"),
    ),
    *conv2d_group(
        "stride over the filter: pixels that no tap reads are written all the same",
        sizes(1, 2, 12, 9, 3, 3, 2, stride=(4, 3), padding=(1, 1)),
        sizes(2, 5, 9, 9, 6, 1, 1, stride=(2, 2)),
    ),
    *conv2d_group(
        "dilation, with a stride it shares a divisor with and one it does not",
        sizes(2, 3, 14, 17, 5, 3, 3, stride=(2, 4), padding=(2, 3), dilation=(4, 2)),
        sizes(1, 3, 16, 13, 5, 3, 2, stride=(3, 2), dilation=(2, 3)),
    ),
    *conv2d_group(
        "groups: of two channels, of one channel, of one filter",
        sizes(1, 6, 5, 7, 4, 1, 1, groups=2),
        sizes(1, 3, 6, 5, 6, 3, 3, groups=3, padding=(1, 1)),
        sizes(1, 4, 5, 6, 2, 3, 3, groups=2, layout="channels_last"),
    ),
    *conv2d_group(
        "transposed, with output_padding and a bias",
        sizes(1, 5, 8, 8, 8, 4, 4, stride=(2, 2), padding=(1, 1), transposed=True),
        sizes(1, 6, 9, 7, 3, 3, 2, stride=(2, 3), dilation=(1, 2), groups=3, transposed=True),
    ),
    *conv2d_group(
        "every stride different: dense, channels last, inside a larger tensor, in the opposite order",
        _CROOKED,
        _CROOKED | {"layout": "channels_last"},
        _CROOKED | {"layout": "sliced"},
        _CROOKED | {"layout": "permuted"},
    ),
    *conv2d_group(
        "channels in vectors, but for an odd address, or pixels an odd number of elements apart",
        sizes(1, 8, 4, 8, 8, 1, 1, layout="channels_last_sliced_start"),
        sizes(1, 8, 4, 8, 8, 1, 1, layout="channels_last_sliced_pixels"),
    ),
    *conv2d_group(
        "padding modes: positions outside the image are read inside it",
        sizes(1, 3, 5, 4, 4, 3, 3, padding=(2, 2), padding_mode="reflect"),
        sizes(1, 2, 3, 5, 3, 2, 3, stride=(2, 1), padding=(3, 2), padding_mode="replicate", layout="channels_last"),
        sizes(1, 2, 4, 5, 3, 3, 2, padding=(4, 1), dilation=(2, 1), padding_mode="circular"),
    ),
    *conv2d_group(
        "one row, one column, one pixel, no image",
        sizes(2, 3, 1, 35, 4, 1, 3, padding=(0, 1)),
        sizes(1, 3, 29, 1, 4, 4, 1, stride=(2, 1)),
        sizes(1, 1, 1, 1, 1, 1, 1),
        sizes(0, 3, 8, 8, 4, 3, 3, padding=(1, 1)),
    ),
    *pool2d_group(
        "tails of tiles in planes, rows and columns",
        image(1, 257, 2, 2, (2, 2)),
        image(1, 1, 17, 66, (2, 2)),
        image(3, 5, 19, 17, (2, 2)),
    ),
    *pool2d_group(
        "windows that overlap: tiles share their borders",
        image(2, 5, 15, 13, (3, 3), stride=(2, 2), padding=(1, 1)),
        image(1, 2, 12, 12, (5, 4), stride=(1, 1)),
    ),
    *pool2d_group(
        "planes in vectors: channels last, a multiple of the vector and not",
        _CROOKED_WINDOW | {"C": 8, "layout": "channels_last"},
        image(1, 36, 8, 8, (2, 2), layout="channels_last"),
        image(2, 33, 6, 6, (2, 2), layout="channels_last"),
    ),
    *pool2d_group(
        "planes in vectors, but for an odd address, or pixels, rows or images an odd number of elements apart",
        image(1, 8, 4, 4, (2, 2), layout="channels_last_sliced_start"),
        image(1, 8, 4, 16, (2, 2), layout="channels_last_sliced_pixels"),
        image(1, 8, 16, 4, (2, 2), layout="channels_last_sliced_rows"),
        image(2, 8, 4, 4, (2, 2), layout="channels_last_sliced_images"),
    ),
    *pool2d_group(
        "every stride different: dense, inside a larger tensor, repeated, in the opposite order",
        _CROOKED_WINDOW,
        _CROOKED_WINDOW | {"layout": "sliced"},
        _CROOKED_WINDOW | {"layout": "expanded"},
        _CROOKED_WINDOW | {"layout": "permuted"},
    ),
    *pool2d_group(
        "stride over the window, and dilation: pixels in no window are written all the same",
        image(2, 3, 17, 16, (2, 2), stride=(5, 3)),
        image(2, 3, 15, 14, (3, 3), stride=(2, 1), padding=(1, 1), dilation=(3, 4), kinds=("max",)),
        image(2, 3, 13, 19, (2, 3), stride=(1, 3), padding=(1, 0), dilation=(3, 2), kinds=("max",)),
    ),
    *pool2d_group(
        "ceil_mode: a last window that is cut off, and one that would begin in the padding",
        image(2, 3, 10, 12, (3, 3), stride=(2, 2), ceil_mode=True),
        image(1, 3, 7, 8, (3, 2), stride=(3, 3), padding=(1, 1), ceil_mode=True),
        image(1, 3, 10, 9, (4, 4), stride=(3, 5), padding=(2, 1), ceil_mode=True, count_include_pad=False),
    ),
    *pool2d_group(
        "windows as large as the image, and larger",
        image(2, 7, 9, 11, (9, 11)),
        image(1, 3, 6, 7, (11, 13), stride=(2, 2), padding=(5, 6)),
    ),
    *pool2d_group(
        "windows over more than shared memory holds: it is filled again and again, with rows and with pieces of one",
        image(1, 2, 70, 75, (70, 75), passes=("max", "avg"), indices="flat"),
        image(1, 1, 1, 16500, (1, 16500), passes=("max", "avg"), indices="flat"),
    ),
    *pool2d_group(
        "gradients of more windows than shared memory holds: it is filled again, with a row and with a piece of one",
        image(1, 32, 1, 128, (2, 128), padding=(1, 64), passes=("avg_backward",), **_DENSE),
        image(1, 32, 1, 344, (1, 2), padding=(0, 1), dilation=(1, 172), passes=("max_backward",), **_DENSE),
    ),
    *pool2d_group(
        "indices of the other forms: pixels of the image, in vectors too, and none at all",
        image(2, 3, 9, 11, (3, 2), stride=(2, 1), padding=(1, 1), indices="flat", kinds=("max",)),
        image(1, 8, 6, 8, (2, 2), layout="channels_last", indices="flat", kinds=("max",)),
        image(2, 3, 9, 11, (3, 2), stride=(2, 1), padding=(1, 1), indices="none", passes=("max",)),
    ),
    *pool2d_group(
        "values that take other ways: a maximum that is NaN or infinite, a divisor that is given",
        image(2, 4, 12, 13, (2, 3), padding=(1, 1), values="special", kinds=("max",)),
        image(2, 3, 9, 11, (3, 2), padding=(1, 1), divisor_override=5, kinds=("avg",)),
    ),
    *pool2d_group(
        "one row, one column, one pixel, no image",
        image(2, 3, 1, 37, (1, 3)),
        image(2, 3, 23, 1, (2, 1)),
        image(1, 1, 1, 1, (1, 1)),
        image(0, 3, 8, 8, (2, 2)),
    ),
    *families.CHECK_PROBLEMS,
)
