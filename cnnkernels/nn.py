"""torch.nn's convolution and pooling modules on our kernels: subclasses with another forward, as other tools expect it.

Constructor, parameters, state_dict, repr, hooks, copying and pickling are torch's. `module.backend` names the
backend of one module ("cuda", "emulator", ...; see cnnkernels.functional); None, the default, means the ambient one.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.fx import Proxy

from cnnkernels import functional

__all__ = [
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool2d",
    "AvgPool2d",
    "Conv2d",
    "ConvTranspose2d",
    "LazyConv2d",
    "LazyConvTranspose2d",
    "MaxPool2d",
]


class _OnOurKernels(torch.nn.Module):
    """What our modules share."""

    backend: str | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # torch.fx makes one node of a module only where its class is defined in torch.nn. Those defined here
        # are one node, too, so that tracing a model gives the graph that it gave before it was converted;
        # subclasses elsewhere are traced, as torch's are.
        input = args[0] if args else kwargs.get("input")
        if isinstance(input, Proxy) and type(self).__module__ == __name__:
            tracer: Any = input.tracer

            def one_node(*args: Any, **kwargs: Any) -> Any:
                return tracer.create_proxy("call_module", tracer.path_of_module(self), args, kwargs)

            return tracer.call_module(self, one_node, args, kwargs)
        return super().__call__(*args, **kwargs)

    def __prepare_scriptable__(self) -> NoReturn:
        raise RuntimeError(
            f"torch.jit.script cannot compile cnnkernels.nn.{type(self).__name__}, which chooses its kernels in "
            "Python; call cnnkernels.restore(model) before scripting, or keep our kernels with torch.export"
        )


class Conv2d(_OnOurKernels, torch.nn.Conv2d):
    """torch.nn.Conv2d on our kernels: [N, C, H, W] or [C, H, W] -> [N, K, P, Q] or [K, P, Q].

    A padding_mode other than "zeros" is done inside the kernels, without torch.nn.Conv2d's padded copy of the input.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.padding_mode == "zeros":
            return functional.conv2d(
                input, weight, bias, self.stride, self.padding, self.dilation, self.groups, backend=self.backend
            )
        return functional.conv2d(
            input, weight, bias, self.stride, self.padding, self.dilation, self.groups,
            padding_mode=self.padding_mode, backend=self.backend,
        )  # fmt: skip


class ConvTranspose2d(_OnOurKernels, torch.nn.ConvTranspose2d):
    """torch.nn.ConvTranspose2d on our kernels: [N, C, H, W] or [C, H, W] -> [N, K, P, Q] or [K, P, Q]."""

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


class LazyConv2d(torch.nn.LazyConv2d, Conv2d):  # type: ignore[misc]
    """torch.nn.LazyConv2d that becomes our Conv2d at its first forward, which is on our kernels."""

    cls_to_become = Conv2d


class LazyConvTranspose2d(torch.nn.LazyConvTranspose2d, ConvTranspose2d):  # type: ignore[misc]
    """torch.nn.LazyConvTranspose2d that becomes our ConvTranspose2d at its first forward, which is on our kernels."""

    cls_to_become = ConvTranspose2d


class MaxPool2d(_OnOurKernels, torch.nn.MaxPool2d):
    """torch.nn.MaxPool2d on our kernels: [N, C, H, W] or [C, H, W] -> [N, C, P, Q] or [C, P, Q]."""

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return functional.max_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.dilation,
            ceil_mode=self.ceil_mode, return_indices=self.return_indices, backend=self.backend,
        )  # fmt: skip


class AvgPool2d(_OnOurKernels, torch.nn.AvgPool2d):
    """torch.nn.AvgPool2d on our kernels: [N, C, H, W] or [C, H, W] -> [N, C, P, Q] or [C, P, Q]."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.avg_pool2d(
            input, self.kernel_size, self.stride, self.padding,
            self.ceil_mode, self.count_include_pad, self.divisor_override, backend=self.backend,
        )  # fmt: skip


class AdaptiveMaxPool2d(_OnOurKernels, torch.nn.AdaptiveMaxPool2d):
    """torch.nn.AdaptiveMaxPool2d on our kernels: [N, C, H, W] or [C, H, W] -> [N, C, P, Q] or [C, P, Q]."""

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        size: Any = self.output_size
        return functional.adaptive_max_pool2d(input, size, self.return_indices, backend=self.backend)


class AdaptiveAvgPool2d(_OnOurKernels, torch.nn.AdaptiveAvgPool2d):
    """torch.nn.AdaptiveAvgPool2d on our kernels: [N, C, H, W] or [C, H, W] -> [N, C, P, Q] or [C, P, Q]."""

    def forward(self, input: Tensor) -> Tensor:
        size: Any = self.output_size
        return functional.adaptive_avg_pool2d(input, size, backend=self.backend)
