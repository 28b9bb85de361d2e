"""The process in which passes are emulated: `python -m cnnkernels.profile.worker`, with CNNKERNELS_EMULATOR=checked.

Reads one line of JSON, the list of jobs (:class:`cnnkernels.profile.run.Job`), and answers each with one line. Ends when its
standard input does, so that it never outlives whoever started it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any, TextIO


def main() -> None:
    # Whatever else is printed, by torch for one, must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    jobs = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_starter, daemon=True).start()
    for job in jobs:
        _answer(answers, _run(job))


def _answer(answers: TextIO, content: dict[str, Any]) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()


def _end_with_the_starter() -> None:
    sys.stdin.read()
    os._exit(1)


def _run(job: dict[str, Any]) -> dict[str, Any]:
    from cnnkernels import _C
    from cnnkernels.bench.layer import Layer
    from cnnkernels.bench.machine import DTYPES, TF32
    from cnnkernels.profile.passes import run_pass

    native: Any = _C
    if not native.emulator_is_checked():
        return {"error": "the emulator of this process is not the checked one"}
    native.emulator_profile()
    # Counting alone: what a kernel does wrong is for `make sanitize` to say.
    native.emulator_configure(check=False, count=True, sample=job["sample"])
    try:
        layer, dtype = Layer.from_dict(job["layer"]), job["dtype"]
        run_pass(layer, job["name"], DTYPES[dtype], job["layout"], job["kernel"], allow_tf32=dtype == TF32)
    except RuntimeError as error:
        return {"error": str(error)}
    finally:
        native.emulator_configure(count=False)
    return {"launches": native.emulator_profile()}


if __name__ == "__main__":
    main()
