"""Problems for the dense kernels: their tile edges, strides, and cuts of the reduction.

PROBLEMS are tried by `cnnkernels verify`, CHECK_PROBLEMS under every check of the checked emulator by `cnnkernels check`.
"""

from __future__ import annotations

from typing import Any

from cnnkernels.testing.problem import Conv2dProblem, conv2d_group, sizes

_ALL = ("fprop", "dgrad", "wgrad")


def _fprop(N: int, C: int, H: int, W: int, K: int, R: int, S: int, **rest: Any) -> dict[str, Any]:
    return sizes(N, C, H, W, K, R, S, **{"passes": ("fprop",), **rest})


def _all(N: int, C: int, H: int, W: int, K: int, R: int, S: int, **rest: Any) -> dict[str, Any]:
    return sizes(N, C, H, W, K, R, S, **{"passes": _ALL, **rest})


PROBLEMS: tuple[Conv2dProblem, ...] = (
    *conv2d_group(
        "dense: full tiles and their tails, in pixels, filters and channels",
        _all(2, 32, 16, 16, 64, 3, 3, padding=(1, 1), layout="channels_last"),
        _all(2, 32, 16, 16, 64, 3, 3, padding=(1, 1)),
        _all(1, 33, 17, 15, 65, 3, 3, padding=(1, 1), layout="channels_last"),
        _all(1, 33, 17, 15, 65, 3, 3, padding=(1, 1)),
        _all(3, 9, 11, 13, 17, 2, 3, padding=(0, 1), layout="channels_last"),
        _all(3, 9, 11, 13, 17, 3, 2, padding=(1, 0)),
        _all(1, 5, 2, 530, 6, 3, 3, padding=(1, 1), layout="channels_last"),
        _all(1, 5, 530, 2, 6, 3, 3, padding=(1, 1)),
    ),
    *conv2d_group(
        "dense: strides, and dilation under a stride",
        _fprop(2, 40, 16, 16, 24, 3, 3, stride=(2, 2), padding=(1, 1), layout="channels_last"),
        _fprop(2, 40, 16, 16, 24, 3, 3, stride=(2, 2), padding=(1, 1)),
        _fprop(1, 24, 15, 18, 40, 4, 4, stride=(2, 2), padding=(1, 1), layout="channels_last"),
        _fprop(1, 24, 15, 18, 40, 4, 4, stride=(2, 2), padding=(1, 1)),
        _fprop(1, 12, 19, 23, 9, 2, 3, stride=(4, 5), padding=(1, 2)),
        _fprop(1, 12, 19, 23, 9, 2, 3, stride=(4, 5), padding=(1, 2), layout="channels_last"),
        _fprop(1, 12, 19, 23, 9, 3, 3, stride=(2, 1), padding=(2, 3), dilation=(2, 3), layout="channels_last"),
    ),
    *conv2d_group(
        "dense: few pixels and many channels, whose sum is cut",
        _all(1, 300, 4, 5, 40, 3, 3, padding=(1, 1), layout="channels_last"),
        _all(1, 300, 4, 5, 40, 3, 3, padding=(1, 1)),
        _fprop(1, 300, 4, 4, 20, 4, 4, layout="channels_last"),
        _fprop(1, 300, 4, 4, 20, 4, 4),
    ),
    *conv2d_group(
        "dense: much padding, which rectangles of pixels leave out",
        _all(1, 16, 9, 40, 24, 7, 7, padding=(3, 3), layout="channels_last"),
        _all(1, 16, 9, 40, 24, 7, 7, padding=(3, 3)),
        _fprop(1, 16, 9, 40, 24, 9, 9, stride=(2, 2), padding=(4, 4)),
    ),
    *conv2d_group(
        "dense: groups, and inside larger tensors",
        _all(2, 32, 9, 10, 48, 3, 3, padding=(1, 1), groups=2, layout="channels_last"),
        _all(2, 32, 9, 10, 48, 3, 3, padding=(1, 1), groups=2),
        _all(2, 20, 9, 8, 22, 3, 3, padding=(1, 1), dilation=(2, 1), groups=2, layout="channels_last"),
        _all(2, 24, 9, 8, 40, 3, 3, padding=(1, 1), layout="sliced"),
        _all(2, 24, 9, 8, 40, 3, 3, padding=(1, 1), layout="permuted"),
        _all(1, 16, 9, 8, 24, 3, 3, padding=(1, 1), layout="channels_last_sliced_start"),
        _all(2, 16, 9, 8, 24, 3, 3, padding=(1, 1), layout="channels_last_sliced_rows"),
        _all(2, 16, 9, 8, 24, 3, 3, padding=(1, 1), layout="channels_last_sliced_pixels"),
    ),
    *conv2d_group(
        "tensor cores: exactly a tile of pixels and filters, one less, one more; channels in whole steps, chunks, and units of 8 and 4 bytes",
        _all(1, 32, 8, 16, 128, 3, 3, padding=(1, 1), layout="channels_last"),
        _all(1, 40, 3, 43, 129, 3, 2, padding=(1, 0), layout="channels_last"),
        _all(1, 24, 1, 127, 63, 1, 3, padding=(0, 1), layout="channels_last"),
        _all(2, 36, 8, 8, 256, 1, 1, layout="channels_last"),
        _all(1, 34, 5, 13, 65, 2, 2, layout="channels_last"),
        _all(2, 64, 16, 16, 136, 3, 3, padding=(1, 1), groups=2, layout="channels_last"),
        _all(1, 128, 9, 8, 64, 3, 3, stride=(2, 2), padding=(1, 1), layout="channels_last"),
        _all(
            1, 16, 18, 3, 24, 16, 1, padding=(8, 0), layout="channels_last"
        ),  # as many taps as a mask has bits for, and one more
        _all(1, 16, 3, 18, 24, 1, 17, padding=(0, 8), layout="channels_last"),
    ),
    *conv2d_group(
        "dense: up to 64 channels resident: tiles of 8 to 128 columns, one less, one more, strides, long halos",
        _all(1, 64, 16, 8, 64, 3, 3, padding=(1, 1), layout="channels_last"),
        _all(2, 40, 9, 17, 24, 3, 3, padding=(1, 1), layout="channels_last"),
        _all(1, 16, 2, 129, 16, 3, 3, padding=(1, 1), layout="channels_last"),
        _all(1, 18, 17, 7, 33, 3, 2, padding=(2, 1), layout="channels_last"),
        _all(1, 12, 4, 31, 1, 2, 5, padding=(1, 2), layout="channels_last"),
        _fprop(2, 32, 19, 18, 64, 3, 3, stride=(2, 3), padding=(1, 1), layout="channels_last"),
        _fprop(1, 64, 17, 20, 40, 5, 5, stride=(2, 2), dilation=(2, 3), padding=(4, 6), layout="channels_last"),
        _fprop(2, 24, 15, 33, 16, 3, 3, stride=(1, 4), padding=(1, 1)),
    ),
    *conv2d_group(
        "dense: images or weights alone channels_last",
        _all(2, 24, 9, 8, 40, 3, 3, padding=(1, 1), layout="channels_last_images"),
        _all(2, 24, 9, 8, 40, 3, 3, padding=(1, 1), layout="channels_last_weights"),
        _all(1, 300, 4, 5, 40, 3, 3, padding=(1, 1), layout="channels_last_images"),
        _all(1, 300, 4, 5, 40, 3, 3, padding=(1, 1), layout="channels_last_weights"),
        _all(1, 40, 15, 13, 33, 3, 3, padding=(1, 1), layout="channels_last_images"),
    ),
)

CHECK_PROBLEMS: tuple[Conv2dProblem, ...] = (
    *conv2d_group(
        "dense: tails of tiles, a stride, a cut sum",
        _all(1, 20, 9, 18, 20, 3, 3, padding=(1, 1), layout="channels_last"),
        _all(1, 20, 9, 18, 12, 3, 3, padding=(1, 1)),
        _all(1, 16, 9, 18, 24, 3, 3, padding=(1, 1), layout="channels_last"),
        _fprop(1, 20, 13, 18, 12, 3, 3, stride=(2, 2), padding=(1, 1), layout="channels_last"),
        _fprop(1, 12, 9, 7, 20, 3, 3, stride=(2, 2), padding=(1, 1)),
        _fprop(1, 70, 3, 3, 5, 3, 3, padding=(1, 1), layout="channels_last"),
    ),
)
