"""A model, layer by layer: what runs in its forward pass, what it amounts to, and which kernel the plan takes for it.

A copy of the model runs once without data (cnnkernels.bench.collect), under a mode that sees every ATen operation.
A row is one call of

* a layer of torch.nn, or of a class derived from one, with all that runs inside; nn.Identity has no row;
* a function called in another module's forward() that convolves, pools or multiplies matrices, under the module's
  path and its own name;
* any other module without modules of its own that computes something, if no such function is called in it.

What else runs between the layers (additions, concatenations, activations called as functions, ...) is named with its
count, and is in no row and no total.

The numbers are those of cnnkernels.arithmetic: MACs of convolutions and of products of matrices (not of recurrent
layers, which do without on some devices), compulsory bytes, receptive fields. A view moves nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from cnnkernels.arithmetic import convolution_macs, product_macs
from cnnkernels.bench import machine
from cnnkernels.bench.collect import CONVOLVES_OR_POOLS, FUNCTION_NAMES, Watch, run_copy
from cnnkernels.bench.fields import Axis, Fields
from cnnkernels.bench.operands import MEMORY_FORMATS
from cnnkernels.explain import forward_problem, module_call
from cnnkernels.geometry import Refused
from cnnkernels.profile.hardware import CLOCK, DRAM_RATE, SMS


@dataclass(frozen=True)
class Call:
    """A call that a kernel of ours may run, with tensors that have no data."""

    function: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One call of a layer. Everything is of all images together, the receptive field of a feature of the output."""

    name: str
    kind: str  # the class of the module, or the function
    output: tuple[int, ...] | None  # of the first tensor that it gives
    parameters: int  # that no earlier row has
    shared: int  # that an earlier row has
    macs: int
    elements: int  # floating-point numbers that it must move
    other_bytes: int  # bytes that it must move besides
    fields: tuple[Axis, Axis] | None  # of height and width; None: the output does not depend on the image
    call: Call | None

    def bytes(self, dtype: str) -> int:
        """Compulsory bytes: inputs, weights and outputs once each, floating-point numbers being of `dtype` ("bf16")."""
        return self.elements * machine.DTYPES[dtype].itemsize + self.other_bytes

    def roofline_us(self, dtype: str) -> float:
        """Microseconds of an H200, modelled: the compulsory bytes at the rate of its DRAM, or the MACs at the highest
        rate of its data sheet (tensor cores for bf16, f16 and tf32, fp32 units for f32), whichever takes longer.

        No launch is in it, and it is no measurement. cnnkernels.profile.hardware has the sources.
        """
        traffic = self.bytes(dtype) / DRAM_RATE.value
        arithmetic = 2 * self.macs / (machine.FLOPS_PER_CLOCK[9, 0][dtype] * SMS.value * CLOCK.value)
        return 1e6 * max(traffic, arithmetic)

    def plan(self, dtype: str, layout: str) -> Plan | None:
        """The kernel that the plan takes for dense tensors of that dtype and layout; None where none of ours runs it.

        Raises ImportError where cnnkernels._C, which has the plan, is not built.
        """
        if self.call is None:
            return None

        def alike(tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point():
                raise Refused(f"a tensor of {tensor.dtype}")
            memory_format = MEMORY_FORMATS[layout] if tensor.ndim == 4 else torch.contiguous_format
            return torch.empty(tensor.shape, dtype=machine.DTYPES[dtype], device="meta", memory_format=memory_format)

        try:
            problem = forward_problem(self.call.function, *self.call.args, alike=alike, **self.call.kwargs)
            if dtype == machine.TF32 and problem.op.startswith("conv2d"):
                problem = problem._replace(allow_tf32=True)
            found = problem.plan()
        except (Refused, TypeError):
            return None
        return Plan(found["kernel"], found["family"], found["modelled_us"])


@dataclass(frozen=True)
class Plan:
    """The kernel of a row. `modelled_us` is by the plan's cost model of an H200, launch included; no measurement."""

    kernel: str
    family: str
    modelled_us: float


@dataclass(frozen=True)
class ModelSummary:
    """The rows in the order in which they run, and what they leave out."""

    name: str
    input: tuple[int, int, int, int]
    rows: tuple[Row, ...]
    parameters: int  # of the model, a shared one once
    elsewhere: tuple[tuple[str, int], ...]  # parameters in no row: (name, numbers)
    between: Counter[str]  # functions called between the layers
    left_out: tuple[tuple[str, str], ...]  # (module, why nothing inside could be seen)
    notices: tuple[str, ...]

    @property
    def macs(self) -> int:
        return sum(row.macs for row in self.rows)

    def bytes(self, dtype: str) -> int:
        return sum(row.bytes(dtype) for row in self.rows)

    def roofline_us(self, dtype: str) -> float:
        return sum(row.roofline_us(dtype) for row in self.rows)


def summarize(model: nn.Module, input_shape: tuple[int, int, int, int], name: str) -> ModelSummary:
    """What `model` runs on images [N, C, H, W], in eval mode; the model itself is not touched.

    Raises:
        ValueError: the model does not run on one tensor of that shape; the message has the model's own error.
    """
    watch, notices = run_copy(model, input_shape, name, _Layers)
    unseen = {parameter: size for parameter, size in watch.sizes.items() if parameter not in watch.counted}
    return ModelSummary(
        name, input_shape, tuple(watch.rows), sum(watch.sizes.values()), tuple(unseen.items()), watch.between,
        tuple(watch.left_out), notices,
    )  # fmt: skip


@dataclass
class _Part:
    """What ran while a module, or a function called in one, was the innermost that has a row."""

    name: str
    kind: str
    module: nn.Module | None = None
    call: Call | None = None
    macs: int = 0
    works: bool = False  # something else than views ran
    read: dict[tuple[int, int, int], Tensor] = field(default_factory=dict)
    made: set[int] = field(default_factory=set)
    rows_inside: bool = False
    between: Counter[str] = field(default_factory=Counter)

    def add(self, other: _Part) -> None:
        self.macs += other.macs
        self.works |= other.works
        self.made |= other.made
        self.read = other.read | self.read


class _Operations(TorchDispatchMode):
    """Hands every ATen operation to the watch."""

    def __init__(self, note: Callable[..., None]) -> None:
        super().__init__()
        self._note = note

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self._note(func, args, kwargs, result)
        return result


class _Layers(Watch):
    """Makes the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self.between: Counter[str] = Counter()
        self.sizes: dict[str, int] = {}
        self.counted: set[str] = set()
        self._fields = Fields()
        self._parts: list[_Part] = []
        self._inside: list[bool] = []  # for each module that is running, whether it has a part of its own
        self._parameters: dict[int, str] = {}  # by storage
        self._modes = ExitStack()

    def follow(self, model: nn.Module, images: Tensor) -> None:
        super().follow(model, images)
        self._fields.start(images)
        self._parts = [_Part("", type(model).__name__)]
        for name, parameter in model.named_parameters():
            self.sizes[name] = parameter.numel()
            self._parameters[_storage(parameter)] = name

    def __enter__(self) -> _Layers:
        super().__enter__()
        self._modes.enter_context(_Operations(self._operation))
        return self

    def __exit__(self, *error: Any) -> None:
        self._modes.close()
        super().__exit__(*error)

    # --- Modules and functions.

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        outer = self._parts[-1].module
        has_part = outer is None or not _is_layer(outer)
        self._inside.append(has_part)
        if has_part:
            part = _Part(name, type(module).__name__, module)
            if type(module) is nn.Conv2d and module.padding_mode != "zeros":
                # Our kernels pad as they read: what is planned is the module's call and not that on a padded copy.
                part.call = _without_data(*module_call(module, args, kwargs, None)[:3])
            self._parts.append(part)

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not self._inside.pop():
            return
        part = self._parts.pop()
        is_own_leaf = part.works and not part.rows_inside and not any(True for _ in module.children())
        if _is_layer(module) or is_own_leaf or part.macs:
            self._row(part, output)
        else:
            self.between += part.between

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        outer = self._parts[-1]
        if outer.module is not None and _is_layer(outer.module):
            if func in FUNCTION_NAMES and outer.call is None:
                outer.call = _without_data(FUNCTION_NAMES[func], args, kwargs)
            return func(*args, **kwargs)
        name = FUNCTION_NAMES.get(func, getattr(func, "__name__", str(func)))
        part = _Part(f"{outer.name}.{name}".lstrip("."), name)
        self._parts.append(part)
        try:
            result = func(*args, **kwargs)
        finally:
            self._parts.pop()
        if part.macs or func in FUNCTION_NAMES or CONVOLVES_OR_POOLS.search(name):
            if func in FUNCTION_NAMES:
                part.call = _without_data(name, args, kwargs)
            self._row(part, result)
        else:
            outer.add(part)
            if part.works:
                outer.between[name.strip("_")] += 1
        return result

    def _row(self, part: _Part, output: Any) -> None:
        tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        names = {self._parameters[key[0]] for key in part.read if key[0] in self._parameters}
        if part.module is not None:
            names |= {self._parameters[_storage(parameter)] for parameter in part.module.parameters()}
        for outer in self._parts:
            outer.rows_inside = True
        moved = list(part.read.values())
        moved += [tensor for tensor in tensors if _storage(tensor) in part.made]
        first = tensors[0] if tensors else None
        state = self._fields.of(first) if first is not None else None
        self.rows.append(
            Row(
                self.numbered(part.name) if part.name else part.kind,
                part.kind,
                tuple(first.shape) if first is not None else None,
                sum(self.sizes[name] for name in names - self.counted),
                sum(self.sizes[name] for name in names & self.counted),
                part.macs,
                sum(_numbers(tensor) for tensor in moved if tensor.is_floating_point()),
                sum(_numbers(tensor) * tensor.itemsize for tensor in moved if not tensor.is_floating_point()),
                None if state is None else state.axes,
                part.call,
            )
        )
        self.counted |= names

    # --- Operations.

    def _operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        self._fields.follow(func, args, kwargs, result)
        part = self._parts[-1]
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if func.is_view or func.overloadpacket in _FREE:
            part.made |= {_storage(tensor) for tensor in outputs if func.overloadpacket in _UNWRITTEN}
            return
        part.works = True
        part.macs += _macs(func.overloadpacket, args, outputs)
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor) and _storage(leaf) not in part.made:
                part.read.setdefault((_storage(leaf), int(leaf.storage_offset()), leaf.numel()), leaf)
        part.made |= {_storage(tensor) for tensor in outputs}


def _is_layer(module: nn.Module) -> bool:
    """Whether it is a layer of torch's, or one that was made from such a layer: what runs inside is not shown apart."""
    kinds = {base.__module__ for base in type(module).__mro__ if base.__module__.startswith("torch.nn.modules.")}
    return bool(kinds - _NO_LAYERS) and not isinstance(module, nn.Identity)


_NO_LAYERS = {f"torch.nn.modules.{name}" for name in ("module", "container", "transformer", "lazy")}


def _without_data(function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    # Max pooling's return_indices, which our function has not, may stand at the end.
    args = args[:6] if function == "max_pool2d" else args
    return Call(
        function, *tree_map_only(Tensor, lambda tensor: torch.empty_like(tensor, device="meta"), (args, kwargs))
    )


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _numbers(tensor: Tensor) -> int:
    """What it holds: an expanded one less than it has elements."""
    return min(tensor.numel(), tensor.untyped_storage().nbytes() // tensor.itemsize)


def _macs(packet: Any, args: tuple[Any, ...], outputs: list[Tensor]) -> int:
    if packet is torch.ops.aten.convolution:
        return convolution_macs(args[0].shape, args[1].shape, outputs[0].shape, transposed=args[6])
    if packet in _PRODUCTS:
        return product_macs(args[_PRODUCTS[packet]].shape, outputs[0].shape)
    if packet in _ATTENTION:
        query, key, value = (tensor.shape for tensor in args[:3])
        scores = (*query[:-1], key[-2])
        return product_macs(query, scores) + product_macs(scores, (*query[:-1], value[-1]))
    return 0


def _packets(names: str) -> list[Any]:
    return [getattr(torch.ops.aten, name) for name in names.split()]


# Products of matrices and vectors, and which argument is the one whose last dimension is summed over.
_PRODUCTS = dict.fromkeys(_packets("mm bmm mv dot"), 0) | dict.fromkeys(_packets("addmm baddbmm addmv"), 1)
_ATTENTION = set(
    _packets("_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_fused_attention_overrideable")
)
# Memory that nobody has written to, and views that are not marked as such.
_UNWRITTEN = set(_packets("empty empty_like empty_strided new_empty new_empty_strided"))
_FREE = _UNWRITTEN | set(_packets("_unsafe_view detach alias lift_fresh _reshape_alias"))
