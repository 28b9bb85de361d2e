"""What the emulator has found, for people: a paragraph for each place in the source, however often it was seen there."""

from __future__ import annotations

import linecache
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

    from cnnkernels.testing.verify import Record

_NAMES_SHOWN = 3
# What the emulator calls an access, said of a thread.
_VERBS = {"read": "reads", "write": "writes", "atomic": "updates atomically"}


@dataclass(frozen=True)
class Sighting:
    """A finding (`cnnkernels._C.emulator_findings`), seen in some run of some kernel pass or trial."""

    subject: str
    run: str
    finding: dict[str, Any]

    @property
    def place(self) -> tuple[object, ...]:
        """The same for findings that one change would mend: source lines, else, where they are unknown, who it was."""
        finding, other = self.finding, self.finding["other"] or {}
        where = (finding["file"], finding["line"]) if finding["line"] else (self.subject, finding["kernel"])
        return (finding["kind"], *where, other.get("file"), other.get("line"))


def of_records(records: Iterable[Record]) -> Iterator[Sighting]:
    """The findings of kernel passes."""
    for record in records:
        for finding in record.findings:
            run = f"{finding['problem']}, {finding['values']} values, schedule {finding['schedule']}"
            yield Sighting(f"{record.subject.title}, {record.subject.name}", run, finding)


def print_findings(console: Console, sightings: Iterable[Sighting]) -> int:
    """A paragraph for every place; returns how many."""
    places: dict[tuple[object, ...], list[Sighting]] = {}
    for sighting in sightings:
        places.setdefault(sighting.place, []).append(sighting)
    for seen in places.values():
        _print_paragraph(console, seen)
    return len(places)


def _print_paragraph(console: Console, seen: list[Sighting]) -> None:
    finding = seen[0].finding
    where = f" at {_location(finding)}" if finding["line"] else ""
    console.print(f"[bold red]{escape(finding['kind'])}[/]{escape(where)}")
    _print(console, 2, finding["text"])
    _print_sources(console, [party for party in (finding, finding["other"]) if party and party["line"]])
    subjects = list(dict.fromkeys(sighting.subject for sighting in seen))
    times, runs = sum(sighting.finding["count"] for sighting in seen), len({(one.subject, one.run) for one in seen})
    how_often = (
        f"{times:,} times in {runs:,} runs" if runs > 1 else f"{times:,} times in 1 run" if times > 1 else "once"
    )
    _print(console, 2, f"{how_often}, the first of them on {seen[0].run}")
    more = f"; and {len(subjects) - _NAMES_SHOWN} more" if len(subjects) > _NAMES_SHOWN else ""
    _print(console, 2, f"by {'; '.join(subjects[:_NAMES_SHOWN])}{more}")
    console.print()


def _print_sources(console: Console, parties: list[dict[str, Any]]) -> None:
    """Where each access is, with the line's text under the last of those that are there."""
    for party, following in zip_longest(parties, parties[1:]):
        who = f"thread {_at(party['thread'])} of block {_at(party['block'])}"
        access = f" {_VERBS[party['access']]}" if party["access"] else ""
        _print(console, 2, f"{_location(party)}: {who}{access}", "dim")
        text = linecache.getline(party["file"], party["line"]).strip()
        if text and (following is None or _location(following) != _location(party)):
            _print(console, 6, text, "cyan")


def _print(console: Console, indent: int, text: str, style: str = "") -> None:
    console.print(Padding(Text(text, style, overflow="fold"), (0, 0, 0, indent), expand=False))


def _location(party: dict[str, Any]) -> str:
    path = Path(party["file"])
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"{path}:{party['line']}"


def _at(coordinates: list[int]) -> str:
    return "(" + ",".join(str(value) for value in coordinates) + ")"
