"""Triton's interpreter, in a fraction of its time, and with every access held against the tensors.

A program of the interpreter has few numbers in its blocks, and most of its time goes into the Python objects around them: a type and a shape
for every intermediate result, and at every call of a @triton.jit function all of triton.language replaced once more. :func:`quick` has these
made once and remembered. Every operation is done as before, on the same numbers and in the same order, so results keep their bits
(tests/test_triton_interpreter.py), but for subnormal numbers on their way to or from bfloat16: Triton 3.9 converts these wrongly, and here a
bfloat16 is what it is, the upper half of a float.

One thing is left out: each integer operation is done twice, the second time in 64 bits, to look for an overflow, of which the interpreter tells
in debug mode alone. And NumPy says nothing of exponentials that overflow, as a GPU does.

One thing is added. The interpreter follows any address: a mask that lets a lane too many through would read what lies behind a tensor, which a
result need not show, or overwrite it. Here every address that a kernel loads or stores has to lie in one of the launch's tensors.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from cnnkernels.backends.triton import INTERPRETED, unavailable

__all__ = ["quick"]

#: The Triton whose interpreter was read for this. Another one is left as it is, but for the overflow checks.
_VERSIONS = ("3.9.",)


@contextmanager
def quick() -> Iterator[None]:
    """Have Triton's interpreter remember types and shapes, look for stray addresses and not for overflows, until the end of the context.

    Nothing happens where Triton does not interpret, and within another such context. A kernel that loads or stores outside of the tensors it was
    given raises Triton's InterpreterError, which names kernel, tensor and distance.
    """
    with ExitStack() as changes:
        for holder, name, value in _changes():
            changes.enter_context(_set(holder, name, value))
        changes.enter_context(np.errstate(over="ignore"))
        yield


def _changes() -> list[tuple[Any, str, Any]]:
    """What is replaced: (where, name, by what)."""
    if not INTERPRETED or unavailable() is not None:
        return []
    from triton.runtime import interpreter

    builder = interpreter.interpreter_builder
    if not getattr(builder.options, "sanitize_overflow", False):
        return []
    changes = [(builder, "options", dataclasses.replace(builder.options, sanitize_overflow=False))]
    known = importlib.metadata.version("triton").startswith(_VERSIONS)
    return [*changes, *([*_remembering(interpreter), *_bounded(interpreter)] if known else [])]


@contextmanager
def _set(holder: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(holder, name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        setattr(holder, name, before)


def _remembering(interpreter: Any) -> list[tuple[Any, str, Callable[..., Any]]]:
    from triton.language import core

    semantic = type(interpreter.interpreter_semantic)
    return [
        (interpreter, "_patch_lang", _patch_once(interpreter, core)),
        (interpreter, "_get_np_dtype", _dtype_once(interpreter._get_np_dtype, core)),
        (interpreter, "_convert_float", _by_bits(interpreter._convert_float)),
        (core.block_type, "__init__", _type_once(core.block_type.__init__)),
        (core.tensor, "__init__", _shape_once(core.tensor.__init__)),
        (semantic, "broadcast_impl_value", _unless_alike(semantic.broadcast_impl_value)),
        (semantic, "binary_op_type_checking_impl", _common_type_once(semantic.binary_op_type_checking_impl, core)),
    ]


def _patch_once(interpreter: Any, core: Any) -> Callable[[Any], Any]:
    """A launch has triton.language run by the interpreter until its end; a call of a @triton.jit function within it finds that done."""
    import triton.language as tl

    patch, done, names = interpreter._patch_lang, set[frozenset[str]](), dict[Any, frozenset[str]]()

    class Scope(interpreter._LangPatchScope):
        def restore(self) -> None:
            super().restore()
            done.clear()

    def patch_once(fn: Any) -> Any:
        scope, seen = Scope(), names.get(fn)
        if seen is None:
            seen = names[fn] = frozenset(v.__name__ for v in fn.__globals__.values() if v is tl or v is core)
        if seen not in done:
            scope._changes = patch(fn)._changes
            done.add(seen)
        return scope

    return patch_once


def _dtype_once(dtype_of: Callable[[Any], Any], core: Any) -> Callable[[Any], Any]:
    """The function makes a dictionary of all dtypes to look one up."""
    known: dict[str, Any] = {}

    def dtype_once(type_: Any) -> Any:
        scalar = type_.element_ty if isinstance(type_, core.block_type) else type_
        found = known.get(scalar.name)
        if found is None:
            found = known[scalar.name] = dtype_of(type_)
        return found

    return dtype_once


def _by_bits(convert: Callable[..., Any]) -> Callable[..., Any]:
    """A bfloat16 is the upper half of a float. Triton takes every number apart, and goes through a mantissa's bits one by one if there is a zero."""

    def by_bits(input: Any, input_dtype: Any, output_dtype: Any, rounding_mode: Any) -> Any:
        names = input_dtype.name, output_dtype.name
        if rounding_mode is None and names == ("bf16", "fp32"):
            return input.astype(np.uint32) << 16
        if rounding_mode is None and names == ("fp32", "bf16"):
            return (np.ascontiguousarray(input).view(np.uint32) >> 16).astype(np.uint16)
        return convert(input, input_dtype, output_dtype, rounding_mode)

    return by_bits


def _type_once(init: Callable[..., None]) -> Callable[..., None]:
    """A block's type is its element's type and its shape, and does not change."""
    known: dict[Any, dict[str, Any]] = {}

    def type_once(self: Any, element_ty: Any, shape: Any) -> None:
        key = (element_ty.name, *(getattr(length, "value", length) for length in shape))
        found = known.get(key)
        if found is None:
            init(self, element_ty, shape)
            known[key] = dict(self.__dict__)
        else:
            self.__dict__.update(found)

    return type_once


def _shape_once(init: Callable[..., None]) -> Callable[..., None]:
    """A tensor wraps the lengths of its type's shape one by one."""
    known: dict[Any, tuple[Any, Any]] = {}

    def shape_once(self: Any, handle: Any, type: Any) -> None:
        key = tuple(type.shape.values) if type.is_block() else ()
        found = known.get(key)
        if found is None:
            init(self, handle, type)
            known[key] = self.shape, self.numel
        else:
            self.handle, self.type, self.dtype = handle, type, type.scalar
            self.shape, self.numel = found

    return shape_once


def _unless_alike(broadcast: Callable[..., Any]) -> Callable[..., Any]:
    """Two scalars, or two blocks of one shape, need not be broadcast: seen without comparing the shapes as Triton's tuples."""

    def unless_alike(self: Any, lhs: Any, rhs: Any) -> Any:
        left, right = lhs.type, rhs.type
        blocks = left.is_block()
        if blocks == right.is_block() and (not blocks or left.shape.values == right.shape.values):
            return lhs, rhs
        return broadcast(self, lhs, rhs)

    return unless_alike


def _common_type_once(check: Callable[..., Any], core: Any) -> Callable[..., Any]:
    """What the operands of an operation are converted to follows from their types, and from the value of one that is a plain number."""
    known: dict[Any, tuple[Any, Any]] = {}

    def common_type_once(self: Any, lhs: Any, rhs: Any, *flags: Any, **named: Any) -> Any:
        operands, keys = (lhs, rhs), []
        for operand in operands:
            keys.append(operand.dtype.name if isinstance(operand, core.tensor) else (type(operand), operand))
        key = (*keys, *flags, *named.items())
        found = known.get(key)
        if found is None:
            checked = check(self, lhs, rhs, *flags, **named)
            known[key] = checked[0].dtype, checked[1].dtype
            return checked
        left, right = (
            (operand if operand.dtype.name == type_.name else self.cast(operand, type_))
            if isinstance(operand, core.tensor)
            else self.scalar_constant(operand, type_)
            for operand, type_ in zip(operands, found, strict=True)
        )
        return self.broadcast_impl_value(left, right)

    return common_type_once


def _bounded(interpreter: Any) -> list[tuple[Any, str, Callable[..., Any]]]:
    """Accesses are held against the tensors of the launch: each from its first element to its last."""
    kernel, extents = "", list[tuple[int, int, str]]()
    executor, builder = interpreter.GridExecutor, interpreter.InterpreterBuilder

    def noting(take_arguments: Callable[..., Any]) -> Callable[..., Any]:
        def noted(self: Any, args: Any, kwargs: Any) -> Any:
            nonlocal kernel
            taken = take_arguments(self, args, kwargs)
            kernel = self.fn.__name__
            named = {**dict(zip(self.arg_names, taken[0], strict=False)), **taken[1]}
            extents[:] = [(*_extent(value), name) for name, value in named.items() if isinstance(value, torch.Tensor)]
            return taken

        return noted

    def hold(access: str, pointers: Any, mask: Any) -> None:
        touched = pointers.data[mask.data]
        if touched.size == 0:
            return
        width = interpreter._get_np_dtype(pointers.get_element_ty()).itemsize
        first, last = int(touched.min()), int(touched.max()) + width
        if any(begin <= first and last <= end for begin, end, _ in extents):
            return
        inside = np.zeros(touched.shape, bool)
        for begin, end, _ in extents:
            inside |= (touched >= begin) & (touched <= end - width)
        if inside.all():
            return
        stray = int(touched[~inside][0])
        distance, side, name = min(
            (begin - stray, "before", name) if stray < begin else (stray + width - end, "past", name)
            for begin, end, name in extents
        )
        raise IndexError(f"{kernel} {access} {width} bytes that reach {distance} bytes {side} '{name}'")

    def load(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        hold("loads", pointers, mask)
        return loads(self, pointers, mask, *rest)

    def store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        hold("stores", pointers, mask)
        return stores(self, pointers, value, mask, *rest)

    def update(self: Any, op: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        hold("updates", pointers, mask)
        return updates(self, op, pointers, value, mask, *rest)

    loads, stores, updates = builder.create_masked_load, builder.create_masked_store, builder.create_atomic_rmw
    return [
        (executor, "_init_args_hst", noting(executor._init_args_hst)),
        (builder, "create_masked_load", load),
        (builder, "create_masked_store", store),
        (builder, "create_atomic_rmw", update),
    ]


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """(address of the first byte, of the first one behind the last)."""
    begin = tensor.data_ptr()
    if tensor.numel() == 0:
        return begin, begin
    last = sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return begin, begin + (last + 1) * tensor.element_size()
