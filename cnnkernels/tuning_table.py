"""The tuning table's files: problems and entries, and how they are read and written.

A file is JSON: {"format", "device", "package", "entries": {a problem's key: what was measured}}. It is replaced whole, under
a lock that lies beside it.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cnnkernels.files import replacing, slug
from cnnkernels.geometry import Pair

FORMAT = 1


class Problem(NamedTuple):
    """What a table is asked for: one operator on tensors dense in one memory format. A pooling has K = C and one group."""

    op: str  # one of OPERATORS, or another of torch.ops.cnnkernels, which no table has
    dtype: torch.dtype
    N: int
    C: int
    K: int
    image: Pair  # H, W
    filter: Pair  # R, S; of a pooling its window
    output: Pair  # P, Q
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    channels_last: bool
    padding_mode: str = "zeros"
    allow_tf32: bool = False

    @property
    def key(self) -> str:
        """The problem as a table's file has it; :meth:`parse` reads it."""
        sizes = " ".join(f"{name}{size}" for name, size in self.sizes.items())
        pairs = f"stride{_by(self.stride)} pad{_by(self.padding)} dilation{_by(self.dilation)}"
        layout = "channels_last" if self.channels_last else "nchw"
        mode = "" if self.padding_mode == "zeros" else f" {self.padding_mode}"
        tf32 = " tf32" if self.allow_tf32 else ""
        return f"{self.op} {_name(self.dtype)} {layout} {sizes} {pairs} groups{self.groups}{mode}{tf32}"

    @staticmethod
    def parse(key: str) -> Problem:
        """Raises ValueError where `key` is none."""
        match = _KEY.fullmatch(key)
        dtype = getattr(torch, match["dtype"], None) if match else None
        if match is None or not isinstance(dtype, torch.dtype):
            raise ValueError(f"{key!r} is no problem's key")
        n = {name: int(value) for name, value in match.groupdict().items() if value and value.isdecimal()}
        return Problem(
            match["op"], dtype, n["N"], n["C"], n["K"], (n["H"], n["W"]), (n["R"], n["S"]), (n["P"], n["Q"]),
            (n["sh"], n["sw"]), (n["ph"], n["pw"]), (n["dh"], n["dw"]), n["groups"], match["layout"] == "channels_last",
            match["mode"] or "zeros", bool(match["tf32"]),
        )  # fmt: skip

    @property
    def pass_name(self) -> str:
        """What the catalogue of kernels calls the operator: "fprop", "max_backward", ..."""
        return self.op.removeprefix("conv2d_").replace("_pool2d", "")

    @property
    def sizes(self) -> dict[str, int]:
        sizes = (self.N, self.C, *self.image, self.K, *self.filter, *self.output)
        return dict(zip("NCHWKRSPQ", sizes, strict=True))

    def plan(
        self, kernel: str = "", indices: str = "", backend: str = "cuda", device: torch.device | None = None
    ) -> dict[str, Any]:
        """The plan for dense tensors, with `kernel` if that is given, on `device`, which may be a GPU with less shared memory than an H200.

        `indices` of max pooling: "none", "window" or "flat".

        Raises ImportError where cnnkernels._C is not built ("triton": where triton is not installed), and RuntimeError where no kernel,
        or not `kernel`, can.
        """
        # Unless it is said otherwise those that training has; a tap of a larger window does not fit into their byte.
        indices = indices or ("window" if self.filter[0] * self.filter[1] <= 256 else "flat")
        if backend == "triton":
            from cnnkernels.triton.explanation import explained

            return explained(self, kernel, indices)
        import cnnkernels._C as native

        limits = {}
        if device is not None and device.type == "cuda":
            properties: Any = torch.cuda.get_device_properties(device)
            limits["block_shared"] = properties.shared_memory_per_block_optin
        common = (self.pass_name, _name(self.dtype), self.sizes, self.stride, self.padding, self.dilation)
        if self.op.startswith("conv2d_"):
            plan: dict[str, Any] = native.plan_conv2d(
                *common, self.groups, self.channels_last, kernel, self.padding_mode, self.allow_tf32, **limits
            )
        else:
            plan = native.plan_pool2d(*common, self.channels_last, kernel, indices, **limits)
        return plan


_KEY = re.compile(
    r"(?P<op>\w+) (?P<dtype>\w+) (?P<layout>nchw|channels_last) "
    + " ".join(rf"{name}(?P<{name}>\d+)" for name in "NCHWKRSPQ")
    + r" stride(?P<sh>\d+)x(?P<sw>\d+) pad(?P<ph>\d+)x(?P<pw>\d+) dilation(?P<dh>\d+)x(?P<dw>\d+) groups(?P<groups>\d+)"
    r"(?: (?P<mode>reflect|replicate|circular))?(?P<tf32> tf32)?"
)


@dataclass(frozen=True)
class Entry:
    """What was measured for one problem. Candidates are called "<backend>/<kernel>", and "torch"."""

    backend: str  # the fastest candidate's
    kernel: str  # the fastest of our kernels; "" if none passed
    candidates: dict[str, float]  # the median of each, in microseconds
    measured: str  # when, ISO 8601
    refused: dict[str, str] = field(default_factory=dict)  # candidates without a time, and why
    torch: str = ""  # versions at that time
    driver: str = ""
    commit: str = ""
    kernels: dict[str, str] = field(init=False, repr=False, compare=False)  # each backend's fastest

    def __post_init__(self) -> None:
        fastest: dict[str, str] = {}
        for name in sorted(self.candidates, key=lambda name: self.candidates[name]):
            backend, _, kernel = name.partition("/")
            if kernel:
                fastest.setdefault(backend, kernel)
        object.__setattr__(self, "kernels", fastest)

    def to_dict(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        del values["kernels"]
        return values

    @staticmethod
    def from_dict(values: Any) -> Entry:
        """Raises ValueError where `values` are none of :meth:`to_dict`."""
        names = {entry.name for entry in dataclasses.fields(Entry) if entry.init}
        try:
            entry = Entry(**{name: value for name, value in values.items() if name in names})
            sound = all(isinstance(time, (int, float)) and time > 0 for time in entry.candidates.values())
            strings = (entry.backend, entry.kernel, entry.measured, *entry.refused.values())
            sound = sound and all(isinstance(text, str) for text in strings)
        except (AttributeError, TypeError) as error:
            raise ValueError(f"an entry that is none: {error}") from error
        if not sound or entry.backend not in {name.partition("/")[0] for name in entry.candidates}:
            raise ValueError(f"an entry that is none: {values}")
        return entry

    def why(self, device: str) -> str:
        return f"tuned: fastest of {len(self.candidates)} measured on {device}, {self.measured[:10]}"


def file_name(device: str) -> str:
    return f"{slug(device)}.json"


def read(path: Path, device: str | None = None) -> tuple[str, dict[Problem, Entry]]:
    """A table's device and entries. Raises ValueError where the file is no table, or not of `device` or this package."""
    from cnnkernels import __version__

    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"it cannot be read: {error}") from error
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        raise ValueError(f"it is no table of format {FORMAT}")
    if table.get("package") != __version__:
        raise ValueError(f"it was measured with cnnkernels {table.get('package')}, and this is {__version__}")
    found, entries = table.get("device"), table.get("entries")
    if not isinstance(found, str) or not isinstance(entries, dict):
        raise ValueError("it lacks its device or its entries")
    if (device is None and file_name(found) != path.name) or (device is not None and found != device):
        raise ValueError(f"it is of device {found!r}")
    return found, {Problem.parse(key): Entry.from_dict(values) for key, values in entries.items()}


def add(path: Path, device: str, problem: Problem, entry: Entry) -> None:
    """Put `entry` into a device's file, whatever others write meanwhile. A file of no use is moved aside, with a warning."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        entries: dict[Problem, Entry] = {}
        if path.exists():
            try:
                _, entries = read(path, device)
            except ValueError as error:
                warnings.warn(f"tuning table {path}: {error}; moved to {_move_aside(path).name}", stacklevel=3)
        entries[problem] = entry
        _write(path, device, entries)


def _write(path: Path, device: str, entries: dict[Problem, Entry]) -> None:
    from cnnkernels import __version__

    # Left by writers that were killed: we hold the lock, so nobody is at work on them.
    for leftover in path.parent.glob(f".{path.stem}.*{path.suffix}"):
        leftover.unlink()
    lines = {problem.key: entry.to_dict() for problem, entry in entries.items()}
    table = {"format": FORMAT, "device": device, "package": __version__, "entries": lines}
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        json.dump(table, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    import fcntl  # not where there is no Unix, where nothing is tuned either

    with path.with_name(f"{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released with the file, also by a kill
        yield


def _move_aside(path: Path) -> Path:
    aside = next(aside for n in itertools.count(1) if not (aside := path.with_name(f"{path.name}.bad-{n}")).exists())
    return path.rename(aside)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _by(pair: Pair) -> str:
    return f"{pair[0]}x{pair[1]}"
