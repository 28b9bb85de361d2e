"""What the compiler says of each kernel: registers, shared memory, stack and spills, from the report that the build keeps.

The build runs ptxas with -v for every architecture and puts what it says into ptxas.txt beside the libraries.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

#: The architecture of an H200.
ARCHITECTURE = "sm_90a"


@dataclass(frozen=True)
class Resources:
    """Of one kernel, per thread and, shared memory and barriers, per block. Bytes but for registers and barriers."""

    registers: int
    static_shared_bytes: int
    barriers: int
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int

    @property
    def spills(self) -> bool:
        return bool(self.spill_store_bytes or self.spill_load_bytes)


_FUNCTION = re.compile(r"Compiling entry function '(?P<symbol>\S+)' for '(?P<architecture>\w+)'")
_FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers(.*)")


def parse(report: str, architecture: str = ARCHITECTURE) -> dict[str, Resources]:
    """Every kernel that was compiled for `architecture`, by its mangled name."""
    found: dict[str, Resources] = {}
    symbol = ""
    frame = (0, 0, 0)
    for line in report.splitlines():
        if match := _FUNCTION.search(line):
            symbol = match["symbol"] if match["architecture"] == architecture else ""
        elif match := _FRAME.search(line):
            frame = int(match[1]), int(match[2]), int(match[3])
        elif symbol and (match := _USED.search(line)):
            found[symbol] = Resources(int(match[1]), _part(match[2], "bytes smem"), _part(match[2], "barriers"), *frame)
            symbol = ""
    return found


def load(path: Path) -> tuple[dict[str, Resources], str]:
    """The report at `path`, and why there is none as a sentence, or an empty string."""
    try:
        return parse(path.read_text(encoding="utf-8", errors="replace")), ""
    except OSError:
        return {}, f"no {path.name}, which the build of the CUDA library writes: it is not built here"


def _part(text: str, what: str) -> int:
    match = re.search(rf"(\d+) {what}", text)
    return int(match[1]) if match else 0
