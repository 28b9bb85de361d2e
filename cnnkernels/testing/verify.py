"""Every compiled kernel on every problem, against torch: the engine of `cnnkernels verify`.

A kernel is forced by name through the raw operators, so that one the plan would not choose is tried too. It may refuse
a problem with a reason; a kernel that no problem reaches counts as a failure. Each run is held against two oracles,
exact integers and fp64 (see oracles.py). torch fills new memory with NaN meanwhile: whatever a kernel leaves unwritten,
in its result or its workspace, is seen.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from cnnkernels import catalogue
from cnnkernels.backends import triton
from cnnkernels.bench.flags import full_precision
from cnnkernels.explain import trace
from cnnkernels.testing import families, interpreter, oracles
from cnnkernels.testing.cases import Case, Problem, Result, make_case
from cnnkernels.testing.emulation import Schedule, emulator
from cnnkernels.testing.families import ADAPTIVE_PROBLEMS
from cnnkernels.testing.operands import Values
from cnnkernels.testing.problems import CONV2D_PROBLEMS, POOL2D_PROBLEMS

# What an operator's error says when the kernel asked for by name exists but refuses the problem.
_REFUSAL = " cannot run "

#: By what kernels multiply: "tf32" is of fp32 tensors whose values tf32 has, so that what is exact or accurate in fp32 is so in tf32.
DTYPES = {
    "f64": torch.float64, "f32": torch.float32, "tf32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16
}  # fmt: skip

# The family of a subject that is no kernel, but the plan's choice.
PLANNED = "planned"


class Order(NamedTuple):
    """An order in which the emulator runs threads and blocks, on so many OS threads."""

    schedule: Schedule
    seed: int = 1
    threads: int = 1

    def __str__(self) -> str:
        seed = f" {self.seed}" if self.schedule == "random" else ""
        return f"{self.schedule}{seed}" + (f" on {self.threads} threads" if self.threads > 1 else "")


# Every order the emulator has, alone and with blocks running side by side.
SCHEDULES = tuple(Order(schedule, threads=threads) for threads in (1, 2) for schedule in get_args(Schedule))


@dataclass(frozen=True)
class KernelPass:
    """One pass of one compiled kernel."""

    kernel: str
    family: str
    name: str
    dtype: str

    @property
    def title(self) -> str:
        return self.kernel or f"plan's choice in {self.dtype}"


@dataclass
class Record:
    """What came of one kernel's pass over all its problems. Errors are absolute.

    `problems` counts those that the kernel was launched on; `runs` counts them once for each kind of values, and
    `schedule_runs` once more for each order compared. `findings` are the emulator's (`cnnkernels._C.emulator_findings`)
    with the "problem", "values" and "schedule" they were seen with; `failures` says in words what else went wrong.
    """

    subject: KernelPass
    problems: int = 0
    runs: int = 0
    exact_runs: int = 0
    schedule_runs: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    error: float = 0.0
    error_ratio: float | None = None
    failures: list[str] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return self.problems > 0 and not self.failures and not self.findings

    def note(self, comparison: oracles.Comparison) -> None:
        """Remember the worst error, and the worst as a multiple of torch's own."""
        ratio = comparison.error / comparison.torch_error if comparison.torch_error else None
        self._note_error(comparison.error, ratio)

    def add(self, other: Record) -> None:
        """Take over what came of the same pass on other problems."""
        self.problems += other.problems
        self.runs += other.runs
        self.exact_runs += other.exact_runs
        self.schedule_runs += other.schedule_runs
        self.refused |= other.refused
        self._note_error(other.error, other.error_ratio)
        self.failures += other.failures
        self.findings += other.findings

    def _note_error(self, error: float, ratio: float | None) -> None:
        self.error = max(self.error, error)
        if ratio is not None:
            self.error_ratio = max(self.error_ratio or 0.0, ratio)


@dataclass(frozen=True)
class Selection:
    """What to verify. Empty tuples and "" mean everything.

    `quick` takes the first problem of each group, and for a kernel that refuses all these one problem that it runs.

    `planned` takes the kernel that the plan takes, on every problem: what a user gets. Its name is "", and its family PLANNED.

    `schedules` asks for the same bits in all `orders` too, on N(0, 1) values.
    """

    backend: str = "emulator"
    passes: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    kernel: str = ""
    quick: bool = False
    planned: bool = False
    schedules: bool = False
    orders: tuple[Order, ...] = SCHEDULES
    values: tuple[Values, ...] = ("normal", "integers")
    problems: tuple[Problem, ...] = (*CONV2D_PROBLEMS, *POOL2D_PROBLEMS, *ADAPTIVE_PROBLEMS)

    @property
    def device(self) -> str:
        on_cpu = self.backend == "emulator" or (self.backend == "triton" and triton.INTERPRETED)
        return "cpu" if on_cpu else "cuda"


@dataclass(frozen=True)
class Item:
    """One pass in one dtype on one problem, and the kernels to run it."""

    name: str
    dtype: str
    problem: Problem
    subjects: tuple[KernelPass, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}: {self.problem}"


def kernel_passes(selection: Selection) -> list[KernelPass]:
    """The selected passes of the backend's kernels, in the catalogue's order.

    Raises ImportError where `cnnkernels._C`, which has the compiled kernels' catalogue, is not built.
    """
    subjects = [
        KernelPass(row["name"], row["family"], name, row["dtype"])
        for row in catalogue.kernels(selection.backend)
        for name in (*row["passes"], *["fused"] * ("fprop" in row["passes"]))
    ]
    selected = [
        subject
        for subject in subjects
        if selection.kernel in subject.kernel
        and subject.name in (selection.passes or (subject.name,))
        and subject.dtype in (selection.dtypes or (subject.dtype,))
    ]
    if not selection.planned:
        return selected
    return list(dict.fromkeys(KernelPass("", PLANNED, subject.name, subject.dtype) for subject in selected))


def items(selection: Selection) -> list[Item]:
    """Every selected pass on every problem that suits it; a family's own problems for that family's kernels alone."""
    by_pass: dict[tuple[str, str], list[KernelPass]] = {}
    for subject in kernel_passes(selection):
        by_pass.setdefault((subject.name, subject.dtype), []).append(subject)
    found = []
    for (name, dtype), subjects in by_pass.items():
        for problem in selection.problems:
            if not problem.suits(name):
                continue
            tried = tuple(s for s in subjects if selection.planned or families.is_for(problem, s.family))
            if tried:
                found.append(Item(name, dtype, problem, tried))
    return found


def verify(
    selection: Selection,
    advance: Callable[[str], None] = lambda _: None,
    records: dict[KernelPass, Record] | None = None,
    jobs: int = 1,
) -> list[Record]:
    """Run every selected kernel on every problem and return a record for each; `advance` hears of each item.

    There are :func:`count_cases` of them. `records`, of :func:`new_records`, has what was run so far at any time. With more than one of
    `jobs` as many processes run the items, and `advance` hears of one that is done: for Triton's interpreter, which is Python.
    """
    records = new_records(selection) if records is None else records
    every = items(selection)

    def add(of_item: list[Record]) -> None:
        for record in of_item:
            records[record.subject].add(record)

    with _ready(selection):
        for of_item in _run(_firsts_of_groups(every) if selection.quick else every, selection, jobs, advance):
            add(of_item)
        # The families' own problems are the last ones: a kernel that has run none yet finds one from the end soonest.
        for item in reversed(every) if selection.quick else ():
            left = tuple(subject for subject in item.subjects if not records[subject].problems)
            if left:
                advance(str(item))
                add(verify_item(replace(item, subjects=left), selection))
    return list(records.values())


def usual_workers() -> int:
    """As many processes as there are cores for us, and not too many: each has its own torch."""
    most = 8
    return min(most, len(os.sched_getaffinity(0)))


def _run(todo: list[Item], selection: Selection, jobs: int, advance: Callable[[str], None]) -> Iterator[list[Record]]:
    jobs = min(jobs, len(todo))
    if jobs <= 1:
        for item in todo:
            advance(str(item))
            yield verify_item(item, selection)
        return
    with get_context("spawn").Pool(jobs, _begin_worker, (selection,)) as pool:
        for item, records in zip(todo, pool.imap(partial(verify_item, selection=selection), todo), strict=True):
            advance(str(item))
            yield records


@contextmanager
def _ready(selection: Selection) -> Iterator[None]:
    with poisoned_memory(), interpreter.quick(), full_precision() if selection.device == "cuda" else nullcontext():
        yield


_of_worker = ExitStack()  # what a process of `jobs` is in until its end


def _begin_worker(selection: Selection) -> None:
    """Ctrl-C is the parent's affair, who ends the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _of_worker.enter_context(_ready(selection))


def _firsts_of_groups(every: list[Item]) -> list[Item]:
    firsts: dict[tuple[str, str, str], Item] = {}
    for item in every:
        firsts.setdefault((item.name, item.dtype, item.problem.group), item)
    return list(firsts.values())


def new_records(selection: Selection) -> dict[KernelPass, Record]:
    """An empty record for every selected pass: one that stays empty was reached by no problem."""
    return {subject: Record(subject) for subject in kernel_passes(selection)}


def count_cases(selection: Selection) -> int:
    """How often :func:`verify` will call `advance`; `quick` may call it some times more."""
    return len(_firsts_of_groups(items(selection)) if selection.quick else items(selection))


def verify_item(
    item: Item, selection: Selection, begin: Callable[[KernelPass, str], None] = lambda _, __: None
) -> list[Record]:
    """What comes of each kernel of one item. `begin` hears of each run: of which kernel, on which values, in which order.

    To be called within :func:`poisoned_memory`.
    """
    records = [Record(subject) for subject in item.subjects]
    dtype, tf32 = DTYPES[item.dtype], item.dtype == "tf32"
    cases = {
        values: make_case(item.problem, item.name, dtype, values, selection.device, selection.backend, tf32=tf32)
        for values in selection.values
    }
    for values, case in cases.items():
        if values == "integers" and not case.exact:
            continue
        for record in records:
            if not record.refused:
                _verify_run(item, case, values, record, selection, begin)
    return records


def _verify_run(
    item: Item,
    case: Case,
    values: Values,
    record: Record,
    selection: Selection,
    begin: Callable[[KernelPass, str], None],
) -> None:
    kernel, schedule = record.subject.kernel, "the only one"
    emulated = selection.backend == "emulator"
    if emulated:
        from cnnkernels import _C

        schedule = _C.emulator_config()["schedule"]
        _C.emulator_findings()  # of launches that were not ours
    reached = True
    try:
        begin(record.subject, f"{values} values")
        with trace() as launched:
            result = case.run(kernel)
        reached = _tensors(result)[0].numel() > 0
        assert not kernel or kernel in launched or not reached, f"forced, but what ran was {launched}"
        _judge(case, result, record)
        # An epilogue's threads share nothing: its kernel has been run in all orders without it.
        if selection.schedules and values == "normal" and item.name != "fused":
            for order in selection.orders:
                schedule = str(order)
                begin(record.subject, f"{values} values, schedule {order}")
                _assert_same_in(order, case, result, kernel)
                record.schedule_runs += 1
    except (RuntimeError, AssertionError) as error:
        if _REFUSAL in str(error):
            record.refused[str(item.problem)] = str(error).rpartition(": ")[2]
            return
        where: dict[str, str] = {"problem": str(item.problem), "values": values, "schedule": schedule}
        findings = [finding | where for finding in _C.emulator_findings()] if emulated else []
        record.findings += findings
        if not findings:
            record.failures.append(f"{item.problem}, {values} values: {error}")
    record.problems += reached and values == selection.values[0]
    record.runs += 1
    record.exact_runs += case.exact


def _judge(case: Case, result: Result, record: Record) -> None:
    output = _tensors(result)[0]
    for tensor in _tensors(result):
        if tensor.dim() == 4:
            oracles.assert_memory_format(tensor, case.channels_last)
    if isinstance(result, tuple):
        for found, expected in zip(result[1:], case.further, strict=True):
            oracles.assert_exact(found, expected)
    if case.exact:
        oracles.assert_exact(output, case.reference.fp64.to(output.dtype))
        return
    reference = case.reference
    comparison = oracles.compare_to_fp64(
        output,
        reference.fp64,
        reference.reduction_length,
        reference.torch_result,
        magnitude=reference.wander,
        at_least=reference.at_least,
    )
    record.note(comparison)
    assert comparison.passed, comparison.message


def _assert_same_in(order: Order, case: Case, result: Result, kernel: str) -> None:
    with emulator(threads=order.threads, schedule=order.schedule, seed=order.seed):
        again = case.run(kernel)
    for one, other in zip(_tensors(result), _tensors(again), strict=True):
        try:
            oracles.assert_same_bits(other, one)
        except AssertionError as error:
            raise AssertionError(f"other bits under schedule {order}: {error}") from None


def _tensors(result: Result) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


@contextmanager
def poisoned_memory() -> Iterator[None]:
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
