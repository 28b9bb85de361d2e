"""Results on disk: append-only JSON lines, one file per run, under <results>/<device>/.

A run's file begins with what holds for all of it (a :class:`Run`) and goes on with one line per measurement (a
:class:`Row`). Each line is written by one write to a file that this run alone created, and is on disk before the next
measurement begins: a kill costs the measurement under way, and runs beside each other share nothing.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

FORMAT = 1

#: What can be said of a measurement: it counts; the gate refused the result; the provider cannot run the case; it
#: raised; the clocks moved too far; it was left out because it would take too long.
STATUSES = ("ok", "refused", "unsupported", "failed", "unsteady", "skipped")

METRICS = ("time", "latency", "model")


@dataclass(frozen=True)
class Run:
    """What holds for a whole run. Times are UTC, ISO 8601; rates are per second."""

    id: str
    started: str
    device: dict[
        str, Any
    ]  # type (cuda, cpu), name, slug, and for a GPU sms, l2_bytes, memory_bytes, driver, capability
    commit: str  # "" outside a git checkout
    dirty: bool  # whether tracked files differed from the commit
    versions: dict[str, str]  # cnnkernels, torch, python, cuda, cudnn, triton
    library: str  # first digits of the SHA-256 of our operator library
    ceilings: dict[str, float]  # measured: "bytes" and one per dtype ("f32", "bf16", ...), in bytes/s and flop/s
    limits: dict[str, float]  # the same by the hardware's data: what no kernel can pass
    floor_us: float  # an empty launch, timed as everything else is; 0 where nothing is launched
    settings: dict[str, Any]  # samples, seconds, cache, seed, precision: how it was measured
    command: str = ""

    @property
    def on_gpu(self) -> bool:
        return bool(self.device.get("type") == "cuda")


@dataclass(frozen=True)
class Row:
    """One provider on one case. Times are microseconds, sizes bytes; None where there is no number."""

    metric: str  # "time": a pass alone; "latency": one eager call; "model": a whole model
    suite: str
    net: str
    layer: str  # its name in the net; "" for metric "model"
    count: int  # how often the net has it
    family: str
    problem: dict[str, Any]  # Layer.to_dict(); for a model {"input": [N, C, H, W]}
    what: str  # the same for people
    name: str  # the pass: fprop, dgrad, wgrad, fprop_relu, fprop_add_relu, forward, backward; inference, training
    dtype: str  # f32, tf32, f16, bf16, f64
    layout: str  # nchw or channels_last: of the provider's operands and results
    data: str  # "normal": activations N(0, 1); "relu": their negative half set to zero
    provider: str
    role: str  # "ours" or "baseline"
    status: str
    reason: str = ""  # a sentence, where status is not "ok"
    median_us: float | None = None
    p10_us: float | None = None
    p90_us: float | None = None
    host_us: float | None = None  # metric "latency": until the call returns
    samples: int = 0
    cache: str = ""  # "cold": every operand comes from DRAM; "hot": the same buffers again and again
    rotation_bytes: int = 0  # the distinct buffers that the calls go round
    kernels: tuple[str, ...] = ()  # our kernels that one call launches
    first_call_ms: float | None = None  # the first call in the process, with whatever it compiles and searches
    workspace_bytes: int | None = None  # allocated during a call beyond its result
    peak_bytes: int | None = None  # operands, result and workspace; of a model all that a step allocates
    useful_flops: int = 0
    useful_bytes: int = 0
    roofline_us: float | None = None
    roofline_fraction: float | None = None  # roofline_us / median_us, where that says something
    error: float | None = None  # worst absolute error against fp64
    allowed: float | None = None
    notices: tuple[str, ...] = ()
    clocks: dict[str, float] = field(
        default_factory=dict
    )  # sm_mhz_before, sm_mhz_after, mem_mhz, power_w, temperature_c
    time: str = ""

    @property
    def case(self) -> tuple[str, ...]:
        """What providers are compared on: same layer, pass and dtype, whatever the layout."""
        return self.metric, self.net, self.layer, self.what, self.name, self.dtype, self.data, self.cache

    @property
    def identity(self) -> tuple[str, ...]:
        """What a run measures once."""
        return (*self.case, self.provider, self.layout)


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def new_run_id() -> str:
    """Sorts by time; two runs started in the same millisecond still differ."""
    moment = datetime.now(timezone.utc)
    return f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03}Z-{secrets.token_hex(3)}"


class Writer:
    """Appends rows to the file of one run; use as a context manager."""

    def __init__(self, results: Path, run: Run) -> None:
        directory = results / run.device["slug"]
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / f"{run.id}.jsonl"
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        self._write({"kind": "run", "format": FORMAT} | asdict(run))

    def add(self, row: Row) -> None:
        self._write({"kind": "row"} | _compact(row))

    def begin(self, case: tuple[str, ...]) -> None:
        """Note that a case is begun: one that never ends can then be told from one that nobody came to."""
        self._write({"kind": "begun", "case": list(case)})

    def _write(self, record: dict[str, Any]) -> None:
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        if os.write(self._descriptor, line) != len(line):
            raise OSError(f"{self.path}: the disk took only part of a line")
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Results:
    """One run's file, read."""

    path: Path
    run: Run
    rows: tuple[Row, ...]
    begun: tuple[tuple[str, ...], ...]  # cases, whether or not they have rows
    damaged: tuple[str, ...]  # a sentence per line that could not be read; the rest counts


def read(path: Path) -> Results:
    """Read one run's file.

    Raises:
        ValueError: it does not begin with a run of this format.
    """
    run: Run | None = None
    rows: list[Row] = []
    begun: list[tuple[str, ...]] = []
    damaged: list[str] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                kind = record.pop("kind")
                if kind == "run" and record.pop("format") == FORMAT:
                    run = Run(**_known(Run, record))
                elif kind == "row":
                    rows.append(_row(record))
                elif kind == "begun":
                    begun.append(tuple(record["case"]))
                else:
                    damaged.append(f"{path}:{number}: neither a run of format {FORMAT} nor a row")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                damaged.append(f"{path}:{number}: {error}")
    if run is None:
        raise ValueError(f"{path} does not begin with a run of format {FORMAT}")
    return Results(path, run, tuple(rows), tuple(begun), tuple(damaged))


def read_all(results: Path) -> tuple[list[Results], list[str]]:
    """Every run under `results`, oldest first, and a sentence for each file or line that could not be read."""
    runs, problems = [], []
    for path in sorted(results.glob("*/*.jsonl")):
        try:
            run = read(path)
        except (ValueError, OSError) as error:
            problems.append(str(error))
            continue
        runs.append(run)
        problems += run.damaged
    return sorted(runs, key=lambda entry: (entry.run.started, entry.run.id)), problems


def latest(runs: Iterable[Results]) -> Iterator[tuple[Run, Row]]:
    """Of each measurement its newest row, in the order in which they were first made. Give the runs of one device, oldest first."""
    newest: dict[tuple[str, ...], tuple[Run, Row]] = {}
    for results in runs:
        for row in results.rows:
            newest[row.identity] = (results.run, row)
    yield from newest.values()


def _compact(row: Row) -> dict[str, Any]:
    """The row without the fields at their defaults."""
    record = asdict(row)
    empty: tuple[Any, ...] = (None, "", 0, (), {}, [])
    return {name: value for name, value in record.items() if name in _REQUIRED or value not in empty}


_REQUIRED = {entry.name for entry in fields(Row)[:15]}


def _row(record: dict[str, Any]) -> Row:
    known = _known(Row, record)
    for name in ("kernels", "notices"):
        if name in known:
            known[name] = tuple(known[name])
    row = Row(**known)
    if row.status not in STATUSES or row.metric not in METRICS:
        raise ValueError(f"no status {row.status!r} or no metric {row.metric!r}")
    return row


def _known(kind: type, record: dict[str, Any]) -> dict[str, Any]:
    """What `kind` has fields for: a later version may have added some."""
    names = {entry.name for entry in fields(kind)}
    return {name: value for name, value in record.items() if name in names}
