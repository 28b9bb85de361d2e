"""The floating-point instructions that a launch executed: those of each basic block, read from the machine code, times its count.

The checked build calls `__sanitizer_cov_trace_pc` at the head of every basic block, and a block's offset is the address after
that call. So a block's instructions are those up to the next such call. Kernels are compiled there without vectorisation and
with contraction, as for a GPU: a scalar instruction is one operation of one thread.

Conversions are not counted, those between half and single precision among them, and neither is what a library function does inside;
of the latter, those that are one instruction on a GPU count as that.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from cnnkernels.profile.launches import CodeBlock

_TRACE = "__sanitizer_cov_trace_pc"


class NoMachineCode(Exception):
    """The instructions cannot be read; the message says why, as a sentence."""


@dataclass(frozen=True)
class Operations:
    """Floating-point operations: of lanes, or instructions of warps. 32: single precision, 64: double."""

    fma32: float = 0
    other32: float = 0  # additions, subtractions, multiplications, roundings
    compare32: float = 0  # minima, maxima, comparisons
    division32: float = 0  # and reciprocals and square roots
    fma64: float = 0
    other64: float = 0
    compare64: float = 0
    division64: float = 0

    def __add__(self, more: Operations) -> Operations:
        return Operations(*(mine + theirs for mine, theirs in zip(self.all(), more.all(), strict=True)))

    def times(self, count: float) -> Operations:
        return Operations(*(each * count for each in self.all()))

    def all(self) -> tuple[float, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))

    @property
    def fma(self) -> float:
        return self.fma32 + self.fma64

    @property
    def total(self) -> float:
        return sum(self.all())


@dataclass(frozen=True)
class BlockCode:
    """What a basic block does each time: `operations`, and `calls` of library functions, by name, whose inside is not seen."""

    operations: Operations
    calls: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Counted:
    """Operations of one launch's blocks that ran. `issued` is warp instructions, `active` operations of active lanes.

    `calls` are the library functions that were called and whose operations are in neither.
    """

    issued: Operations
    active: Operations
    by_block: tuple[Operations, ...]  # issued, in the order of the launch's code
    calls: tuple[str, ...] = ()


BlockKey = tuple[str, int]


def count(code: Sequence[CodeBlock], instructions: Mapping[BlockKey, BlockCode]) -> Counted:
    """The operations of a launch, given those of each basic block (:func:`read_blocks`)."""
    issued, active = Operations(), Operations()
    by_block = []
    calls: set[str] = set()
    for block in code:
        own = instructions[block.module, block.offset]
        by_block.append(own.operations.times(block.warps))
        issued += by_block[-1]
        active += own.operations.times(block.lanes)
        calls |= own.calls
    return Counted(issued, active, tuple(by_block), tuple(sorted(calls)))


def read_blocks(keys: Iterable[BlockKey]) -> dict[BlockKey, BlockCode]:
    """The floating-point instructions of basic blocks, by (module, offset).

    Raises:
        NoMachineCode: this is no x86-64, there is no objdump here, or it does not read a module.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        raise NoMachineCode(
            f"x86-64's machine code is the only one that is read, and this machine is {platform.machine()}"
        )
    objdump = shutil.which("objdump")
    if objdump is None:
        raise NoMachineCode("objdump is not on PATH, which reads the machine code: install binutils")
    offsets: dict[str, set[int]] = {}
    for module, offset in keys:
        offsets.setdefault(module, set()).add(offset)
    found: dict[BlockKey, BlockCode] = {}
    for module, wanted in offsets.items():
        if not Path(module).is_file():
            raise NoMachineCode(f"{module}, whose machine code ran, is not there any more")
        for first, last in _ranges(sorted(wanted)):
            text = _disassemble(objdump, module, first, last)
            within = [offset for offset in wanted if first <= offset < last]
            found |= {(module, offset): own for offset, own in parse(text, within).items()}
    return found


#: No basic block is longer than this many bytes of code: the inner loops of a large tile, unrolled, are some tens of thousands.
_LONGEST_BLOCK = 1 << 17


def _ranges(offsets: Sequence[int]) -> list[tuple[int, int]]:
    """Stretches of code that hold all of `offsets` and what follows each up to the longest block, without what lies far between."""
    ranges: list[tuple[int, int]] = []
    for offset in offsets:
        if ranges and offset <= ranges[-1][1]:
            ranges[-1] = ranges[-1][0], offset + _LONGEST_BLOCK
        else:
            ranges.append((offset, offset + _LONGEST_BLOCK))
    return ranges


def _disassemble(objdump: str, module: str, first: int, last: int) -> str:
    command = [objdump, "-d", "--no-show-raw-insn", f"--start-address={first:#x}", f"--stop-address={last:#x}", module]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if result.returncode != 0:
        reason = result.stderr.strip().splitlines()
        raise NoMachineCode(f"objdump does not read {module}: {reason[-1] if reason else result.returncode}")
    return result.stdout


_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\t(?:(?:bnd|notrack|data16|rex\.W) +)*(\S+)[ \t]*(.*)$")
_CALL_TARGET = re.compile(r"^(?:\*.*# )?([0-9a-f]+)\b")
#: Another library's function. The names of the instrumentation's, of C++'s and of the compiler's begin with an underscore.
_LIBRARY_FUNCTION = re.compile(r"<([A-Za-z]\w*)@")
#: Copies of memory are accesses, and counted as such. A square root is an instruction, with a call behind it to set errno.
_COUNTED_ELSEWHERE = re.compile(r"(cnn_\w+|mem(cpy|set|move)|sqrtf?)$")
#: What is a function on a host and one instruction on a GPU, and the field of :class:`Operations` that it counts in.
_ONE_INSTRUCTION = {"fmaxf": "compare32", "fminf": "compare32", "fmax": "compare64", "fmin": "compare64"}


def parse(text: str, offsets: Iterable[int]) -> dict[int, BlockCode]:
    """From objdump's text: the instructions of the blocks that begin at `offsets`, each up to the next block's call.

    A block ends at a call of the trace function, which is known by its name or, in a stripped library, by its address: it is
    what is called just before each block.

    Raises NoMachineCode for an offset that is not in the text.
    """
    addresses: list[int] = []
    instructions: list[tuple[str, str]] = []
    for line in text.splitlines():
        match = _INSTRUCTION.match(line)
        if match:
            addresses.append(int(match[1], 16))
            instructions.append((match[2], match[3]))
    starts = {}
    for offset in offsets:
        index = bisect_left(addresses, offset)
        if index == len(addresses) or addresses[index] != offset:
            raise NoMachineCode(
                f"no instruction begins at {offset:#x}, where a basic block should: a wrong offset, or stale code"
            )
        starts[offset] = index
    tracers = {
        target for index in starts.values() if index > 0 if (target := _target(*instructions[index - 1])) is not None
    }
    found = {}
    for offset, index in starts.items():
        total = dict.fromkeys((field.name for field in fields(Operations)), 0)
        calls = set()
        for at in range(index, len(instructions)):
            mnemonic, operands = instructions[at]
            if mnemonic.startswith("call") and (_TRACE in operands or _target(mnemonic, operands) in tracers):
                break
            called = _library_function(mnemonic, operands)
            kind, width = (_ONE_INSTRUCTION.get(called, ""), 1) if called else classify(mnemonic, operands)
            if kind:
                total[kind] += width
            elif called:
                calls.add(called)
        found[offset] = BlockCode(Operations(**total), frozenset(calls))
    return found


def _library_function(mnemonic: str, operands: str) -> str:
    """The function of another library that is called, or ""."""
    match = _LIBRARY_FUNCTION.search(operands) if mnemonic.startswith("call") else None
    return match[1] if match and not _COUNTED_ELSEWHERE.match(match[1]) else ""


def _target(mnemonic: str, operands: str) -> int | None:
    """The address that a call calls, or through which: `call 1040 <f@plt>`, `call *0x2fe2(%rip) # 3ff0 <f>`."""
    match = _CALL_TARGET.match(operands) if mnemonic.startswith("call") else None
    return int(match[1], 16) if match else None


_FLOAT = re.compile(
    r"^v?(?:"
    r"(?P<fma>f(?:n?m(?:add|sub)|maddsub|msubadd)(?:132|213|231)?)|"
    r"(?P<other>h?add|h?sub|addsub|mul|round)|"
    r"(?P<division>div|sqrt|rcp|rsqrt)|"
    r"(?P<compare>min|max|u?comi|cmp(?:[a-z]+(?:_[a-z]+)?)??)"  # cmpss, with its condition in the name: vcmpneq_oqss
    r")(?P<form>[sp][sd])$"
)
_LANES = {"x": 1, "y": 2, "z": 4}  # of 128 bits


def classify(mnemonic: str, operands: str) -> tuple[str, int]:
    """Which field of :class:`Operations` an x86 instruction counts in, and how often; ("", 0) for one that is no arithmetic.

    A packed instruction counts once for each element of its register.
    """
    match = _FLOAT.match(mnemonic)
    if match is None:
        return "", 0
    kind = next(name for name in ("fma", "other", "division", "compare") if match[name])
    packed, double = match["form"][0] == "p", match["form"][1] == "d"
    register = re.search(r"%([xyz])mm", operands)
    width = 1
    if packed:
        width = _LANES[register[1] if register else "x"] * (2 if double else 4)
    return f"{kind}{64 if double else 32}", width
