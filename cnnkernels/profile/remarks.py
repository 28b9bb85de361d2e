"""What the numbers of a launch do not show, as sentences: where it does not keep to the model's assumptions, and what is not counted."""

from __future__ import annotations

from collections.abc import Iterator

from cnnkernels.profile.counters import TensorTraffic, Totals
from cnnkernels.profile.hardware import (
    CLOCK,
    FP32_LANES,
    HIDING_WARPS,
    L1_CAPACITY,
    L2_CAPACITY,
    SECTOR_BYTES,
    SHARED_RESERVED,
    SMS,
)
from cnnkernels.profile.launches import Launch
from cnnkernels.profile.machine_code import Counted
from cnnkernels.profile.text import several, si

_HALVES = ("f16", "bf16")
#: Blocks that read less than this part again leave L2 next to nothing to keep.
_WORTH_KEEPING = 0.05


def remarks(
    launch: Launch,
    tensors: tuple[TensorTraffic, ...],
    totals: Totals,
    resident_warps: int,
    shared_bytes: int,
    counted: Counted | None,
    dtype: str = "",
) -> tuple[str, ...]:
    """`shared_bytes` are a block's, `resident_warps` as many as an SM has at a time; `dtype` is "" where it is not known."""
    return (
        *_sampled(launch),
        *_caches(launch, tensors, totals, shared_bytes),
        *_latency(resident_warps),
        *_arithmetic(launch, counted, dtype),
        *_atomics(launch),
    )


def _sampled(launch: Launch) -> Iterator[str]:
    if launch.sampled:
        were = "was" if launch.blocks_run == 1 else "were"
        yield (
            f"Sampled: {launch.blocks_run:,} of {launch.blocks:,} blocks {were} run, and counts are multiplied up; what is unique over "
            "the launch is an estimate."
        )


def _caches(launch: Launch, tensors: tuple[TensorTraffic, ...], totals: Totals, shared_bytes: int) -> Iterator[str]:
    """Of what is touched once only, nothing has to be kept."""
    again = totals.block_bytes - totals.launch_bytes
    if totals.launch_bytes > L2_CAPACITY.value and again > _WORTH_KEEPING * totals.launch_bytes:
        yield (
            f"The launch touches {si(totals.launch_bytes, 'B')}, more than the {si(L2_CAPACITY.value, 'B')} of L2: what blocks read "
            f"again may come from DRAM again, up to {si(totals.block_bytes, 'B')} in all."
        )
    reads = [row for row in tensors if row.access == "read"]
    in_block = sum(row.block_sectors for row in reads) * SECTOR_BYTES.count / launch.blocks
    room = L1_CAPACITY.count - shared_bytes - SHARED_RESERVED.count
    if in_block > room and any((row.reread_in_block or 0) > 1 for row in reads):
        yield (
            f"A block reads {si(in_block, 'B')} of global memory, more than the {si(room, 'B')} that its shared memory leaves of L1: "
            "what it reads again may come from L2 again."
        )


def _latency(resident_warps: int) -> Iterator[str]:
    if 0 < resident_warps < HIDING_WARPS.count:
        yield (
            f"At most {several(resident_warps, 'warp')} on an SM at a time: few to hide latency, which the times leave out and which "
            "then often dominates."
        )


def _arithmetic(launch: Launch, counted: Counted | None, dtype: str) -> Iterator[str]:
    if counted is not None and counted.calls:
        yield f"Calls of {', '.join(counted.calls)} are not counted as arithmetic."
    if dtype in _HALVES:
        pipe = f"Conversions between {dtype} and fp32 are not counted."
        if counted is not None and counted.issued.fma32 and not launch.matrix_products:
            peak = 2 * FP32_LANES.value * SMS.value * CLOCK.value
            pipe = (
                f"{dtype} is computed on the fp32 pipe, {peak / 1e12:.0f} TFLOP/s at most, not by tensor cores; "
                "conversions between the two are not counted."
            )
        yield pipe


def _atomics(launch: Launch) -> Iterator[str]:
    if any(site.access == "atomic" for site in launch.sites):
        yield (
            "Atomic operations of several lanes on one word count as one access; a GPU performs them one after the other."
        )
