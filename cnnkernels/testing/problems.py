"""The problems that kernels are tried on: data, in groups titled by what they provoke.

All of them are small: the emulator runs every kernel on every one. Those that provoke what one family does with its tiles are
in cnnkernels/testing/families.
"""

from __future__ import annotations

from cnnkernels.testing import families
from cnnkernels.testing.problem import (
    CONV2D_PASSES,
    POOL2D_PASSES,
    Conv2dProblem,
    Pair,
    Pool2dProblem,
    conv2d_group,
    image,
    pool2d_group,
    sizes,
)

__all__ = [
    "CONV2D_PASSES",
    "CONV2D_PROBLEMS",
    "POOL2D_PASSES",
    "POOL2D_PROBLEMS",
    "Conv2dProblem",
    "Pair",
    "Pool2dProblem",
    "conv2d_group",
    "image",
    "pool2d_group",
    "sizes",
]

# Every size odd, every pair unequal, groups, and a remainder that the strides leave: the problem for the layouts below.
_CROOKED = sizes(2, 6, 11, 19, 10, 2, 5, stride=(3, 2), padding=(1, 3), dilation=(2, 1), groups=2)
_CROOKED_WINDOW = image(2, 5, 11, 17, (3, 2), stride=(2, 3), padding=(1, 0))
# Every size a multiple of every vector's length: whether they can be read in vectors is the layout's doing alone.
_EVEN = sizes(2, 8, 8, 8, 16, 3, 3, padding=(1, 1))
_EVEN_WINDOW = image(2, 8, 16, 16, (2, 2))

CONV2D_PROBLEMS: tuple[Conv2dProblem, ...] = (
    *conv2d_group(
        "the layers of LeNet-5 and MNISTNet",
        sizes(2, 1, 32, 32, 6, 5, 5),
        sizes(2, 6, 14, 14, 16, 5, 5),
        sizes(1, 10, 12, 12, 20, 5, 5),
    ),
    *conv2d_group(
        "tile edges: exactly a tile, one less and one more in every dimension",
        sizes(1, 8, 8, 16, 64, 1, 1),
        sizes(1, 7, 1, 127, 63, 1, 1),
        sizes(1, 9, 3, 43, 65, 1, 1),
        sizes(1, 17, 5, 13, 9, 1, 1),
    ),
    *conv2d_group(
        "odd sizes, with a border",
        sizes(3, 5, 13, 17, 7, 3, 3, padding=(1, 1)),
        sizes(1, 3, 7, 7, 17, 3, 3, padding=(1, 1), bias=False),
    ),
    *conv2d_group(
        "everything asymmetric: rows taken for columns, near side for far side",
        _CROOKED,
        sizes(3, 4, 9, 23, 6, 5, 2, stride=(1, 4), padding=(3, 0), dilation=(1, 3)),
        sizes(1, 3, 7, 9, 5, 4, 2, padding="same", dilation=(1, 3)),
    ),
    *conv2d_group(
        "stride over the filter: pixels that no tap reads, whose gradient is zero",
        sizes(2, 3, 13, 13, 4, 2, 2, stride=(3, 3)),
        sizes(2, 5, 9, 9, 6, 1, 1, stride=(2, 2)),
        sizes(1, 2, 17, 11, 3, 3, 2, stride=(5, 7), padding=(1, 1)),
    ),
    *conv2d_group(
        "dilation: alone, with a stride it shares a divisor with, and with one it does not",
        sizes(1, 4, 15, 15, 4, 3, 3, padding=(4, 4), dilation=(4, 4)),
        sizes(2, 3, 14, 17, 5, 3, 3, stride=(2, 4), padding=(2, 3), dilation=(4, 2)),
        sizes(1, 3, 16, 13, 5, 3, 2, stride=(3, 2), dilation=(2, 3)),
    ),
    *conv2d_group(
        "groups: few, many, and with one channel or one filter each",
        sizes(2, 8, 9, 9, 12, 3, 3, padding=(1, 1), groups=4),
        sizes(1, 6, 5, 7, 4, 1, 1, groups=2),
        sizes(1, 12, 7, 7, 4, 3, 3, groups=4, stride=(2, 2)),
    ),
    *conv2d_group(
        "depthwise, and with a channel multiplier",
        sizes(2, 10, 11, 11, 10, 5, 5, padding=(2, 2), groups=10),
        sizes(1, 5, 9, 8, 15, 3, 3, stride=(2, 1), groups=5),
    ),
    *conv2d_group("1x1 filters on channels that are a multiple of nothing", sizes(2, 33, 7, 5, 18, 1, 1)),
    *conv2d_group(
        "filters as large as the image, and larger: most taps lie in the padding",
        sizes(3, 4, 6, 5, 7, 6, 5),
        sizes(1, 2, 15, 13, 3, 31, 29, padding=(15, 14)),
        sizes(2, 2, 3, 3, 3, 3, 3, padding=(5, 4)),
    ),
    *conv2d_group(
        "long reductions: over channels in fprop, over images and pixels in wgrad",
        sizes(1, 70, 6, 6, 66, 3, 3, padding=(1, 1)),
        sizes(9, 2, 25, 21, 3, 3, 3, padding=(1, 1)),
    ),
    *conv2d_group(
        "one row, one column, one pixel",
        sizes(2, 3, 1, 35, 4, 1, 3, padding=(0, 1)),
        sizes(1, 3, 29, 1, 4, 4, 1, stride=(2, 1)),
        sizes(1, 1, 1, 1, 1, 1, 1),
    ),
    *conv2d_group("no image at all", sizes(0, 3, 8, 8, 4, 3, 3, padding=(1, 1))),
    *conv2d_group(
        "transposed, with output_padding and groups",
        sizes(2, 6, 12, 14, 4, 3, 4, stride=(3, 4), padding=(1, 0), transposed=True),
        sizes(1, 5, 10, 10, 8, 4, 4, stride=(2, 2), padding=(1, 1), transposed=True),
        sizes(2, 6, 11, 12, 9, 3, 2, stride=(2, 3), dilation=(1, 2), groups=3, transposed=True),
    ),
    *conv2d_group(
        "channels last",
        _CROOKED | {"layout": "channels_last"},
        sizes(2, 16, 7, 7, 24, 3, 3, padding=(1, 1), layout="channels_last"),
        sizes(2, 9, 8, 8, 9, 3, 3, groups=9, layout="channels_last"),
    ),
    *conv2d_group(
        "images or weights alone channels last",
        _CROOKED | {"layout": "channels_last_images"},
        _CROOKED | {"layout": "channels_last_weights"},
        sizes(2, 9, 8, 8, 9, 3, 3, groups=9, layout="channels_last_images"),
        sizes(2, 9, 8, 8, 9, 3, 3, groups=9, layout="channels_last_weights"),
    ),
    *conv2d_group(
        "strides of other kinds: inside a larger tensor, repeated, dimensions in the opposite order",
        _CROOKED | {"layout": "sliced"},
        _CROOKED | {"layout": "expanded"},
        _CROOKED | {"layout": "permuted"},
    ),
    *conv2d_group(
        "channels last but for an odd address, or an odd number of elements from pixel, row or image to the next",
        _EVEN | {"layout": "channels_last_sliced_start"},
        _EVEN | {"layout": "channels_last_sliced_pixels"},
        _EVEN | {"layout": "channels_last_sliced_rows"},
        _EVEN | {"layout": "channels_last_sliced_images"},
    ),
    *conv2d_group(
        "padding modes: a border that is read again, as wide as it may be, on one side, with strides and dilation",
        sizes(2, 4, 7, 9, 5, 3, 3, padding=(1, 1), padding_mode="reflect"),
        sizes(1, 3, 5, 4, 4, 5, 4, padding=(4, 3), padding_mode="reflect", layout="channels_last"),
        sizes(1, 3, 8, 11, 4, 3, 4, stride=(2, 3), padding=(2, 3), dilation=(3, 2), padding_mode="reflect"),
        sizes(2, 4, 6, 5, 3, 3, 3, padding=(1, 2), padding_mode="replicate", layout="channels_last"),
        sizes(1, 2, 3, 1, 3, 5, 4, padding=(6, 5), padding_mode="replicate"),
        sizes(2, 6, 7, 8, 4, 3, 2, stride=(2, 3), padding=(2, 1), dilation=(1, 2), groups=2, padding_mode="replicate"),
        sizes(1, 3, 9, 7, 8, 4, 2, padding="same", dilation=(1, 3), padding_mode="circular"),
        sizes(2, 3, 4, 5, 4, 3, 3, padding=(4, 5), padding_mode="circular", layout="channels_last"),
        sizes(1, 2, 9, 10, 3, 3, 3, stride=(3, 2), padding=(1, 1), padding_mode="circular"),
        sizes(1, 1, 1, 1, 2, 3, 3, padding=(1, 1), padding_mode="circular"),
    ),
    *conv2d_group("unbatched", sizes(1, 3, 9, 10, 5, 3, 3, padding=(1, 1), batched=False)),
    *families.CONV2D_PROBLEMS,
)

POOL2D_PROBLEMS: tuple[Pool2dProblem, ...] = (
    *pool2d_group(
        "the layers of LeNet-5",
        image(2, 6, 28, 28, (2, 2)),
        image(2, 16, 10, 10, (2, 2)),
    ),
    *pool2d_group(
        "tile edges: many planes of one result, one plane of many results",
        image(1, 257, 2, 2, (2, 2)),
        image(1, 1, 32, 66, (2, 2)),
        image(3, 5, 33, 31, (2, 2)),
    ),
    *pool2d_group(
        "overlapping windows: a pixel's gradient comes from several",
        image(2, 5, 15, 13, (3, 3), stride=(2, 2), padding=(1, 1)),
        image(1, 4, 9, 9, (3, 3), stride=(1, 1), padding=(1, 1)),
        image(1, 2, 12, 12, (5, 4), stride=(1, 1)),
    ),
    *pool2d_group(
        "everything asymmetric",
        _CROOKED_WINDOW,
        image(2, 3, 13, 19, (2, 3), stride=(1, 3), padding=(1, 0), dilation=(3, 2), kinds=("max",)),
    ),
    *pool2d_group(
        "stride over the window: pixels in no window",
        image(2, 3, 17, 16, (2, 2), stride=(5, 3)),
        image(1, 3, 9, 9, (1, 1), stride=(2, 2)),
    ),
    *pool2d_group(
        "dilation", image(2, 3, 15, 14, (3, 3), stride=(2, 1), padding=(1, 1), dilation=(3, 4), kinds=("max",))
    ),
    *pool2d_group(
        "ceil_mode: a last window that is cut off, and one that would begin in the padding",
        image(2, 3, 10, 12, (3, 3), stride=(2, 2), ceil_mode=True),
        image(1, 3, 7, 8, (3, 2), stride=(3, 3), padding=(1, 1), ceil_mode=True),
        image(1, 3, 10, 9, (4, 4), stride=(3, 5), padding=(2, 1), ceil_mode=True, count_include_pad=False),
    ),
    *pool2d_group(
        "the divisor of average pooling",
        image(2, 3, 9, 11, (3, 3), stride=(2, 2), padding=(1, 1), count_include_pad=False, kinds=("avg",)),
        image(2, 3, 9, 11, (3, 2), padding=(1, 1), divisor_override=5, kinds=("avg",)),
        image(1, 2, 8, 8, (2, 2), stride=(1, 2), divisor_override=-4, ceil_mode=True, kinds=("avg",)),
    ),
    *pool2d_group(
        "one window over all, and windows larger than the image",
        image(2, 7, 9, 11, (9, 11)),
        image(1, 3, 6, 7, (11, 13), stride=(2, 2), padding=(5, 6)),
    ),
    *pool2d_group(
        "one row, one column, one pixel",
        image(2, 3, 1, 37, (1, 3)),
        image(2, 3, 23, 1, (2, 1)),
        image(1, 1, 1, 1, (1, 1)),
    ),
    *pool2d_group(
        "equal values, NaN and infinities in one window",
        image(2, 3, 12, 12, (3, 3), stride=(2, 2), padding=(1, 1), values="integers", kinds=("max",)),
        image(2, 4, 12, 13, (2, 3), padding=(1, 1), values="special", kinds=("max",)),
    ),
    *pool2d_group(
        "indices of the other forms: pixels of the image, and none at all",
        image(2, 3, 13, 11, (3, 2), stride=(2, 1), padding=(1, 1), indices="flat", kinds=("max",)),
        image(2, 4, 12, 13, (2, 3), padding=(1, 1), values="special", indices="flat", kinds=("max",)),
        image(1, 2, 21, 20, (17, 16), stride=(2, 3), indices="flat", kinds=("max",)),  # 272 taps, too many for a byte
        _EVEN_WINDOW | {"layout": "channels_last", "indices": "flat", "kinds": ("max",)},
        _CROOKED_WINDOW | {"layout": "sliced", "indices": "flat", "kinds": ("max",)},
        image(2, 3, 13, 11, (3, 2), stride=(2, 1), padding=(1, 1), indices="none", passes=("max",)),
        _EVEN_WINDOW | {"layout": "channels_last", "indices": "none", "passes": ("max",)},
    ),
    *pool2d_group("no image at all", image(0, 3, 8, 8, (2, 2))),
    *pool2d_group(
        "strides of other kinds: channels last, inside a larger tensor, repeated, dimensions in the opposite order",
        _CROOKED_WINDOW | {"layout": "channels_last"},
        image(2, 33, 8, 8, (2, 2), layout="channels_last"),
        image(1, 36, 8, 8, (2, 2), layout="channels_last"),
        _CROOKED_WINDOW | {"layout": "sliced"},
        _CROOKED_WINDOW | {"layout": "expanded"},
        _CROOKED_WINDOW | {"layout": "permuted"},
    ),
    *pool2d_group(
        "channels last but for an odd address, or an odd number of elements from pixel, row or image to the next",
        _EVEN_WINDOW | {"layout": "channels_last_sliced_start"},
        _EVEN_WINDOW | {"layout": "channels_last_sliced_pixels"},
        _EVEN_WINDOW | {"layout": "channels_last_sliced_rows"},
        _EVEN_WINDOW | {"layout": "channels_last_sliced_images"},
    ),
    *pool2d_group("unbatched", image(1, 3, 9, 10, (2, 2), batched=False)),
    *families.POOL2D_PROBLEMS,
)
