"""The machine code of the kernels on tensor cores, as nvcc made it: what their main loops are made of, and how many blocks fit.

Needs the CUDA library (`make build`), and the cuobjdump that is in Triton's package; no GPU.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import cnnkernels
from cnnkernels.profile import resources

LIBRARY = Path(cnnkernels.__file__).parent / "lib" / "libcnnkernels_cuda.so"
ARCHITECTURES = ("sm_80", "sm_90a")
TENSOR_KERNEL = re.compile(r"tensor_gemm_kernel|ChannelsLastTensor|resident_gemm_kernel|resident_wgrad_kernel")
REGISTERS, THREADS_OF_WARP = 65536, 32


@dataclass(frozen=True)
class MainLoop:
    """The innermost loop with matrix instructions of one kernel, and the kernel as a whole. Counts by mnemonic, without modifiers."""

    kernel: str
    loop: Counter[str]
    whole: Counter[str]


def cuobjdump() -> Path:
    triton = pytest.importorskip("triton", reason="triton, whose package has cuobjdump, is not installed")
    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not path.exists():
        pytest.skip("triton's package has no cuobjdump")
    return path


def compiled(architecture: str) -> dict[str, resources.Resources]:
    if not LIBRARY.exists():
        pytest.skip("the CUDA library is not built (no nvcc, or CNNKERNELS_CUDA=OFF)")
    found = resources.parse((LIBRARY.parent / "ptxas.txt").read_text(), architecture)
    if not found:
        pytest.skip(f"the CUDA library is not built for {architecture}")
    return {name: facts for name, facts in found.items() if TENSOR_KERNEL.search(name)}


def main_loops(architecture: str) -> Iterator[MainLoop]:
    names = compiled(architecture)
    command = [str(cuobjdump()), "-sass", "-arch", architecture, "-fun", ",".join(names), str(LIBRARY)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for function in listing.split("Function : ")[1:]:
        code = [(int(at, 16), text) for at, text in re.findall(r"/\*([0-9a-f]{4,})\*/\s+([^;/]+);", function)]
        jumps = ((at, re.search(r"\bBRA\b.*\b0x([0-9a-f]+)", text)) for at, text in code)
        loops = [(int(jump[1], 16), at) for at, jump in jumps if jump and int(jump[1], 16) <= at]
        bodies = [[text for at, text in code if first <= at <= last] for first, last in loops]
        products = [body for body in bodies if any("HMMA" in text for text in body)]
        assert products, f"{function.split()[0]}: no loop has a matrix instruction"
        yield MainLoop(function.split()[0], mnemonics(min(products, key=len)), mnemonics([text for _, text in code]))


def mnemonics(code: list[str]) -> Counter[str]:
    return Counter(re.sub(r"^@!?U?P\w+\s+", "", text).split()[0].split(".")[0] for text in code)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_main_loops_are_matrix_instructions_fed_from_shared_memory(architecture: str) -> None:
    seen = 0
    for of in main_loops(architecture):
        seen += 1
        assert of.loop["HMMA"] >= (10 if "resident_wgrad" in of.kernel else 16), of
        # ldmatrix gives four registers each, for one to four instructions; floats across the sum are loaded one by one.
        assert of.loop["LDSM"] >= of.loop["HMMA"] / 4 or of.loop["LDS"] >= of.loop["HMMA"] / 2, of
        assert of.whole["LDGSTS"] > 0 or "StripOperands" in of.kernel, of
        assert not of.whole["LDL"] and not of.whole["STL"], of
        # Where the copies are in the loop, it has those and little more: an addition and a predicate for each.
        if of.loop["LDGSTS"]:
            assert not of.loop["LDG"] or "Lb0EEE" in of.kernel, of
    assert seen == len(compiled(architecture))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_registers_allow_the_blocks_that_the_plan_counts_on(architecture: str) -> None:
    # TensorTile<kName>: threads and blocks of a multiprocessor, as csrc/conv2d/gemm/gemm.h has them; the weight gradient's kernel has one tile.
    tiles = {3: (256, 1), 4: (128, 2), 5: (128, 3), 6: (128, 4)}
    resident, wgrad = (128, 4), (256, 2)
    # resident_wgrad/kernel.cuh: of groups of so many channels, and of first layers.
    sums = {"8": (128, 4), "16": (128, 4), "32": (128, 2), None: (128, 3)}
    for name, facts in compiled(architecture).items():
        of_tile = re.search(r"GemmTileNameE(\d)", name)
        of_stack = re.search(r"StackWgrad\w*?Li(\d+)E", name)
        other = (
            resident
            if "resident_gemm" in name
            else sums[of_stack and of_stack[1]]
            if "resident_wgrad" in name
            else wgrad
        )
        threads, blocks = tiles[int(of_tile[1])] if of_tile else other
        assert facts.registers * threads * blocks <= REGISTERS, (name, facts)
        assert not facts.spills, (name, facts)
