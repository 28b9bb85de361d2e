"""How many blocks of a launch one multiprocessor holds, what limits it, and in how many waves the grid runs.

The rules are those of CUDA's own occupancy calculator (cuda_occupancy.h) for compute capability 9.0, with the division of shared
memory and L1 that suits the kernel best, which is what the driver chooses by default.
"""

from __future__ import annotations

from dataclasses import dataclass

from cnnkernels.profile.hardware import (
    BARRIERS_PER_SM,
    BLOCKS_PER_SM,
    REGISTER_UNIT,
    REGISTERS_PER_SM,
    REGISTERS_PER_THREAD,
    SHARED_PER_BLOCK,
    SHARED_PER_SM,
    SHARED_RESERVED,
    SHARED_UNIT,
    SMS,
    SUBPARTITIONS,
    THREADS_PER_BLOCK,
    WARP,
    WARPS_PER_SM,
)


@dataclass(frozen=True)
class Occupancy:
    """Of one multiprocessor. `blocks` is 0 for a launch that cannot run; `limits` says how many blocks each resource allows."""

    blocks: int
    warps: int
    limits: dict[str, int]

    @property
    def limited_by(self) -> tuple[str, ...]:
        """The resources that allow no more than `blocks`."""
        return tuple(name for name, blocks in self.limits.items() if blocks == self.blocks)

    @property
    def fraction(self) -> float:
        """Of the warps that a multiprocessor can hold."""
        return self.warps / WARPS_PER_SM.count


@dataclass(frozen=True)
class Waves:
    """A grid on all multiprocessors, every block taken to last as long as every other.

    `in_last` blocks run in the last wave, in which `last_fill` of the places are taken. `busiest` is the number of blocks that
    the multiprocessor with the most of them runs, `imbalance` how much longer that takes than an even share would.
    """

    waves: int
    per_wave: int
    in_last: int
    busiest: int
    idle: int
    imbalance: float

    @property
    def last_fill(self) -> float:
        return self.in_last / self.per_wave


def occupancy(threads: int, registers: int | None, shared_bytes: int, barriers: int = 0) -> Occupancy:
    """For blocks of `threads` threads with `registers` each (None: not known, and then no limit), `shared_bytes` static and dynamic
    shared memory, and `barriers` named barriers.

    Raises ValueError for a block without threads.
    """
    if threads < 1:
        raise ValueError(f"a block has at least one thread, not {threads}")
    warps = -(-threads // WARP.count)
    limits = {
        "blocks": BLOCKS_PER_SM.count,
        "warps": WARPS_PER_SM.count // warps if threads <= THREADS_PER_BLOCK.count else 0,
    }
    if registers:
        limits["registers"] = _by_registers(warps, registers)
    given = _round_up(shared_bytes + SHARED_RESERVED.count, SHARED_UNIT.count)
    fits = shared_bytes <= SHARED_PER_BLOCK.count
    limits["shared memory"] = SHARED_PER_SM.count // given if fits else 0
    if barriers:
        limits["barriers"] = BARRIERS_PER_SM.count // barriers
    blocks = min(limits.values())
    return Occupancy(blocks, blocks * warps, limits)


def waves(blocks: int, blocks_per_sm: int) -> Waves:
    """For a grid of `blocks` blocks, `blocks_per_sm` of which fit a multiprocessor. Both are at least 1."""
    per_wave = blocks_per_sm * SMS.count
    count = -(-blocks // per_wave)
    busiest = -(-blocks // SMS.count)
    return Waves(
        count,
        per_wave,
        blocks - (count - 1) * per_wave,
        busiest,
        max(0, SMS.count - blocks),
        busiest * SMS.count / blocks,
    )


def _by_registers(warps: int, registers: int) -> int:
    """Registers are given to whole warps, and each scheduler has its own fourth of them."""
    per_warp = _round_up(registers * WARP.count, REGISTER_UNIT.count)
    if registers > REGISTERS_PER_THREAD.count:
        return 0
    in_subpartition = REGISTERS_PER_SM.count // SUBPARTITIONS.count // per_warp
    return in_subpartition * SUBPARTITIONS.count // warps


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
