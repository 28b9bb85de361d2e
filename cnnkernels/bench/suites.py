"""The published layer sets: benchmarks/suites/*.json, one file per net, and selections that refer to them.

A net's file states each layer as torch does, with how often the net has it; what follows from that (work, bytes, family)
is the Layer's to compute. A selection, such as core.json, names layers of other files in groups, each with its why.
The suite "all" is every net and has no file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from cnnkernels.bench.layer import Layer

ALL = "all"

#: A net's file and a selection's: what they must have, and what they may.
_NET_KEYS = ({"net", "title", "source", "layers"}, {"sweep"})
_SELECTION_KEYS = ({"suite", "title", "source", "groups"}, set[str]())
_GROUP_KEYS = ({"group", "why", "layers"}, set[str]())
_REFERENCE_KEYS = ({"net", "layer"}, set[str]())
#: What a layer's line has beyond the fields of Layer.
_LINE_KEYS = ({"layer", "count"}, {"sweep", "note"})


@dataclass(frozen=True)
class Entry:
    """One layer of a suite."""

    net: str
    layer: str  # its name in the net
    count: int  # how often the net has it
    problem: Layer
    batches: tuple[int, ...] = ()  # the batch sizes of its sweep; none: only problem.N
    group: str = ""  # in a selection: under which heading it is listed,
    why: str = ""  # and what that group is there to show
    note: str = ""

    def with_batch(self, batch: int) -> Entry:
        return replace(self, problem=self.problem.with_batch(batch))


@dataclass(frozen=True)
class Suite:
    """A fixed list of layers. `left_out` and `notices` are for collected ones: (layer, reason), and sentences."""

    name: str
    title: str
    source: str
    entries: tuple[Entry, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    notices: tuple[str, ...] = ()

    def with_batch(self, batch: int) -> Suite:
        """The same layers on `batch` images each."""
        if batch < 1:
            raise ValueError(f"a batch has at least one image, not {batch}")
        return replace(self, entries=tuple(entry.with_batch(batch) for entry in self.entries))

    def sweep(self) -> tuple[Entry, ...]:
        """Every entry at every batch size of its sweep; an entry without one as it is."""
        return tuple(entry.with_batch(batch) for entry in self.entries for batch in entry.batches or (entry.problem.N,))

    def find(self, layer: str, net: str = "") -> Entry:
        """The entry called `layer`, of `net` if that is given.

        Raises:
            ValueError: there is none, or several nets have one; the message lists what there is.
        """
        found = [entry for entry in self.entries if entry.layer == layer and net in ("", entry.net)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(
                f"suite {self.name!r} has {layer!r} in {', '.join(entry.net for entry in found)}: name one"
            )
        names = [entry.layer for entry in self.entries if net in ("", entry.net)]
        raise ValueError(_unknown(f"suite {self.name!r} has no layer", layer, names))


def directory() -> Path:
    """Where the suites lie: in a checkout benchmarks/suites, in an installed package beside this module."""
    here = Path(__file__).resolve()
    checkout = here.parents[2] / "benchmarks" / "suites"
    # Only a checkout has setup.py beside the package; site-packages may hold some other project's "benchmarks".
    return checkout if (here.parents[2] / "setup.py").is_file() and checkout.is_dir() else here.parent / "suites"


def names() -> tuple[str, ...]:
    """Every suite that :func:`load` knows: the selections, the nets, and "all"."""
    stems = _stems()
    nets = _nets(stems)
    return (*(stem for stem in stems if stem not in nets), *nets, ALL)


def load(name: str) -> Suite:
    """Read suite `name`.

    Raises:
        ValueError: there is no such suite, or its file is not a suite; the message says what there is, or which part of the
            file is wrong and how.
    """
    if name == ALL:
        nets = [_read(net) for net in _nets(_stems())]
        title = f"All {len(nets)} nets"
        return Suite(ALL, title, "every net's file", tuple(entry for suite in nets for entry in suite.entries))
    return _read(name)


def _stems() -> list[str]:
    stems = sorted(path.stem for path in directory().glob("*.json"))
    if not stems:
        raise ValueError(f"no suites (*.json) in {directory()}")
    return stems


def _nets(stems: list[str]) -> list[str]:
    return [stem for stem in stems if "net" in _json(directory() / f"{stem}.json")]


def _read(name: str) -> Suite:
    # Compared with the listing, so that no name can lead out of the directory.
    if name not in _stems():
        raise ValueError(_unknown("no suite is called", name, [*names()]))
    path = directory() / f"{name}.json"
    content = _json(path)
    try:
        return _selection(name, content) if "groups" in content else _net(name, content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: a suite is an object, not a {type(content).__name__}")
    return content


def _net(name: str, content: dict[str, Any]) -> Suite:
    _check_keys("the file", content, *_NET_KEYS)
    if content["net"] != name:
        raise ValueError(f"the file is called {name}, its net {content['net']!r}")
    batches = _batches(content.get("sweep", []))
    entries = tuple(_entry(name, line, batches) for line in _objects(content, "layers"))
    _check_distinct([entry.layer for entry in entries])
    return Suite(name, content["title"], content["source"], entries)


def _entry(net: str, line: dict[str, Any], batches: tuple[int, ...]) -> Entry:
    where = f"layer {line.get('layer')!r}"
    own = {key: value for key, value in line.items() if key in _LINE_KEYS[0] | _LINE_KEYS[1]}
    _check_keys(where, own, *_LINE_KEYS)
    count = own["count"]
    if not isinstance(own["layer"], str) or not _is_positive(count):
        raise ValueError(f"{where}: layer is a name and count a number from 1")
    try:
        problem = Layer.from_dict({key: value for key, value in line.items() if key not in own})
        batches = _batches(own["sweep"]) if "sweep" in own else batches
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from error
    return Entry(net, own["layer"], count, problem, batches, note=own.get("note", ""))


def _selection(name: str, content: dict[str, Any]) -> Suite:
    _check_keys("the file", content, *_SELECTION_KEYS)
    if content["suite"] != name:
        raise ValueError(f"the file is called {name}, its suite {content['suite']!r}")
    entries = tuple(_references(content))
    _check_distinct([f"{entry.net} {entry.layer}" for entry in entries])
    return Suite(name, content["title"], content["source"], entries)


def _references(content: dict[str, Any]) -> Iterator[Entry]:
    nets: dict[str, Suite] = {}
    for group in _objects(content, "groups"):
        _check_keys("a group", group, *_GROUP_KEYS)
        for reference in _objects(group, "layers"):
            _check_keys(f"group {group['group']!r}", reference, *_REFERENCE_KEYS)
            net = reference["net"]
            if net not in nets:
                if net == content["suite"]:
                    raise ValueError(f"{net!r} refers to itself")
                nets[net] = _read(net)
            yield replace(nets[net].find(reference["layer"]), group=group["group"], why=group["why"])


def _objects(content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    values = content[key]
    if not isinstance(values, list) or not values or not all(isinstance(value, dict) for value in values):
        raise ValueError(f"{key} is a list of objects, and not empty")
    return values


def _batches(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(_is_positive(value) for value in values):
        raise ValueError("sweep is a list of batch sizes from 1")
    return tuple(values)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _check_keys(where: str, content: Mapping[str, Any], required: set[str], optional: set[str]) -> None:
    missing, unknown = required - set(content), set(content) - required - optional
    if missing or unknown:
        faults = ((missing, "lacks"), (unknown, "has no use for"))
        raise ValueError(
            f"{where} " + " and ".join(f"{verb} {', '.join(sorted(keys))}" for keys, verb in faults if keys)
        )


def _check_distinct(keys: list[str]) -> None:
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"listed twice: {', '.join(twice)}")


def _unknown(what: str, name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{what} {name!r}: {hint}there are {', '.join(known)}"
