"""torch.nn.functional's convolutions and poolings on handwritten kernels: the same signatures plus `backend`.

Meaning, output sizes, memory format, autocast, errors and their texts are torch's. `backend` is one of "auto",
"cuda", "triton", "emulator" and "torch", or None for the one that use_backend or CNNKERNELS_BACKEND set ("auto"
otherwise). A named backend runs the call or raises BackendError; arguments that torch refuses raise what torch
raises, before any kernel runs. An input or output without elements leaves nothing to launch: torch's own operator
gives the empty result and its zero gradients on every backend.

Where `cnnkernels tune` has measured a problem on this device, the fastest of our kernels runs it, and "auto" leaves it to
torch if that was faster. A tuned kernel may sum in another order than the planned one: results are reproducible under
the same tuning table. CNNKERNELS_TUNING=0 leaves every choice to the plan, which is the same on every GPU with as much shared memory.

float32, float64, float16 and bfloat16 tensors of any strides are read where they lie, and nothing is cast except by
autocast; images of planes that a convolution reads once per tap may first be turned round in its workspace, by the
kernels that explain() calls "packed". Half types accumulate in float32.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar, overload

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from cnnkernels import autograd, geometry, tuning
from cnnkernels.autograd import AvgPool2d, Conv2dDgrad, Conv2dFprop, MaxPool2d, MaxPool2dFlatIndices
from cnnkernels.backends import BackendError, ambient_backend, select, unavailable
from cnnkernels.epilogue import Epilogue, Norm
from cnnkernels.geometry import Conv2dGeometry, NothingToDo, Pool2dGeometry, Refused

__all__ = [
    "Norm",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "conv2d",
    "conv_transpose2d",
    "max_pool2d",
    "spatial_pyramid_max_pool2d",
]

Size = int | tuple[int, ...] | list[int]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class _TorchsTurn(threading.local):
    """What cnnkernels.override has to know of this thread: a call that we leave to torch is not to come back to us."""

    blocks = 0  # of override that are open
    calls = 0  # that were left to torch, and are running


torchs_turn = _TorchsTurn()


def _ask_torch(reference: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torchs_turn.blocks:
        return reference(*args, **kwargs)
    torchs_turn.calls += 1
    try:
        return reference(*args, **kwargs)
    finally:
        torchs_turn.calls -= 1


def _stands_for_a_tensor(value: object) -> bool:
    """Whether the call is value's to answer, by torch's protocol, as that of a proxy of torch.fx is: it records the call.

    Not so the calls of Tensor's subclasses, which our operators and torch's hand over themselves, to modes, too.
    """
    return not isinstance(value, Tensor) and hasattr(type(value), "__torch_function__")


def _instead_of(
    reference: Callable[..., object],
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Choose the backend of a call and hand `backend` on resolved; torch's own calls and errors go to `reference`.

    `reference` gets the caller's arguments exactly as written, because torch's texts name their position and form.
    """

    def decorate(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @functools.wraps(function)
        def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            handed = (*args, *kwargs.values()) if kwargs else args
            if has_torch_function(handed) and any(map(_stands_for_a_tensor, handed)):
                handled: Result = handle_torch_function(call, handed, *args, **kwargs)
                return handled
            asked = kwargs.pop("backend", None)
            backend, _ = select(asked, args[0] if args else kwargs.get("input"))  # type: ignore[arg-type]
            if backend == "torch":
                return _ask_torch(reference, *args, **kwargs)
            if tuning.active and (asked or ambient_backend()) == "auto" and not torch.compiler.is_compiling():
                backend = "auto"  # the table decides, once the function knows its problem
            try:
                return function(*args, backend=backend, **kwargs)  # type: ignore[arg-type]
            except (Refused, TypeError) as refusal:
                reason = refusal
            result = _ask_torch(reference, *args, **kwargs)  # raises torch's error where the arguments are wrong
            if isinstance(reason, TypeError):
                raise reason
            if isinstance(reason, NothingToDo) or (asked or ambient_backend()) == "auto":
                return result
            raise BackendError(
                f"{function.__name__}: torch takes these arguments, backend {backend!r} does not: {reason}"
            )

        return call

    return decorate


def _torch_conv2d(
    *args: Any, padding_mode: str = "zeros", activation: str | None = None, negative_slope: float = 0.01,
    residual: Tensor | None = None, norm: Norm | None = None, **kwargs: Any,
) -> Tensor:  # fmt: skip
    """torch.nn.functional.conv2d, on a padded copy as in torch.nn.Conv2d if need be, and what follows by torch's operators."""
    epilogue = Epilogue(activation, negative_slope, residual, norm)
    epilogue.check()
    return epilogue.apart(_torch_padded_conv2d(*args, padding_mode=padding_mode, **kwargs))


def _torch_padded_conv2d(*args: Any, padding_mode: str, **kwargs: Any) -> Tensor:
    if padding_mode == "zeros":
        return F.conv2d(*args, **kwargs)
    call = inspect.signature(conv2d).bind(*args, **kwargs)
    call.apply_defaults()
    input, weight, bias, stride, padding, dilation, groups = call.args
    if padding == "same":
        F.conv2d(input, weight, bias, stride, padding, dilation, groups)  # raises where it has to
        spread = [d * (k - 1) for d, k in zip(geometry.pair(dilation), weight.shape[2:], strict=True)]
        sides = [side for total in reversed(spread) for side in (total // 2, total - total // 2)]
    elif isinstance(padding, str):
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    else:
        top, left = geometry.pair(padding)
        sides = [left, left, top, top]
    return F.conv2d(F.pad(input, sides, mode=padding_mode), weight, bias, stride, 0, dilation, groups)


@_instead_of(_torch_conv2d)
def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    activation: str | None = None,
    negative_slope: float = 0.01,
    residual: Tensor | None = None,
    norm: Norm | None = None,
    backend: str | None = None,
) -> Tensor:
    """2-D convolution: torch.nn.functional.conv2d, and if asked for activation(norm(result) + residual) in the same kernel.

    Args:
        input: [N, C, H, W] or [C, H, W].
        weight: [K, C / groups, R, S], of the input's dtype.
        bias: [K] or None, of the input's dtype.
        stride, dilation: pixels, one number or (height, width).
        padding: zeros on each side, one number or (height, width), or "valid" (none) or "same" (output as large as
            the input, stride 1; an odd total puts its extra zero below and to the right).
        groups: channels and filters are split into this many independent convolutions.
        padding_mode: what the padding holds: "zeros", or as torch.nn.Conv2d has it "reflect", "replicate" or
            "circular". Our kernels map those indices into the image; torch's operator convolves a padded copy.
        activation: None, "relu", "relu6", "leaky_relu", "silu", "gelu", "gelu_tanh" (its approximation) or "hardswish".
        negative_slope: of "leaky_relu".
        residual: added before the activation; of the result's shape, dtype and memory format, or what torch's + takes.
        norm: BatchNorm with running statistics, before the residual: :class:`Norm`.
        backend: see the module's docstring.

    Returns:
        [N, K, P, Q] or [K, P, Q], P = (H + 2 * padding - dilation * (R - 1) - 1) // stride + 1. channels_last where
        the input or the weight is. What follows the convolution runs in its kernel, but after it and by torch's
        operators where a gradient, torch.func or forward-mode differentiation needs the values in between, and where the
        residual is of another memory format, dtype or (broadcast) shape. Half types are rounded once before the residual
        and once at the end; separate operators round after each step.

    Raises:
        RuntimeError, TypeError, ValueError: torch's, for arguments that torch refuses; ValueError, for an activation
            of another name.
        BackendError: the named backend cannot run the call.
    """
    image, weight, bias, shape = prepare_conv2d(input, weight, bias, stride, padding, dilation, groups, padding_mode)
    if activation is not None or residual is not None or norm is not None:
        return _conv2d_and(
            Epilogue(activation, negative_slope, residual, norm), input, image, weight, bias, shape, backend
        )
    if backend == "auto":
        backend = _fastest("conv2d_fprop", image, weight, shape)
    output: Tensor = Conv2dFprop.call(image, weight, bias, shape, backend)
    return output if input.dim() == 4 else output.squeeze(0)


def _conv2d_and(
    epilogue: Epilogue, input: Tensor, image: Tensor, weight: Tensor, bias: Tensor | None, shape: Conv2dGeometry,
    backend: str | None,
) -> Tensor:  # fmt: skip
    """conv2d and its epilogue, in one kernel where that can be."""
    epilogue.check()
    apart = epilogue.why_apart(image, weight, bias, shape)
    if backend == "auto":
        backend = _fastest("conv2d_fprop", image, weight, shape)
    assert backend is not None
    if apart:
        output: Tensor = Conv2dFprop.call(image, weight, bias, shape, backend)
        return epilogue.apart(output if input.dim() == 4 else output.squeeze(0))
    output = epilogue.fused(image, weight, bias, shape, backend)
    return output if input.dim() == 4 else output.squeeze(0)


@_instead_of(F.conv_transpose2d)
def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    backend: str | None = None,
) -> Tensor:
    """2-D transposed convolution: torch.nn.functional.conv_transpose2d. It is the dgrad of a conv2d.

    Args:
        input: [N, C, H, W] or [C, H, W].
        weight: [C, K / groups, R, S], of the input's dtype.
        bias: [K] or None, of the input's dtype.
        stride, padding, output_padding, dilation: pixels, one number or (height, width). output_padding is less
            than the stride or the dilation.
        groups: channels and filters are split into this many independent convolutions.
        backend: see the module's docstring.

    Returns:
        [N, K, P, Q] or [K, P, Q], P = (H - 1) * stride - 2 * padding + dilation * (R - 1) + output_padding + 1.
        channels_last where the input or the weight is.

    Raises:
        RuntimeError, TypeError, ValueError: torch's, for arguments that torch refuses.
        BackendError: the named backend cannot run the call.
    """
    image, weight, bias, shape = prepare_conv_transpose2d(
        input, weight, bias, stride, padding, output_padding, groups, dilation
    )
    if backend == "auto":
        backend = _fastest("conv2d_dgrad", image, weight, shape)
    output: Tensor = Conv2dDgrad.call(image, weight, bias, shape, backend)
    return output if input.dim() == 4 else output.squeeze(0)


@overload
def max_pool2d(
    input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
    ceil_mode: bool = False, return_indices: Literal[False] = False, *, backend: str | None = None,
) -> Tensor: ...  # fmt: skip


@overload
def max_pool2d(
    input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
    ceil_mode: bool = False, *, return_indices: Literal[True], backend: str | None = None,
) -> tuple[Tensor, Tensor]: ...  # fmt: skip


@overload
def max_pool2d(
    input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
    ceil_mode: bool = False, return_indices: bool = False, *, backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]: ...  # fmt: skip


@_instead_of(F.max_pool2d)
def max_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """2-D max pooling: torch.nn.functional.max_pool2d. NaN wins a window; of equal values the first does.

    Args:
        input: [N, C, H, W] or [C, H, W].
        kernel_size, dilation: of the window, in pixels, one number or (height, width).
        stride: pixels, one number or (height, width); None or an empty list means kernel_size.
        padding: -inf on each side, at most half the dilated window, one number or (height, width).
        ceil_mode: round the output size up; the last window still starts inside the image or the padding before it.
        return_indices: also return each maximum's position h * W + w, int64.
        backend: see the module's docstring.

    Returns:
        [N, C, P, Q] or [C, P, Q], in the input's memory format, and the indices of the same shape if asked for.

    Raises:
        RuntimeError, TypeError, ValueError: torch's, for arguments that torch refuses.
        BackendError: the named backend cannot run the call.
    """
    image, shape = prepare_max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode)
    if backend == "auto":
        backend = _fastest("max_pool2d", image, None, shape)
    if not return_indices:
        output = autograd.max_pool2d(image, shape, backend)
        return output if input.dim() == 4 else output.squeeze(0)
    output, indices = MaxPool2dFlatIndices.call(image, shape, backend)
    return (output, indices) if input.dim() == 4 else (output.squeeze(0), indices.squeeze(0))


def _pyramid_by_torch(input: Tensor, kernel_size: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    first = F.max_pool2d(input, kernel_size, 1, kernel_size // 2)
    second = F.max_pool2d(first, kernel_size, 1, kernel_size // 2)
    return first, second, F.max_pool2d(second, kernel_size, 1, kernel_size // 2)


@_instead_of(_pyramid_by_torch)
def spatial_pyramid_max_pool2d(
    input: Tensor, kernel_size: int = 5, *, backend: str | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The max poolings of a spatial pyramid (YOLO's SPP): windows of k, 2k - 1 and 3k - 2 pixels, 5, 9 and 13 for k = 5.

    Stride 1, padded to keep the image's size. Each is the first one's window over the result before it, which is how they
    are computed: without gradients in one launch that reads the input once. Of equal maxima the gradient goes where the
    chain of poolings sends it, as in torch.nn.functional.max_pool2d of max_pool2d.

    Args:
        input: [N, C, H, W] or [C, H, W].
        kernel_size: k, odd.
        backend: see the module's docstring.

    Returns:
        Three tensors of the input's shape and memory format.

    Raises:
        RuntimeError, TypeError, ValueError: torch's, for arguments that torch refuses.
        BackendError: the named backend cannot run the call.
    """
    image, shape = prepare_max_pool2d(input, kernel_size, 1, geometry.pair(kernel_size)[0] // 2)
    if shape.output != shape.image or shape.window[0] != shape.window[1]:
        raise Refused("a window that is not odd and square")
    results = autograd.max_pool2d_pyramid(image, shape, backend)  # type: ignore[arg-type]
    return results if input.dim() == 4 else tuple(result.squeeze(0) for result in results)  # type: ignore[return-value]


@_instead_of(F.avg_pool2d)
def avg_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """2-D average pooling: torch.nn.functional.avg_pool2d.

    Args:
        input: [N, C, H, W] or [C, H, W].
        kernel_size: of the window, in pixels, one number or (height, width).
        stride: pixels, one number or (height, width); None or an empty list means kernel_size.
        padding: zeros on each side, at most half the window, one number or (height, width).
        ceil_mode: round the output size up; the last window still starts inside the image or the padding before it.
        count_include_pad: divide by the window's size with its padded pixels, instead of by its real pixels.
        divisor_override: divide by this instead.
        backend: see the module's docstring.

    Returns:
        [N, C, P, Q] or [C, P, Q], in the input's memory format.

    Raises:
        RuntimeError, TypeError, ValueError: torch's, for arguments that torch refuses.
        BackendError: the named backend cannot run the call.
    """
    image, shape = prepare_avg_pool2d(
        input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )
    if backend == "auto":
        backend = _fastest("avg_pool2d", image, None, shape)
    output: Tensor = AvgPool2d.call(image, shape, backend)
    return output if input.dim() == 4 else output.squeeze(0)


AdaptiveSize = int | tuple[int | None, ...] | list[int | None] | list[int]


@_instead_of(F.adaptive_avg_pool2d)
def adaptive_avg_pool2d(input: Tensor, output_size: AdaptiveSize, *, backend: str | None = None) -> Tensor:
    """2-D average pooling to a size: torch.nn.functional.adaptive_avg_pool2d.

    Output row p averages the rows floor(p * H / P) to ceil((p + 1) * H / P) - 1, columns alike.

    Args:
        input: [N, C, H, W] or [C, H, W].
        output_size: P and Q, one number or (height, width), of which None means the input's. It may exceed the input's.
        backend: see the module's docstring.

    Returns:
        [N, C, P, Q] or [C, P, Q], in the input's memory format.

    Raises:
        RuntimeError, TypeError, ValueError: torch's, for arguments that torch refuses.
        BackendError: the named backend cannot run the call.
    """
    image, shape = prepare_adaptive_avg_pool2d(input, output_size)
    if backend == "auto":
        backend = _fastest("adaptive_avg_pool2d", image, None, shape)
    output: Tensor = AvgPool2d.call(image, shape, backend)
    return output if input.dim() == 4 else output.squeeze(0)


@overload
def adaptive_max_pool2d(
    input: Tensor, output_size: AdaptiveSize, return_indices: Literal[False] = False, *, backend: str | None = None,
) -> Tensor: ...  # fmt: skip


@overload
def adaptive_max_pool2d(
    input: Tensor, output_size: AdaptiveSize, return_indices: Literal[True], *, backend: str | None = None,
) -> tuple[Tensor, Tensor]: ...  # fmt: skip


@overload
def adaptive_max_pool2d(
    input: Tensor, output_size: AdaptiveSize, return_indices: bool = False, *, backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]: ...  # fmt: skip


@_instead_of(F.adaptive_max_pool2d)
def adaptive_max_pool2d(
    input: Tensor, output_size: AdaptiveSize, return_indices: bool = False, *, backend: str | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """2-D max pooling to a size: torch.nn.functional.adaptive_max_pool2d. NaN wins a window; of equal values the first does.

    Output row p is over the rows floor(p * H / P) to ceil((p + 1) * H / P) - 1, columns alike.

    Args:
        input: [N, C, H, W] or [C, H, W].
        output_size: P and Q, one number or (height, width), of which None means the input's. It may exceed the input's.
        return_indices: also return each maximum's position h * W + w, int64.
        backend: see the module's docstring.

    Returns:
        [N, C, P, Q] or [C, P, Q], in the input's memory format, and the indices of the same shape if asked for.

    Raises:
        RuntimeError, TypeError, ValueError: torch's, for arguments that torch refuses.
        BackendError: the named backend cannot run the call.
    """
    image, shape = prepare_adaptive_max_pool2d(input, output_size)
    if backend == "auto":
        backend = _fastest("adaptive_max_pool2d", image, None, shape)
    output, indices = MaxPool2d.call(image, shape, backend)
    if input.dim() == 3:
        output, indices = output.squeeze(0), indices.squeeze(0)
    return (output, indices) if return_indices else output


# What each function hands to its pass; explain() asks the same, so that it explains the call that would run.


def prepare_conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: object = 1, padding: object = 0, dilation: object = 1, groups: object = 1, padding_mode: str = "zeros",
) -> tuple[Tensor, Tensor, Tensor | None, Conv2dGeometry]:  # fmt: skip
    image, weight, bias = _autocast(_batched(input), weight, bias)
    return image, weight, bias, geometry.conv2d(image, weight, bias, stride, padding, dilation, groups, padding_mode)


def prepare_conv_transpose2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: object = 1,
    padding: object = 0, output_padding: object = 0, groups: object = 1, dilation: object = 1,
) -> tuple[Tensor, Tensor, Tensor | None, Conv2dGeometry]:  # fmt: skip
    image, weight, bias = _autocast(_batched(input), weight, bias)
    return (
        image,
        weight,
        bias,
        geometry.conv_transpose2d(image, weight, bias, stride, padding, output_padding, groups, dilation),
    )


def prepare_max_pool2d(
    input: Tensor, kernel_size: object, stride: object = None,
    padding: object = 0, dilation: object = 1, ceil_mode: object = False,
) -> tuple[Tensor, Pool2dGeometry]:  # fmt: skip
    return _batched(input), geometry.pool2d(input, kernel_size, stride, padding, dilation, ceil_mode)


def prepare_avg_pool2d(
    input: Tensor, kernel_size: object, stride: object = None, padding: object = 0,
    ceil_mode: object = False, count_include_pad: object = True, divisor_override: object = None,
) -> tuple[Tensor, Pool2dGeometry]:  # fmt: skip
    return _batched(input), geometry.pool2d(
        input, kernel_size, stride, padding, 1, ceil_mode, count_include_pad, divisor_override
    )


def prepare_adaptive_avg_pool2d(input: Tensor, output_size: object) -> tuple[Tensor, Pool2dGeometry]:
    return _batched(input), geometry.adaptive_pool2d(input, output_size)


def prepare_adaptive_max_pool2d(
    input: Tensor, output_size: object, return_indices: bool = False
) -> tuple[Tensor, Pool2dGeometry]:
    return _batched(input), geometry.adaptive_pool2d(input, output_size)


def _fastest(op: str, input: Tensor, weight: Tensor | None, geometry: Conv2dGeometry | Pool2dGeometry) -> str:
    """The backend of ours that "auto" takes. Refused where the tuning table has torch's operator as the fastest."""
    entry = tuning.find(op, input, weight, geometry)
    if entry is not None and entry.backend == "torch":
        raise Refused("torch's operator was measured to be faster")
    chosen = select("auto", input)[0]
    if entry is not None and chosen == "cuda" and entry.backend == "triton" and unavailable("triton") is None:
        return "triton"
    return chosen


def _batched(input: Tensor) -> Tensor:
    dimensions = input.dim()
    if dimensions == 4:
        return input
    if dimensions == 3:
        return input.unsqueeze(0)
    raise Refused("an input of neither 3 nor 4 dimensions")


def _autocast(input: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The tensors as torch's autocast hands them to a convolution, where it is enabled. Pools are left alone.

    Here, not in the operators, so that what backward saves already has the lower precision. Unlike torch's, the
    cast of a weight is not remembered until autocast ends: a weight used twice is cast twice.
    """
    device = "cpu" if input.is_cpu else "cuda" if input.is_cuda else None
    if device is None or not torch.is_autocast_enabled(device):
        return input, weight, bias
    dtype = torch.get_autocast_dtype(device)

    def cast(tensor: Tensor) -> Tensor:
        eligible = isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.dtype != torch.float64
        return tensor.to(dtype) if eligible and tensor.device.type == device else tensor

    return cast(input), cast(weight), None if bias is None else cast(bias)
