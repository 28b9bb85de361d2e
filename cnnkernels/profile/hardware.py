"""An H200 (sm_90) in numbers: everything that the model assumes of the hardware, each with its source.

`kind` says how far a number can be trusted: "documented" by NVIDIA; "measured" on an H200, by whom the source says; "assumed".
Rates are per clock and multiprocessor where the name says so, else of the whole GPU and per second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_OCCUPANCY = "CUDA toolkit 13.0, cuda_occupancy.h, compute capability 9.x"
_GUIDE = "CUDA C++ programming guide, technical specifications per compute capability, 9.0"
_THROUGHPUT = "CUDA C++ programming guide, throughput of native arithmetic instructions, compute capability 9.0"


@dataclass(frozen=True)
class Constant:
    """One number of the hardware."""

    value: float
    unit: str
    what: str
    kind: Literal["documented", "measured", "assumed"]
    source: str

    @property
    def count(self) -> int:
        return int(self.value)


# --- What a multiprocessor (SM) holds.

SMS = Constant(
    132, "SMs", "multiprocessors", "documented", "NVIDIA H100 white paper, H100 SXM5, whose processor an H200 has"
)
WARP = Constant(32, "lanes", "lanes of a warp", "documented", _GUIDE)
WARPS_PER_SM = Constant(64, "warps", "resident warps per SM", "documented", _GUIDE)
BLOCKS_PER_SM = Constant(32, "blocks", "resident blocks per SM", "documented", _OCCUPANCY)
THREADS_PER_BLOCK = Constant(1024, "threads", "threads of a block, at most", "documented", _GUIDE)
SUBPARTITIONS = Constant(4, "per SM", "schedulers, each with a fourth of the registers", "documented", _OCCUPANCY)
REGISTERS_PER_SM = Constant(65536, "registers", "32-bit registers per SM", "documented", _GUIDE)
REGISTER_UNIT = Constant(256, "registers", "registers are given to a warp in units of", "documented", _OCCUPANCY)
REGISTERS_PER_THREAD = Constant(255, "registers", "registers of a thread, at most", "documented", _GUIDE)
BARRIERS_PER_SM = Constant(64, "barriers", "hardware barriers per SM", "documented", _OCCUPANCY)
SHARED_PER_SM = Constant(228 * 1024, "bytes", "shared memory per SM", "documented", _GUIDE)
SHARED_PER_BLOCK = Constant(227 * 1024, "bytes", "shared memory of a block, at most", "documented", _GUIDE)
SHARED_RESERVED = Constant(
    1024, "bytes", "shared memory the system keeps per block", "documented", "Hopper tuning guide, 1.4.1"
)
SHARED_UNIT = Constant(128, "bytes", "shared memory is given to a block in units of", "documented", _OCCUPANCY)

# --- How fast it is.

CLOCK = Constant(
    1.98e9, "Hz", "highest clock", "documented",
    "NVIDIA H200 data sheet: 67 TFLOP/s fp32 = 132 SMs x 128 lanes x 2 x 1.98 GHz; long full load runs below it",
)  # fmt: skip
ISSUE = Constant(
    4, "warp instructions / clk / SM", "instructions issued: one per scheduler", "documented", "NVIDIA H100 white paper",
)  # fmt: skip
FP32_LANES = Constant(128, "lanes / clk / SM", "fp32 add, multiply, multiply-add", "documented", _THROUGHPUT)
FP64_LANES = Constant(64, "lanes / clk / SM", "fp64 add, multiply, multiply-add", "documented", _THROUGHPUT)
FP32_COMPARE_LANES = Constant(64, "lanes / clk / SM", "fp32 minimum, maximum, comparison", "documented", _THROUGHPUT)
DIVISION_SLOTS = Constant(
    10, "multiply-adds", "a division or square root takes the time of", "assumed",
    "nvcc 13.0's sm_90 code of an fp64 division: 8 multiply-adds, a reciprocal and a check on its usual path",
)  # fmt: skip
L1_BYTES = Constant(
    128, "bytes / clk / SM", "L1 and shared memory, one data path: a wavefront of 32 banks x 4 bytes per clock", "documented",
    "CUDA C++ programming guide, shared memory; measured 126 on an H200: github.com/te42kyfo/gpu-benches, gpu-strides/h200.txt",
)  # fmt: skip
L1_SECTORS = Constant(
    4, "sectors / clk / SM", "32-byte sectors that a global access takes from L1 per clock", "assumed",
    "L1's 128 bytes; within 12 % of gpu-strides/h200.txt for strides of 1, 2, 4 and 8 elements and for scattered lanes, up to 3 "
    "times too slow for odd strides, whose elements lie in different banks",
)  # fmt: skip
SECTOR_BYTES = Constant(
    32, "bytes", "unit of transfer between L1, L2 and DRAM", "documented", "Nsight Compute documentation, memory tables"
)
L2_RATE = Constant(
    9.6e12, "bytes / s", "reads from L2", "measured",
    "github.com/te42kyfo/gpu-benches, gpu-l2-cache/h200.txt: 9.5 to 9.9 TB/s for 10 to 40 MB; writes are taken to be as fast",
)  # fmt: skip
L2_BYTES_PER_SM = Constant(
    64, "bytes / clk / SM", "from L2 to one SM", "assumed",
    "what NVIDIA states for the A100 (GTC 2020, S21819); no figure for Hopper was found",
)  # fmt: skip
DRAM_RATE = Constant(
    4.3e12, "bytes / s", "DRAM, reads and writes together", "measured",
    "a large copy by torch on an H200 (4.8 TB/s by its data sheet)",
)  # fmt: skip
LAUNCH_SECONDS = Constant(
    2.3e-6, "s", "a launch that moves 64 kB, in a CUDA graph of such launches", "measured",
    "github.com/te42kyfo/gpu-benches, gpu-small-kernels/h200_graph.txt: 28 GB/s",
)  # fmt: skip


def constants() -> dict[str, Constant]:
    """All of them by name."""
    return {name.lower(): value for name, value in globals().items() if isinstance(value, Constant)}
