"""Our times over the versions of the code, on one device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cnnkernels.bench import compare
from cnnkernels.bench.store import Results, Run

_DIGITS_OF_COMMIT = 9


@dataclass(frozen=True)
class Point:
    """A pass at a version: the geometric mean of our times relative to the first version."""

    version: str
    started: str
    name: str
    relative_time: float


@dataclass(frozen=True)
class History:
    """Points by pass and version, oldest first; `common` counts the cases of each pass that every version has."""

    versions: tuple[str, ...]
    points: tuple[Point, ...]
    common: dict[str, int]


def version(run: Run) -> str:
    """What a run measured, in a few characters: its commit, with + and the library's digits where files differed."""
    commit = run.commit[:_DIGITS_OF_COMMIT] or "no commit"
    return f"{commit}+{run.library[:6]}" if run.dirty else commit


def history(entries: Sequence[Results]) -> History:
    """Of the runs of one device, oldest first. Runs of one version count as one: parts of a whole, or repetitions."""
    times: dict[str, dict[compare.Case, float]] = {}
    started: dict[str, str] = {}
    for entry in entries:
        label = version(entry.run)
        rows = [row for row in entry.rows if row.metric == "time" and row.role == "ours"]
        best = compare.best_of_ours(compare.comparisons(rows))
        found = {
            case: one.ours.median_us for case, one in best.items() if compare.has_time(one.ours) and one.ours.median_us
        }
        if found:
            started.setdefault(label, entry.run.started)
            times.setdefault(label, {}).update(found)
    points, common = [], {}
    names = {name: None for found in times.values() for *_, name, _, _ in found}
    for name in names:
        cases = set.intersection(*({case for case in found if case[-3] == name} for found in times.values()))
        common[name] = len(cases)
        first = next(iter(times.values()))
        for label, found in times.items():
            if cases:
                relative = compare.geometric_mean(found[case] / first[case] for case in cases)
                points.append(Point(label, started[label], name, relative))
    return History(tuple(times), tuple(points), common)
