"""Pooling's passes, adaptive or not. Each is linear once max pooling has chosen its indices, and is its own forward derivative.

An index of max pooling has one of two forms, which the dtype tells: the tap r * S + s of the window, uint8, for windows of at
most 256 taps; or torch's h * W + w, int64, which adaptive pooling always has. The passes that read indices take both.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cnnkernels.autograd.passes import Pass, batched, fold, launch, observed, unfold
from cnnkernels.backends import ENTRY_POINTS
from cnnkernels.geometry import Pool2dGeometry

# A tap's number has one byte.
_MOST_WINDOW_TAPS = 256


def max_pool2d(input: Tensor, geometry: Pool2dGeometry, backend: Any) -> Tensor:
    """x[N, C, H, W] -> y[N, C, P, Q]. No index is computed where nothing differentiates the call."""
    if observed(input):
        output: Tensor = MaxPool2d.call(input, geometry, backend)[0]
    else:
        output = launch("max_pool2d", backend, geometry, _max_pool2d_arguments(input, geometry))
    return output


def max_pool2d_pyramid(input: Tensor, geometry: Pool2dGeometry, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    """max_pool2d of x, of that, and of that again, for a stride of 1 and an odd window: one launch where nothing differentiates."""
    if not observed(input):
        operator = ENTRY_POINTS[backend].max_pool2d_pyramid
        first, second, third = operator(input, geometry.window[0], geometry.channels_last)
        return first, second, third
    first = max_pool2d(input, geometry, backend)
    second = max_pool2d(first, geometry, backend)
    return first, second, max_pool2d(second, geometry, backend)


def _max_pool2d_arguments(input: Tensor, g: Pool2dGeometry, *flat_indices: bool) -> tuple[Any, ...]:
    return (input, g.output, g.window, g.stride, g.padding, g.dilation, *flat_indices, g.channels_last)


class MaxPool2d(Pass):
    """x[N, C, H, W] -> y[N, C, P, Q] and the index of each maximum in the form that is smaller."""

    @staticmethod
    def forward(input: Tensor, geometry: Pool2dGeometry, backend: str) -> tuple[Tensor, Tensor]:
        g = geometry
        if g.adaptive:
            output, indices = launch("adaptive_max_pool2d", backend, g, (input, g.output, g.channels_last))
        else:
            flat = g.window[0] * g.window[1] > _MOST_WINDOW_TAPS
            output, indices = launch("max_pool2d_with_indices", backend, g, _max_pool2d_arguments(input, g, flat))
        return output, indices

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _, ctx.geometry, ctx.backend = inputs
        _, indices = output
        ctx.mark_non_differentiable(indices)
        ctx.set_materialize_grads(False)  # no zeros for the indices
        ctx.save_for_backward(indices)
        ctx.save_for_forward(indices)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, _: None) -> Any:
        if grad_output is None:
            return None, None, None
        (indices,) = ctx.saved_tensors
        return MaxPool2dBackward.call(grad_output, indices, ctx.geometry, ctx.backend), None, None

    @staticmethod
    def jvp(ctx: Any, input: Tensor, *_: None) -> Any:
        (indices,) = ctx.saved_tensors
        return MaxPool2dGather.call(input, indices, ctx.geometry, ctx.backend), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, input: Tensor, geometry: Pool2dGeometry, backend: str) -> Any:
        output, indices = MaxPool2d.call(fold(input, in_dims[0], 0), geometry, backend)
        return (unfold(output, 0, info.batch_size), unfold(indices, 0, info.batch_size)), (0, 0)


class MaxPool2dFlatIndices(Pass):
    """x[N, C, H, W] -> y[N, C, P, Q] and the flat index h * W + w of each maximum, int64: what return_indices asks for."""

    setup_context = staticmethod(MaxPool2d.setup_context)
    backward = staticmethod(MaxPool2d.backward)
    jvp = staticmethod(MaxPool2d.jvp)

    @staticmethod
    def forward(input: Tensor, geometry: Pool2dGeometry, backend: str) -> tuple[Tensor, Tensor]:
        # Not by the tuning table, which is of the indices that training has.
        operator = ENTRY_POINTS[backend].max_pool2d_with_indices
        output, indices = operator(*_max_pool2d_arguments(input, geometry, True))
        return output, indices

    @staticmethod
    def vmap(info: Any, in_dims: Any, input: Tensor, geometry: Pool2dGeometry, backend: str) -> Any:
        output, indices = MaxPool2dFlatIndices.call(fold(input, in_dims[0], 0), geometry, backend)
        return (unfold(output, 0, info.batch_size), unfold(indices, 0, info.batch_size)), (0, 0)


class MaxPool2dBackward(Pass):
    """(gy[N, C, P, Q], indices) -> gx[N, C, H, W]: every gy added where its maximum was."""

    @staticmethod
    def forward(grad_output: Tensor, indices: Tensor, geometry: Pool2dGeometry, backend: str) -> Tensor:
        g = geometry
        windows = () if g.adaptive else (g.window, g.stride, g.padding, g.dilation)
        operator = "adaptive_max_pool2d_backward" if g.adaptive else "max_pool2d_backward"
        grad_input: Tensor = launch(operator, backend, g, (grad_output, indices, g.image, *windows, g.channels_last))
        return grad_input

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, indices, ctx.geometry, ctx.backend = inputs
        ctx.save_for_backward(indices)
        ctx.save_for_forward(indices)

    @staticmethod
    def backward(ctx: Any, grad_input: Tensor) -> Any:
        (indices,) = ctx.saved_tensors
        return MaxPool2dGather.call(grad_input, indices, ctx.geometry, ctx.backend), None, None, None

    @staticmethod
    def jvp(ctx: Any, grad_output: Tensor, *_: None) -> Any:
        (indices,) = ctx.saved_tensors
        return MaxPool2dBackward.call(grad_output, indices, ctx.geometry, ctx.backend)

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, grad_output: Tensor, indices: Tensor, geometry: Pool2dGeometry, backend: str
    ) -> Any:
        grad_output, indices = _fold_both(info.batch_size, in_dims, grad_output, indices)
        grad_input = MaxPool2dBackward.call(grad_output, indices, geometry, backend)
        return unfold(grad_input, 0, info.batch_size), 0


class MaxPool2dGather(Pass):
    """(x[N, C, H, W], indices) -> x at the indices, [N, C, P, Q]. Flat indices need no window, so adaptive pooling's is of one."""

    @staticmethod
    def forward(input: Tensor, indices: Tensor, geometry: Pool2dGeometry, backend: str) -> Tensor:
        g = geometry
        arguments = (input, indices, g.window, g.stride, g.padding, g.dilation, g.channels_last)
        output: Tensor = ENTRY_POINTS[backend].max_pool2d_gather(*arguments)
        return output

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        MaxPool2dBackward.setup_context(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (indices,) = ctx.saved_tensors
        return MaxPool2dBackward.call(grad_output, indices, ctx.geometry, ctx.backend), None, None, None

    @staticmethod
    def jvp(ctx: Any, input: Tensor, *_: None) -> Any:
        (indices,) = ctx.saved_tensors
        return MaxPool2dGather.call(input, indices, ctx.geometry, ctx.backend)

    @staticmethod
    def vmap(info: Any, in_dims: Any, input: Tensor, indices: Tensor, geometry: Pool2dGeometry, backend: str) -> Any:
        input, indices = _fold_both(info.batch_size, in_dims, input, indices)
        return unfold(MaxPool2dGather.call(input, indices, geometry, backend), 0, info.batch_size), 0


def _averaged(g: Pool2dGeometry) -> tuple[Any, ...]:
    return () if g.adaptive else (g.window, g.stride, g.padding, g.count_include_pad, g.divisor_override)


class AvgPool2d(Pass):
    """x[N, C, H, W] -> y[N, C, P, Q]."""

    @staticmethod
    def forward(input: Tensor, geometry: Pool2dGeometry, backend: str) -> Tensor:
        g = geometry
        operator = "adaptive_avg_pool2d" if g.adaptive else "avg_pool2d"
        output: Tensor = launch(operator, backend, g, (input, g.output, *_averaged(g), g.channels_last))
        return output

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.geometry, ctx.backend = inputs

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return AvgPool2dBackward.call(grad_output, ctx.geometry, ctx.backend), None, None

    @staticmethod
    def jvp(ctx: Any, input: Tensor, *_: None) -> Any:
        return AvgPool2d.call(input, ctx.geometry, ctx.backend)

    @staticmethod
    def vmap(info: Any, in_dims: Any, input: Tensor, geometry: Pool2dGeometry, backend: str) -> Any:
        return unfold(AvgPool2d.call(fold(input, in_dims[0], 0), geometry, backend), 0, info.batch_size), 0


class AvgPool2dBackward(Pass):
    """gy[N, C, P, Q] -> gx[N, C, H, W]."""

    @staticmethod
    def forward(grad_output: Tensor, geometry: Pool2dGeometry, backend: str) -> Tensor:
        g = geometry
        operator = "adaptive_avg_pool2d_backward" if g.adaptive else "avg_pool2d_backward"
        grad_input: Tensor = launch(operator, backend, g, (grad_output, g.image, *_averaged(g), g.channels_last))
        return grad_input

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.geometry, ctx.backend = inputs

    @staticmethod
    def backward(ctx: Any, grad_input: Tensor) -> Any:
        return AvgPool2d.call(grad_input, ctx.geometry, ctx.backend), None, None

    @staticmethod
    def jvp(ctx: Any, grad_output: Tensor, *_: None) -> Any:
        return AvgPool2dBackward.call(grad_output, ctx.geometry, ctx.backend)

    @staticmethod
    def vmap(info: Any, in_dims: Any, grad_output: Tensor, geometry: Pool2dGeometry, backend: str) -> Any:
        grad_input = AvgPool2dBackward.call(fold(grad_output, in_dims[0], 0), geometry, backend)
        return unfold(grad_input, 0, info.batch_size), 0


def _fold_both(batch: int, in_dims: Any, tensor: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    return fold(batched(tensor, in_dims[0], batch), 0, 0), fold(batched(indices, in_dims[1], batch), 0, 0)
