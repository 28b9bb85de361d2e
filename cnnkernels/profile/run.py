"""Passes in the checked emulator, in a process of their own, from which every launch's counters come back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import cnnkernels
from cnnkernels import ops
from cnnkernels.bench.layer import Layer
from cnnkernels.profile.launches import Launch

LIBRARY = ops.LIBRARY_DIRECTORY / "libcnnkernels_emulator_checked.so"


class EmulationFailed(RuntimeError):
    """The emulator ran no further; the message says why, as a sentence."""


@dataclass(frozen=True)
class Job:
    """One pass to emulate, of which every `sample`-th block is run; on `kernel`, or "" for the plan's choice."""

    layer: Layer
    name: str
    dtype: str
    layout: str
    kernel: str = ""
    sample: int = 1


def why_unavailable() -> str | None:
    """Why the checked emulator cannot run here; None where it can."""
    if LIBRARY.is_file():
        return ops.EMULATOR_MISSING
    return f"the checked emulator, {LIBRARY}, is missing: build it with `pip install --no-build-isolation -e .` or `make build`"


def run(jobs: Sequence[Job]) -> Iterator[list[Launch]]:
    """The launches of each job, in order, as each is done. Leaving the loop early, by an exception too, ends the process.

    Raises:
        EmulationFailed: a kernel refuses its problem, or the process ended.
    """
    root = str(Path(cnnkernels.__file__).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "CNNKERNELS_EMULATOR": "checked",
        "CNNKERNELS_TUNING": "0",  # the plan's choice, the same on every machine
        "PYTHONPATH": os.pathsep.join(paths),
    }
    with tempfile.TemporaryFile() as said:
        # In a session of its own: Ctrl-C is for us, and we end it, wherever in a kernel it is.
        process = subprocess.Popen(
            [sys.executable, "-m", "cnnkernels.profile.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, env=environment, text=True, start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        try:
            with suppress(BrokenPipeError):  # it says below why it ended
                process.stdin.write(json.dumps([_as_json(job) for job in jobs]) + "\n")
                process.stdin.flush()
            for _ in jobs:
                line = process.stdout.readline()
                if not line:
                    process.wait()
                    said.seek(0)
                    raise EmulationFailed(_last_words(process.returncode, said.read().decode(errors="replace")))
                answer = json.loads(line)
                if "error" in answer:
                    raise EmulationFailed(answer["error"])
                yield [Launch.from_dict(launch) for launch in answer["launches"]]
        finally:
            process.kill()
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.stdout.close()
            process.wait()


def _as_json(job: Job) -> dict[str, object]:
    return asdict(job) | {"layer": job.layer.to_dict()}


def _last_words(code: int, said: str) -> str:
    lines = [line for line in said.strip().splitlines() if line.strip()]
    ending = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    return f"the emulator's process ended {ending}" + (f": {lines[-1].strip()}" if lines else "")
