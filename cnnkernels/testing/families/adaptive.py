"""Problems for the adaptive kernels: their tile edges, and what they have that no other family has.

PROBLEMS are tried by `cnnkernels verify`, CHECK_PROBLEMS under every check of the checked emulator by `cnnkernels check`.
"""

from __future__ import annotations

from cnnkernels.testing.problem import AdaptivePool2dProblem, adaptive_group, to

_ONE = (1, 1)
_LAST = {"layout": "channels_last"}

# Every size odd, windows that overlap on both axes: the problem for the layouts below.
_CROOKED = to(2, 5, 11, 17, (4, 6))
# Every size a multiple of every vector's length: whether they can be read in vectors is the layout's doing alone.
_EVEN = to(2, 16, 8, 16, (3, 4))

PROBLEMS: tuple[AdaptivePool2dProblem, ...] = (
    *adaptive_group(
        "one window, channels in vectors: fewer pixels than readers, a ragged last batch, many, a vector more or less",
        to(2, 64, 7, 7, _ONE, **_LAST),
        to(1, 272, 3, 5, _ONE, **_LAST),
        to(2, 24, 1, 2, _ONE, **_LAST),
        to(3, 40, 14, 13, _ONE, **_LAST),
        to(1, 8, 33, 31, _ONE, **_LAST),
    ),
    *adaptive_group(
        "one window, channels that are no whole vector",
        to(2, 33, 6, 5, _ONE, **_LAST),
        to(2, 3, 9, 9, _ONE, **_LAST),
        to(3, 7, 2, 2, _ONE, **_LAST),
    ),
    *adaptive_group(
        "one window of each small plane: planes that begin anywhere within 16 bytes, whole blocks of them and one more",
        to(2, 65, 7, 7, _ONE),
        to(1, 130, 7, 7, _ONE),
        to(3, 5, 3, 3, _ONE),
        to(2, 9, 14, 14, _ONE),
        to(1, 17, 1, 1, _ONE),
        to(5, 1, 4, 8, _ONE),
        to(1, 1, 2, 1, _ONE),
    ),
    *adaptive_group(
        "one window of each long plane, read by a warp, several and a block, with ragged ends",
        to(2, 9, 33, 33, _ONE),
        to(1, 3, 28, 28, _ONE),
        to(1, 2, 65, 65, _ONE),
        to(1, 1, 91, 97, _ONE),
    ),
    *adaptive_group(
        "windows shared by blocks",
        to(1, 8, 57, 56, _ONE, **_LAST),
        to(1, 32, 40, 41, _ONE, **_LAST),
        to(1, 1, 150, 149, _ONE),
        to(2, 1, 170, 101, _ONE),
        to(1, 4, 64, 66, (1, 2), **_LAST),
    ),
    *adaptive_group(
        "windows that divide the image, and those that overlap",
        to(2, 3, 12, 12, (3, 4)),
        to(2, 8, 12, 12, (3, 4), **_LAST),
        to(2, 3, 13, 11, (5, 3)),
        to(1, 24, 13, 11, (5, 3), **_LAST),
        to(1, 6, 60, 60, (6, 3)),
        to(1, 8, 30, 30, (6, 3), **_LAST),
        to(1, 5, 13, 13, (6, 6)),
    ),
    *adaptive_group(
        "full rows or full columns",
        to(2, 3, 9, 14, (9, 1)),
        to(2, 3, 9, 14, (1, 14)),
        to(2, 8, 9, 14, (4, 1), **_LAST),
        to(1, 3, 15, 4, (3, 1)),
    ),
    *adaptive_group(
        "as many windows as pixels, and more",
        to(2, 3, 7, 7, (7, 7)),
        to(1, 8, 7, 6, (7, 6), **_LAST),
        to(1, 3, 3, 2, (7, 5)),
        to(2, 8, 3, 2, (7, 5), **_LAST),
        to(1, 2, 1, 1, (4, 3)),
        to(1, 2, 5, 9, (3, 20)),
    ),
    *adaptive_group(
        "planes that come in bands of rows",
        to(1, 2, 150, 75, (10, 3)),
        to(1, 1, 121, 90, (40, 45)),
    ),
    *adaptive_group(
        "every stride different: dense, inside a larger tensor, repeated, in the opposite order",
        _CROOKED,
        _CROOKED | _LAST,
        _CROOKED | {"layout": "sliced"},
        _CROOKED | {"layout": "expanded"},
        _CROOKED | {"layout": "permuted"},
        to(2, 5, 11, 17, _ONE, layout="sliced"),
        to(2, 5, 11, 17, _ONE, layout="expanded"),
        to(2, 5, 11, 17, _ONE, layout="permuted"),
    ),
    *adaptive_group(
        "vectors of channels, but for an odd address, or pixels, rows or images an odd number of elements apart",
        _EVEN | {"layout": "channels_last_sliced_start"},
        _EVEN | {"layout": "channels_last_sliced_pixels"},
        _EVEN | {"layout": "channels_last_sliced_rows"},
        _EVEN | {"layout": "channels_last_sliced_images"},
        to(2, 16, 8, 8, _ONE, layout="channels_last_sliced_rows"),
        to(2, 16, 8, 8, _ONE, layout="channels_last_sliced_start"),
    ),
    *adaptive_group(
        "a maximum that is NaN or infinite, in one window and several, among the readers of a window",
        to(2, 4, 12, 13, (3, 4), values="special", passes=("adaptive_max",)),
        to(2, 8, 12, 13, (3, 4), values="special", passes=("adaptive_max",), **_LAST),
        to(3, 9, 7, 7, _ONE, values="special", passes=("adaptive_max",)),
        to(3, 8, 7, 7, _ONE, values="special", passes=("adaptive_max",), **_LAST),
        to(1, 2, 40, 41, _ONE, values="special", passes=("adaptive_max",)),
        to(1, 8, 57, 56, _ONE, values="special", passes=("adaptive_max",), **_LAST),
    ),
    *adaptive_group("no image", to(0, 3, 8, 8, (2, 2)), to(0, 8, 8, 8, _ONE, **_LAST)),
)

CHECK_PROBLEMS: tuple[AdaptivePool2dProblem, ...] = (
    *adaptive_group(
        "one window: readers of vectors, a ragged last batch; channels that are no whole vector",
        to(1, 40, 5, 7, _ONE, **_LAST),
        to(1, 5, 4, 3, _ONE, **_LAST),
    ),
    *adaptive_group(
        "one window of each plane: planes that begin anywhere within 16 bytes; long ones with ragged ends",
        to(1, 67, 7, 7, _ONE),
        to(1, 3, 23, 25, _ONE),
        to(1, 1, 65, 66, _ONE),
    ),
    *adaptive_group("windows shared by blocks", to(1, 8, 35, 34, _ONE, **_LAST), to(1, 1, 100, 99, _ONE)),
    *adaptive_group(
        "windows that overlap, as many as pixels, more than pixels",
        to(1, 3, 13, 11, (5, 3)),
        to(1, 16, 13, 11, (5, 3), **_LAST),
        to(1, 3, 3, 2, (7, 5)),
    ),
    *adaptive_group(
        "planes that come in bands of rows", to(1, 1, 150, 75, (10, 3), passes=("adaptive_max", "adaptive_avg"))
    ),
    *adaptive_group(
        "inside a larger tensor, in the opposite order, at an odd address",
        _CROOKED | {"layout": "sliced"},
        _CROOKED | {"layout": "permuted"},
        to(1, 16, 4, 8, (3, 3), layout="channels_last_sliced_start"),
        to(1, 16, 4, 8, (3, 3), layout="channels_last_sliced_rows"),
    ),
)
