"""What may follow a convolution's sums in the kernel that computes them: BatchNorm, a residual, an activation.

    y = activation(norm(conv(x, w) + bias) + residual)

each part of which may be missing. Half types are computed in float32 and rounded twice, before the residual is added and
at the end (csrc/conv2d/epilogue.cuh); separate operators round after each step. In float32 and float64 the two differ by
no more than two ways of computing BatchNorm and an exponential do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels.autograd.conv2d import Activated, Conv2dActivated
from cnnkernels.autograd.passes import differentiated, launch, transformed
from cnnkernels.geometry import Conv2dGeometry

__all__ = ["ACTIVATIONS", "Epilogue", "Norm"]


class Norm(NamedTuple):
    """BatchNorm with running statistics, as torch.nn.BatchNorm2d has it in eval mode; all tensors are [K].

    (z - running_mean) / sqrt(running_var + eps) * weight + bias. float32 or the convolution's dtype.
    """

    running_mean: Tensor
    running_var: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None
    eps: float = 1e-5


#: By name, torch's function of (values, negative_slope).
ACTIVATIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "relu": lambda z, slope: F.relu(z),
    "relu6": lambda z, slope: F.relu6(z),
    "leaky_relu": lambda z, slope: F.leaky_relu(z, slope),
    "silu": lambda z, slope: F.silu(z),
    "gelu": lambda z, slope: F.gelu(z),
    "gelu_tanh": lambda z, slope: F.gelu(z, approximate="tanh"),
    "hardswish": lambda z, slope: F.hardswish(z),
}


class Epilogue(NamedTuple):
    """What follows one call's convolution."""

    activation: str | None = None
    negative_slope: float = 0.01
    residual: Tensor | None = None
    norm: Norm | None = None

    def check(self) -> None:
        """Raises ValueError unless the activation is one of :data:`ACTIVATIONS`."""
        if self.activation is not None and self.activation not in ACTIVATIONS:
            names = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation must be None or one of {names}, not {self.activation!r}")

    def apart(self, z: Tensor) -> Tensor:
        """The epilogue of a convolution's result [N, K, P, Q] or [K, P, Q], by torch's operators."""
        if self.norm is not None:
            n = self.norm
            batched = z if z.dim() == 4 else z.unsqueeze(0)
            z = F.batch_norm(batched, n.running_mean, n.running_var, n.weight, n.bias, False, 0.0, n.eps).view(z.shape)
        if self.residual is not None:
            z = z + self.residual
        return z if self.activation is None else ACTIVATIONS[self.activation](z, self.negative_slope)

    def why_apart(self, image: Tensor, weight: Tensor, bias: Tensor | None, geometry: Conv2dGeometry) -> str:
        """Why a call's epilogue cannot run in the convolution's kernel; empty where it can.

        Raises:
            RuntimeError: torch's, where tensors do not fit each other.
        """
        norm = () if self.norm is None else tuple(tensor for tensor in self.norm[:4] if tensor is not None)
        tensors = [t for t in (image, weight, bias, self.residual, *norm) if t is not None]
        if transformed():
            return "a transform needs the values in between"
        if differentiated(*tensors) and not self.is_told_by_its_result:
            return "a gradient needs the values in between"
        size = torch.Size((image.shape[0], weight.shape[0], *geometry.output))
        residual = self.residual
        if residual is not None and residual.dim() == 3:
            residual = residual.unsqueeze(0)
        misfit = residual is not None and residual.shape != size
        if misfit or any(tensor.shape != size[1:2] for tensor in norm):
            self._raise_as_torch(size, image)
            return "the residual's shape is not the result's"
        for tensor in tensors:
            if tensor.device != image.device:
                return "the tensors are on different devices"
        if residual is not None:
            if residual.dtype != image.dtype:
                return f"the residual is {residual.dtype}, the result {image.dtype}"
            form = torch.channels_last if geometry.channels_last else torch.contiguous_format
            if not residual.is_contiguous(memory_format=form):
                return "the residual does not lie in memory as the result does"
        if norm:
            dtypes = {tensor.dtype for tensor in norm}
            if len(dtypes) > 1 or not dtypes <= {
                image.dtype,
                torch.float32 if image.dtype.itemsize == 2 else image.dtype,
            }:
                return "BatchNorm's tensors are of another dtype"
            if any(tensor.stride(0) != 1 and tensor.numel() > 1 for tensor in norm):
                return "BatchNorm's tensors are not dense"
        return ""

    @property
    def is_told_by_its_result(self) -> bool:
        """Whether a gradient needs nothing but the result: of straight lines, none of which falls."""
        by_result = self.activation in (None, "relu", "relu6") or (
            self.activation == "leaky_relu" and self.negative_slope >= 0
        )
        return by_result and self.norm is None

    def fused(
        self, image: Tensor, weight: Tensor, bias: Tensor | None, geometry: Conv2dGeometry, backend: str
    ) -> Tensor:
        """The convolution with this epilogue in its kernel: [N, K, P, Q]. :meth:`why_apart` has found nothing against it."""
        g, residual = geometry, self.residual
        if residual is not None and residual.dim() == 3:
            residual = residual.unsqueeze(0)
        if self.is_told_by_its_result:
            what = Activated(g, self.activation, self.negative_slope)
            activated: Tensor = Conv2dActivated.call(image, weight, bias, residual, what, backend)
            return activated
        *norm, eps = (None, None, None, None, 0.0) if self.norm is None else self.norm
        arguments = (
            image, weight, bias, *norm, eps, residual, self.activation or "none", self.negative_slope,
            g.output, g.stride, g.padding, g.dilation, g.groups, g.channels_last,
        )  # fmt: skip
        output: Tensor = launch("conv2d_fused", backend, g, arguments)
        return output

    def _raise_as_torch(self, size: torch.Size, image: Tensor) -> None:
        """Raises what torch's operators raise where these shapes do not fit a result of `size`; launches and allocates nothing."""

        def on(device: str, tensor: Any) -> Any:
            if not isinstance(tensor, Tensor):
                return tensor
            return torch.zeros((), dtype=tensor.dtype, device=device).expand(tensor.shape)

        def run(device: str) -> None:
            norm = None if self.norm is None else Norm(*(on(device, value) for value in self.norm))
            z = torch.zeros((), dtype=image.dtype, device=device).expand(size)
            self._replace(residual=on(device, self.residual), norm=norm).apart(z)

        try:
            run("meta")
        except RuntimeError:
            run("cpu")  # which fails, too, and in the words that a user knows
            raise
