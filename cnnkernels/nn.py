"""torch.nn's convolution and pooling modules on our kernels: subclasses that change what forward calls, only that.

Constructor, parameters, state_dict, repr, hooks, copying and pickling are torch's. `module.backend` names the
backend of one module ("cuda", "emulator", ...; see cnnkernels.functional); None, the default, means the ambient one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cnnkernels import functional

__all__ = ["AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "AvgPool2d", "Conv2d", "ConvTranspose2d", "MaxPool2d"]


class Conv2d(torch.nn.Conv2d):
    """torch.nn.Conv2d on our kernels: [N, C, H, W] or [C, H, W] -> [N, K, P, Q] or [K, P, Q].

    A padding_mode other than "zeros" is done inside the kernels, without torch.nn.Conv2d's padded copy of the input.
    """

    backend: str | None = None

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.padding_mode == "zeros":
            return functional.conv2d(
                input, weight, bias, self.stride, self.padding, self.dilation, self.groups, backend=self.backend
            )
        return functional.conv2d(
            input, weight, bias, self.stride, self.padding, self.dilation, self.groups,
            padding_mode=self.padding_mode, backend=self.backend,
        )  # fmt: skip


class ConvTranspose2d(torch.nn.ConvTranspose2d):
    """torch.nn.ConvTranspose2d on our kernels: [N, C, H, W] or [C, H, W] -> [N, K, P, Q] or [K, P, Q]."""

    backend: str | None = None

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if self.padding_mode != "zeros":
            return super().forward(input, output_size)  # torch raises
        output_padding = self._output_padding(
            input, output_size, self.stride, self.padding, self.kernel_size, 2, self.dilation,  # type: ignore[arg-type]
        )  # fmt: skip
        return functional.conv_transpose2d(
            input, self.weight, self.bias, self.stride, self.padding,  # type: ignore[arg-type]
            output_padding, self.groups, self.dilation, backend=self.backend,
        )  # fmt: skip


class MaxPool2d(torch.nn.MaxPool2d):
    """torch.nn.MaxPool2d on our kernels: [N, C, H, W] or [C, H, W] -> [N, C, P, Q] or [C, P, Q]."""

    backend: str | None = None

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return functional.max_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.dilation,
            ceil_mode=self.ceil_mode, return_indices=self.return_indices, backend=self.backend,
        )  # fmt: skip


class AvgPool2d(torch.nn.AvgPool2d):
    """torch.nn.AvgPool2d on our kernels: [N, C, H, W] or [C, H, W] -> [N, C, P, Q] or [C, P, Q]."""

    backend: str | None = None

    def forward(self, input: Tensor) -> Tensor:
        return functional.avg_pool2d(
            input, self.kernel_size, self.stride, self.padding,
            self.ceil_mode, self.count_include_pad, self.divisor_override, backend=self.backend,
        )  # fmt: skip


class AdaptiveMaxPool2d(torch.nn.AdaptiveMaxPool2d):
    """torch.nn.AdaptiveMaxPool2d on our kernels: [N, C, H, W] or [C, H, W] -> [N, C, P, Q] or [C, P, Q]."""

    backend: str | None = None

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        size: Any = self.output_size
        return functional.adaptive_max_pool2d(input, size, self.return_indices, backend=self.backend)


class AdaptiveAvgPool2d(torch.nn.AdaptiveAvgPool2d):
    """torch.nn.AdaptiveAvgPool2d on our kernels: [N, C, H, W] or [C, H, W] -> [N, C, P, Q] or [C, P, Q]."""

    backend: str | None = None

    def forward(self, input: Tensor) -> Tensor:
        size: Any = self.output_size
        return functional.adaptive_avg_pool2d(input, size, backend=self.backend)
