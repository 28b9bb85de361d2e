"""Every tile that the Triton kernels are compiled with, and why it is there. No other file has a tile's size.

None was measured: they are counts of registers, shared memory and programs, for an H200. `cnnkernels tune` measures them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class MatrixTile:
    """A tile of the matrix products of kernels/gather.py and kernels/wgrad.py.

    gather: `rows` pixels by `columns` channels of the result; wgrad: `rows` filters by `columns` channels and taps.
    """

    rows: int
    columns: int
    depth: int  # of a step of the reduction
    warps: int
    stages: int  # of loads in flight
    why: str
    by_element: bool | None = None  # made for operands of which elements are read one by one, or for others; None: for both

    @property
    def size(self) -> str:
        return f"{self.rows}x{self.columns}x{self.depth}"


# A warp group of four warps is what Hopper's matrix instructions work on, with 64 rows and up to 256 columns. A step of 64 halves is 128 bytes of
# each row: one line. With three or four stages a program has 48 KB to 128 KB of shared memory.
_HALVES = (
    MatrixTile(128, 128, 64, 8, 3, "the most FMAs per byte that 64 sums a thread allow", by_element=False),
    MatrixTile(128, 64, 64, 4, 4, "64 channels, or twice the programs of 128x128", by_element=False),
    MatrixTile(64, 64, 64, 4, 4, "few pixels", by_element=False),
    MatrixTile(128, 32, 32, 4, 4, "few channels: groups of 8 to 32", by_element=False),
    MatrixTile(64, 16, 64, 4, 4, "few channels and few pixels; 64 deep, so that 128 threads read 16 bytes each", by_element=False),
)
# Single halves cannot be copied past the registers (cp.async has 4 bytes at least): a step's elements and their addresses are all in registers, and
# what hides the loads' latency is another program. So: steps half as deep, 20 to 32 elements to a thread, 16 warps on a multiprocessor.
_HALVES_BY_ELEMENT = (
    MatrixTile(128, 64, 32, 8, 3, "24 elements to a thread, and 16 sums", by_element=True),
    MatrixTile(64, 64, 32, 4, 3, "few pixels", by_element=True),
    MatrixTile(64, 32, 32, 4, 3, "few channels: groups of 8 to 32, stems", by_element=True),
    MatrixTile(64, 16, 32, 4, 3, "few channels and few pixels", by_element=True),
)
# fp32 by tf32 instructions, or exactly by FMAs, which take a register for each sum: 64 of 128 threads' 255.
_SINGLES = (
    MatrixTile(128, 64, 32, 8, 3, "32 sums to a thread"),
    MatrixTile(64, 64, 32, 4, 3, "few pixels"),
    MatrixTile(64, 32, 32, 4, 3, "few channels: groups of 8 to 32, stems"),
    MatrixTile(64, 16, 32, 4, 3, "few channels and few pixels"),
)
# fp64 is there to be right: small tiles, which fit wherever they run.
_DOUBLES = (MatrixTile(32, 32, 16, 4, 2, "fp64 is for checking"),)


def matrix_tiles(dtype: torch.dtype) -> tuple[MatrixTile, ...]:
    """The tiles of a matrix product of elements of `dtype`."""
    if dtype == torch.float64:
        return _DOUBLES
    return _SINGLES if dtype == torch.float32 else _HALVES + _HALVES_BY_ELEMENT


# What is told of vectors (kernels/gather.py) goes as far as what Triton finds out itself; of no type more fill a 16-byte access.
LONGEST_VECTOR = 16

# A group's channels fill a part of a tile; as many groups are stacked as come to these many.
STACKED_CHANNELS = 32

# Taps and channels are one index of the reduction up to this many channels: beyond it a step of one tap has a use for most of its lanes.
MOST_FLAT_CHANNELS = 16

# What the plan is made for, an H200; on every GPU the same, so that sums are. A reduction is cut until each multiprocessor has two programs.
MULTIPROCESSORS = 132
TARGET_PROGRAMS = 2 * MULTIPROCESSORS
LEAST_STEPS_OF_SLAB = 4  # below which the partial sums' way through memory costs more than is saved

SUM_BLOCK = 1024  # neighbouring elements: 8 to a thread, in 16-byte accesses
BIAS_GRAD_BLOCK = (32, 128)  # channels (or pixels) along memory, and across it: 32 sums to a thread of 128
