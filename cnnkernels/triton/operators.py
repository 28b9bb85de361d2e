"""The operators torch.ops.cnnkernels_triton.*: names, arguments and results of torch.ops.cnnkernels.* (csrc/schemas.h), on Triton.

Each allocates its result, chooses a kernel (plan.py) and launches it; shapes were checked before (cnnkernels.geometry).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from cnnkernels.triton import convolution, depthwise, plan, pool_operators
from cnnkernels.triton.convolution import Convolution, EpilogueTensors
from cnnkernels.triton.depthwise import Depthwise, is_depthwise
from cnnkernels.triton.pool_operators import *  # noqa: F403
from cnnkernels.triton.registration import empty, operator

__all__ = ["conv2d_activation_grad", "conv2d_bias_grad", "conv2d_dgrad", "conv2d_fprop", "conv2d_fused", "conv2d_wgrad"]
__all__ += pool_operators.__all__

# What the names of the matrix products' kernels begin with: they run depthwise problems too, where one asks for them.
_GATHER, _WGRAD = "triton_conv2d_gather_", "triton_conv2d_wgrad_"


def _gather(
    source: Tensor,
    weight: Tensor,
    out: Tensor,
    c: Convolution,
    epilogue: EpilogueTensors,
    dgrad: bool,
    kernel_name: str,
) -> Tensor:
    R, S = weight.shape[2:]
    if dgrad and c.padding_mode != "zeros":
        product = plan.padded_dgrad_product(
            out.shape[0], out.shape[1], source.shape[1], (out.shape[2], out.shape[3]), R * S, c.groups
        )
        choice = plan.choose("conv2d_padded_dgrad", product, out.dtype, "padded_dgrad", None, kernel_name)
        convolution.padded_dgrad(choice.kernel, choice.tile, source, weight, epilogue.bias, out, c)
        return out
    if is_depthwise(weight.shape[1] * c.groups, weight.shape[0], c.groups) and not kernel_name.startswith(_GATHER):
        d = Depthwise.of("dgrad" if dgrad else "fprop", source, out, (R, S), c)
        one = plan.choose_depthwise(d, out.dtype, kernel_name)
        depthwise.gather(one.kernel, one.tile, d, source, weight, out, c, epilogue)
        return out
    classes = c.stride[0] * c.stride[1] if dgrad else 1
    product = plan.gather_product(
        out.shape[0], out.shape[1], source.shape[1], (out.shape[2], out.shape[3]), R * S, classes, c.groups
    )
    vectors = (
        convolution.source_vector(source, source.shape[1] // c.groups, (R, S), c),
        convolution.vector_of_filter(weight),
    )
    by_element = convolution.is_by_element(out.dtype, *vectors)
    choice = plan.choose("conv2d_gather", product, out.dtype, "gather", by_element, kernel_name)
    convolution.gather(choice.kernel, choice.tile, choice.slabs, source, weight, out, c, epilogue, dgrad)
    return out


@operator
def conv2d_fprop(
    input: Tensor, weight: Tensor, bias: Tensor | None, output_size: Sequence[int],
    stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int, channels_last: bool,
    kernel_name: str = "", padding_mode: str = "zeros",
) -> Tensor:  # fmt: skip
    out = empty(input, (input.shape[0], weight.shape[0], *output_size), channels_last)
    c = Convolution(stride, padding, dilation, groups, padding_mode)
    return _gather(input, weight, out, c, EpilogueTensors(bias), False, kernel_name)


@operator
def conv2d_fused(
    input: Tensor, weight: Tensor, bias: Tensor | None, mean: Tensor | None, variance: Tensor | None,
    scale: Tensor | None, shift: Tensor | None, eps: float, residual: Tensor | None, activation: str,
    negative_slope: float, output_size: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], groups: int, channels_last: bool, kernel_name: str = "", padding_mode: str = "zeros",
) -> Tensor:  # fmt: skip
    out = empty(input, (input.shape[0], weight.shape[0], *output_size), channels_last)
    c = Convolution(stride, padding, dilation, groups, padding_mode)
    epilogue = EpilogueTensors(bias, mean, variance, scale, shift, eps, residual, activation, negative_slope)
    return _gather(input, weight, out, c, epilogue, False, kernel_name)


@operator
def conv2d_dgrad(
    grad_output: Tensor, weight: Tensor, bias: Tensor | None, input_size: Sequence[int],
    stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int, channels_last: bool,
    kernel_name: str = "", padding_mode: str = "zeros",
) -> Tensor:  # fmt: skip
    out = empty(grad_output, (grad_output.shape[0], weight.shape[1] * groups, *input_size), channels_last)
    c = Convolution(stride, padding, dilation, groups, padding_mode)
    return _gather(grad_output, weight, out, c, EpilogueTensors(bias), True, kernel_name)


@operator
def conv2d_wgrad(
    grad_output: Tensor, input: Tensor, kernel_size: Sequence[int],
    stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int, channels_last: bool,
    kernel_name: str = "", padding_mode: str = "zeros",
) -> Tensor:  # fmt: skip
    N, K, P, Q = grad_output.shape
    out = empty(input, (K, input.shape[1] // groups, *kernel_size), channels_last)
    c = Convolution(stride, padding, dilation, groups, padding_mode)
    if is_depthwise(input.shape[1], K, groups) and not kernel_name.startswith(_WGRAD):
        d = Depthwise(
            "wgrad", N, K, K // groups, (input.shape[2], input.shape[3]), (P, Q), (kernel_size[0], kernel_size[1]),
            (stride[0], stride[1]), (padding[0], padding[1]), (dilation[0], dilation[1]), padding_mode,
            convolution.pixels_are_last(input), out.element_size(),
        )  # fmt: skip
        one = plan.choose_depthwise(d, out.dtype, kernel_name)
        depthwise.wgrad(one.kernel, one.tile, d, grad_output, input, out, c)
        return out
    product = plan.wgrad_product(N, K, input.shape[1], (P, Q), kernel_size[0] * kernel_size[1], groups)
    group_in = input.shape[1] // groups
    channels = group_in * convolution.stack_of(groups, group_in, K // groups)
    by_element = convolution.is_by_element(out.dtype, convolution.source_vector(input, channels, kernel_size, c))
    choice = plan.choose("conv2d_wgrad", product, out.dtype, "wgrad", by_element, kernel_name)
    convolution.wgrad(choice.kernel, choice.tile, choice.slabs, grad_output, input, out, c)
    return out


@operator
def conv2d_bias_grad(grad_output: Tensor, kernel_name: str = "") -> Tensor:
    out = grad_output.new_empty(grad_output.shape[1])
    convolution.bias_grad(grad_output, out)
    return out


@operator
def conv2d_activation_grad(
    grad_output: Tensor, output: Tensor, activation: str, negative_slope: float, channels_last: bool,
    kernel_name: str = "",
) -> Tensor:  # fmt: skip
    out = empty(grad_output, grad_output.shape, channels_last)
    convolution.activation_grad(grad_output, output, activation, negative_slope, out)
    return out
