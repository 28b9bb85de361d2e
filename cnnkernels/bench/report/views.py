"""What the report shows, as plain data: one :class:`Device` per folder of the store, and profiles. Nothing here knows of HTML."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnkernels.bench import compare
from cnnkernels.bench.compare import Comparison
from cnnkernels.bench.layer import CONVOLUTION_PASSES, FAMILIES, FUSED_PASSES, POOLING_PASSES
from cnnkernels.bench.report.history import History, history, version
from cnnkernels.bench.report.lists import FixedList, fixed_lists
from cnnkernels.bench.report.profiles import Profile
from cnnkernels.bench.store import Results, Row, Run, latest, read_all

PASSES = (*CONVOLUTION_PASSES, *FUSED_PASSES, *POOLING_PASSES, "inference", "training")
DTYPES = ("bf16", "f16", "tf32", "f32", "f64")
CACHES = ("cold", "hot", "")

#: A layer at one batch size has no curve.
_SWEEP_SIZES = 2


@dataclass(frozen=True)
class Case:
    """Everybody's rows for one case, and our fastest against the strongest baseline."""

    suite: str
    net: str
    layer: str
    count: int
    family: str
    what: str
    batch: int
    name: str
    dtype: str
    data: str
    cache: str
    ours: Row | None  # our fastest; one without a time where none has; None where nothing of ours was run
    strongest: Row | None
    torch: Row | None
    speedup: float | None
    to_torch: float | None
    reason: str  # why there is no speedup
    weakened: str  # which baselines are missing from the opposition
    notices: tuple[str, ...]
    rows: tuple[Row, ...]
    problem: str  # the layer without its batch, for telling sweeps apart


@dataclass(frozen=True)
class Sheet:
    """The comparisons of passes that belong in one chart: one dtype, kind of data and state of the cache.

    `cases` are those of some list: sweeps to other batch sizes count nowhere.
    """

    dtype: str
    data: str
    cache: str
    lists: tuple[FixedList, ...]
    cases: tuple[Case, ...]

    @property
    def title(self) -> str:
        return kind_of(self)


@dataclass(frozen=True)
class Sweep:
    """One layer and pass at several batch sizes, smallest first."""

    net: str
    layer: str
    name: str
    dtype: str
    data: str
    cache: str
    what: str
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Check:
    """Our rows of one family and pass behind the gate: all that a CPU's emulator can tell of a kernel."""

    family: str
    name: str
    passed: int
    asked: int
    strain: float  # the worst error of those that passed, as a share of what is allowed


@dataclass(frozen=True)
class Clocks:
    """What the rows of the newest run say of clocks, power and temperature: least, median and greatest."""

    quantity: str
    least: float
    median: float
    greatest: float


@dataclass(frozen=True)
class Device:
    """All there is to show of one device."""

    slug: str
    name: str
    on_gpu: bool
    newest: Run
    runs: tuple[Run, ...]
    run_rows: tuple[int, ...]  # rows in each of `runs`
    counts: dict[str, int]  # cases of passes by what became of ours: "measured", or a status, or "not run"
    checks: tuple[Check, ...]
    clocks: tuple[Clocks, ...]
    ceilings: dict[str, float]  # of the newest run that measured any
    limits: dict[str, float]
    sheets: tuple[Sheet, ...]
    cases: tuple[Case, ...]  # metric "time"
    latency: tuple[Case, ...]
    models: tuple[Case, ...]
    sweeps: tuple[Sweep, ...]
    history: History
    without_number: tuple[Row, ...]


@dataclass(frozen=True)
class Report:
    """Everything: devices with a GPU first, and a sentence for each file or line of the store that could not be read."""

    devices: tuple[Device, ...]
    problems: tuple[str, ...]
    profiles: tuple[Profile, ...] = ()


def report(results: Path, device: str = "", profiles: Iterable[Profile] = ()) -> Report:
    """Read the store under `results`; only the device with the slug `device` if it is given. `profiles` are shown beside it."""
    runs, problems = read_all(results)
    by_device: dict[str, list[Results]] = {}
    for entry in runs:
        by_device.setdefault(str(entry.run.device.get("slug", "")), []).append(entry)
    devices = [_device(slug, entries) for slug, entries in by_device.items() if device in ("", slug)]
    return Report(tuple(sorted(devices, key=lambda one: (not one.on_gpu, one.slug))), tuple(problems), tuple(profiles))


def _device(slug: str, entries: Sequence[Results]) -> Device:
    pairs = list(latest(entries))
    rows = [row for _, row in pairs]
    made_by = {row.identity: run for run, row in pairs}
    cases = _cases(rows, made_by)
    passes = tuple(cases["time"])
    newest = entries[-1].run
    return Device(
        slug=slug,
        name=str(newest.device.get("name", slug)),
        on_gpu=newest.on_gpu,
        newest=newest,
        runs=tuple(entry.run for entry in entries),
        run_rows=tuple(len(entry.rows) for entry in entries),
        counts=_counts(passes),
        checks=_checks(passes),
        clocks=_clocks(entries[-1].rows),
        ceilings=next((entry.run.ceilings for entry in reversed(entries) if entry.run.ceilings), {}),
        limits=next((entry.run.limits for entry in reversed(entries) if entry.run.limits), {}),
        sheets=_sheets(rows, passes, {row.suite for entry in entries for row in entry.rows if row.metric == "time"}),
        cases=passes,
        latency=tuple(cases["latency"]),
        models=tuple(cases["model"]),
        sweeps=_sweeps(passes),
        history=history(entries),
        without_number=tuple(row for row in rows if not compare.has_time(row)),
    )


def _cases(rows: Iterable[Row], made_by: dict[tuple[str, ...], Run]) -> dict[str, list[Case]]:
    """By metric, in the order of first measurement."""
    rows = list(rows)
    best = compare.best_of_ours(compare.comparisons(rows))
    groups: dict[compare.Case, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.case, []).append(row)
    result: dict[str, list[Case]] = {"time": [], "latency": [], "model": []}
    for key, group in groups.items():
        result[key[0]].append(_case(best.get(key), group, made_by))
    return result


def _case(best: Comparison | None, rows: list[Row], made_by: dict[tuple[str, ...], Run]) -> Case:
    # What holds for the case is written in each of its rows.
    first = rows[0]
    batch = first.problem.get("N") or (first.problem.get("input") or [0])[0]
    notices = best.ours.notices if best else ()
    if best and best.strongest:
        ours, theirs = made_by[best.ours.identity], made_by[best.strongest.identity]
        if ours.id != theirs.id:
            notices = (*notices, f"measured in another run than the baseline: {version(ours)}, {version(theirs)}")
    return Case(
        suite=first.suite,
        net=first.net,
        layer=first.layer,
        count=first.count,
        family=first.family,
        what=first.what,
        batch=int(batch),
        name=first.name,
        dtype=first.dtype,
        data=first.data,
        cache=first.cache,
        ours=best.ours if best else None,
        strongest=best.strongest if best else _strongest(rows),
        torch=best.torch if best else None,
        speedup=best.speedup if best else None,
        to_torch=best.to_torch if best else None,
        reason=best.reason if best else "nothing of ours was run",
        weakened=best.weakened if best else "",
        notices=notices,
        rows=tuple(sorted(rows, key=lambda row: (not compare.has_time(row), row.median_us or 0))),
        problem=json.dumps({name: value for name, value in first.problem.items() if name != "N"}, sort_keys=True),
    )


def _strongest(rows: Iterable[Row]) -> Row | None:
    timed = [row for row in rows if row.role == "baseline" and compare.has_time(row)]
    return min(timed, key=lambda row: row.median_us or 0, default=None)


def _counts(cases: Iterable[Case]) -> dict[str, int]:
    """What became of our rows, case by case; of several without a time the most telling."""
    telling = ("refused", "failed", "unsteady", "skipped", "unsupported")
    counts: Counter[str] = Counter()
    for case in cases:
        statuses = {row.status for row in case.rows if row.role == "ours"}
        if case.ours is not None and compare.has_time(case.ours):
            counts["measured"] += 1
        else:
            counts[next((status for status in telling if status in statuses), "not run")] += 1
    return {name: counts[name] for name in ("measured", *telling, "not run") if counts[name]}


def _checks(cases: Iterable[Case]) -> tuple[Check, ...]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for case in cases:
        asked = [row for row in case.rows if row.role == "ours" and row.status not in ("unsupported", "skipped")]
        groups.setdefault((case.family, case.name), []).extend(asked)
    checks = []
    for (family, name), rows in groups.items():
        passed = [row for row in rows if row.status in ("ok", "unsteady")]
        strains = [row.error / row.allowed for row in passed if row.error is not None and row.allowed]
        checks.append(Check(family, name, len(passed), len(rows), max(strains, default=0.0)))
    return tuple(sorted(checks, key=lambda check: (family_rank(check.family), pass_rank(check.name))))


def _clocks(rows: Iterable[Row]) -> tuple[Clocks, ...]:
    values: dict[str, list[float]] = {}
    for row in rows:
        for quantity, value in row.clocks.items():
            values.setdefault(quantity, []).append(value)
    return tuple(
        Clocks(quantity, min(found), statistics.median(found), max(found)) for quantity, found in values.items()
    )


def _sheets(rows: Sequence[Row], cases: Sequence[Case], suites: Iterable[str]) -> tuple[Sheet, ...]:
    rows = [row for row in rows if row.metric == "time"]
    compared = compare.comparisons(rows)
    kinds = {(row.dtype, row.data, row.cache) for row in rows}
    sheets = []
    for dtype, data, cache in sorted(kinds, key=lambda kind: (_rank(CACHES, kind[2]), kind[1], _rank(DTYPES, kind[0]))):
        inside = [row for row in rows if (row.dtype, row.data, row.cache) == (dtype, data, cache)]
        names = sorted({row.name for row in inside}, key=pass_rank)
        lists = tuple(fixed_lists(inside, compared, suites, names))
        listed = {case for one in lists for case in one.cases}
        here = {row.case for row in inside} & listed
        chosen = tuple(case for case in cases if case.rows[0].case in here)
        sheets.append(Sheet(dtype, data, cache, lists, chosen))
    return tuple(sheets)


def _sweeps(cases: Iterable[Case]) -> tuple[Sweep, ...]:
    groups: dict[tuple[str, ...], list[Case]] = {}
    for case in cases:
        key = (case.net, case.layer, case.name, case.dtype, case.data, case.cache, case.problem)
        groups.setdefault(key, []).append(case)
    sweeps = []
    for (net, layer, name, dtype, data, cache, _), found in groups.items():
        by_batch = {case.batch: case for case in sorted(found, key=lambda case: case.batch)}
        if len(by_batch) >= _SWEEP_SIZES:
            what = found[0].what.replace(f"n{found[0].batch} ", "", 1)
            sweeps.append(Sweep(net, layer, name, dtype, data, cache, what, tuple(by_batch.values())))
    return tuple(sweeps)


def kind_of(one: Sheet | Sweep | Case) -> str:
    """Dtype, data and cache, in words."""
    relu = ["half zeros"] if one.data == "relu" else []
    return ", ".join([one.dtype, *relu, *([f"{one.cache} cache"] if one.cache else [])])


def family_rank(family: str) -> int:
    """Where tables list a family; unknown ones last."""
    return _rank(FAMILIES, family)


def pass_rank(name: str) -> int:
    """Where tables list a pass; unknown ones last."""
    return _rank(PASSES, name)


def _rank(order: Sequence[str], name: str) -> int:
    return order.index(name) if name in order else len(order)
