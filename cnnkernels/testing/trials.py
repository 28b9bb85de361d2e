"""Trials: kernels in a .cu file of their own, compiled for the checked emulator and run under its checks and counters.

A trial makes tensors, launches kernels on them and may look at the result. `csrc/emulator/trial.h` says what it may use:

    // scale.cu
    #include "emulator/trial.h"

    __global__ void scale(const float* x, float* y, int n) {
      const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
      y[i] = 2.0f * x[i];  // i < n was forgotten
    }

    CNN_TRIAL(scale_tail) {
      const float* x = trial.input<float>("x", {100});  // 1, 2, 3, ...
      float* y = trial.output<float>("y", {100});       // must be written completely
      cnn::launch("scale", {dim3(1), dim3(128)}, scale, x, y, 100);
      if (y[0] != 2.0f) throw std::runtime_error("y[0] is wrong");
    }

    >>> for finding in trials.run(Path("scale.cu"))[0].findings:
    ...     print(finding["kind"], finding["line"], finding["place"])

Each trial is run three times, with other bits in local variables that were never set and in memory that nobody has written: a kernel
whose stores differ has used some of them. To be counted it is compiled once more.

Needs a checkout (the headers in csrc/), the checked library and a C++ compiler, not a GPU. Trials run in a process of their own, because
the checked emulator takes the place of the fast one, and because a faulty kernel may take its process down:

    CNNKERNELS_EMULATOR=checked python -m cnnkernels.testing.trials LIBRARY...

runs the trials of compiled libraries there and prints two lines of JSON for each: what is about to run, and what came of it.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, get_args

from cnnkernels import ops
from cnnkernels.testing import checked_emulator
from cnnkernels.testing.emulation import Schedule

HEADERS = checked_emulator.ROOT / "csrc"

# Of the random schedule: the same order every time.
_SEED = 1
# Far more than any trial takes: one that runs longer never ends.
_SECONDS_PER_TRIAL = 120
_ERROR_BYTES = 1 << 16
# A maximum that begins with a variable nobody set looks sound in the emulator, but not to the compiler.
_WARNINGS = ("-Wuninitialized", "-Wmaybe-uninitialized")
_CHECKS = ("-fsanitize=alignment,bounds",)
# -ftrivial-auto-var-init=pattern fills variables with 0xfe bytes, -1.7e38 as a float, by constants in the assembly. There they are replaced:
# by 8.5e37, which maxima do not hide, and by 0.75, which squares and quotients do not lose.
_FILLINGS = ("7e", "3f")
_PATTERNS = {size: int.from_bytes(b"\xfe" * size, "little", signed=True) for size in (2, 4, 8)}
# Wider ones are so rare that any occurrence is the filling; of the narrowest only what is moved somewhere.
_PATTERN = re.compile(
    rf"(?:(?<=\$)|(?<=long\s)|(?<=quad\s))(?:{_PATTERNS[4]}|{_PATTERNS[8]})(?!\w)|(?<=mov[wl]\s\$){_PATTERNS[2]}(?=,)"
)
# Short arrays are filled with a byte that is broadcast into a vector.
_BROADCAST = re.compile(
    r"(?<=movl\s\$)-2(?=, %(\w+)\n(?:.*\n){0,8}?\s+vmovd\s%\1, (%xmm\d+)\n(?:.*\n){0,8}?\s+vpbroadcastb\s\2,)"
)


class TrialError(RuntimeError):
    """Trials cannot be built or run; the text says what is missing or what the compiler said."""


@dataclass(frozen=True)
class TrialResult:
    """What came of one trial under one schedule."""

    name: str
    library: Path  # it was compiled into
    schedule: Schedule
    # What the trial threw, the first finding included, or how it took its process down; None: nothing.
    error: str | None
    findings: tuple[dict[str, Any], ...]  # as of _C.emulator_findings(); none where check was off
    launches: tuple[dict[str, Any], ...]  # as of _C.emulator_profile(); none where count was off


def build(source: Path, directory: Path, *, check: bool = True, count: bool = False) -> Path:
    """Compile the trials of one .cu file with $CXX, else c++, into shared objects in `directory`.

    Returns what :func:`run_libraries` wants, with the same `check` and `count`.

    What the compiler warns of, local variables that are never set among it, goes to standard error.

    Args:
        check: compile for checks, with tests of every pointer's alignment and every array's index.
        count: compile for counters, with nothing in the code that is not the kernels'.

    Raises:
        TrialError: there is no checked library, no csrc/ beside the package, no compiler, or it refuses the source.
    """
    missing = checked_emulator.missing()
    if missing is not None:
        raise TrialError(missing)
    if not HEADERS.is_dir():
        raise TrialError(
            f"{HEADERS} is missing: trials are compiled in a checkout of cnnkernels, not beside an installed one"
        )
    if not source.is_file():
        raise TrialError(f"{source} is missing")
    compiler = shlex.split(os.environ.get("CXX") or "c++")
    if shutil.which(compiler[0]) is None:
        raise TrialError(f"no C++ compiler: {compiler[0]} is not on PATH; install g++ or set CXX")
    try:
        from cnnkernels import _C
    except ImportError as error:
        raise TrialError(f"cnnkernels._C, which knows the flags, does not load: {error}") from None
    library = directory / f"{source.stem}.so"
    flags: list[str | Path] = [
        *compiler,
        *shlex.split(_C.build_info()["checked_flags"]),
        f"-I{HEADERS}",
        "-x",
        "c++",
        source.resolve(),
    ]
    if count:
        object_file = library.with_suffix(".o")
        _call(source, [*flags, *_WARNINGS, "-c", "-o", object_file])
        _link(source, compiler, object_file, library)
    if check:
        assembly = library.with_suffix(".s")
        _call(source, [*flags, *_WARNINGS, *_CHECKS, "-S", "-o", assembly])
        text = assembly.read_text()
        for filling, variant in _variants(library).items():
            assembly.write_text(_with_filling(text, filling))
            _link(source, compiler, assembly, variant)
        assembly.unlink()
    return library


def _with_filling(assembly: str, filling: str) -> str:
    """The same code, in which the constants that variables are filled with have other bytes."""

    def filled(match: re.Match[str]) -> str:
        (size,) = (size for size, value in _PATTERNS.items() if str(value) == match[0])
        return str(int.from_bytes(bytes.fromhex(filling) * size, "little", signed=True))

    return _BROADCAST.sub(str(int(filling, 16)), _PATTERN.sub(filled, assembly))


def _link(source: Path, compiler: Sequence[str], file: Path, library: Path) -> None:
    # A step of its own, without -fsanitize=thread: given that, the linker would bring the thread sanitizer's own runtime.
    _call(source, [*compiler, "-shared", file, ops.CHECKED_EMULATOR_LIBRARY.resolve(), "-o", library])


def _call(source: Path, command: Sequence[str | Path]) -> None:
    process = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if process.returncode != 0:
        raise TrialError(f"{source} does not compile:\n{process.stderr.strip()}")
    sys.stderr.write(process.stderr)


def _variants(library: Path) -> dict[str, Path]:
    """By what they fill variables with, the one first that the others are compared with."""
    return {filling: library.with_suffix(f".{filling}.so") for filling in ("fe", *_FILLINGS)}


def run(
    source: Path,
    trials: Sequence[str] | None = None,
    *,
    check: bool = True,
    count: bool = False,
    schedules: Sequence[Schedule] = ("forward",),
) -> list[TrialResult]:
    """Compile one .cu file and run its trials, or those named, each under every schedule.

    Raises:
        TrialError: as :func:`build` and :func:`run_libraries`.
        ValueError: as :func:`run_libraries`.
    """
    with tempfile.TemporaryDirectory(prefix="cnnkernels-trials-") as directory:
        library = build(source, Path(directory), check=check, count=count)
        return run_libraries([library], trials, check=check, count=count, schedules=schedules)


def run_libraries(
    libraries: Sequence[Path],
    trials: Sequence[str] | None = None,
    *,
    check: bool = True,
    count: bool = False,
    schedules: Sequence[Schedule] = ("forward",),
) -> list[TrialResult]:
    """Run the trials that :func:`build` compiled, or those named, each under every schedule, in another process.

    A trial that takes the process down has that as its error, and the ones behind it run in a new process.

    Args:
        check: hold every access against the rules.
        count: record the counters of every launch.
        schedules: the orders of threads and blocks to run under.

    Raises:
        TrialError: the process does not begin, for instance because a library does not load.
        ValueError: a trial is in none of the libraries.
    """
    command = [sys.executable, "-m", "cnnkernels.testing.trials"]
    command += [f"--trial={name}" for name in trials or ()] + [f"--schedule={schedule}" for schedule in schedules]
    command += ["--count"] * count + ["--no-check"] * (not check)
    environment = checked_emulator.environment()
    results: list[TrialResult] = []
    while True:
        process = subprocess.run(
            [*command, f"--skip={len(results)}", *map(str, libraries)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        begun: dict[str, Any] | None = None
        for line in process.stdout.splitlines():
            record = json.loads(line)
            if "error" in record:
                results.append(_result(record))
                begun = None
            else:
                begun = record
        if process.returncode == 0:
            break
        if begun is None:
            raise TrialError(f"the trials' process {_how_it_ended(process)}")
        results.append(
            _result({**begun, "error": f"its process {_how_it_ended(process)}", "findings": [], "launches": []})
        )
    unknown = set(trials or ()) - {result.name for result in results}
    if unknown:
        raise ValueError(f"no trial {', '.join(sorted(unknown))} in {', '.join(path.name for path in libraries)}")
    return results


def _result(record: dict[str, Any]) -> TrialResult:
    return TrialResult(
        name=record["name"],
        library=Path(record["library"]),
        schedule=record["schedule"],
        error=record["error"],
        findings=tuple(record["findings"]),
        launches=tuple(record["launches"]),
    )


def _how_it_ended(process: subprocess.CompletedProcess[str]) -> str:
    return checked_emulator.how_it_ended(process.returncode, process.stderr, _SECONDS_PER_TRIAL, lines=10)


# The other process.


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cnnkernels.testing.trials", description="Run compiled trials.")
    parser.add_argument("libraries", nargs="+", metavar="LIBRARY", help="compiled by cnnkernels.testing.trials.build")
    parser.add_argument("--trial", action="append", help="only this; repeatable")
    parser.add_argument("--schedule", action="append", choices=get_args(Schedule), help="repeatable; forward if none")
    parser.add_argument("--count", action="store_true", help="record the counters of every launch")
    parser.add_argument("--no-check", action="store_true", help="hold no access against the rules")
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="leave out the first N runs")
    arguments = parser.parse_args()
    if ops.EMULATOR_MISSING is not None:
        sys.exit(ops.EMULATOR_MISSING)
    from cnnkernels import _C

    if not _C.emulator_is_checked():
        sys.exit("this is not the checked emulator: set CNNKERNELS_EMULATOR=checked")
    schedules: Sequence[Schedule] = arguments.schedule or ["forward"]
    with _own_output() as output:
        for position, (record, runs) in enumerate(_runs(arguments, schedules)):
            if position < arguments.skip:
                continue
            index = record.pop("index")
            print(json.dumps(record), file=output, flush=True)
            record |= {"error": None, "findings": [], "launches": []}
            signal.alarm(_SECONDS_PER_TRIAL)
            for library, config in runs:
                _C.emulator_configure(schedule=record["schedule"], seed=_SEED, **config)
                record["error"] = _run_trial(library, index)
                record["findings"] = _C.emulator_findings()
                record["launches"] = _C.emulator_profile()
                # After an error without a finding too the next run follows: what was thrown may come of what was never set.
                if record["findings"]:
                    break
            signal.alarm(0)
            print(json.dumps(record), file=output, flush=True)


def _own_output() -> TextIO:
    """Standard output for the records alone: what trials print goes to standard error."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return output


def _runs(
    arguments: argparse.Namespace, schedules: Sequence[Schedule]
) -> Iterator[tuple[dict[str, Any], list[tuple[ctypes.CDLL, dict[str, Any]]]]]:
    """Every trial under every schedule, in the same order each time, and the libraries to run it in with their switches."""
    for path in arguments.libraries:
        runs: list[tuple[ctypes.CDLL, dict[str, Any]]] = []
        if not arguments.no_check:
            for variant in _variants(Path(path)).values():
                runs.append((_load(variant), {"comparison": "compare" if runs else "record"}))
        if arguments.count:
            runs.append((_load(Path(path)), {"check": False, "count": True}))
        library = runs[0][0]
        for index in range(library.cnn_trial_count()):
            name = library.cnn_trial_name(index).decode()
            if arguments.trial and name not in arguments.trial:
                continue
            for schedule in schedules:
                yield {"name": name, "library": path, "schedule": schedule, "index": index}, runs


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path.resolve()))
    library.cnn_trial_name.restype = ctypes.c_char_p
    return library


def _run_trial(library: ctypes.CDLL, index: int) -> str | None:
    """What it threw."""
    error = ctypes.create_string_buffer(_ERROR_BYTES)
    failed = library.cnn_trial_run(index, error, _ERROR_BYTES) != 0
    return error.value.decode(errors="replace") if failed else None


if __name__ == "__main__":
    _main()
