"""Blocks of the classic papers that show what kernels do with them: a filter taken apart into cheaper ones.

`layers` is where Conv2d comes from, as in the networks: None for cnnkernels.nn, or torch.nn for the plain twin.
:func:`cnnkernels.arithmetic.conv2d` counts what each saves.
"""

from __future__ import annotations

from types import ModuleType

import torch

from cnnkernels.models.layers import layer_namespace, set_backend

__all__ = ["DepthwiseSeparable", "SpatiallySeparable"]


class SpatiallySeparable(torch.nn.Sequential):
    """A k x k convolution as k x 1 and then 1 x k: [N, C, H, W] -> [N, K, P, Q], P and Q those of the k x k one.

    k C K + k K^2 products per pixel instead of k^2 C K: for C = K two thirds of a 3x3 filter's, two sevenths of a 7x7
    one's. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2015), section 3.2. Filters of
    rank one are exactly so; others are approximated by training this instead.

    Args:
        in_channels, out_channels: C and K. There are K channels in between.
        kernel_size: k, odd.
        stride: of the k x k convolution; its height in the first layer, its width in the second.
        bias: of the second layer; the first has none, since a linear layer follows.

    Raises:
        ValueError: `kernel_size` is even.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, *,
        bias: bool = True, backend: str | None = None, layers: ModuleType | None = None,
    ) -> None:  # fmt: skip
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, not {kernel_size}: an even filter has no middle")
        conv = layer_namespace(layers).Conv2d
        half = kernel_size // 2
        super().__init__(
            conv(in_channels, out_channels, (kernel_size, 1), (stride, 1), (half, 0), bias=False),
            conv(out_channels, out_channels, (1, kernel_size), (1, stride), (0, half), bias=bias),
        )
        set_backend(self, backend)


class DepthwiseSeparable(torch.nn.Sequential):
    """A k x k convolution of each channel, then a pointwise one: [N, C, H, W] -> [N, K, P, Q], each with BatchNorm and ReLU.

    MobileNet's block, Howard et al., "MobileNets" (2017), section 3.1: k^2 C + C K products per pixel instead of
    k^2 C K, about a ninth for a 3x3 filter. convert(fuse=True) makes two kernels of its six modules.

    Args:
        in_channels, out_channels: C and K.
        kernel_size: k, odd.
        stride: of the depthwise convolution.

    Raises:
        ValueError: `kernel_size` is even.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, *,
        backend: str | None = None, layers: ModuleType | None = None,
    ) -> None:  # fmt: skip
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, not {kernel_size}: an even filter has no middle")
        conv = layer_namespace(layers).Conv2d
        super().__init__(
            conv(in_channels, in_channels, kernel_size, stride, kernel_size // 2, groups=in_channels, bias=False),
            torch.nn.BatchNorm2d(in_channels),
            torch.nn.ReLU(inplace=True),
            conv(in_channels, out_channels, 1, bias=False),
            torch.nn.BatchNorm2d(out_channels),
            torch.nn.ReLU(inplace=True),
        )
        set_backend(self, backend)
