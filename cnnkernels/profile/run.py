"""Passes in the checked emulator, in a process of their own, from which every launch's counters come back."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from cnnkernels.bench.layer import Layer
from cnnkernels.profile.launches import Launch
from cnnkernels.testing import checked_emulator


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


def run(jobs: Sequence[Job]) -> Generator[list[Launch], None, None]:
    """The launches of each job, in order, as each is done. Leaving the loop early, by an exception too, ends the process.

    Raises:
        EmulationFailed: a kernel refuses its problem, or the process ended.
    """
    # Without tuning it is the plan's choice that runs, the same wherever a block has an H200's shared memory.
    environment = checked_emulator.environment() | {"CNNKERNELS_TUNING": "0"}
    with tempfile.TemporaryFile() as said:
        # Beyond the reach of Ctrl-C, which is for us: we end it, wherever in a kernel it is.
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
                    how = checked_emulator.how_it_ended(process.returncode, said.read().decode(errors="replace"))
                    raise EmulationFailed(f"the emulator's process {how}")
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
