"""The tensors of a case: fresh random data, as many sets of them as it takes to miss every cache."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from cnnkernels.bench import machine
from cnnkernels.bench.layer import Layer

Data = Literal["normal", "relu"]

MEMORY_FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
LAYOUTS = tuple(MEMORY_FORMATS)


@dataclass(frozen=True)
class Case:
    """What providers are compared on."""

    layer: Layer
    name: str  # the pass
    dtype: torch.dtype
    data: Data = "normal"
    tf32: bool = False  # fp32 may be multiplied as tf32

    @classmethod
    def named(cls, layer: Layer, name: str, dtype: str, data: Data = "normal") -> Case:
        """By a name of `machine.DTYPES`: "bf16", "tf32", ..."""
        return cls(layer, name, machine.DTYPES[dtype], data, dtype == machine.TF32)

    @property
    def dtype_name(self) -> str:
        if self.tf32:
            return machine.TF32
        return next(name for name, dtype in machine.DTYPES.items() if dtype == self.dtype)

    @property
    def is_backward(self) -> bool:
        return self.name in ("dgrad", "wgrad", "backward")

    @property
    def useful_bytes(self) -> int:
        return self.layer.useful_bytes(self.name, self.dtype.itemsize)


@dataclass(frozen=True)
class Operands:
    """x[N, C, H, W], the filters w, and what some passes read besides: bias b[K], a residual z and dy, both [N, K, P, Q]."""

    x: Tensor
    w: Tensor | None
    b: Tensor | None
    z: Tensor | None
    dy: Tensor | None

    def clone(self) -> Operands:
        copies = (None if tensor is None else tensor.clone() for tensor in (self.w, self.b, self.z, self.dy))
        return Operands(self.x.clone(), *copies)

    def copy_(self, other: Operands) -> None:
        """Write the values of `other` into these tensors."""
        with torch.no_grad():
            for mine, theirs in zip(self.present(), other.present(), strict=True):
                mine.copy_(theirs)

    def all(self) -> tuple[Tensor | None, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))

    def present(self) -> tuple[Tensor, ...]:
        return tuple(tensor for tensor in self.all() if tensor is not None)


def make_operands(case: Case, layout: str, device: torch.device, generator: torch.Generator | None = None) -> Operands:
    """Operands of `case` in `layout`, filled by :func:`fill` if there is a generator, which is of `device`."""
    layer = case.layer

    def empty(shape: tuple[int, ...], wanted: bool) -> Tensor | None:
        if not wanted:
            return None
        memory_format = MEMORY_FORMATS[layout] if len(shape) == 4 else torch.contiguous_format
        return torch.empty(shape, dtype=case.dtype, device=device, memory_format=memory_format)

    fused = case.name.endswith("relu")
    x = torch.empty(layer.input_shape, dtype=case.dtype, device=device, memory_format=MEMORY_FORMATS[layout])
    operands = Operands(
        x,
        empty(layer.weight_shape, not layer.is_pooling),
        empty((layer.K,), fused),
        empty(layer.output_shape, case.name == "fprop_add_relu"),
        empty(layer.output_shape, case.is_backward),
    )
    if generator is not None:
        fill(operands, case, generator)
    return operands


def fill(operands: Operands, case: Case, generator: torch.Generator) -> None:
    """New data in place: N(0, 1), filters divided by the square root of their fan-in. The same in every layout.

    Never zeros, ones or small integers: power, and with it the clock, depends on how many bits toggle.
    """
    with torch.no_grad():
        for tensor in operands.present():
            tensor.copy_(
                torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device).normal_(generator=generator)
            )
        if operands.w is not None:
            operands.w.div_(case.layer.reduction_lengths["fprop"] ** 0.5)
        if case.data == "relu":
            operands.x.relu_()


def renew(operands: Operands, case: Case, generator: torch.Generator) -> None:
    """New data, in place, in everything that a call reads which was made ready before.

    A pooling's backward keeps its window positions from its forward, so that there only dy is new. Autograd is not told:
    it would refuse a backward whose forward saw other data, which is the point here.
    """
    new = make_operands(case, "nchw", operands.x.device, generator)
    only_dy = case.name == "backward"
    for mine, theirs in zip(operands.present(), new.present(), strict=True):
        if mine is operands.dy or not only_dy:
            mine.data.copy_(theirs)


def number_of_sets(case: Case, device: torch.device, cache_bytes: int, hot: bool) -> int:
    """How many sets of operands and results a round goes through.

    Cold: at least three times the last-level cache and 256 MiB, so that nothing is left of a set when its turn comes
    again; but no more sets than a graph holds comfortably. Whether it was enough is `rotation_bytes` of the row.
    """
    if hot:
        return 1
    wanted = max(3 * cache_bytes, 256 * 2**20)
    most = 4096 if device.type == "cuda" else 32
    return max(1, min(most, -(-wanted // case.useful_bytes)))
