"""What the compiler makes of the Triton kernels, without a GPU.

    python -m cnnkernels.triton.ahead --arch 90 [--json] [a part of a call's name ...]

A call of an operator on meta tensors (calls.py) launches what it would launch on a GPU; launch.py collects that instead. Triton's own launcher
then compiles it for the architecture asked for, so that argument types and what it knows of the arguments (which are multiples of 16,
which are 1) are as in a launch; pointers count as multiples of 16, as torch's allocations are. Registers and spills are read from the machine
code by the cuobjdump in triton's package, instructions are counted in the PTX.

Needs a process without TRITON_INTERPRET: run() starts one.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from cnnkernels.triton.launch import Launch, recording


@dataclass(frozen=True)
class Multiprocessor:
    """What the programs on one share, from the CUDA programming guide's table of compute capabilities."""

    matrix_instruction: str
    shared: int  # bytes
    shared_of_program: int
    registers: int = 65536
    warps: int = 64
    programs: int = 32
    tensor_columns: int = 0  # of tensor memory, where Blackwell's matrix instructions have their sums


ARCHITECTURES = {
    80: Multiprocessor("mma.sync", 164 * 1024, 163 * 1024),
    90: Multiprocessor("wgmma.mma_async", 228 * 1024, 227 * 1024),
    100: Multiprocessor("tcgen05.mma", 228 * 1024, 227 * 1024, tensor_columns=512),
}
MATRIX_INSTRUCTIONS = tuple(arch.matrix_instruction for arch in ARCHITECTURES.values())


@dataclass(frozen=True)
class Facts:
    """One kernel as compiled for one call and architecture. Counts are of instructions in the program's text, not of executions."""

    call: str
    kernel: str
    arch: int
    registers: int  # of a thread
    spilled_bytes: int  # of a thread's local memory: registers that did not fit
    static_shared: int
    dynamic_shared: int
    tensor_columns: int
    cubin_bytes: int
    matrix: dict[str, int]  # instruction -> count
    loads: dict[int, int]  # bytes that a lane reads from global memory -> count, cp.async included
    async_loads: dict[int, int]  # of these, cp.async
    stores: dict[int, int]
    warps: int
    stages: int

    @property
    def shared(self) -> int:
        return self.static_shared + self.dynamic_shared

    @property
    def programs(self) -> int:
        """How many run on a multiprocessor at once."""
        arch = ARCHITECTURES[self.arch]
        registers_of_warp = -(-self.registers // 8) * 8 * 32  # allocated in units of 8 a thread
        limits = [
            arch.programs,
            arch.warps // self.warps,
            arch.registers // registers_of_warp // self.warps,
            arch.shared // (self.shared + 1024),  # 1 KB of each program is the system's
        ]
        if self.tensor_columns:
            limits.append(arch.tensor_columns // self.tensor_columns)
        return min(limits)


class _Driver:
    """Stands for a GPU of compute capability `arch`, for as much as Triton's launcher asks before it launches."""

    def __init__(self, arch: int) -> None:
        self.arch = arch

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.arch, 32)

    def get_current_device(self) -> int:
        return self.arch  # the launcher keeps what it compiled by device

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def as_on(arch: int) -> Iterator[None]:
    from triton.runtime.driver import driver

    before = driver._active
    driver.set_active(_Driver(arch))
    try:
        yield
    finally:
        driver.set_active(before)


def compile_launch(launch: Launch, arch: int) -> Any:
    """Triton's compiled kernel for `launch` on a GPU of compute capability `arch`."""
    from cnnkernels.backends.triton import INTERPRETED

    if INTERPRETED:
        raise RuntimeError("TRITON_INTERPRET is set: in this process Triton's kernels are not compiled")
    with as_on(arch):
        return launch.kernel.warmup(*launch.args, grid=launch.grid, **launch.kwargs)


def facts_of(call: str, launch: Launch, arch: int) -> Facts:
    """Compile `launch` for `arch` and read what came of it."""
    compiled = compile_launch(launch, arch)
    usage = _resource_usage(compiled.asm["cubin"])
    ptx = compiled.asm["ptx"]
    async_loads = async_copies(ptx)
    return Facts(
        call,
        launch.name,
        arch,
        registers=usage["REG"],
        spilled_bytes=usage["STACK"] + usage["LOCAL"],
        static_shared=usage["SHARED"],
        dynamic_shared=compiled.metadata.shared,
        tensor_columns=getattr(compiled.metadata, "tmem_size", None) or 0,
        cubin_bytes=len(compiled.asm["cubin"]),
        matrix={
            name: count for name in MATRIX_INSTRUCTIONS if (count := len(re.findall(re.escape(name) + r"\b", ptx)))
        },
        loads=dict(accesses(ptx, "ld") + async_loads),
        async_loads=dict(async_loads),
        stores=dict(accesses(ptx, "st")),
        warps=compiled.metadata.num_warps,
        stages=launch.kwargs["num_stages"],
    )


def _resource_usage(cubin: bytes) -> dict[str, int]:
    """Registers (REG), local memory (STACK, LOCAL) and static shared memory (SHARED), as cuobjdump reads them from the ELF file."""
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        dump = subprocess.run(
            [knobs.nvidia.cuobjdump.path, "-res-usage", path], check=True, capture_output=True, text=True
        ).stdout
    return {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL|SHARED):(\d+)", dump)}


def accesses(ptx: str, operation: str) -> Counter[int]:
    """Bytes of an access of global memory -> how many there are: ld.global.v4.b32 has 16."""
    found = re.findall(rf"\b{operation}\.global[\w.:]*?(?:\.v(\d))?\.[bfsu](\d+)\b", ptx)
    return Counter(int(vector or 1) * int(bits) // 8 for vector, bits in found)


def async_copies(ptx: str) -> Counter[int]:
    """The same of cp.async, whose third operand is the number of bytes."""
    found = re.findall(r"\bcp\.async\.c[ag]\.shared\.global[\w.:]*\s*\[[^]]*\],\s*\[[^]]*\],\s*(\w+)", ptx)
    return Counter(int(size, 0) for size in found)


def _facts_of_call(call: str, arch: int) -> list[Facts]:
    from cnnkernels.triton.calls import CALLS

    with recording() as recorded:
        CALLS[call]()
    return [facts_of(call, launch, arch) for launch in recorded.launches]


def _compile_all(names: Sequence[str], architectures: Sequence[int], jobs: int) -> Iterator[list[Facts]]:
    """The facts of each call and architecture, in that order, `jobs` at a time."""
    tasks = [(name, arch) for name in names for arch in architectures]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_start_worker) as pool:
        yield from pool.map(_facts_of_call, *zip(*tasks, strict=True))


def _start_worker() -> None:
    """An interrupt is the parent's to handle; and when the parent is no more, neither is the worker, which otherwise waits for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def line(facts: Facts) -> str:
    def widths(counts: dict[int, int]) -> str:
        return " ".join(f"{counts[width]}x{width}" for width in sorted(counts, reverse=True)) or "-"

    matrix = " ".join(f"{count} {name}" for name, count in facts.matrix.items()) or "-"
    return (
        f"{facts.call:<44} sm_{facts.arch:<4} {facts.kernel:<40} {facts.registers:>3} regs {facts.spilled_bytes:>4} spilled "
        f"{facts.shared:>7,} shared  {facts.programs:>2} on an SM  {matrix:<20} "
        f"loads {widths(facts.loads)} (async {widths(facts.async_loads)})  stores {widths(facts.stores)}"
    )


def main() -> None:
    from cnnkernels.triton.calls import CALLS

    parser = ArgumentParser(prog="python -m cnnkernels.triton.ahead", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help="take the calls whose names have one of these parts; all, if none")
    parser.add_argument("--arch", type=int, action="append", choices=list(ARCHITECTURES), help="all, if not given")
    parser.add_argument(
        "--json", action="store_true", help="for each call and architecture a line, a list of what it launches"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes that compile")
    arguments = parser.parse_args()
    names = [name for name in CALLS if not arguments.parts or any(part in name for part in arguments.parts)]
    if not names:
        parser.error(f"no call has one of {', '.join(arguments.parts)} in its name")
    with tempfile.TemporaryDirectory() as folder:
        # What is compiled here is for GPUs that this machine need not have: it is kept only where somebody says so.
        os.environ.setdefault("TRITON_CACHE_DIR", folder)
        for facts in _compile_all(names, arguments.arch or list(ARCHITECTURES), arguments.jobs):
            print(
                json.dumps([asdict(one) for one in facts]) if arguments.json else "\n".join(map(line, facts)),
                flush=True,
            )


def environment_that_compiles() -> dict[str, str]:
    """This process's environment, but for what has Triton interpret its kernels."""
    return {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}


def run(
    parts: Sequence[str] = (), architectures: Sequence[int] = tuple(ARCHITECTURES), jobs: int = 2
) -> Iterator[list[Facts]]:
    """What each call launches whose name has one of `parts`, for each architecture, as it comes from a process in which Triton compiles."""
    command = [sys.executable, "-m", "cnnkernels.triton.ahead", "--json", f"--jobs={jobs}", *parts]
    command += [f"--arch={arch}" for arch in architectures]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment_that_compiles(), text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                yield [_facts_from(fields) for fields in json.loads(line)]
        except BaseException:
            process.send_signal(signal.SIGINT)
            raise
    if process.returncode:
        raise RuntimeError(f"compiling the Triton kernels failed: {' '.join(command)} ended with {process.returncode}")


def _facts_from(fields: dict[str, Any]) -> Facts:
    for name in ("loads", "async_loads", "stores"):
        fields[name] = {int(width): count for width, count in fields[name].items()}
    return Facts(**fields)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
