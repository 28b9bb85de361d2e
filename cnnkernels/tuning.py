"""The tuning table: which kernel, and which backend, was measured fastest for one problem on one device.

One JSON file per device. Those that come with the package lie in cnnkernels/tables; `cnnkernels tune` writes the user's, in
$CNNKERNELS_TUNING_DIR, else $XDG_CACHE_HOME/cnnkernels/tuning, else ~/.cache/cnnkernels/tuning, which wins per problem.
A problem that no table has runs on the kernel that the plan chooses. CNNKERNELS_TUNING=0 turns the tables off.

The plan looks at nothing but the problem and a block's shared memory, so its results have the same bits on every GPU that has an H200's. A tuned kernel may sum in
another order than the planned one: its results are reproducible under the same table, and as accurate.

A table is read when its device is first used. A table tuned meanwhile by another process counts from the next start on.
"""

from __future__ import annotations

import os
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnnkernels import catalogue
from cnnkernels.backends import ENTRY_POINTS
from cnnkernels.geometry import Conv2dGeometry, Pool2dGeometry
from cnnkernels.tuning_table import Entry, Problem, add, file_name, read

#: The operators that have kernels to choose among: what a table knows.
OPERATORS = (
    "conv2d_fprop", "conv2d_dgrad", "conv2d_wgrad",
    "max_pool2d", "max_pool2d_backward", "avg_pool2d", "avg_pool2d_backward",
    "adaptive_max_pool2d", "adaptive_max_pool2d_backward", "adaptive_avg_pool2d", "adaptive_avg_pool2d_backward",
)  # fmt: skip

# Operators that a table has under another's name, because the same kernels run them.
_SAME_KERNELS = {"max_pool2d_with_indices": "max_pool2d", "conv2d_fused": "conv2d_fprop"}

#: The emulator has a table too. Its times say nothing about a GPU, so no GPU's table is ever mixed with it.
EMULATED_DEVICE = "cpu (emulator)"

SHIPPED = Path(__file__).parent / "tables"

#: Whether there is any table to ask; a call looks at nothing else where there is none. See :func:`clear_caches`.
active = False


@dataclass(frozen=True)
class Table:
    """A file: what it says, or why it is ignored."""

    path: Path
    shipped: bool
    device: str
    entries: dict[Problem, Entry]
    ignored: str = ""


def run(
    op: str,
    backend: str,
    geometry: Conv2dGeometry | Pool2dGeometry,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
) -> Any:
    """Call `backend`'s operator `op` with the kernel that the table names for this problem, else with the plan's."""
    operator = getattr(ENTRY_POINTS[backend], op)
    # While torch.compile traces, sizes may be symbols and stand for others than today's: the plan decides at run time.
    if torch.compiler.is_compiling():
        return operator(*arguments, **options)
    entry = find(_SAME_KERNELS.get(op, op), arguments[0], arguments[1], geometry)
    kernel = "" if entry is None else entry.kernels.get(backend, "")
    if entry is None or not kernel:
        return operator(*arguments, **options)
    try:
        return operator(*arguments, kernel_name=kernel, **options)
    except RuntimeError as error:
        if f"'{kernel}'" not in str(error):  # not about the name: it would fail without it, too
            raise
        _note_refusal(entry, backend, geometry.channels_last, arguments, str(error))
    return operator(*arguments, **options)


def find(op: str, first: Tensor, second: Any, geometry: Conv2dGeometry | Pool2dGeometry) -> Entry | None:
    """What the tables have for an operator's call, whose tensors are `first` and, of a convolution, `second`."""
    return lookup(first.get_device(), _problem(op, first, second, geometry))


def make_problem(op: str, dtype: torch.dtype, N: int, C: int, K: int, g: Conv2dGeometry | Pool2dGeometry) -> Problem:
    return Problem(*_fields(op, dtype, N, C, K, g))


def lookup(device: int, problem: tuple[Any, ...]) -> Entry | None:
    """What the tables have for `problem` on a device, given as Tensor.get_device() gives it (-1 is the CPU)."""
    entries = _entries.get(device)
    if entries is None:
        with _lock:
            entries = _entries[device] = load(_device_name(device)) if active else {}
    try:
        return entries.get(problem)  # type: ignore[call-overload]
    except TypeError:  # a tracer's sizes, which stand for numbers and have no hash
        return None


def device_name(device: torch.device) -> str:
    """The name under which a device's table goes."""
    if device.type != "cuda":
        return EMULATED_DEVICE
    return _device_name(torch.cuda.current_device() if device.index is None else device.index)


def load(device: str) -> dict[Problem, Entry]:
    """A device's entries from its tables on disk; a table that cannot be used is reported by one warning and left out."""
    entries: dict[Problem, Entry] = {}
    for directory in _directories():
        path = directory / file_name(device)
        if not path.is_file():
            continue
        try:
            _, found = read(path, device)
        except ValueError as error:
            _warn(f"tuning table {path} is ignored: {error}")
            continue
        entries |= _with_known_kernels(path, found)
    return entries


def record(device: str, problem: Problem, entry: Entry) -> Path:
    """Add `entry` to the user's table of `device`, and return the file.

    Whatever moment the process is killed at, the file is whole; writers at the same time lose nothing of each other's. A
    file that cannot be used is moved aside, with a warning.
    """
    path = user_directory() / file_name(device)
    add(path, device, problem, entry)
    _forget()
    return path


def tables() -> list[Table]:
    """Every table on disk, with those that are ignored."""
    found = []
    for path in _files():
        shipped = path.parent == SHIPPED
        try:
            device, entries = read(path)
            found.append(Table(path, shipped, device, entries))
        except ValueError as error:
            found.append(Table(path, shipped, "", {}, str(error)))
    return found


def user_directory() -> Path:
    named = os.environ.get("CNNKERNELS_TUNING_DIR")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cnnkernels" / "tuning"


def clear_caches() -> None:
    """Forget what was read and said, and look again whether there are tables."""
    _said.clear()
    _forget()


_lock = threading.RLock()
_entries: dict[int, dict[Problem, Entry]] = {}  # by Tensor.get_device()
_said: set[str] = set()


# Plain tuples, which are equal to a Problem: making the NamedTuple takes as long as all the rest of a lookup.


def _problem(op: str, first: Tensor, second: Any, g: Conv2dGeometry | Pool2dGeometry) -> tuple[Any, ...]:
    N, channels, _, _ = first.shape
    if isinstance(g, Pool2dGeometry):
        return _fields(op, first.dtype, N, channels, channels, g)
    if op == "conv2d_fprop":
        return _fields(op, first.dtype, N, channels, second.shape[0], g)
    if op == "conv2d_dgrad":
        return _fields(op, first.dtype, N, second.shape[1] * g.groups, channels, g)
    return _fields(op, first.dtype, N, second.shape[1], channels, g)


def _fields(op: str, dtype: torch.dtype, N: int, C: int, K: int, g: Conv2dGeometry | Pool2dGeometry) -> tuple[Any, ...]:
    if isinstance(g, Conv2dGeometry):
        return op, dtype, N, C, K, *g
    # Which pixels an average divides by makes no difference to which kernel is fastest.
    shape = (g.image, g.window, g.output, g.stride, g.padding, g.dilation, 1, g.channels_last)
    return op, dtype, N, C, C, *shape, "zeros", False


def _forget() -> None:
    global active
    with _lock:
        _entries.clear()
        active = os.environ.get("CNNKERNELS_TUNING") != "0" and bool(_files())


def _device_name(index: int) -> str:
    return EMULATED_DEVICE if index < 0 else torch.cuda.get_device_name(index)


def _directories() -> list[Path]:
    try:
        return [SHIPPED, user_directory()]
    except RuntimeError:  # nobody's home is to be found: no reason not to import
        return [SHIPPED]


def _files() -> list[Path]:
    # A name with a dot in front is one that `replacing` has not given its place yet.
    return [
        path for folder in _directories() for path in sorted(folder.glob("*.json")) if not path.name.startswith(".")
    ]


def _with_known_kernels(path: Path, entries: dict[Problem, Entry]) -> dict[Problem, Entry]:
    """The entries whose kernels are still compiled; one warning about the others."""
    known = set()
    for backend in ("cuda", "triton"):
        try:
            known |= {(row["name"], name) for row in catalogue.kernels(backend) for name in row["passes"]}
        except ImportError:
            return entries
    gone: dict[Problem, str] = {}
    for problem, entry in entries.items():
        for backend, kernel in entry.kernels.items():
            if backend in ENTRY_POINTS and (kernel, problem.pass_name) not in known:
                gone[problem] = kernel
    if gone:
        names = ", ".join(sorted(set(gone.values()))[:3])
        _warn(f"tuning table {path}: {len(gone)} entries are ignored, whose kernels no longer exist ({names})")
    return {problem: entry for problem, entry in entries.items() if problem not in gone}


def _note_refusal(entry: Entry, backend: str, channels_last: bool, arguments: tuple[Any, ...], error: str) -> None:
    """The tuned kernel cannot run these tensors: say so and forget it, if they lie as those that were measured."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    tensors = [tensor for tensor in arguments if isinstance(tensor, Tensor) and tensor.dim() == 4]
    if all(tensor.is_contiguous(memory_format=memory_format) for tensor in tensors):
        entry.kernels.pop(backend, None)
        _warn(f"the tuning table's kernel is ignored: {error}")


def _warn(text: str) -> None:
    if text not in _said:
        _said.add(text)
        warnings.warn(text, stacklevel=3)


clear_caches()
