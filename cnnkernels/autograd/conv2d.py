"""Convolution's passes. Each is bilinear, and its derivatives are the other two (table in the package's docstring)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from cnnkernels.autograd.passes import Pass, batched, fold, launch, unfold
from cnnkernels.backends import ENTRY_POINTS
from cnnkernels.geometry import Conv2dGeometry


class Conv2dFprop(Pass):
    """(x[N, C, H, W], w[K, C/groups, R, S], bias[K] or None) -> y[N, K, P, Q]."""

    @staticmethod
    def forward(input: Tensor, weight: Tensor, bias: Tensor | None, geometry: Conv2dGeometry, backend: str) -> Tensor:
        g = geometry
        arguments = (input, weight, bias, g.output, g.stride, g.padding, g.dilation, g.groups, g.channels_last)
        output: Tensor = launch("conv2d_fprop", backend, g, arguments)
        return output

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        input, weight, _, ctx.geometry, ctx.backend = inputs
        _save_operands(ctx, input, weight, output)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        input, weight = ctx.saved_tensors
        geometry, backend = ctx.geometry, ctx.backend
        need_input, need_weight, need_bias = ctx.needs_input_grad[:3]
        return (
            Conv2dDgrad.call(grad_output, weight, None, geometry, backend) if need_input else None,
            Conv2dWgrad.call(grad_output, input, geometry, backend) if need_weight else None,
            Conv2dBiasGrad.call(grad_output, geometry, backend) if need_bias else None,
            None,
            None,
        )

    @staticmethod
    def jvp(ctx: Any, input: Tensor | None, weight: Tensor | None, bias: Tensor | None, *_: None) -> Any:
        return _jvp(Conv2dFprop, ctx, input, weight, bias)

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, input: Tensor, weight: Tensor, bias: Tensor | None, geometry: Any, backend: str
    ) -> Any:
        input_dim, weight_dim, bias_dim = in_dims[:3]
        batch, groups = info.batch_size, geometry.groups
        if weight_dim is None and bias_dim is None:
            output = Conv2dFprop.call(fold(input, input_dim, 0), weight, bias, geometry, backend)
            return unfold(output, 0, batch), 0
        weight, bias = batched(weight, weight_dim, batch), batched(bias, bias_dim, batch)
        if input_dim is None:
            weight, bias = fold(weight, 0, 0, groups), fold(bias, 0, 0, groups)
            output = Conv2dFprop.call(input, weight, bias, geometry, backend)
            return unfold(output, 1, batch, groups), 0
        input, weight, bias = fold(input, input_dim, 1), fold(weight, 0, 0), fold(bias, 0, 0)
        output = Conv2dFprop.call(input, weight, bias, geometry._replace(groups=batch * groups), backend)
        return unfold(output, 1, batch), 0


class Activated(NamedTuple):
    """A convolution whose activation runs in its kernel, and can be differentiated by what it gave."""

    geometry: Conv2dGeometry
    activation: str | None  # None: there is only a residual
    negative_slope: float


class Conv2dActivated(Pass):
    """(x[N, C, H, W], w[K, C/groups, R, S], bias[K] or None, residual[N, K, P, Q] or None) -> y = activation(conv + residual)."""

    @staticmethod
    def forward(
        input: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, what: Activated, backend: str
    ) -> Tensor:
        g = what.geometry
        arguments = (
            input, weight, bias, None, None, None, None, 0.0, residual, what.activation or "none", what.negative_slope,
            g.output, g.stride, g.padding, g.dilation, g.groups, g.channels_last,
        )  # fmt: skip
        output: Tensor = launch("conv2d_fused", backend, g, arguments)
        return output

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        input, weight, _, _, ctx.what, ctx.backend = inputs
        need_input, need_weight = ctx.needs_input_grad[:2]
        kept = None if ctx.what.activation is None else output
        ctx.save_for_backward(input if need_weight else None, weight if need_input else None, kept)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        input, weight, output = ctx.saved_tensors
        geometry, backend = ctx.what.geometry, ctx.backend
        need_input, need_weight, need_bias, need_residual = ctx.needs_input_grad[:4]
        grad = grad_output if output is None else Conv2dActivationGrad.call(grad_output, output, ctx.what, backend)
        return (
            Conv2dDgrad.call(grad, weight, None, geometry, backend) if need_input else None,
            Conv2dWgrad.call(grad, input, geometry, backend) if need_weight else None,
            Conv2dBiasGrad.call(grad, geometry, backend) if need_bias else None,
            grad if need_residual else None,
            None,
            None,
        )


class Conv2dActivationGrad(Pass):
    """(gy, y, both [N, K, P, Q]) -> the gradient before the activation that gave y. Linear in gy; of y it sees the line alone."""

    @staticmethod
    def forward(grad_output: Tensor, output: Tensor, what: Activated, backend: str) -> Tensor:
        arguments = (grad_output, output, what.activation, what.negative_slope, what.geometry.channels_last)
        grad: Tensor = ENTRY_POINTS[backend].conv2d_activation_grad(*arguments)
        return grad

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, y, ctx.what, ctx.backend = inputs
        ctx.save_for_backward(y)
        ctx.save_for_forward(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return Conv2dActivationGrad.call(grad, y, ctx.what, ctx.backend), None, None, None

    @staticmethod
    def jvp(ctx: Any, grad_output: Tensor | None, output: Tensor | None, *_: None) -> Any:
        (y,) = ctx.saved_tensors
        if grad_output is None:
            return torch.zeros_like(y)
        return Conv2dActivationGrad.call(grad_output, y, ctx.what, ctx.backend)

    @staticmethod
    def vmap(info: Any, in_dims: Any, grad_output: Tensor, output: Tensor, what: Activated, backend: str) -> Any:
        batch = info.batch_size
        folded = (
            fold(batched(tensor, dim, batch), 0, 0) for tensor, dim in zip((grad_output, output), in_dims, strict=False)
        )
        return unfold(Conv2dActivationGrad.call(*folded, what, backend), 0, batch), 0


class Conv2dDgrad(Pass):
    """(gy[N, K, P, Q], w[K, C/groups, R, S], bias[C] or None) -> gx[N, C, H, W]; conv_transpose2d's forward."""

    @staticmethod
    def forward(
        grad_output: Tensor, weight: Tensor, bias: Tensor | None, geometry: Conv2dGeometry, backend: str
    ) -> Tensor:
        g = geometry
        arguments = (grad_output, weight, bias, g.image, g.stride, g.padding, g.dilation, g.groups, g.channels_last)
        grad_input: Tensor = launch("conv2d_dgrad", backend, g, arguments)
        return grad_input

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        grad_output, weight, _, ctx.geometry, ctx.backend = inputs
        _save_operands(ctx, grad_output, weight, output)

    @staticmethod
    def backward(ctx: Any, grad_input: Tensor) -> Any:
        grad_output, weight = ctx.saved_tensors
        geometry, backend = ctx.geometry, ctx.backend
        need_output, need_weight, need_bias = ctx.needs_input_grad[:3]
        return (
            Conv2dFprop.call(grad_input, weight, None, geometry, backend) if need_output else None,
            Conv2dWgrad.call(grad_output, grad_input, geometry, backend) if need_weight else None,
            Conv2dBiasGrad.call(grad_input, geometry, backend) if need_bias else None,
            None,
            None,
        )

    @staticmethod
    def jvp(ctx: Any, grad_output: Tensor | None, weight: Tensor | None, bias: Tensor | None, *_: None) -> Any:
        return _jvp(Conv2dDgrad, ctx, grad_output, weight, bias)

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, grad_output: Tensor, weight: Tensor, bias: Tensor | None, geometry: Any, backend: str
    ) -> Any:
        output_dim, weight_dim, bias_dim = in_dims[:3]
        batch, groups = info.batch_size, geometry.groups
        if weight_dim is None and bias_dim is None:
            grad_input = Conv2dDgrad.call(fold(grad_output, output_dim, 0), weight, bias, geometry, backend)
            return unfold(grad_input, 0, batch), 0
        weight, bias = batched(weight, weight_dim, batch), batched(bias, bias_dim, batch)
        if output_dim is None:
            weight, bias = fold(weight, 0, 1), fold(bias, 0, 0, groups)
            grad_input = Conv2dDgrad.call(grad_output, weight, bias, geometry, backend)
            return unfold(grad_input, 1, batch, groups), 0
        grad_output, weight, bias = fold(grad_output, output_dim, 1), fold(weight, 0, 0), fold(bias, 0, 0)
        grad_input = Conv2dDgrad.call(grad_output, weight, bias, geometry._replace(groups=batch * groups), backend)
        return unfold(grad_input, 1, batch), 0


class Conv2dWgrad(Pass):
    """(gy[N, K, P, Q], x[N, C, H, W]) -> gw[K, C/groups, R, S]."""

    @staticmethod
    def forward(grad_output: Tensor, input: Tensor, geometry: Conv2dGeometry, backend: str) -> Tensor:
        g = geometry
        arguments = (grad_output, input, g.filter, g.stride, g.padding, g.dilation, g.groups, g.channels_last)
        grad_weight: Tensor = launch("conv2d_wgrad", backend, g, arguments)
        return grad_weight

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        grad_output, input, ctx.geometry, ctx.backend = inputs
        _save_operands(ctx, grad_output, input, output)

    @staticmethod
    def backward(ctx: Any, grad_weight: Tensor) -> Any:
        grad_output, input = ctx.saved_tensors
        need_output, need_input = ctx.needs_input_grad[:2]
        return (
            Conv2dFprop.call(input, grad_weight, None, ctx.geometry, ctx.backend) if need_output else None,
            Conv2dDgrad.call(grad_output, grad_weight, None, ctx.geometry, ctx.backend) if need_input else None,
            None,
            None,
        )

    @staticmethod
    def jvp(ctx: Any, grad_output: Tensor | None, input: Tensor | None, *_: None) -> Any:
        saved_output, saved_input = ctx.saved_tensors
        tangent = None
        if grad_output is not None:
            tangent = Conv2dWgrad.call(grad_output, saved_input, ctx.geometry, ctx.backend)
        if input is not None:
            term = Conv2dWgrad.call(saved_output, input, ctx.geometry, ctx.backend)
            tangent = term if tangent is None else tangent + term
        return tangent

    @staticmethod
    def vmap(info: Any, in_dims: Any, grad_output: Tensor, input: Tensor, geometry: Any, backend: str) -> Any:
        output_dim, input_dim = in_dims[:2]
        batch, groups = info.batch_size, geometry.groups
        if input_dim is None:
            grad_output = fold(grad_output, output_dim, 1, groups)
            return unfold(Conv2dWgrad.call(grad_output, input, geometry, backend), 0, batch, groups), 0
        if output_dim is None:
            input = fold(input, input_dim, 1, groups)
            return unfold(Conv2dWgrad.call(grad_output, input, geometry, backend), 1, batch), 0
        grad_output, input = fold(grad_output, output_dim, 1), fold(input, input_dim, 1)
        grad_weight = Conv2dWgrad.call(grad_output, input, geometry._replace(groups=batch * groups), backend)
        return unfold(grad_weight, 0, batch), 0


class Conv2dBiasGrad(Pass):
    """gy[N, K, P, Q] -> gbias[K], the sum over N, P and Q."""

    @staticmethod
    def forward(grad_output: Tensor, geometry: Conv2dGeometry, backend: str) -> Tensor:
        grad_bias: Tensor = ENTRY_POINTS[backend].conv2d_bias_grad(grad_output)
        return grad_bias

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        grad_output, ctx.geometry, ctx.backend = inputs
        ctx.size = grad_output.shape

    @staticmethod
    def backward(ctx: Any, grad_bias: Tensor) -> Any:
        return grad_bias.view(-1, 1, 1).expand(ctx.size), None, None

    @staticmethod
    def jvp(ctx: Any, grad_output: Tensor, *_: None) -> Any:
        return Conv2dBiasGrad.call(grad_output, ctx.geometry, ctx.backend)

    @staticmethod
    def vmap(info: Any, in_dims: Any, grad_output: Tensor, geometry: Any, backend: str) -> Any:
        grad_bias = Conv2dBiasGrad.call(fold(grad_output, in_dims[0], 1), geometry, backend)
        return unfold(grad_bias, 0, info.batch_size), 0


def _save_operands(ctx: Any, first: Tensor, second: Tensor, output: Tensor) -> None:
    """Keep for backward only the operands it will read: each one's gradient needs the other."""
    need_first, need_second = ctx.needs_input_grad[:2]
    ctx.save_for_backward(first if need_second else None, second if need_first else None)
    ctx.save_for_forward(first, second)
    ctx.output_size = output.shape


def _jvp(function: type[Pass], ctx: Any, first: Any, second: Any, bias: Any) -> Any:
    """The derivative of function(first, second) + bias along tangents, of which None stands for zero."""
    saved_first, saved_second = ctx.saved_tensors
    tangent = None
    if first is not None:
        tangent = function.call(first, saved_second, bias, ctx.geometry, ctx.backend)
        bias = None  # added by this term
    if second is not None:
        term = function.call(saved_first, second, bias, ctx.geometry, ctx.backend)
        tangent, bias = term if tangent is None else tangent + term, None
    return bias.view(-1, 1, 1).expand(ctx.output_size) if tangent is None else tangent
