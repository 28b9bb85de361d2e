"""Measuring one case: every provider through the gate, then all that passed against each other, then once more the gate.

Providers take turns, A B C C B A A B C ..., so that drift in clocks and temperature meets all of them alike. The clock
is read under load before and after; if it moved by more than 3 percent the case is measured again, and given up after
the third time. Nothing is tuned or compiled inside the timed region: that happened at the gate, and is told apart as
the time of the first call.
"""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from cnnkernels.bench import gate
from cnnkernels.bench.flags import full_precision
from cnnkernels.bench.operands import Case, Operands, make_operands, number_of_sets
from cnnkernels.bench.providers import Forward, Provider, forget_compilations
from cnnkernels.bench.store import Row, Run, now
from cnnkernels.bench.timing import (
    Clocks,
    Timer,
    bind_stream,
    make_timer,
    percentile,
    read_clocks,
    synchronize,
    take_turns,
)
from cnnkernels.explain import trace

_CLOCK_DRIFT = 0.03
_ATTEMPTS = 3
_WARM_UP = 0.05  # seconds; an idle GPU raises its clock within a few milliseconds
# A time below this many launch floors, or a roofline below this many microseconds, is about the launch, not the kernel.
_FLOORS = 3
_WARM = "warm: the buffers gone round are less than three times the cache"
_SHORT_ROOFLINE_US = 3.0
# What the emulator does per second, roughly, for guessing which calls would take too long; a guess decides nothing else.
_EMULATED_FLOPS = 6e9


@dataclass(frozen=True)
class Settings:
    """How to measure. `samples` and `seconds` end the sampling of a case, whichever comes first (per provider)."""

    samples: int = 50
    seconds: float = 1.0
    hot: bool = False
    seed: int = 0
    longest_call: float = 10.0  # seconds; the emulator's calls that would take longer are skipped, and said to be

    @property
    def cache(self) -> str:
        return "hot" if self.hot else "cold"


@dataclass
class Entrant:
    """A provider on its way through a case."""

    provider: Provider
    layout: str
    row: Row
    forward: Forward | None = None
    timer: Timer | None = None
    times: list[float] = field(default_factory=list)

    def fail(self, status: str, reason: str) -> None:
        self.row = replace(self.row, status=status, reason=reason)

    @property
    def strict_layout(self) -> str:
        """The layout that a result has to have: ours that of its operands, a baseline's any."""
        return self.layout if self.provider.role == "ours" else ""

    @property
    def running(self) -> bool:
        return self.row.status == "ok"


def measure(
    case: Case, blank: Row, device: torch.device, settings: Settings, run: Run, entrants: Sequence[tuple[Provider, str]]
) -> list[Row]:
    """Measure `case` by each (provider, layout).

    Args:
        blank: the row with everything that is the same for all: suite, net, layer, ...; see :func:`blank_row`.

    Returns:
        One row per entrant, in their order. Those without a number say why.
    """
    all_entrants = [
        Entrant(provider, layout, replace(blank, provider=provider.name, role=provider.role, layout=layout))
        for provider, layout in entrants
    ]
    evidence = gate.Evidence(case, device, settings.seed)
    with full_precision(tf32=case.tf32), ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(torch.cuda.stream(bind_stream()))
        for entrant in all_entrants:
            through_gate(entrant, evidence, settings)
        sets = _make_sets(case, {entrant.layout for entrant in all_entrants if entrant.running}, run, device, settings)
        for entrant in all_entrants:
            _make_ready(entrant, case, sets, device)
        for attempt in range(_ATTEMPTS):
            before, after = _take_turns([entrant for entrant in all_entrants if entrant.running], device, settings)
            drift = _drift(before, after)
            if drift <= _CLOCK_DRIFT:
                break
            if attempt < _ATTEMPTS - 1:
                time.sleep(1.0)  # let it cool
        for entrant in all_entrants:
            _check_afterwards(entrant, evidence, sets)
            if entrant.running:
                entrant.row = _finish(entrant, case, run, len(sets[entrant.layout]), before, after)
            if entrant.running and drift > _CLOCK_DRIFT:
                reason = f"the SM clock moved by {drift:.0%} in each of {_ATTEMPTS} attempts"
                entrant.row = replace(
                    entrant.row, status="unsteady", reason=reason, median_us=None, p10_us=None, p90_us=None
                )
            if entrant.timer is not None:
                entrant.timer.close()
    del sets, evidence
    forget_compilations()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return [replace(entrant.row, time=now()) for entrant in all_entrants]


def blank_row(
    case: Case,
    settings: Settings,
    *,
    metric: str = "time",
    suite: str = "",
    net: str = "",
    layer: str = "",
    count: int = 1,
) -> Row:
    """The row of a case before anyone has run it."""
    problem = case.layer
    return Row(
        metric=metric, suite=suite, net=net, layer=layer, count=count, family=problem.family, problem=problem.to_dict(),
        what=str(problem), name=case.name, dtype=case.dtype_name, layout="", data=case.data, provider="", role="",
        status="ok", cache=settings.cache, useful_flops=problem.useful_flops(case.name), useful_bytes=case.useful_bytes,
    )  # fmt: skip


def through_gate(entrant: Entrant, evidence: gate.Evidence, settings: Settings) -> None:
    """Ask the entrant for two results; its row says how that went."""
    provider, layout, case, device = entrant.provider, entrant.layout, evidence.case, evidence.device
    reason = provider.refuse(case, device, layout)
    if reason is not None:
        return entrant.fail("unsupported", reason)
    guess = case.layer.useful_flops(case.name) / _EMULATED_FLOPS
    if provider.name.startswith("emulator") and guess > settings.longest_call:
        return entrant.fail(
            "skipped", f"one call would take the emulator about {guess:.0f} s; --longest-call allows more"
        )
    try:
        operands = evidence.operands(0, layout)
        first = _attempt(entrant, case, operands, device, first=True)
        kept = first.clone() if isinstance(first, Tensor) else first
        verdict = gate.judge(case, entrant.strict_layout, first, evidence.expected(0))
        if not verdict.passed:
            return entrant.fail("refused", verdict.message)
        operands.copy_(evidence.operands(1, layout))
        second = _attempt(entrant, case, operands, device)
        again = gate.judge(case, entrant.strict_layout, second, evidence.expected(1))
        if not again.passed:
            if gate.judge(case, entrant.strict_layout, second, evidence.expected(0)).passed:
                return entrant.fail("refused", "stale: it returned the result of data that had since been overwritten")
            return entrant.fail("refused", again.message)
        if not torch.equal(first, kept):
            return entrant.fail("refused", "an earlier result changed when the next one was computed")
    except _Mutated as error:
        return entrant.fail("refused", str(error))
    except Exception as error:  # whatever a provider raises is told in its row; the others go on
        return entrant.fail("failed", f"{type(error).__name__}: {first_line(error)}")
    worst = max((verdict, again), key=lambda one: one.error)
    notices = () if gate.lies_in(case, layout, first) else (f"its result is not in {layout}",)
    entrant.row = replace(entrant.row, error=worst.error, allowed=worst.allowed, notices=notices)
    return None


class _Mutated(Exception):
    pass


def _attempt(entrant: Entrant, case: Case, operands: Operands, device: torch.device, first: bool = False) -> Tensor:
    """One call on `operands`, and proof that it left them alone. The first time, after one into memory then poisoned."""
    originals = operands.clone()
    start = time.perf_counter()
    if entrant.forward is None:
        entrant.forward = entrant.provider.forward(case)
    call = entrant.provider.make_call(case, operands, entrant.forward)
    if first:
        discarded = call()
        synchronize(device)
        entrant.row = replace(entrant.row, first_call_ms=1e3 * (time.perf_counter() - start))
        # The next result is likely to lie where this one did: what a call does not write shows as NaN.
        discarded.fill_(float("nan"))
        del discarded
    before = memory(device)
    with trace() as launched:
        result = call()
        synchronize(device)
    if first:
        workspace = _workspace(before, device, result)
        held = sum(tensor.nbytes for tensor in (*operands.present(), result) if isinstance(tensor, Tensor))
        entrant.row = replace(
            entrant.row,
            kernels=tuple(launched),
            workspace_bytes=workspace,
            peak_bytes=None if workspace is None else held + workspace,
        )
    for tensor, original in zip(operands.present(), originals.present(), strict=True):
        if not torch.equal(tensor, original):
            raise _Mutated("it wrote to its operands")
    return result


def memory(device: torch.device) -> int:
    """The bytes allocated on a GPU now, from which its peak is counted anew; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _workspace(before: int, device: torch.device, result: Any) -> int | None:
    """How many bytes a call allocated at most beyond its result; None on a CPU."""
    if device.type != "cuda" or not isinstance(result, Tensor):
        return None
    return max(0, torch.cuda.max_memory_allocated(device) - before - result.untyped_storage().nbytes())


_Sets = dict[str, list[Operands]]


def _make_sets(case: Case, layouts: set[str], run: Run, device: torch.device, settings: Settings) -> _Sets:
    """The buffers to go round, shared by all who have the same layout, and of the same values in each."""
    number = number_of_sets(case, device, run.device.get("l2_bytes", 0), settings.hot)
    sets = {}
    for layout in layouts:
        generator = torch.Generator(device).manual_seed(settings.seed + 3)
        sets[layout] = [make_operands(case, layout, device, generator) for _ in range(number)]
    return sets


def _make_ready(entrant: Entrant, case: Case, sets: _Sets, device: torch.device) -> None:
    if not entrant.running:
        return
    try:
        calls = [entrant.provider.make_call(case, operands, entrant.forward) for operands in sets[entrant.layout]]
        entrant.timer = make_timer(device, calls)
    except Exception as error:
        entrant.fail("failed", f"while made ready for timing: {type(error).__name__}: {first_line(error)}")


def _take_turns(entrants: list[Entrant], device: torch.device, settings: Settings) -> tuple[Clocks, Clocks]:
    """Sample everyone, A B C C B A; the clocks before and after."""
    start = time.perf_counter()
    while True:  # under load until the clock has risen, so that the one read next is what the kernels get
        for entrant in entrants:
            _sample(entrant)
        if device.type != "cuda" or time.perf_counter() - start > _WARM_UP:
            break
    for entrant in entrants:
        entrant.times.clear()
    before = read_clocks(device)
    take_turns([functools.partial(_sample, entrant) for entrant in entrants], settings.samples, settings.seconds)
    return before, read_clocks(device)


def _sample(entrant: Entrant) -> None:
    if not entrant.running:
        return
    assert entrant.timer is not None
    try:
        entrant.times.append(entrant.timer.sample())
    except Exception as error:
        entrant.fail("failed", f"while timed: {type(error).__name__}: {first_line(error)}")


def _check_afterwards(entrant: Entrant, evidence: gate.Evidence, sets: _Sets) -> None:
    """The gate again, through what was timed."""
    if not entrant.running:
        return None
    assert entrant.timer is not None
    mine = sets[entrant.layout]
    for place in evidence.places(len(mine)):
        expected = evidence.renew(mine[place], place)
        try:
            result = entrant.timer.result(place)
            synchronize(evidence.device)
        except Exception as error:
            return entrant.fail("failed", f"after timing: {type(error).__name__}: {first_line(error)}")
        verdict = gate.judge(evidence.case, entrant.strict_layout, result, expected)
        if not verdict.passed:
            return entrant.fail("refused", f"after timing, on new data: {verdict.message}")
    return None


def _finish(entrant: Entrant, case: Case, run: Run, sets: int, before: Clocks, after: Clocks) -> Row:
    row = entrant.row
    times = [1e6 * seconds for seconds in entrant.times]
    median = percentile(times, 0.5)
    rotation = sets * case.useful_bytes
    notices = [*row.notices, *([] if run.on_gpu else ["not a GPU time"])]
    if row.cache == "cold" and rotation < 3 * run.device.get("l2_bytes", 0):
        notices.append(_WARM)
    row = replace(
        row,
        median_us=median,
        p10_us=percentile(times, 0.1),
        p90_us=percentile(times, 0.9),
        samples=len(times),
        rotation_bytes=rotation,
        clocks=_clocks(before, after),
    )
    return against_roofline(row, run, notices)


def against_roofline(row: Row, run: Run, notices: list[str]) -> Row:
    """`row` with its roofline, or refused where it beats the hardware itself.

    The roofline is the time of the useful work at the measured ceilings. The share of it that a kernel reaches is not told
    where it would say nothing: where the launch decides the time, where data come from the cache, and above 100 percent.
    """
    median = row.median_us
    assert median is not None
    cold = row.cache == "cold" and _WARM not in notices
    least = _least_us(row, run.limits, cold)
    if least is not None and median < least:
        reason = f"impossible: {median:.2f} us, while the useful work takes this hardware {least:.2f} us at least"
        return replace(row, status="refused", reason=reason, median_us=None, p10_us=None, p90_us=None)
    traffic, arithmetic = _bounds_us(row, run.ceilings)
    roofline = None if traffic is None or arithmetic is None else max(traffic, arithmetic)
    near_floor = bool(run.floor_us) and median < _FLOORS * run.floor_us
    if near_floor:
        notices.append(f"near the launch floor of {run.floor_us:.1f} us")
    fraction = None
    if cold and roofline is not None and roofline >= _SHORT_ROOFLINE_US and not near_floor:
        fraction = roofline / median
        if fraction > 1:
            notices.append(f"{fraction:.0%} of the measured ceilings: they are too low, or the algorithm computes less")
            fraction = None
    return replace(row, roofline_us=roofline, roofline_fraction=fraction, notices=tuple(notices))


def _least_us(row: Row, limits: dict[str, float], cold: bool) -> float | None:
    """Microseconds that no implementation can be under; None where that is not known.

    A filter larger than one tap can be applied with fewer multiplications than it has (Winograd, Fourier), so that only
    traffic bounds it; and traffic to DRAM bounds only what does not come from the cache.
    """
    traffic, arithmetic = _bounds_us(row, limits)
    direct_only = row.problem.get("R", 1) == row.problem.get("S", 1) == 1
    bounds = [traffic if cold else None, arithmetic if direct_only else None]
    return max((bound for bound in bounds if bound is not None), default=None)


def _bounds_us(row: Row, rates: dict[str, float]) -> tuple[float | None, float | None]:
    """Microseconds of the useful bytes and of the useful flops at `rates`, each None where its rate is not known."""
    traffic = 1e6 * row.useful_bytes / rates["bytes"] if "bytes" in rates else None
    if not row.useful_flops:
        return traffic, 0.0
    return traffic, 1e6 * row.useful_flops / rates[row.dtype] if row.dtype in rates else None


def _clocks(before: Clocks, after: Clocks) -> Clocks:
    clocks = {name: value for name, value in after.items() if name != "sm_mhz"}
    for when, read in (("before", before), ("after", after)):
        if "sm_mhz" in read:
            clocks[f"sm_mhz_{when}"] = read["sm_mhz"]
    return clocks


def _drift(before: Clocks, after: Clocks) -> float:
    if "sm_mhz" not in before or "sm_mhz" not in after:
        return 0.0
    return abs(after["sm_mhz"] - before["sm_mhz"]) / max(before["sm_mhz"], 1.0)


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
