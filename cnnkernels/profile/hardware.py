"""An H200 (sm_90) in numbers: everything that the model assumes of the hardware, each with its source.

`kind` says how far a number can be trusted: "documented" by NVIDIA; "measured" on an H200, by whom the source says; "assumed".
Rates are per clock and multiprocessor where the name says so, else of the whole GPU and per second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_OCCUPANCY = "CUDA toolkit 13.0, cuda_occupancy.h, compute capability 9.x"
_GUIDE = "CUDA C++ programming guide, technical specifications per compute capability, 9.0"
_TUNING = 'NVIDIA Hopper tuning guide, "Unified Shared Memory/L1/Texture Cache"'
_BENCHES = "github.com/te42kyfo/gpu-benches"
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
SHARED_RESERVED = Constant(1024, "bytes", "shared memory the system keeps per block", "documented", _TUNING)
SHARED_UNIT = Constant(128, "bytes", "shared memory is given to a block in units of", "documented", _OCCUPANCY)
L1_CAPACITY = Constant(256 * 1024, "bytes", "L1 and shared memory together, per SM", "documented", _TUNING)
L2_CAPACITY = Constant(
    50e6, "bytes", "L2", "documented",
    "NVIDIA H100 white paper, H100 SXM5 (torch reports 60 MB for an H200). What it is measured to keep is about as much: "
    f"{_BENCHES}, gpu-l2-cache/h200.txt reads 9.7 TB/s from 41 MB, 7.5 from 49 MB, 5.1 from 59 MB, 3.9 from 103 MB",
)  # fmt: skip
HIDING_WARPS = Constant(
    8, "warps", "with fewer of them on an SM its schedulers often have none that is ready", "assumed",
    "two for each scheduler: while one waits for what it has loaded, another one goes on",
)  # fmt: skip

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
MATRIX_MULTIPLY_ADDS = Constant(
    1290, "multiply-adds / clk / SM", "mma.sync of halves; tf32 would take twice the time, which is not told apart", "measured",
    "arXiv 2402.13499: mma.sync reaches 62.9 % of the tensor cores' peak, which is 2048 multiply-adds a clock (H100 data sheet); on an H800",
)  # fmt: skip
DIVISION_SLOTS = Constant(
    10, "multiply-adds", "a division or square root takes the time of", "assumed",
    "nvcc 13.0's sm_90 code of an fp64 division: 8 multiply-adds, a reciprocal and a check on its usual path",
)  # fmt: skip
L1_RATE = Constant(
    1, "wavefronts / clk / SM", "L1 and shared memory, one data path: 32 banks x 4 bytes in each wavefront", "documented",
    f"CUDA C++ programming guide, shared memory; 126 bytes / clk measured on an H200: {_BENCHES}, gpu-strides/h200.txt",
)  # fmt: skip
# What a global load takes of L1 is the larger of its wavefronts and of these two together. The addresses of that benchmark's loads
# (gpu-strides/main.cu) give its counter of wavefronts in each row; the two are the least squares of relative errors over all rows.
_LINES_FIT = (
    f"least squares over the 46 rows (loads of float and double, strides and blocks) of {_BENCHES}, gpu-strides/h200.txt, of "
    "max(wavefronts, a + b x lines) against clocks per load: 3.6 % off in the root mean square, at worst 13 % below (two doubles in each of 16 "
    "rows: 4.6 clocks for 5.3) and 10 % above (stride of 14 doubles: 7.7 for 7.0). An A100 takes up to 13.5 clocks for 32 lines of "
    "longer strides, which the H200's rows leave out. Stores are taken to be as fast"
)
L1_ACCESS_CLOCKS = Constant(
    0.54, "clk", "a, of the clocks that finding a global access's lines takes: a + b x lines", "measured", _LINES_FIT,
)  # fmt: skip
L1_LINE_CLOCKS = Constant(
    0.255, "clk / line", "b, of the clocks that finding a global access's lines of 128 bytes takes", "measured", _LINES_FIT,
)  # fmt: skip
SECTOR_BYTES = Constant(
    32, "bytes", "unit of transfer between L1, L2 and DRAM", "documented", "Nsight Compute documentation, memory tables"
)
L2_RATE = Constant(
    9.6e12, "bytes / s", "reads from L2", "measured",
    f"{_BENCHES}, gpu-l2-cache/h200.txt: 9.5 to 9.9 TB/s for 11 to 41 MB; writes are taken to be as fast",
)  # fmt: skip
L2_BYTES_PER_SM = Constant(
    64, "bytes / clk / SM", "from L2 to one SM", "assumed",
    "what NVIDIA states for the A100 (GTC 2020, S21819); no figure for Hopper was found",
)  # fmt: skip
DRAM_RATE = Constant(
    4.3e12, "bytes / s", "DRAM, reads and writes together", "assumed",
    "what a large copy on an H200 is said to reach; no measurement of this project's stands behind it. Its data sheet says 4.8 TB/s; "
    f"{_BENCHES} reads 3.89 TB/s (gpu-l2-cache/h200.txt, 110 MB and more)",
)  # fmt: skip
LAUNCH_SECONDS = Constant(
    2.3e-6, "s", "a launch that moves 64 kB, in a CUDA graph of such launches", "measured",
    f"{_BENCHES}, gpu-small-kernels/h200_graph.txt: 28 GB/s",
)  # fmt: skip


def constants() -> dict[str, Constant]:
    """All of them by name."""
    return {name.lower(): value for name, value in globals().items() if isinstance(value, Constant)}
