"""Receptive fields of the tensors of a forward pass, found while it runs, from one ATen operation to the next.

A tensor that depends on the image has, for each axis of the image (0: height, 1: width), the field of its features
(cnnkernels.arithmetic.ReceptiveField), and for each of its dimensions the axes whose positions that dimension
enumerates: [N, C, H, W] has ((), (), (0,), (1,)), the same flattened from C on ((), (0, 1)). So a linear layer is
local to a position where it multiplies channels of tokens, and sees all of the image where it multiplies a flattened
map.

An operation that has no rule, or that mixes positions in a way that has no field of that form (a strided transposed
convolution, an interpolation, windows of attention, sums of maps with different strides), makes the field unknown from
there on: None, never a guess.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from cnnkernels.arithmetic import IMAGE
from cnnkernels.bench.fields.rules import ELEMENTWISE, RULES, Call, elementwise
from cnnkernels.bench.fields.state import Axis, State, meet


class Fields:
    """The states of the tensors of one forward pass."""

    def __init__(self) -> None:
        self._states = WeakTensorKeyDictionary()

    def start(self, image: Tensor) -> None:
        """`image` [N, C, H, W] is what fields are measured in."""
        height, width = image.shape[-2:]
        self._states[image] = State(((), (), (0,), (1,)), (Axis(IMAGE, height, height), Axis(IMAGE, width, width)))

    def of(self, tensor: Tensor) -> State | None:
        """None for a tensor that does not depend on the image."""
        state: State | None = self._states.get(tensor)
        return state

    def follow(self, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Give the results of an ATen operation their states."""
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(tensor in self._states for tensor in inputs):
            return
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        packet = operator.overloadpacket
        rule = RULES.get(packet)
        if rule is None and (torch.Tag.pointwise in operator.tags or packet in ELEMENTWISE):
            rule = elementwise
        states: list[State | None] | State | None = None
        if rule is not None:
            arguments = {
                argument.name: value for argument, value in zip(operator._schema.arguments, args, strict=False)
            }
            states = rule(Call(self.of, arguments | kwargs, inputs, outputs))
        for index, output in enumerate(outputs):
            state = states[index] if isinstance(states, list) else states
            if state is None or len(state.labels) != output.ndim:
                state = self._unknown(inputs, output)
            self._states[output] = state
            # A view that was written to is part of another tensor.
            if operator._schema.is_mutable and output._base is not None:
                self._written(output._base, state)

    def _unknown(self, inputs: list[Tensor], output: Tensor) -> State:
        """After an operation of which nothing is known: what no position is left to distinguish stays."""
        found = [state for state in map(self.of, inputs) if state is not None]
        axes = []
        for axis in range(2):
            local = any(state.place(axis) for state in found)
            field = None if local else meet(state.axes[axis] for state in found)
            axes.append(Axis(field, 1, found[0].axes[axis].pixels))
        return State(((),) * output.ndim, (axes[0], axes[1]))

    def _written(self, base: Tensor, written: State) -> None:
        before = self.of(base) or written
        known = len(before.labels) == base.ndim and before.labels == written.labels
        axes = []
        for old, new in zip(before.axes, written.axes, strict=True):
            axes.append(replace(old, field=meet((old, new)) if known else None))
        self._states[base] = State(before.labels if known else ((),) * base.ndim, (axes[0], axes[1]))
