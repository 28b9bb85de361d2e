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

Each file is compiled twice, so that local variables that are never set hold other bits, and run twice, with other bits in memory that
nobody has written: a kernel whose stores differ has used some of them. The second time the compiler also looks at alignments.

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
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
# Of the same file once more.
_TWIN_FLAGS = {"-ftrivial-auto-var-init=pattern": "-ftrivial-auto-var-init=zero"}
_TWIN_CHECKS = ["-fsanitize=alignment"]


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


def build(source: Path, directory: Path, *, check: bool = True) -> Path:
    """Compile the trials of one .cu file with $CXX, else c++, into a shared object in `directory`, and return its path.

    What the compiler warns of, local variables that are never set among it, goes to standard error.

    Args:
        check: compile the twin as well, beside it, without which `run_libraries` compares no stores.

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
    flags = [*compiler, *shlex.split(_C.build_info()["checked_flags"])]
    if not check:
        _compile(source, library, [*flags, *_WARNINGS])
        return library
    with ThreadPoolExecutor(2) as pool:
        twins = [
            pool.submit(_compile, source, library, [*flags, *_WARNINGS]),
            pool.submit(
                _compile, source, _twin(library), [_TWIN_FLAGS.get(flag, flag) for flag in flags] + _TWIN_CHECKS
            ),
        ]
    for twin in twins:
        twin.result()
    return library


def _compile(source: Path, library: Path, compiler: Sequence[str]) -> None:
    object_file = library.with_suffix(".o")
    # In two steps: given -fsanitize=thread, the linker would bring the thread sanitizer's own runtime.
    compile_step = [*compiler, "-fPIC", f"-I{HEADERS}", "-x", "c++", "-c", source.resolve(), "-o", object_file]
    link_step = [compiler[0], "-shared", object_file, ops.CHECKED_EMULATOR_LIBRARY.resolve(), "-o", library]
    for step in (compile_step, link_step):
        process = subprocess.run(list(map(str, step)), capture_output=True, text=True, check=False)
        if process.returncode != 0:
            raise TrialError(f"{source} does not compile:\n{process.stderr.strip()}")
        sys.stderr.write(process.stderr)
    object_file.unlink()


def _twin(library: Path) -> Path:
    return library.with_suffix(".twin.so")


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
        library = build(source, Path(directory), check=check)
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
        for position, (record, library, twin) in enumerate(_runs(arguments.libraries, arguments.trial, schedules)):
            if position < arguments.skip:
                continue
            index = record.pop("index")
            print(json.dumps(record), file=output, flush=True)
            check = not arguments.no_check
            config = {"schedule": record["schedule"], "seed": _SEED, "check": check}
            signal.alarm(_SECONDS_PER_TRIAL)
            comparison = "none"
            record |= {"findings": [], "launches": []}
            if twin is not None and check:
                # The twin goes first: a misaligned access that it does not stop takes the process down.
                _C.emulator_configure(**config, comparison="record")
                record["error"] = _run_trial(twin, index)
                record["findings"] = _C.emulator_findings()
                comparison = "compare"
            if not record["findings"]:
                # Also after an error without a finding: what the trial threw may come of what was never set.
                _C.emulator_configure(**config, count=arguments.count, comparison=comparison)
                record["error"] = _run_trial(library, index)
                record["findings"] = _C.emulator_findings()
                record["launches"] = _C.emulator_profile()
            signal.alarm(0)
            print(json.dumps(record), file=output, flush=True)


def _own_output() -> TextIO:
    """Standard output for the records alone: what trials print goes to standard error."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return output


def _runs(
    libraries: Sequence[str], only: Sequence[str] | None, schedules: Sequence[Schedule]
) -> Iterator[tuple[dict[str, Any], ctypes.CDLL, ctypes.CDLL | None]]:
    """Every trial under every schedule, in the same order each time, with its library and that library's twin."""
    for path in libraries:
        library = ctypes.CDLL(str(Path(path).resolve()))
        library.cnn_trial_name.restype = ctypes.c_char_p
        twin = ctypes.CDLL(str(_twin(Path(path).resolve()))) if _twin(Path(path)).is_file() else None
        for index in range(library.cnn_trial_count()):
            name = library.cnn_trial_name(index).decode()
            if only and name not in only:
                continue
            for schedule in schedules:
                yield {"name": name, "library": path, "schedule": schedule, "index": index}, library, twin


def _run_trial(library: ctypes.CDLL, index: int) -> str | None:
    """What it threw."""
    error = ctypes.create_string_buffer(_ERROR_BYTES)
    failed = library.cnn_trial_run(index, error, _ERROR_BYTES) != 0
    return error.value.decode(errors="replace") if failed else None


if __name__ == "__main__":
    _main()
