"""What rows say against each other: speedups over the strongest baseline, and geometric means over fixed lists.

Pure functions over :class:`cnnkernels.bench.store.Row`: the command line, the report and the README all ask here, so
that a number means the same in each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cnnkernels.bench.layer import FAMILIES, Layer
from cnnkernels.bench.providers import baselines_of
from cnnkernels.bench.store import Row

#: :attr:`Row.case`: same layer, pass and dtype, whatever the layout and the provider.
Case = tuple[str, ...]

#: The provider that the second ratio is to: what a user has who changes nothing.
TORCH = "torch-eager"

#: The group of :func:`geomeans` that has every case.
ALL = "all"

#: A baseline with one of these was asked and gave no number, so the opposition is weaker than it should be. One that
#: cannot run the case at all ("unsupported") was never part of it.
_WITHOUT_NUMBER = ("refused", "failed", "unsteady", "skipped")


@dataclass(frozen=True)
class Comparison:
    """One row of ours, and what it is measured against.

    `speedup` and `to_torch` are their time / our time: above 1 we are faster. Each is None where one side has no number.
    """

    ours: Row
    strongest: Row | None  # the fastest ok baseline of the case, in any layout
    torch: Row | None  # torch's eager operator in our layout, where it is ok
    absent: tuple[Row, ...]  # baselines of the case without a number: see `weakened`
    not_asked: tuple[str, ...]  # baselines that the case has no row of
    reason: str  # a sentence, where there is no speedup; else ""

    @property
    def speedup(self) -> float | None:
        return _ratio(self.strongest, self.ours)

    @property
    def to_torch(self) -> float | None:
        return _ratio(self.torch, self.ours)

    @property
    def weakened(self) -> str:
        """Which baselines are missing from the opposition and why: a sentence, or "" where it is complete."""
        without = [f"without {_named(row)}, {row.status}: {row.reason or 'no reason given'}" for row in self.absent]
        return "; ".join(without + [f"without {name}, which was not asked" for name in self.not_asked])


def comparisons(rows: Iterable[Row]) -> list[Comparison]:
    """One comparison per row of ours, in the order of `rows`, whatever its status.

    `rows` are those of one device: of one run, or :func:`store.latest` of several. Of rows with the same identity the
    last counts. Cases without a row of ours have nothing to compare: :func:`geomeans` counts them as not measured.
    """
    newest = {row.identity: row for row in rows}
    cases: dict[Case, list[Row]] = {}
    for row in newest.values():
        cases.setdefault(row.case, []).append(row)
    return [_compare(row, cases[row.case]) for row in newest.values() if row.role == "ours"]


def _compare(ours: Row, case: list[Row]) -> Comparison:
    baselines = [row for row in case if row.role == "baseline"]
    strongest = min(filter(has_time, baselines), key=_time, default=None)
    torch = next((row for row in case if (row.provider, row.layout) == (TORCH, ours.layout) and has_time(row)), None)
    absent = tuple(row for row in baselines if row.status in _WITHOUT_NUMBER)
    asked = {row.provider for row in baselines}
    expected = baselines_of(Layer.from_dict(ours.problem), ours.name) if ours.metric == "time" else ()
    not_asked = tuple(name for name in expected if name not in asked)
    reason = ""
    if not has_time(ours):
        reason = f"{_named(ours)} is {ours.status}: {ours.reason or 'no reason given'}"
    elif strongest is None:
        # An empty list of baselines and a list of refused ones are different failures.
        tried = ", ".join(f"{_named(row)} {row.status}" for row in baselines)
        reason = f"no baseline has a number: {tried}" if tried else "no baseline was measured"
    return Comparison(ours, strongest, torch, absent, not_asked, reason)


@dataclass(frozen=True)
class Geomean:
    """A group's geometric means, or how much of the group they lack.

    A mean is None unless every wanted case has its ratio: a mean over what happened to be measured would flatter.
    """

    group: str
    speedup: float | None  # over the strongest baseline
    to_torch: float | None  # over torch's eager operator in our layout
    wanted: int
    measured: int  # wanted cases with a speedup
    torch_measured: int  # wanted cases with a ratio to torch
    wins: int  # speedup above 1
    losses: int  # speedup below 1; what is left of `measured` is exactly 1
    weakened: int  # measured cases some baseline of which has no number


def geomeans(compared: Iterable[Comparison], wanted: Mapping[Case, str]) -> list[Geomean]:
    """Geometric means over a fixed list: one per family, in the order of :data:`FAMILIES`, then one over all.

    Args:
        compared: from :func:`comparisons`. Where a case has several rows of ours (backends, layouts) the fastest is
            taken, as it is of the baselines; to judge one backend, give only its comparisons.
        wanted: the fixed list: each case, and the family it counts in. Cases outside it do not count.
    """
    best = best_of_ours(compared)
    groups: dict[str, list[Case]] = {}
    for case, family in wanted.items():
        groups.setdefault(family, []).append(case)
    order = [family for family in FAMILIES if family in groups]
    order += [family for family in groups if family not in FAMILIES]
    result = [_geomean(family, groups[family], best) for family in order]
    return [*result, _geomean(ALL, list(wanted), best)]


def cases(rows: Iterable[Row]) -> dict[Case, str]:
    """The cases that anybody has a row for, with any status, and their families: a list to give to :func:`geomeans`.

    It is as long as what was run. Of a run that was cut short it lacks the rest: a suite's own list does not.
    """
    return {row.case: row.family for row in rows}


def best_of_ours(compared: Iterable[Comparison]) -> dict[Case, Comparison]:
    """Of each case its fastest comparison: the one whose row of ours has the least time; any without one comes last."""
    best: dict[Case, Comparison] = {}
    for comparison in compared:
        case = comparison.ours.case
        if case not in best or _time(comparison.ours) < _time(best[case].ours):
            best[case] = comparison
    return best


def geometric_mean(ratios: Iterable[float]) -> float:
    """Of positive numbers, at least one."""
    logarithms = [math.log(ratio) for ratio in ratios]
    return math.exp(math.fsum(logarithms) / len(logarithms))


def has_time(row: Row) -> bool:
    """Whether the row has a time that counts."""
    return row.status == "ok" and row.median_us is not None and row.median_us > 0


def _geomean(group: str, cases: list[Case], best: Mapping[Case, Comparison]) -> Geomean:
    found = [best[case] for case in cases if case in best]
    measured = [comparison for comparison in found if comparison.speedup is not None]
    speedups = [comparison.speedup for comparison in measured if comparison.speedup is not None]
    to_torch = [comparison.to_torch for comparison in found if comparison.to_torch is not None]

    def mean(ratios: list[float]) -> float | None:
        return geometric_mean(ratios) if ratios and len(ratios) == len(cases) else None

    return Geomean(
        group=group,
        speedup=mean(speedups),
        to_torch=mean(to_torch),
        wanted=len(cases),
        measured=len(speedups),
        torch_measured=len(to_torch),
        wins=sum(speedup > 1 for speedup in speedups),
        losses=sum(speedup < 1 for speedup in speedups),
        weakened=sum(bool(comparison.absent or comparison.not_asked) for comparison in measured),
    )


def _ratio(theirs: Row | None, ours: Row) -> float | None:
    return None if theirs is None or not has_time(ours) else _time(theirs) / _time(ours)


def _time(row: Row) -> float:
    """The row's time, infinite where it has none."""
    return row.median_us if has_time(row) and row.median_us is not None else math.inf


def _named(row: Row) -> str:
    return f"{row.provider} ({row.layout})" if row.layout else row.provider
