"""What `cnnkernels profile --json` printed, read for the page: of each launch what the page shows of it.

A file may be anybody's, or anything. So every value is checked to be of the type that its field here has, and none that is shown
is worked out here: numbers and their ratios are the profile's.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Tensor:
    """Reads or writes of one tensor. Bytes and sectors of all blocks; `block_bytes` and `launch_bytes` are unique ones."""

    buffer: str
    access: str
    tensor_bytes: int
    instructions: int
    asked_bytes: int
    sectors: int
    least_sectors: int
    coalescing: float | None
    block_bytes: int
    launch_bytes: int
    exact: bool  # whether `launch_bytes` are counted, not an estimate
    reread_in_block: float | None
    reread_by_blocks: float | None


@dataclass(frozen=True)
class Shared:
    """One kind of access to one shared array."""

    array: str
    access: str
    instructions: int
    asked_bytes: int
    wavefronts: int
    least_wavefronts: int
    conflicts: float | None


@dataclass(frozen=True)
class Coalescing:
    """Of all tensors together."""

    read: float | None
    write: float | None


@dataclass(frozen=True)
class Compiler:
    """What the compiler says of the kernel for an H200."""

    registers: int
    spill_store_bytes: int
    spill_load_bytes: int


@dataclass(frozen=True)
class Occupancy:
    """Of one multiprocessor; at most so much where the compiler's report is missing."""

    blocks: int
    warps: int
    fraction: float
    limited_by: tuple[str, ...]


@dataclass(frozen=True)
class Resource:
    """The modelled time of one resource."""

    key: str
    name: str
    work: float
    unit: str
    seconds: float


@dataclass(frozen=True)
class Model:
    """`limiter` is a resource's key, `missing` what could not be modelled, as sentences."""

    seconds: float
    launch_seconds: float
    launch_bound: bool
    limiter: str
    resources: tuple[Resource, ...]
    missing: tuple[str, ...]

    @property
    def limited_by(self) -> str:
        """The limiter's name."""
        return next((resource.name for resource in self.resources if resource.key == self.limiter), self.limiter)


@dataclass(frozen=True)
class Line:
    """A line of source, by its part of the limiter's time. Number 0 where it is not known."""

    file: str
    line: int
    share: float
    seconds: float
    text: str


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel."""

    kernel: str
    blocks: int
    blocks_run: int
    sampled: bool
    threads: int
    dram_bytes: int
    coalescing: Coalescing
    conflicts: float | None
    tensors: tuple[Tensor, ...]
    shared: tuple[Shared, ...]
    compiler: Compiler | None
    why_no_compiler_report: str
    occupancy: Occupancy
    model: Model
    lines: tuple[Line, ...]  # the dearest first


@dataclass(frozen=True)
class Problem:
    """What a pass was asked to compute."""

    text: str


@dataclass(frozen=True)
class Pass:
    """A pass, or a trial, which has no problem, and so no bytes that are compulsory. `error` is what a trial threw."""

    title: str
    problem: Problem | None
    error: str
    dram_over_compulsory: float | None
    launches: tuple[Launch, ...]


@dataclass(frozen=True)
class Profile:
    """A file. `notice` says what its times are."""

    file: str
    subject: str
    notice: str
    passes: tuple[Pass, ...]


def read(path: Path) -> Profile:
    """The profile in `path`.

    Raises:
        ValueError: it cannot be read, or is none; the message names the file and says why.
    """
    try:
        contents = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _no_profile(path, "it is no text") from error
    except RecursionError as error:
        raise _no_profile(path, "it is nested too deeply") from error
    except ValueError as error:
        raise _no_profile(path, f"it is no JSON: {error}") from error
    if isinstance(contents, dict):
        contents["file"] = str(path)
    try:
        profile: Profile = _read(Profile, contents, "")
    except ValueError as error:
        raise _no_profile(path, str(error)) from error
    return profile


def _no_profile(path: Path, why: str) -> ValueError:
    return ValueError(f"{path} is not what `cnnkernels profile --json` prints: {why}")


_NAMES = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}


def _read(kind: Any, value: Any, place: str) -> Any:
    """`value` as a `kind`: one of the classes above, a tuple, something or None, or what JSON has.

    Raises ValueError with the place of what is not.
    """
    inner = get_args(kind)
    if get_origin(kind) is UnionType:
        return None if value is None else _read(inner[0], value, place)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise _wrong(value, place, "a list")
        return tuple(_read(inner[0], one, f"{place}[{number}]") for number, one in enumerate(value))
    if is_dataclass(kind):
        if not isinstance(value, dict):
            raise _wrong(value, place, "an object")
        hints = get_type_hints(kind)
        missing = [name for name in hints if name not in value]
        if missing:
            raise ValueError(f"{place or 'it'} lacks {', '.join(missing)}")
        known = {name: _read(hint, value[name], f"{place}.{name}".lstrip(".")) for name, hint in hints.items()}
        return kind(**known)  # type: ignore[operator]
    if not _is(kind, value):
        raise _wrong(value, place, _NAMES[kind])
    return _text(value) if kind is str else value


def _is(kind: Any, value: Any) -> bool:
    if kind not in (int, float):
        return isinstance(value, kind)
    if isinstance(value, bool) or not isinstance(value, (int, kind)):
        return False
    try:
        # Neither NaN nor Infinity, which Python's JSON has, nor what is too large for a float.
        return math.isfinite(value)
    except OverflowError:
        return False


def _text(value: str) -> str:
    """With what JSON can hold, and a file's name, but no page in UTF-8, written out."""
    return value.encode(errors="backslashreplace").decode()


def _wrong(value: Any, place: str, wanted: str) -> ValueError:
    found = "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else json.dumps(value)
    return ValueError(f"{place or 'it'} is {found if len(found) <= 40 else found[:39] + '…'}, not {wanted}")
