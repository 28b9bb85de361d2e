"""Adaptive pooling's passes: as pooling's (pool2d.py), with windows that the two sizes say."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cnnkernels.autograd.passes import Pass, batched, fold, launch, unfold
from cnnkernels.backends import ENTRY_POINTS
from cnnkernels.geometry import Pool2dGeometry


class AdaptiveMaxPool2d(Pass):
    """x[N, C, H, W] -> y[N, C, P, Q] and the flat index h * W + w of each maximum, int64."""

    @staticmethod
    def forward(input: Tensor, geometry: Pool2dGeometry, backend: str) -> tuple[Tensor, Tensor]:
        g = geometry
        output, indices = launch("adaptive_max_pool2d", backend, g, (input, g.output, g.channels_last))
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
        return AdaptiveMaxPool2dBackward.call(grad_output, indices, ctx.geometry, ctx.backend), None, None

    @staticmethod
    def jvp(ctx: Any, input: Tensor, *_: None) -> Any:
        (indices,) = ctx.saved_tensors
        return AdaptiveMaxPool2dGather.call(input, indices, ctx.geometry, ctx.backend), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, input: Tensor, geometry: Pool2dGeometry, backend: str) -> Any:
        output, indices = AdaptiveMaxPool2d.call(fold(input, in_dims[0], 0), geometry, backend)
        return (unfold(output, 0, info.batch_size), unfold(indices, 0, info.batch_size)), (0, 0)


class AdaptiveMaxPool2dBackward(Pass):
    """(gy[N, C, P, Q], indices) -> gx[N, C, H, W]: every gy added where its maximum was."""

    @staticmethod
    def forward(grad_output: Tensor, indices: Tensor, geometry: Pool2dGeometry, backend: str) -> Tensor:
        g = geometry
        arguments = (grad_output, indices, g.image, g.channels_last)
        grad_input: Tensor = launch("adaptive_max_pool2d_backward", backend, g, arguments)
        return grad_input

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, indices, ctx.geometry, ctx.backend = inputs
        ctx.save_for_backward(indices)
        ctx.save_for_forward(indices)

    @staticmethod
    def backward(ctx: Any, grad_input: Tensor) -> Any:
        (indices,) = ctx.saved_tensors
        return AdaptiveMaxPool2dGather.call(grad_input, indices, ctx.geometry, ctx.backend), None, None, None

    @staticmethod
    def jvp(ctx: Any, grad_output: Tensor, *_: None) -> Any:
        (indices,) = ctx.saved_tensors
        return AdaptiveMaxPool2dBackward.call(grad_output, indices, ctx.geometry, ctx.backend)

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, grad_output: Tensor, indices: Tensor, geometry: Pool2dGeometry, backend: str
    ) -> Any:
        grad_output, indices = _fold_both(info.batch_size, in_dims, grad_output, indices)
        grad_input = AdaptiveMaxPool2dBackward.call(grad_output, indices, geometry, backend)
        return unfold(grad_input, 0, info.batch_size), 0


#: kernel_size, stride, padding and dilation of max_pool2d_gather: int64 indices, which adaptive pooling keeps, are places in the
#: plane, and no window is needed to read them.
_NO_WINDOW = ((1, 1), (1, 1), (0, 0), (1, 1))


class AdaptiveMaxPool2dGather(Pass):
    """(x[N, C, H, W], indices) -> x at the indices, [N, C, P, Q]: the operator is max pooling's."""

    @staticmethod
    def forward(input: Tensor, indices: Tensor, geometry: Pool2dGeometry, backend: str) -> Tensor:
        output: Tensor = ENTRY_POINTS[backend].max_pool2d_gather(input, indices, *_NO_WINDOW, geometry.channels_last)
        return output

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        AdaptiveMaxPool2dBackward.setup_context(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (indices,) = ctx.saved_tensors
        return AdaptiveMaxPool2dBackward.call(grad_output, indices, ctx.geometry, ctx.backend), None, None, None

    @staticmethod
    def jvp(ctx: Any, input: Tensor, *_: None) -> Any:
        (indices,) = ctx.saved_tensors
        return AdaptiveMaxPool2dGather.call(input, indices, ctx.geometry, ctx.backend)

    @staticmethod
    def vmap(info: Any, in_dims: Any, input: Tensor, indices: Tensor, geometry: Pool2dGeometry, backend: str) -> Any:
        input, indices = _fold_both(info.batch_size, in_dims, input, indices)
        return unfold(AdaptiveMaxPool2dGather.call(input, indices, geometry, backend), 0, info.batch_size), 0


class AdaptiveAvgPool2d(Pass):
    """x[N, C, H, W] -> y[N, C, P, Q]."""

    @staticmethod
    def forward(input: Tensor, geometry: Pool2dGeometry, backend: str) -> Tensor:
        g = geometry
        output: Tensor = launch("adaptive_avg_pool2d", backend, g, (input, g.output, g.channels_last))
        return output

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.geometry, ctx.backend = inputs

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return AdaptiveAvgPool2dBackward.call(grad_output, ctx.geometry, ctx.backend), None, None

    @staticmethod
    def jvp(ctx: Any, input: Tensor, *_: None) -> Any:
        return AdaptiveAvgPool2d.call(input, ctx.geometry, ctx.backend)

    @staticmethod
    def vmap(info: Any, in_dims: Any, input: Tensor, geometry: Pool2dGeometry, backend: str) -> Any:
        output = AdaptiveAvgPool2d.call(fold(input, in_dims[0], 0), geometry, backend)
        return unfold(output, 0, info.batch_size), 0


class AdaptiveAvgPool2dBackward(Pass):
    """gy[N, C, P, Q] -> gx[N, C, H, W]."""

    @staticmethod
    def forward(grad_output: Tensor, geometry: Pool2dGeometry, backend: str) -> Tensor:
        g = geometry
        arguments = (grad_output, g.image, g.channels_last)
        grad_input: Tensor = launch("adaptive_avg_pool2d_backward", backend, g, arguments)
        return grad_input

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.geometry, ctx.backend = inputs

    @staticmethod
    def backward(ctx: Any, grad_input: Tensor) -> Any:
        return AdaptiveAvgPool2d.call(grad_input, ctx.geometry, ctx.backend), None, None

    @staticmethod
    def jvp(ctx: Any, grad_output: Tensor, *_: None) -> Any:
        return AdaptiveAvgPool2dBackward.call(grad_output, ctx.geometry, ctx.backend)

    @staticmethod
    def vmap(info: Any, in_dims: Any, grad_output: Tensor, geometry: Pool2dGeometry, backend: str) -> Any:
        grad_input = AdaptiveAvgPool2dBackward.call(fold(grad_output, in_dims[0], 0), geometry, backend)
        return unfold(grad_input, 0, info.batch_size), 0


def _fold_both(batch: int, in_dims: Any, tensor: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    return fold(batched(tensor, in_dims[0], batch), 0, 0), fold(batched(indices, in_dims[1], batch), 0, 0)
