"""Every compiled kernel on every problem, against torch: the engine of `cnnkernels verify`.

A kernel is forced by name through the raw operators, so that one the plan would not choose is tried too. It may refuse
a problem with a reason; a kernel that no problem reaches counts as a failure. Each run is held against two oracles,
exact integers and fp64 (see oracles.py). torch fills new memory with NaN meanwhile: whatever a kernel leaves unwritten,
in its result or its workspace, is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from torch import Tensor

from cnnkernels.explain import trace
from cnnkernels.testing import oracles
from cnnkernels.testing.cases import Case, Problem, Result, make_case
from cnnkernels.testing.emulation import Schedule, emulator
from cnnkernels.testing.problems import CONV2D_PROBLEMS, POOL2D_PROBLEMS, Conv2dProblem
from cnnkernels.testing.references import CONV2D_PASSES

# What an operator's error says when the kernel asked for by name exists but refuses the problem.
_REFUSAL = " cannot run "

DTYPES = {"f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}

# Every order of threads and blocks the emulator has, alone and with blocks running side by side.
SCHEDULES: tuple[tuple[int, Schedule], ...] = tuple(
    (threads, schedule) for threads in (1, 2) for schedule in get_args(Schedule)
)


@dataclass(frozen=True)
class KernelPass:
    """One pass of one compiled kernel."""

    kernel: str
    family: str
    name: str
    dtype: str


@dataclass
class Record:
    """What came of one kernel's pass over all its problems. Errors are absolute."""

    subject: KernelPass
    runs: int = 0
    exact_runs: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    error: float = 0.0
    error_ratio: float | None = None
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return self.runs > 0 and not self.failures

    def note(self, comparison: oracles.Comparison) -> None:
        """Remember the worst error, and the worst as a multiple of torch's own."""
        self.error = max(self.error, comparison.error)
        if comparison.torch_error:
            self.error_ratio = max(self.error_ratio or 0.0, comparison.error / comparison.torch_error)


@dataclass(frozen=True)
class Selection:
    """What to verify. Empty tuples and "" mean everything; `quick` takes the first problem of each group."""

    backend: str = "emulator"
    passes: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    kernel: str = ""
    quick: bool = False
    schedules: bool = False

    @property
    def device(self) -> str:
        return "cuda" if self.backend == "cuda" else "cpu"


def kernel_passes(selection: Selection) -> list[KernelPass]:
    """The selected passes of the compiled kernels, in the catalogue's order.

    Raises ImportError where `cnnkernels._C`, which has the catalogue, is not built.
    """
    from cnnkernels import _C

    subjects = [
        KernelPass(row["name"], row["family"], name, row["dtype"]) for row in _C.catalogue() for name in row["passes"]
    ]
    return [
        subject
        for subject in subjects
        if selection.kernel in subject.kernel
        and subject.name in (selection.passes or (subject.name,))
        and subject.dtype in (selection.dtypes or (subject.dtype,))
    ]


def problems_for(name: str, quick: bool = False) -> list[Problem]:
    """The problems that pass `name` is tried on."""
    problems: Sequence[Problem] = CONV2D_PROBLEMS if name in CONV2D_PASSES else POOL2D_PROBLEMS
    kind = name.split("_")[0]
    suitable = [problem for problem in problems if isinstance(problem, Conv2dProblem) or kind in problem.kinds]
    return list({problem.group: problem for problem in reversed(suitable)}.values())[::-1] if quick else suitable


def verify(selection: Selection, advance: Callable[[str], None] = lambda _: None) -> list[Record]:
    """Run every selected kernel on every problem and return a record for each; `advance` hears of each case.

    A case is one pass in one dtype on one problem, with all the kernels for it: there are :func:`count_cases` of them.
    """
    records = {subject: Record(subject) for subject in kernel_passes(selection)}
    with _poisoned_memory():
        for (name, dtype), subjects in _by_pass(records).items():
            for problem in problems_for(name, selection.quick):
                advance(f"{name} {dtype}: {problem}")
                _verify_case(problem, name, dtype, [records[subject] for subject in subjects], selection)
    return list(records.values())


def count_cases(selection: Selection) -> int:
    """How often :func:`verify` will call `advance`."""
    by_pass = _by_pass(kernel_passes(selection))
    return sum(len(problems_for(name, selection.quick)) for name, _ in by_pass)


def _by_pass(subjects: Iterable[KernelPass]) -> dict[tuple[str, str], list[KernelPass]]:
    grouped: dict[tuple[str, str], list[KernelPass]] = {}
    for subject in subjects:
        grouped.setdefault((subject.name, subject.dtype), []).append(subject)
    return grouped


def _verify_case(problem: Problem, name: str, dtype: str, records: list[Record], selection: Selection) -> None:
    normal = make_case(problem, name, DTYPES[dtype], "normal", selection.device)
    integers = make_case(problem, name, DTYPES[dtype], "integers", selection.device)
    for values, case in (("normal", normal), ("integers", integers)):
        if values == "integers" and not case.exact:
            continue
        for record in records:
            if str(problem) in record.refused:
                continue
            kernel = record.subject.kernel
            try:
                with trace() as launched:
                    result = case.run(kernel)
                assert kernel in launched or not _tensors(result)[0].numel(), f"forced, but what ran was {launched}"
                _judge(case, result, record)
                if selection.schedules and values == "normal":
                    _assert_same_under_all_schedules(case, result, kernel)
            except (RuntimeError, AssertionError) as error:
                if _REFUSAL in str(error):
                    record.refused[str(problem)] = str(error).rpartition(": ")[2]
                    continue
                record.failures.append(f"{problem}, {values} values: {error}")
            record.runs += 1
            record.exact_runs += case.exact


def _judge(case: Case, result: Result, record: Record) -> None:
    output = _tensors(result)[0]
    for tensor in _tensors(result):
        if tensor.dim() == 4:
            oracles.assert_memory_format(tensor, case.channels_last)
    if isinstance(result, tuple):
        assert case.indices is not None, "only max pooling has indices"
        oracles.assert_exact(result[1], case.indices)
    if case.exact:
        oracles.assert_exact(output, case.reference.fp64.to(output.dtype))
        return
    reference = case.reference
    comparison = oracles.compare_to_fp64(
        output, reference.fp64, reference.reduction_length, reference.torch_result, magnitude=reference.wander
    )
    record.note(comparison)
    assert comparison.passed, comparison.message


def _assert_same_under_all_schedules(case: Case, result: Result, kernel: str) -> None:
    for threads, schedule in SCHEDULES:
        with emulator(threads=threads, schedule=schedule, seed=1):
            again = case.run(kernel)
        for one, other in zip(_tensors(result), _tensors(again), strict=True):
            try:
                oracles.assert_same_bits(other, one)
            except AssertionError as error:
                raise AssertionError(f"other bits under schedule {schedule} on {threads} threads: {error}") from None


def _tensors(result: Result) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


@contextmanager
def _poisoned_memory() -> Iterator[None]:
    """Have torch fill what it allocates with NaN, which it does in its deterministic mode."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    deterministic: Any = torch.utils.deterministic
    filled = deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        deterministic.fill_uninitialized_memory = filled
