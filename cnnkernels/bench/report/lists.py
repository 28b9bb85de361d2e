"""The fixed lists that geometric means are over: the suites' files, which do not shrink with what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cnnkernels.bench import compare, suites
from cnnkernels.bench.compare import Comparison, Geomean
from cnnkernels.bench.layer import FAMILIES
from cnnkernels.bench.runner import passes_of
from cnnkernels.bench.store import Row

#: The selection made to be published.
_FIRST = "core"


@dataclass(frozen=True)
class Summary:
    """A pass's geometric means: one per family, then one over all."""

    name: str
    geomeans: tuple[Geomean, ...]


@dataclass(frozen=True)
class FixedList:
    """A suite's summaries. `published` is False where the list is only what was run: a user's model, another batch size."""

    suite: str
    title: str
    published: bool
    summaries: tuple[Summary, ...]
    cases: tuple[compare.Case, ...]

    def by_family(self) -> list[tuple[str, list[Geomean | None]]]:
        """The families, then all, each with its means in the order of `summaries`."""
        by_pass = [{mean.group: mean for mean in summary.geomeans} for summary in self.summaries]
        groups = {group for means in by_pass for group in means}
        order = sorted(groups, key=lambda group: (group == compare.ALL, _rank(group)))
        return [(group, [means.get(group) for means in by_pass]) for group in order]


def fixed_lists(
    rows: Sequence[Row], compared: Sequence[Comparison], names: Iterable[str], passes: Sequence[str]
) -> list[FixedList]:
    """The lists behind rows of one dtype, data and cache; the selection made to be published comes first.

    Args:
        names: the suites that were run, also those of which another suite has measured every layer again since.
    """
    result = []
    for name in sorted(set(names), key=lambda name: (name != _FIRST, name)):
        suite = _load(name)
        wanted = {one: _wanted(suite, name, [row for row in rows if row.name == one]) for one in passes}
        summaries = tuple(
            Summary(one, tuple(compare.geomeans(compared, cases))) for one, (cases, _) in wanted.items() if cases
        )
        if summaries:
            found = tuple(case for cases, _ in wanted.values() for case in cases)
            published = all(whole for cases, whole in wanted.values() if cases)
            result.append(FixedList(name, suite.title if suite else name, published, summaries, found))
    return result


def _wanted(suite: suites.Suite | None, name: str, rows: Sequence[Row]) -> tuple[dict[compare.Case, str], bool]:
    """The suite's list for the pass of `rows`, and whether it is the published one.

    Rows at batch sizes other than the file's belong to sweeps, unless there are no others.
    """
    listed: dict[compare.Case, str] = {}
    if suite is not None and rows:
        for entry in suite.entries:
            if passes_of(entry.problem, (rows[0].name,)):
                family = entry.problem.family
                row = replace(rows[0], net=entry.net, layer=entry.layer, what=str(entry.problem), family=family)
                listed[row.case] = family
    if any(row.case in listed for row in rows):
        return listed, True
    return compare.cases(row for row in rows if row.suite == name), False


def _rank(family: str) -> int:
    return FAMILIES.index(family) if family in FAMILIES else len(FAMILIES)


def _load(name: str) -> suites.Suite | None:
    """None for a collected model, or for a suite that this version no longer has."""
    try:
        return suites.load(name)
    except (ValueError, OSError):
        return None
