"""Filling the tuning table: which candidates a problem has, and a loop that measures them and records each winner at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from cnnkernels import catalogue, functional, tuning
from cnnkernels.backends import unavailable
from cnnkernels.bench import machine, store
from cnnkernels.bench.layer import Layer
from cnnkernels.bench.suites import Entry as Line
from cnnkernels.tuning import Entry, Problem

TORCH = "torch"

# The operator behind each pass of each layer. A transposed convolution's forward is a convolution's dgrad.
_OPERATORS = {
    "conv2d": {"fprop": "conv2d_fprop", "dgrad": "conv2d_dgrad", "wgrad": "conv2d_wgrad"},
    "conv_transpose2d": {"fprop": "conv2d_dgrad", "dgrad": "conv2d_fprop", "wgrad": "conv2d_wgrad"},
    "max_pool2d": {"forward": "max_pool2d", "backward": "max_pool2d_backward"},
    "avg_pool2d": {"forward": "avg_pool2d", "backward": "avg_pool2d_backward"},
    "adaptive_max_pool2d": {"forward": "adaptive_max_pool2d", "backward": "adaptive_max_pool2d_backward"},
    "adaptive_avg_pool2d": {"forward": "adaptive_avg_pool2d", "backward": "adaptive_avg_pool2d_backward"},
}

# Layer.forward hands these a layer's arguments as it would hand them to cnnkernels.functional.
_PREPARE = SimpleNamespace(**{name: getattr(functional, f"prepare_{name}") for name in _OPERATORS})


@dataclass(frozen=True)
class Candidate:
    """One of our kernels on a backend, or torch's operator."""

    backend: str
    kernel: str = ""

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"{self.backend}/{self.kernel}" if self.kernel else self.backend


@dataclass(frozen=True)
class Timing:
    """A candidate's median time, or why it has none."""

    candidate: Candidate
    median_us: float | None
    reason: str = ""


#: Times candidates of one pass of a layer in a dtype and a layout, each behind the correctness gate.
Measure = Callable[[Layer, str, str, str, Sequence[Candidate]], list[Timing]]


@dataclass(frozen=True)
class Task:
    """One problem to tune."""

    title: str
    problem: Problem
    layer: Layer
    name: str  # the pass
    dtype: str  # a name of machine.DTYPES
    layout: str
    candidates: tuple[Candidate, ...]
    refused: dict[str, str]  # candidates that the plan refuses, and why

    def recorded_in(self, entries: dict[Problem, Entry]) -> bool:
        """Whether a table has an answer about every candidate: kernels compiled since then are reason to measure again."""
        entry = entries.get(self.problem)
        known = {} if entry is None else {**entry.candidates, **entry.refused}
        return all(candidate.name in known for candidate in self.candidates)


def tasks(
    lines: Iterable[Line], backend: str, dtypes: Sequence[str], layouts: Sequence[str]
) -> tuple[list[Task], dict[str, str]]:
    """Every problem of the layers, once, in their order; and of layers that cannot be tuned, why.

    Raises ImportError where cnnkernels._C, which has the catalogue, is not built.
    """
    found: dict[Problem, Task] = {}
    left_out: dict[str, str] = {}
    for line in lines:
        layer, title = line.problem, f"{line.net} {line.layer}"
        if layer.op not in _OPERATORS:
            left_out[title] = f"{layer.op} has no kernels of ours"
            continue
        for dtype in dtypes:
            for layout in layouts:
                for name in layer.passes:
                    problem = problem_of(layer, name, machine.DTYPES[dtype], layout, tf32=dtype == machine.TF32)
                    if problem not in found:
                        candidates, refused = candidates_for(problem, backend)
                        about = f"{title} {name} {dtype} {layout}"
                        found[problem] = Task(about, problem, layer, name, dtype, layout, candidates, refused)
    return list(found.values()), left_out


def problem_of(layer: Layer, name: str, dtype: torch.dtype, layout: str, *, tf32: bool = False) -> Problem:
    """The problem that pass `name` of `layer` is, on tensors dense in `layout`; `tf32`: fp32 may be multiplied as that."""
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format

    def tensor(shape: Sequence[int]) -> torch.Tensor:
        return torch.empty(tuple(shape), dtype=dtype, device="meta", memory_format=memory_format)

    weight = None if layer.is_pooling else tensor(layer.weight_shape)
    prepared: Any = layer.forward(tensor(layer.input_shape), weight, None, _PREPARE)
    op, geometry = _OPERATORS[layer.op][name], prepared[-1]
    channels, filters = layer.C, layer.K
    if layer.op == "conv_transpose2d":
        channels, filters = filters, channels
    problem = tuning.make_problem(op, dtype, layer.N, channels, filters, geometry)
    return problem if layer.is_pooling else problem._replace(allow_tf32=tf32)


def candidates_for(problem: Problem, backend: str) -> tuple[tuple[Candidate, ...], dict[str, str]]:
    """Every kernel of the backend for `problem`, on a GPU those of Triton, too, and torch; and of the kernels that refuse it, why."""
    backends = [backend]
    device = torch.device("cuda") if backend == "cuda" and torch.cuda.is_available() else None
    if backend == "cuda" and unavailable("triton") is None:
        backends.append("triton")
    candidates, refused = [], {}
    for name in backends:
        for row in catalogue.kernels(name):
            if problem.pass_name not in row["passes"] or machine.DTYPES[row["dtype"]] != problem.dtype:
                continue
            if row["dtype"] == machine.TF32 and not problem.allow_tf32:
                continue
            candidate = Candidate(name, row["name"])
            try:
                problem.plan(candidate.kernel, backend=name, device=device)
                candidates.append(candidate)
            except RuntimeError as error:
                refused[candidate.name] = str(error).rpartition(": ")[2]
    return (*candidates, Candidate(TORCH)), refused


def tune(
    work: Iterable[Task],
    device: torch.device,
    measure: Measure,
    *,
    budget: float | None = None,
    before: Callable[[Task], None] = lambda task: None,
) -> Iterator[tuple[Task, Entry | None, list[Timing]]]:
    """Measure task by task; each winner is in the table before it is yielded.

    An entry is None where no candidate of a task has a time. Stops once `budget` seconds are over.
    """
    start = time.perf_counter()
    circumstances = _circumstances(device)
    for task in work:
        if budget is not None and time.perf_counter() - start > budget:
            return
        before(task)
        timings = measure(task.layer, task.name, task.dtype, task.layout, task.candidates)
        entry = make_entry(timings, task.refused, circumstances)
        if entry is not None:
            tuning.record(tuning.device_name(device), task.problem, entry)
        yield task, entry, timings


def make_entry(timings: Sequence[Timing], refused: dict[str, str], circumstances: dict[str, str]) -> Entry | None:
    """What the table will say: None where nothing has a time."""
    times = {timing.candidate: timing.median_us for timing in timings if timing.median_us is not None}
    if not times:
        return None
    order = sorted(times, key=lambda candidate: times[candidate])
    without = {timing.candidate.name: timing.reason for timing in timings if timing.median_us is None}
    return Entry(
        backend=order[0].backend,
        kernel=next((candidate.kernel for candidate in order if candidate.kernel), ""),
        candidates={candidate.name: round(times[candidate], 3) for candidate in order},
        measured=store.now(),
        refused=refused | without,
        **circumstances,
    )


def _circumstances(device: torch.device) -> dict[str, str]:
    commit, dirty = machine.commit()
    driver = str(machine.describe_device(device).get("driver", ""))
    return {"torch": torch.__version__, "driver": driver, "commit": commit + ("+" if dirty else "")}
