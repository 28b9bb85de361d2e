"""What the checked emulator counted in one launch, as it says it (`cnnkernels._C.emulator_profile`).

Counts are of the blocks that ran; of a sampled launch those are every so-many-th, and :attr:`Launch.scale` is what to multiply by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

Size3 = tuple[int, int, int]


class Line(NamedTuple):
    """A line of source; number 0 where it is not known."""

    file: str
    number: int
    function: str

    @property
    def place(self) -> str:
        """The file's name and the line, for people."""
        name = Path(self.file).name or "unknown source"
        return f"{name}:{self.number}" if self.number else name


@dataclass(frozen=True)
class Buffer:
    """A tensor or a workspace: how much of it was touched. `block_*` are unique within each block and summed over the blocks."""

    name: str
    use: str  # "input", "output", "workspace"
    bytes: int
    read_bytes: int
    written_bytes: int
    block_read_bytes: int
    block_written_bytes: int
    read_sectors: int
    written_sectors: int
    block_read_sectors: int
    block_written_sectors: int


@dataclass(frozen=True)
class Site:
    """A memory access in the machine code: what its executions came to. `instructions` are whole warps', `lanes` their active ones.

    Sectors, of 32 bytes, and `lines`, of 128, are those that each instruction touches, summed; shared memory has none.
    """

    module: str
    offset: int
    file: str
    line: int
    function: str
    space: str  # "global", "shared"
    access: str  # "load", "store", "atomic", "async copy"
    buffer: str
    width: int
    instructions: int
    lanes: int
    bytes_asked: int
    bytes_used: int
    sectors: int
    least_sectors: int
    lines: int
    wavefronts: int
    least_wavefronts: int

    @property
    def source(self) -> Line:
        return Line(self.file, self.line, self.function)


@dataclass(frozen=True)
class CodeBlock:
    """A basic block: how often a warp executed it, and with how many active lanes in all."""

    module: str
    offset: int
    file: str
    line: int
    function: str
    warps: int
    lanes: int

    @property
    def source(self) -> Line:
        return Line(self.file, self.line, self.function)


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel."""

    kernel: str
    symbol: str
    grid: Size3
    block: Size3
    blocks: int
    blocks_run: int
    static_shared_bytes: int
    dynamic_shared_bytes: int
    block_barriers: int
    warp_barriers: int
    shuffles: int
    matrix_products: int  # warp instructions
    matrix_multiply_adds: int
    buffers: tuple[Buffer, ...]
    sites: tuple[Site, ...]
    code: tuple[CodeBlock, ...]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Launch:
        """Raises ValueError where something is missing: the emulator is then another version than this package."""
        known = _known(cls, values)
        for name, kind in (("buffers", Buffer), ("sites", Site), ("code", CodeBlock)):
            known[name] = tuple(kind(**_known(kind, value)) for value in known[name])
        for name in ("grid", "block"):
            known[name] = tuple(known[name])
        return cls(**known)

    @property
    def threads(self) -> int:
        return self.block[0] * self.block[1] * self.block[2]

    @property
    def warps(self) -> int:
        """Of a block."""
        return -(-self.threads // 32)

    @property
    def scale(self) -> float:
        """Blocks of the grid per block that ran; 1 unless the launch was sampled."""
        return self.blocks / self.blocks_run if self.blocks_run else 1.0

    @property
    def sampled(self) -> bool:
        return self.blocks_run < self.blocks


def _known(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    names = [field.name for field in fields(kind)]
    missing = [name for name in names if name not in values]
    if missing:
        raise ValueError(f"the emulator's profile of a launch lacks {', '.join(missing)}: build the package again")
    return {name: values[name] for name in names}
