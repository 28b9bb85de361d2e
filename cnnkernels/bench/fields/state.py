"""What a tensor of a forward pass knows of the image, and what several of them know together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cnnkernels.arithmetic import ReceptiveField

#: Which axes a dimension enumerates, the slowest first.
Labels = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Axis:
    """One axis of the image as a tensor sees it. `field` None: not known."""

    field: ReceptiveField | None
    positions: int
    pixels: int  # of the image

    @property
    def whole(self) -> Axis:
        """After something that depends on all positions at once."""
        return replace(self, field=None if self.field is None else self.field.of_all(self.positions), positions=1)

    @property
    def everything(self) -> bool:
        """Whether each feature has all of the image in its field, because all have one field."""
        field = self.field
        return field is not None and field.jump == 0 and field.left <= 0 and field.left + field.size >= self.pixels


@dataclass(frozen=True)
class State:
    """What is known of a tensor. An axis in no label has one field for all of the tensor."""

    labels: Labels
    axes: tuple[Axis, Axis]

    def place(self, axis: int) -> list[int]:
        return [dim for dim, label in enumerate(self.labels) if axis in label]

    def labelled(self, labels: Iterable[tuple[int, ...]]) -> State:
        """With other labels. An axis that is in none of them any more had one position left."""
        state = replace(self, labels=tuple(labels))
        for axis in range(2):
            if self.place(axis) and not state.place(axis):
                state = state.with_axis(axis, self.axes[axis].whole)
        return state

    def with_axis(self, axis: int, value: Axis) -> State:
        return replace(self, axes=(value, self.axes[1]) if axis == 0 else (self.axes[0], value))

    def unknown(self, axis: int) -> State:
        return self.with_axis(axis, replace(self.axes[axis], field=None))

    def reduced(self, dims: Iterable[int], keepdim: bool = True) -> State:
        """After something in which each result depends on all of dimensions `dims`."""
        dims = {dim % len(self.labels) for dim in dims}
        state = self
        for axis in range(2):
            place = set(self.place(axis))
            if place and place <= dims:
                state = state.with_axis(axis, self.axes[axis].whole)
            elif place & dims:
                state = state.unknown(axis)
        labels = ((() if dim in dims else label) for dim, label in enumerate(self.labels) if keepdim or dim not in dims)
        return replace(state, labels=tuple(labels))


def meet(axes: Iterable[Axis]) -> ReceptiveField | None:
    """The field of something that depends on features of all these; None where there is none, or one is unknown."""
    met: Axis | None = None
    for axis in axes:
        met = axis if met is None else _meet_two(met, axis)
    return None if met is None else met.field


def _meet_two(first: Axis, second: Axis) -> Axis:
    met = replace(first, field=None, positions=max(first.positions, second.positions))
    if first.field is None or second.field is None:
        return met
    if first.field.jump == second.field.jump:
        return replace(met, field=first.field.union(second.field))
    # What is the same everywhere hides what is not, where it has every pixel that any feature of that depends on.
    for wide, other in ((first, second), (second, first)):
        one, every = wide.whole, other.whole
        assert one.field is not None and every.field is not None
        covers = one.everything or one.field.union(every.field) == one.field
        if covers and (wide.positions == 1 or wide.field == one.field):
            return replace(met, field=one.field.union(every.field))
    return met


def together(states: Sequence[tuple[State, Sequence[int]]], shape: Sequence[int]) -> State:
    """Of something that depends, at each place, on several tensors broadcast to `shape`; with each, its own shape."""
    labels: list[tuple[int, ...]] = [()] * len(shape)
    axes = []
    for axis in range(2):
        met, places = [], set()
        for state, own in states:
            shift = len(shape) - len(own)
            place = tuple(dim + shift for dim in state.place(axis))
            stretched = any(own[dim - shift] != shape[dim] for dim in place)
            met.append(state.axes[axis].whole if stretched else state.axes[axis])
            if place and not stretched:
                places.add(tuple((dim, state.labels[dim - shift]) for dim in place))
        field = meet(met) if len(places) <= 1 else None
        for place_and_labels in places:
            for dim, label in place_and_labels:
                labels[dim] = label
        axes.append(Axis(field, max(value.positions for value in met), met[0].pixels))
    return State(tuple(labels), (axes[0], axes[1]))
