"""The counters of a launch, put together: per tensor, per shared array, and for the launch as a whole.

Three ratios say where bytes are moved more than once, and which cache it is that has to serve them:

    asked / unique per block              re-reads within a block: registers, shared memory or L1 have to catch them
    unique per block / unique per launch  re-reads by other blocks, a halo's among them: L2 has to
    unique per launch / tensor            what is read in vain, or left out

Of a sampled launch everything is multiplied up. What is unique over the launch cannot be: it is taken to grow with the blocks,
up to the tensor's size, and `exact` is False.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cnnkernels.profile.hardware import SECTOR_BYTES
from cnnkernels.profile.launches import Buffer, Launch, Site


@dataclass(frozen=True)
class TensorTraffic:
    """Reads or writes of one tensor by global memory accesses. Bytes and sectors of all blocks."""

    buffer: str
    use: str
    access: str  # "read", "write"
    tensor_bytes: int
    instructions: int
    lanes: int
    asked_bytes: int
    sectors: int
    least_sectors: int
    block_bytes: int
    block_sectors: int
    launch_bytes: int
    launch_sectors: int
    exact: bool
    wavefronts: int  # of L1
    least_wavefronts: int
    lines: int

    @property
    def conflicts(self) -> float | None:
        """Extra wavefronts, as a part of those that would do without bank conflicts."""
        return _ratio(self.wavefronts - self.least_wavefronts, self.least_wavefronts)

    @property
    def coalescing(self) -> float | None:
        """The sectors that the bytes used would have fitted in, over those touched."""
        return _ratio(self.least_sectors, self.sectors)

    @property
    def reread_in_block(self) -> float | None:
        return _ratio(self.asked_bytes, self.block_bytes)

    @property
    def reread_by_blocks(self) -> float | None:
        return _ratio(self.block_bytes, self.launch_bytes)


@dataclass(frozen=True)
class SharedTraffic:
    """Loads or stores of one shared array, all blocks together."""

    array: str
    access: str
    instructions: int
    lanes: int
    asked_bytes: int
    wavefronts: int
    least_wavefronts: int

    @property
    def conflicts(self) -> float | None:
        """Extra wavefronts, as a part of those that would do without bank conflicts."""
        return _ratio(self.wavefronts - self.least_wavefronts, self.least_wavefronts)


@dataclass(frozen=True)
class Totals:
    """Of the launch, all blocks together."""

    memory_instructions: int
    global_instructions: int
    shared_instructions: int
    atomics: int
    async_copies: int
    shared_wavefronts: int
    global_wavefronts: int
    global_sectors: int
    global_lines: int
    block_sectors: int  # unique in a block, summed: what L2 serves if L1 serves every re-read
    launch_sectors: int  # unique in the launch: what DRAM serves if L2 serves every re-read
    block_barriers: int
    warp_barriers: int
    shuffles: int
    matrix_products: int
    matrix_multiply_adds: int
    active_lanes: float | None  # of 32, on average over the executions of basic blocks
    active_lanes_in_accesses: float | None  # and over memory accesses

    @property
    def block_bytes(self) -> int:
        return self.block_sectors * SECTOR_BYTES.count

    @property
    def launch_bytes(self) -> int:
        return self.launch_sectors * SECTOR_BYTES.count


_READS = ("load", "async copy", "atomic")
_WRITES = ("store", "atomic")


def tensor_traffic(launch: Launch) -> list[TensorTraffic]:
    """One row per tensor and direction that has any access, in the launch's order, reads first. An atomic is in both."""
    rows = []
    for buffer in launch.buffers:
        for access, kinds in (("read", _READS), ("write", _WRITES)):
            sites = [site for site in launch.sites if _is(site, "global", kinds) and site.buffer == buffer.name]
            row = _tensor(launch, buffer, access, sites)
            if row.instructions or row.block_bytes:
                rows.append(row)
    return rows


def shared_traffic(launch: Launch) -> list[SharedTraffic]:
    """One row per shared array and kind of access, in the order of their first sites."""
    groups: dict[tuple[str, str], list[Site]] = {}
    for site in launch.sites:
        if site.space == "shared":
            groups.setdefault((site.buffer, site.access), []).append(site)
    return [
        SharedTraffic(
            array,
            access,
            _sum(launch, (site.instructions for site in sites)),
            _sum(launch, (site.lanes for site in sites)),
            _sum(launch, (site.bytes_asked for site in sites)),
            _sum(launch, (site.wavefronts for site in sites)),
            _sum(launch, (site.least_wavefronts for site in sites)),
        )
        for (array, access), sites in groups.items()
    ]


def totals(launch: Launch) -> Totals:
    """Everything that belongs to no single tensor."""
    traffic = tensor_traffic(launch)
    in_global = [site for site in launch.sites if site.space == "global"]
    in_shared = [site for site in launch.sites if site.space == "shared"]
    return Totals(
        memory_instructions=_sum(launch, (site.instructions for site in launch.sites)),
        global_instructions=_sum(launch, (site.instructions for site in in_global)),
        shared_instructions=_sum(launch, (site.instructions for site in in_shared)),
        atomics=_sum(launch, (site.instructions for site in launch.sites if site.access == "atomic")),
        async_copies=_sum(launch, (site.instructions for site in in_global if site.access == "async copy")),
        shared_wavefronts=_sum(launch, (site.wavefronts for site in in_shared)),
        global_wavefronts=_sum(launch, (site.wavefronts for site in in_global)),
        global_sectors=_sum(launch, (site.sectors for site in in_global)),
        global_lines=_sum(launch, (site.lines for site in in_global)),
        block_sectors=sum(row.block_sectors for row in traffic),
        launch_sectors=sum(row.launch_sectors for row in traffic),
        block_barriers=_sum(launch, [launch.block_barriers]),
        warp_barriers=_sum(launch, [launch.warp_barriers]),
        shuffles=_sum(launch, [launch.shuffles]),
        matrix_products=_sum(launch, [launch.matrix_products]),
        matrix_multiply_adds=_sum(launch, [launch.matrix_multiply_adds]),
        active_lanes=_lanes((code.warps, code.lanes) for code in launch.code),
        active_lanes_in_accesses=_lanes((site.instructions, site.lanes) for site in launch.sites),
    )


def _tensor(launch: Launch, buffer: Buffer, access: str, sites: list[Site]) -> TensorTraffic:
    read = access == "read"
    unique_bytes = buffer.read_bytes if read else buffer.written_bytes
    unique_sectors = buffer.read_sectors if read else buffer.written_sectors
    # A tensor need not begin with a sector, so that it may lie in one more than it fills.
    all_sectors = -(-buffer.bytes // SECTOR_BYTES.count) + 1
    return TensorTraffic(
        buffer.name,
        buffer.use,
        access,
        buffer.bytes,
        _sum(launch, (site.instructions for site in sites)),
        _sum(launch, (site.lanes for site in sites)),
        _sum(launch, (site.bytes_asked for site in sites)),
        _sum(launch, (site.sectors for site in sites)),
        _sum(launch, (site.least_sectors for site in sites)),
        _sum(launch, [buffer.block_read_bytes if read else buffer.block_written_bytes]),
        _sum(launch, [buffer.block_read_sectors if read else buffer.block_written_sectors]),
        min(_sum(launch, [unique_bytes]), max(unique_bytes, buffer.bytes)),
        min(_sum(launch, [unique_sectors]), max(unique_sectors, all_sectors)),
        not launch.sampled,
        _sum(launch, (site.wavefronts for site in sites)),
        _sum(launch, (site.least_wavefronts for site in sites)),
        _sum(launch, (site.lines for site in sites)),
    )


def _is(site: Site, space: str, kinds: tuple[str, ...]) -> bool:
    return site.space == space and site.access in kinds


def _sum(launch: Launch, counts: Iterable[int]) -> int:
    return round(sum(counts) * launch.scale)


def _lanes(counts: Iterable[tuple[int, int]]) -> float | None:
    warps = lanes = 0
    for executed, active in counts:
        warps, lanes = warps + executed, lanes + active
    return _ratio(lanes, warps)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
