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
    by_element: bool | None = (
        None  # made for operands of which elements are read one by one, or for others; None: for both
    )

    @property
    def size(self) -> str:
        return f"{self.rows}x{self.columns}x{self.depth}"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.rows, self.columns, self.depth)


# A warp group of four warps is what Hopper's matrix instructions work on, with 64 rows and up to 256 columns. A step of 64 halves is 128 bytes of
# each row: one line. With three or four stages a program has 48 KB to 128 KB of shared memory.
_HALVES = (
    MatrixTile(128, 128, 64, 8, 3, "the most FMAs per byte that 64 sums a thread allow", by_element=False),
    MatrixTile(128, 64, 64, 4, 4, "64 channels, or twice the programs of 128x128", by_element=False),
    MatrixTile(64, 64, 64, 4, 4, "few pixels", by_element=False),
    MatrixTile(128, 32, 32, 4, 4, "few channels: groups of 8 to 32", by_element=False),
    MatrixTile(
        64,
        16,
        64,
        4,
        4,
        "few channels and few pixels; 64 deep, so that 128 threads read 16 bytes each",
        by_element=False,
    ),
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


# What is told of vectors (kernels/tiles.py) goes as far as what Triton finds out itself; of no type more fill a 16-byte access.
LONGEST_VECTOR = 16

# wgrad: a group's channels fill a part of a tile; as many groups are stacked as come to these many.
STACKED_CHANNELS = 32

# Taps and channels are one index of the reduction up to this many channels: beyond it a step of one tap has a use for most of its lanes.
MOST_FLAT_CHANNELS = 16

# What the plan is made for, an H200; on every GPU the same, so that sums are. A reduction is cut until each multiprocessor has two programs.
MULTIPROCESSORS = 132
TARGET_PROGRAMS = 2 * MULTIPROCESSORS
LEAST_STEPS_OF_SLAB = 4  # below which the partial sums' way through memory costs more than is saved

# sum_slabs: neighbouring elements by slabs, 8 to a thread. Where results are few, as a depthwise filter's are, and slabs many, a thread that
# went through all of them would wait for memory as many times: the first tile that gives each multiprocessor a program is taken, or the last.
SUM_TILES = ((1024, 1), (256, 4), (128, 8), (32, 32))
ACTIVATION_GRAD_BLOCK = 1024  # elements: 16 bytes of halves to a thread of 128
BIAS_GRAD_BLOCK = (32, 128)  # channels (or pixels) along memory, and across it: 32 sums to a thread of 128


# Pooling. It moves memory and computes next to nothing: tiles are what is in flight, and what neighbouring lanes read.


@dataclass(frozen=True)
class PoolTile:
    """A tile of the kernels that walk windows (kernels/max_pool.py, avg_pool.py): pixels by channels of the result."""

    pixels: int
    channels: int
    why: str

    @property
    def size(self) -> str:
        return f"{self.pixels}x{self.channels}"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.pixels, self.channels)


@dataclass(frozen=True)
class ReductionTile:
    """A tile of kernels/pool_reduction.py: results by pixels of their windows."""

    results: int
    window: int
    why: str
    warps: int = 4

    @property
    def size(self) -> str:
        return f"reduced_{self.results}x{self.window}"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.results, self.window)


# 1024 results to a program. Of channels four warps have 8 results to a thread: 16 bytes of halves. Maximum and index
# take a register each for them, the loads of nine unrolled taps four each, and the rest of 128, with which a
# multiprocessor has 16 warps, is for addresses. Of planes an element is a register and its address two: eight warps
# have 4 to a thread.
WARPS_OF_CHANNELS, WARPS_OF_PLANES = 4, 8
POOL_TILES = (
    PoolTile(256, 4, "planes: a thread has one pixel, whose addresses serve four channels"),
    PoolTile(64, 16, "small planes, or 16 channels"),
    PoolTile(32, 32, "32 channels"),
    PoolTile(16, 64, "channels: 128 bytes of halves to a pixel"),
)

# 16 pixels to a thread are in flight at once. The tree at the end is counted as one step of the loop more.
REDUCTION_TILES = (
    ReductionTile(32, 64, "planes of 7x7, or 32 channels"),
    ReductionTile(8, 256, "planes of 14x14"),
    ReductionTile(2, 1024, "long planes"),
    ReductionTile(64, 32, "channels: 128 bytes of halves to a pixel"),
)
LEAST_FILLED = 4  # a window that is no quarter of a tile is left to those that walk

# So many taps of a window are taken at once, in a loop if it has more, so that their loads are in flight together: those
# of 3x3, whose loads take 36 registers in pairs of halves. Backward a window is two loads and two addresses.
TAPS_AT_ONCE = 9
WINDOWS_AT_ONCE = 4

# What the plan of a pooling is made for, an H200. 4.8 TB/s over 132 multiprocessors at 1.8 GHz are some 20 bytes a
# cycle: in the 700 cycles that a read of DRAM takes, 7000 halves. So many are in flight, or memory waits. Of four warps
# each, four programs have 128 registers a thread (two of eight as many).
WAIT_ELEMENTS = 7000
PROGRAMS_AT_ONCE = 4
# Neighbouring lanes that read elements further apart than this have a 32-byte sector each; and what L1 has takes an
# eighth of DRAM's time or less.
MOST_STEP = 8

MERGE_BLOCK = 128  # results whose parts a program of merge_parts_kernel puts together: few, since there are few


# Depthwise convolution.


@dataclass(frozen=True)
class DepthwiseTile:
    """A tile of kernels/depthwise.py and kernels/depthwise_wgrad.py: `columns` (of an image; "taps": pixels of all images) by `channels`."""

    kind: str  # of kernel: "slide" or "taps"
    columns: int
    channels: int
    why: str

    @property
    def size(self) -> str:
        return f"{self.kind}_{self.columns}x{self.channels}"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.columns, self.channels)

    @property
    def elements(self) -> int:
        """Of a thread."""
        return self.columns * self.channels // (32 * DEPTHWISE_WARPS)


# The memory is waited for, and what hides that is many warps: with four to a program, programs are of every shape that planes have, and a
# multiprocessor takes another as soon as 128 threads' registers are free.
DEPTHWISE_WARPS = 4
# Eight, four or two elements to a thread. Eight halves are 16 bytes, and leave room for the weights of 3x3; of 5x5 four fit, of 7x7 two.
_SLIDE_SHAPES = (
    ((8, 128), (16, 64), (32, 32), (64, 16), (128, 8)),
    ((8, 64), (16, 32), (32, 16), (64, 8), (128, 4)),
    ((4, 64), (8, 32), (16, 16), (32, 8), (64, 4), (128, 2)),
)
_ELEMENTS = ("16 bytes of halves", "16 bytes of singles", "the weights or sums of 7x7")
DEPTHWISE_TILES = (
    *(
        DepthwiseTile("slide", columns, channels, f"{elements} to a thread, {columns} columns at a time")
        for shapes, elements in zip(_SLIDE_SHAPES, _ELEMENTS, strict=True)
        for columns, channels in shapes
    ),
    DepthwiseTile("taps", 128, 64, "any filter: 64 sums to a thread, so that eight pixels share a channel's weight"),
    DepthwiseTile("taps", 1024, 2, "any filter: 16 sums to a thread, nearly all of one plane"),
    DepthwiseTile("taps", 32, 64, "any filter: 16 sums to a thread, whole lines of channels"),
    DepthwiseTile("taps", 256, 8, "any filter: 16 sums to a thread, whole lines of pixels"),
    DepthwiseTile("taps", 32, 16, "any filter: few pixels or channels"),
)
# A thread has 255 registers. Addresses, masks and what is being loaded and written take the others.
DEPTHWISE_REGISTERS = 176
# Taps of a program of the wgrad of any filter: as many sums for each element, of 4 to 16 elements.
DEPTHWISE_WGRAD_TAPS = 4
# 32 warps to each multiprocessor; wgrad, whose programs each write their sums, 16.
DEPTHWISE_PROGRAMS = 8 * MULTIPROCESSORS
DEPTHWISE_WGRAD_PROGRAMS = 4 * MULTIPROCESSORS


# Under a padding mode each element that is loaded has an address and a mask of its own: eight of them to a thread, else they spill.
_PADDED = (
    MatrixTile(64, 64, 32, 8, 2, "16 sums and 8 addresses to a thread"),
    MatrixTile(32, 32, 32, 4, 2, "few channels or few pixels"),
)


def padded_dgrad_tiles(dtype: torch.dtype) -> tuple[MatrixTile, ...]:
    """The tiles of kernels/padded_dgrad.py."""
    return _DOUBLES if dtype == torch.float64 else _PADDED
