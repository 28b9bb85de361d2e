"""The layers of any model: which 2-D convolutions and poolings its forward pass runs, as a suite.

The pass runs on meta tensors, which have shapes and no data, under a mode that sees every call of a torch function: so
modules and plain torch.nn.functional calls are found alike, with the sizes that they really have, at no cost. The model
itself is not run but a copy of it, in eval mode: heads that only training uses do not count.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cnnkernels.backends import use_backend
from cnnkernels.bench.layer import Layer, Pair
from cnnkernels.bench.suites import Entry, Suite
from cnnkernels.convert import restore

#: What a torch function is called that convolves or pools: those that no reader below understands are reported.
CONVOLVES_OR_POOLS = re.compile(r"conv(\d|_|olution|$)|pool")

#: Where torch keeps its convolution and pooling modules: a call inside one of these is that module, under its name.
_LAYER_MODULES = ("torch.nn.modules.conv", "torch.nn.modules.pooling")


class _NotALayer(ValueError):
    """A call that convolves or pools, and that Layer cannot state; the message says why."""


def collect(model: nn.Module, input_shape: tuple[int, int, int, int], name: str) -> Suite:
    """The 2-D convolutions and poolings that `model` runs on images [N, C, H, W].

    Equal problems are one entry, named after the first, with their count. A layer's name is its module's path; a functional
    call's, the path of the module whose forward() makes it and the function's name, with #2, #3, ... for further ones.

    Returns:
        A suite. What ran and cannot be stated as a Layer is in `left_out`, with the reason.

    Raises:
        ValueError: the model does not run on one tensor of that shape, or nothing that convolves or pools runs in it.
    """
    watch, notices = run_copy(model, input_shape, name, _Watch)
    if not watch.found and not watch.left_out:
        raise ValueError(f"{name}: no 2-D convolution or pooling runs in its forward pass")
    batch, channels, height, width = input_shape
    source = f"collected from {type(model).__module__}.{type(model).__qualname__}, eval mode, input {channels}x{height}x{width}"
    entries = tuple(replace(entry, net=name) for entry in watch.found.values())
    return Suite(name, f"{name}, batch {batch}", source, entries, tuple(watch.left_out), notices)


def run_copy(
    model: nn.Module, input_shape: tuple[int, int, int, int], name: str, watch: Callable[[], _WatchType]
) -> tuple[_WatchType, tuple[str, ...]]:
    """Run a copy of `model`, in eval mode, on an image tensor: without data where it can.

    Returns:
        What `watch` gave, which has followed the copy while it ran, and sentences about how it ran.

    Raises:
        ValueError: the model does not run on one tensor of that shape.
    """
    try:
        return _run(_copy_to_meta(model), input_shape, "meta", watch()), ()
    except Exception as on_meta:  # whatever a model may raise
        # It may look at its data, or keep tensors where to("meta") does not find them. With data it is only slower.
        try:
            found = _run(copy.deepcopy(model).to("cpu"), input_shape, "cpu", watch())
        except Exception as error:
            raise ValueError(
                f"{name}: its forward pass on one image tensor {list(input_shape)}, which is all that it is given, raised "
                f"{type(error).__name__}: {error}"
            ) from error
        return found, (
            f"ran on the CPU with data, for without it raises {type(on_meta).__name__}: {_first_line(on_meta)}",
        )


def _copy_to_meta(model: nn.Module) -> nn.Module:
    """A copy whose parameters and buffers have no data: deepcopy is told that it has copied them already."""
    already: dict[int, Any] = {}
    for tensor in chain(model.parameters(), model.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        already[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
    return copy.deepcopy(model, already).to("meta")


def _run(twin: nn.Module, input_shape: tuple[int, int, int, int], device: str, watch: _WatchType) -> _WatchType:
    dtypes = [parameter.dtype for parameter in twin.parameters() if parameter.is_floating_point()]
    images = torch.zeros(input_shape, device=device, dtype=dtypes[0] if dtypes else None)
    restore(twin)  # a backend of ours that a module asks for by name has no meta kernels
    watch.follow(twin, images)
    with torch.no_grad(), use_backend("torch"), torch.compiler.set_stance("force_eager"), watch:
        twin.eval()(images)
    return watch


class Watch(TorchFunctionMode):
    """Knows which module is running while it is in force."""

    def __init__(self) -> None:
        super().__init__()
        self.left_out: list[tuple[str, str]] = []
        self._names: dict[str, int] = {}

    def follow(self, model: nn.Module, images: Tensor) -> None:
        """Learn which module is running, by hooks that stay on `model`: a copy of ours, to be run on `images`."""
        scripted: list[str] = []
        for name, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                if not any(outer in ("", name) or name.startswith(f"{outer}.") for outer in scripted):
                    self.left_out.append((name, "TorchScript: the calls inside cannot be seen"))
                    scripted.append(name)
                continue
            module.register_forward_pre_hook(partial(self.enter, name), prepend=True, with_kwargs=True)
            module.register_forward_hook(self.leave, always_call=True)

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """`module`, whose path is `name`, begins."""
        raise NotImplementedError

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """`module` ends, or has raised an exception."""
        raise NotImplementedError

    def numbered(self, name: str) -> str:
        """`name`, and for whom it is not the first: name#2, name#3, ..."""
        self._names[name] = self._names.get(name, 0) + 1
        return name if self._names[name] == 1 else f"{name}#{self._names[name]}"


_WatchType = TypeVar("_WatchType", bound=Watch)


class _Watch(Watch):
    """Notes each convolution and pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[Layer, Entry] = {}
        self._inside: list[tuple[str, nn.Module]] = []

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._inside.append((name, module))

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._inside.pop()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if func in FUNCTION_NAMES or CONVOLVES_OR_POOLS.search(name):
            self._note(func, name, args, kwargs)
        return result

    def _note(self, func: Any, function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        path, module = self._inside[-1] if self._inside else ("", None)
        is_layer = any(base.__module__ in _LAYER_MODULES for base in type(module).__mro__)
        name = path if is_layer and path else f"{path}.{FUNCTION_NAMES.get(func, function)}".lstrip(".")
        name = self.numbered(name)
        try:
            if func not in _READERS:
                raise _NotALayer(f"torch's {function} is not a 2-D convolution or pooling that the suite measures")
            if (args[0] if args else kwargs["input"]).is_complex():
                raise _NotALayer("complex numbers")
            problem = _READERS[func](*args, **kwargs)
        except ValueError as reason:
            self.left_out.append((name, str(reason)))
            return
        if problem in self.found:
            entry = self.found[problem]
            self.found[problem] = replace(entry, count=entry.count + 1)
            return
        mode = getattr(module, "padding_mode", "zeros") if is_layer else "zeros"
        note = "" if mode == "zeros" else f"on the image already padded: padding_mode={mode!r}"
        self.found[problem] = Entry("", name, 1, problem, note=note)


# One reader per function, with the function's own signature: the call as a Layer.


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Layer:
    K, _, R, S = weight.shape
    dilated = _pair(dilation)
    pad = _same_padding((R, S), dilated) if padding == "same" else (0, 0) if padding == "valid" else _pair(padding)
    return Layer("conv2d", *_sizes(input), K, R, S, _pair(stride), pad, dilated, groups)


def _same_padding(window: Pair, dilation: Pair) -> Pair:
    total = [d * (k - 1) for d, k in zip(dilation, window, strict=True)]
    if any(pixels % 2 for pixels in total):
        raise _NotALayer(
            f"padding='same' with a {window[0]}x{window[1]} filter pads one side more than the other, by an extra copy"
        )
    return total[0] // 2, total[1] // 2


def _conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Layer:
    _, filters, R, S = weight.shape
    return Layer(
        "conv_transpose2d", *_sizes(input), filters * groups, R, S,
        _pair(stride), _pair(padding), _pair(dilation), groups, _pair(output_padding),
    )  # fmt: skip


def _max_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Layer:
    R, S = _pair(kernel_size)
    return Layer(
        "max_pool2d", *_sizes(input), R=R, S=S, stride=_pair(stride or kernel_size), padding=_pair(padding),
        dilation=_pair(dilation), ceil_mode=ceil_mode,
    )  # fmt: skip


def _avg_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Layer:
    if divisor_override is not None:
        raise _NotALayer("divisor_override")
    R, S = _pair(kernel_size)
    return Layer(
        "avg_pool2d", *_sizes(input), R=R, S=S, stride=_pair(stride or kernel_size), padding=_pair(padding),
        ceil_mode=ceil_mode, count_include_pad=count_include_pad,
    )  # fmt: skip


def _adaptive(op: str) -> Callable[..., Layer]:
    def read(input: Tensor, output_size: Any, return_indices: bool = False) -> Layer:
        sizes = _sizes(input)
        asked = (output_size, output_size) if output_size is None else _pair(output_size)
        # None keeps the image's own size.
        P, Q = (size if out is None else out for out, size in zip(asked, sizes[2:], strict=True))
        return Layer(op, *sizes, output=(P, Q))

    return read


_NAMES_AND_READERS: Mapping[str, Callable[..., Layer]] = {
    "conv2d": _conv2d,
    "conv_transpose2d": _conv_transpose2d,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_max_pool2d": _adaptive("adaptive_max_pool2d"),
    "adaptive_avg_pool2d": _adaptive("adaptive_avg_pool2d"),
}

#: Under what objects torch hands a call over: the function in torch.nn.functional, its variant that also returns indices, and
#: where it differs the one in torch itself.
FUNCTION_NAMES: dict[Any, str] = {
    getattr(namespace, variant): name
    for name in _NAMES_AND_READERS
    for variant in (name, f"{name}_with_indices")
    for namespace in (F, torch)
    if hasattr(namespace, variant)
}
_READERS = {function: _NAMES_AND_READERS[name] for function, name in FUNCTION_NAMES.items()}


def _sizes(input: Tensor) -> tuple[int, int, int, int]:
    """N, C, H, W; an image without a batch dimension is a batch of one."""
    N, C, H, W = (1, *input.shape) if input.ndim == 3 else tuple(input.shape)
    return N, C, H, W


def _pair(value: Any) -> Pair:
    """Torch takes one number, or one or two in a sequence."""
    if isinstance(value, int):
        return value, value
    first, second = value if len(value) == 2 else (value[0], value[0])
    return first, second


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
