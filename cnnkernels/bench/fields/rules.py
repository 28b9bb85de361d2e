"""What each ATen operation does to the fields of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cnnkernels.arithmetic import ReceptiveField
from cnnkernels.bench.fields.state import State, together


@dataclass
class Call:
    of: Callable[[Tensor], State | None]
    arguments: dict[str, Any]
    inputs: list[Tensor]
    outputs: list[Tensor]

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)

    @property
    def first(self) -> State | None:
        return self.of(self.inputs[0])


#: The state of the results, or one for each of them; None: nothing is known.
Rule = Callable[[Call], State | list[State | None] | None]

#: What happens to a field along one dimension.
Step = Callable[[ReceptiveField], ReceptiveField]


@dataclass(frozen=True)
class Window:
    """The Step of a convolution or pooling."""

    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    padding: int = 0

    def __call__(self, field: ReceptiveField) -> ReceptiveField:
        return field.through(self.kernel, self.stride, self.dilation, self.padding)


def elementwise(call: Call) -> State | None:
    found = [(state, tensor.shape) for tensor in call.inputs if (state := call.of(tensor)) is not None]
    return together(found, call.outputs[0].shape) if call.outputs else None


def _copy(call: Call) -> State | None:
    source = call.of(call["src"])
    return None if source is None else together([(source, call["src"].shape)], call.outputs[0].shape)


# --- Windows.


def _windows(
    call: Call, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> State | None:
    """A convolution or pooling over the last dimensions of its input."""
    state, image, output = call.first, call.inputs[0], call.outputs[0]
    if state is None:
        return None
    for dim in range(-len(kernel), 0):
        window = Window(kernel[dim], stride[dim], dilation[dim], padding[dim])
        if window != Window():
            state = _along(state, image.shape, dim, output.shape[dim], window)
    return state


def _along(state: State, shape: Sequence[int], dim: int, positions: int, step: Step) -> State:
    """After `step` along dimension `dim`, of which `positions` are left."""
    label = state.labels[dim]
    for axis in label:
        before = state.axes[axis]
        orderly = label == (axis,) and state.place(axis) == [dim % len(shape)] and shape[dim] == before.positions
        field = step(before.field) if orderly and before.field is not None else None
        state = state.with_axis(axis, replace(before, field=field, positions=positions))
    return state


def _repeated(state: State, shape: Sequence[int], dim: int, positions: int) -> State:
    """After dimension `dim` got another size in a way that has no field, unless it had one position, which all get."""
    for axis in state.labels[dim]:
        value = state.axes[axis]
        same = value.whole.field if shape[dim] == value.positions == 1 else None
        state = state.with_axis(axis, replace(value, field=same, positions=positions))
    return state


def _full(values: Any, length: int) -> list[int]:
    """ATen's list of one or `length` numbers."""
    return list(values) * length if len(values) == 1 else list(values)


def _convolution(call: Call) -> State | None:
    kernel = call["weight"].shape[2:]
    stride, padding, dilation = (_full(call[name], len(kernel)) for name in ("stride", "padding", "dilation"))
    if not call["transposed"]:
        return _windows(call, kernel, stride, padding, dilation)
    # With a stride of 1 it is a convolution by the mirrored filter; with another one it has no field of this form.
    mirrored = [d * (k - 1) - p for k, p, d in zip(kernel, padding, dilation, strict=True)]
    if all(step == 1 for step in stride):
        return _windows(call, kernel, stride, mirrored, dilation)
    state = call.first
    return None if state is None or any(state.labels) else state


def _pool(call: Call) -> State | None:
    kernel = _full(call["kernel_size"], 2)
    stride = _full(call["stride"] or kernel, 2)
    return _windows(call, kernel, stride, _full(call["padding"] or [0], 2), _full(call["dilation"] or [1], 2))


def _adaptive(call: Call) -> State | None:
    state, image = call.first, call.inputs[0]
    if state is None:
        return None
    for dim, out in zip((-2, -1), call["output_size"], strict=True):
        window, rest = divmod(image.shape[dim], out)
        if rest:  # windows of different sizes
            state = _repeated(state, image.shape, dim, out)
        elif out == 1:
            state = state.reduced([dim])
        else:
            state = _along(state, image.shape, dim, out, Window(window, window))
    return state


def _pad(call: Call) -> State | None:
    state, pads = call.first, call["pad"] or call["padding"]
    for index in range(len(pads) // 2):
        dim, before = -1 - index, pads[2 * index]
        if state is not None and (before or pads[2 * index + 1]):
            positions = call.outputs[0].shape[dim]
            state = _along(state, call.inputs[0].shape, dim, positions, Window(padding=before))
    return state


def _interpolate(call: Call) -> State | None:
    state, image, output = call.first, call.inputs[0], call.outputs[0]
    for dim in range(2, image.ndim):
        if state is not None and image.shape[dim] != output.shape[dim]:
            state = _repeated(state, image.shape, dim, output.shape[dim])
    return state


# --- Dimensions of another order, merged, split, dropped.


def _permute(call: Call) -> State | None:
    state = call.first
    return None if state is None else replace(state, labels=tuple(state.labels[dim] for dim in call["dims"]))


def _transpose(call: Call) -> State | None:
    state = call.first
    if state is None:
        return None
    labels = list(state.labels)
    first, second = (call["dim0"], call["dim1"]) if "dim0" in call.arguments else (0, -1)
    if labels:
        labels[first], labels[second] = labels[second], labels[first]
    return replace(state, labels=tuple(labels))


def _unsqueeze(call: Call) -> State | None:
    state = call.first
    if state is None:
        return None
    labels = list(state.labels)
    labels.insert(call["dim"] % (len(labels) + 1), ())
    return replace(state, labels=tuple(labels))


def _view(call: Call) -> State | None:
    """Runs of dimensions with as many elements before and after; one that is not changed keeps its label."""
    state = call.first
    before, after = list(call.inputs[0].shape), list(call.outputs[0].shape)
    if state is None or 0 in before:
        return None
    labels: list[tuple[int, ...]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        first, start = i, j
        left = right = 1
        while True:
            if left == right and (i > first or j > start):
                break
            if j >= len(after) or (i < len(before) and left <= right):
                left, i = left * before[i], i + 1
            else:
                right, j = right * after[j], j + 1
        # Dimensions of one element belong to no run, and have no positions to tell apart.
        merged = tuple(axis for dim in range(first, i) if before[dim] > 1 for axis in state.labels[dim])
        wide = [dim for dim in range(start, j) if after[dim] > 1]
        if len(wide) == len(merged) and [after[dim] for dim in wide] == [state.axes[axis].positions for axis in merged]:
            new: dict[int, tuple[int, ...]] = {dim: (axis,) for dim, axis in zip(wide, merged, strict=True)}
        else:
            new = dict.fromkeys(wide, merged)
        labels += [new.get(dim, ()) for dim in range(start, j)]
    return state.labelled(labels)


def _expand(call: Call) -> State | None:
    state = call.first
    return None if state is None else together([(state, call.inputs[0].shape)], call.outputs[0].shape)


# --- Parts, and parts together.


def _part(state: State, shape: Sequence[int], dim: int, start: int, positions: int, step: int = 1) -> State:
    if positions == shape[dim]:
        return state

    def of_part(field: ReceptiveField) -> ReceptiveField:
        return ReceptiveField(field.size, field.jump * step, field.left + start * field.jump)

    return _along(state, shape, dim % len(shape), positions, of_part)


def _slice(call: Call) -> State | None:
    state, shape, dim = call.first, call.inputs[0].shape, call["dim"] or 0
    if state is None:
        return None
    start, stop, step = slice(call["start"], call["end"], call["step"]).indices(shape[dim])
    return _part(state, shape, dim, start, len(range(start, stop, step)), step)


def _select(call: Call) -> State | None:
    state, shape, dim = call.first, call.inputs[0].shape, call["dim"]
    if state is None:
        return None
    state = _part(state, shape, dim, call["index"] % shape[dim], 1)
    return state.labelled(label for index, label in enumerate(state.labels) if index != dim % len(shape))


def _split(call: Call) -> list[State | None] | None:
    state, shape, dim = call.first, call.inputs[0].shape, call["dim"] or 0
    if state is None:
        return None
    starts = [0]
    for output in call.outputs:
        starts.append(starts[-1] + output.shape[dim])
    return [
        _part(state, shape, dim, start, output.shape[dim]) for start, output in zip(starts, call.outputs, strict=False)
    ]


def _unbind(call: Call) -> list[State | None] | None:
    state, shape, dim = call.first, call.inputs[0].shape, call["dim"] or 0
    if state is None:
        return None
    parts = [_part(state, shape, dim, index, 1) for index in range(len(call.outputs))]
    kept = [index for index in range(len(shape)) if index != dim % len(shape)]
    return [part.labelled(part.labels[index] for index in kept) for part in parts]


def _cat(call: Call) -> State | None:
    dim = (call["dim"] or 0) % call.outputs[0].ndim
    shape = list(call.outputs[0].shape)
    found = [(state, tensor.shape) for tensor in call.inputs if (state := call.of(tensor)) is not None]
    for state, own in found:
        if len(own) != len(shape) or state.labels[dim]:
            return None
    shapes = [[*own[:dim], shape[dim], *own[dim + 1 :]] for _, own in found]
    return together([(state, own) for (state, _), own in zip(found, shapes, strict=True)], shape)


# --- Sums over dimensions.


def _product(call: Call) -> State | None:
    """A product of matrices, perhaps of batches of them, perhaps added to something."""
    left, right = call.inputs[-2:]
    operands = []
    for tensor, sum_over in ((left, -1), (right, -2)):
        state = call.of(tensor)
        if state is None:
            continue
        state = state.reduced([sum_over])
        shape = list(tensor.shape)
        shape[sum_over] = 1
        if tensor.ndim == 1:
            return None
        operands.append((state, shape))
    if len(call.inputs) == 3 and (state := call.of(call.inputs[0])) is not None:
        operands.append((state, list(call.inputs[0].shape)))
    return together(operands, call.outputs[0].shape)


def _reduction(call: Call) -> State | None:
    state = call.first
    if state is None:
        return None
    dims = call["dim"]
    dims = range(len(state.labels)) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    return state.reduced(dims, bool(call["keepdim"]))


def _softmax(call: Call) -> State | None:
    return None if call.first is None else call.first.reduced([call["dim"]])


def _layer_norm(call: Call) -> State | None:
    return None if call.first is None else call.first.reduced(range(-len(call["normalized_shape"]), 0))


def _group_norm(call: Call) -> State | None:
    return None if call.first is None else call.first.reduced(range(1, len(call.first.labels)))


def _batch_norm(call: Call) -> State | None:
    state = call.first
    if state is None or not call["training"]:
        return state
    return state.reduced(dim for dim in range(len(state.labels)) if dim != 1)


def _rules() -> tuple[dict[Any, Rule], set[Any]]:
    aten = torch.ops.aten
    rules: dict[Rule, str] = {
        _convolution: "convolution",
        _pool: "max_pool2d_with_indices avg_pool2d",
        _adaptive: "_adaptive_avg_pool2d adaptive_max_pool2d",
        _pad: "constant_pad_nd reflection_pad2d replication_pad2d",
        _interpolate: "upsample_nearest2d _upsample_nearest_exact2d upsample_bilinear2d upsample_bicubic2d "
        "_upsample_bilinear2d_aa _upsample_bicubic2d_aa",
        _permute: "permute",
        _transpose: "transpose t",
        _unsqueeze: "unsqueeze",
        _view: "view _unsafe_view reshape _reshape_alias squeeze",
        _expand: "expand",
        _slice: "slice",
        _select: "select",
        _split: "split split_with_sizes unsafe_split",
        _unbind: "unbind",
        _cat: "cat",
        _copy: "copy_",
        _product: "mm bmm addmm baddbmm",
        _reduction: "mean sum amax amin std var linalg_vector_norm",
        _softmax: "_softmax _log_softmax _safe_softmax",
        _layer_norm: "native_layer_norm",
        _group_norm: "native_group_norm",
        _batch_norm: "native_batch_norm _native_batch_norm_legit cudnn_batch_norm",
    }  # fmt: skip
    same = (
        "hardswish hardswish_ _prelu_kernel _to_copy clone detach alias lift_fresh native_dropout log_sigmoid_forward "
        "_native_batch_norm_legit_no_training native_channel_shuffle contiguous"
    )
    by_packet = {getattr(aten, name): rule for rule, names in rules.items() for name in names.split()}
    return by_packet, {getattr(aten, name) for name in same.split()}


RULES, ELEMENTWISE = _rules()
