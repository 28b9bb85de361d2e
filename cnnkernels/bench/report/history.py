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
    times: dict[str, dict[str, dict[compare.Case, float]]] = {}  # by pass and version
    versions: dict[str, str] = {}  # and when each was first run
    for entry in entries:
        label = version(entry.run)
        rows = [row for row in entry.rows if row.metric == "time" and row.role == "ours" and compare.has_time(row)]
        for case, best in compare.best_of_ours(compare.comparisons(rows)).items():
            versions.setdefault(label, entry.run.started)
            by_version = times.setdefault(best.ours.name, {})
            by_version.setdefault(label, {})[case] = best.ours.median_us or 0.0
    points, common = [], {}
    for name, by_version in times.items():
        cases = set.intersection(*(set(by_version.get(label, {})) for label in versions))
        common[name] = len(cases)
        first = next(iter(versions))
        for label, started in versions.items():
            if cases:
                relative = compare.geometric_mean(by_version[label][case] / by_version[first][case] for case in cases)
                points.append(Point(label, started, name, relative))
    return History(tuple(versions), tuple(points), common)
