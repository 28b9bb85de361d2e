"""The time of a launch on an H200, modelled: what each resource needs for what was counted, and the largest of these.

Every resource is taken to work at its full rate from the first to the last moment, all of them at the same time:

    DRAM           sectors that the launch touches, once each; caches are cold, and L2 keeps everything until it is not needed
    L2             sectors that each block touches, once each: L1 serves a block's own re-reads, and nothing of other blocks'
    L2 to one SM   the same, of the multiprocessor with the most blocks
    L1 and shared  a wavefront per clock, bank conflicts among them. Global memory's are those, or as many as take as long as it takes
                   to find its lines: whichever is more for all executions of an access together, so at least what it is for each
    fp32, fp64     floating-point instructions, of whole warps, whatever lanes are active, in slots of a lane: a multiply-add, an
                   addition or a multiplication takes one, what is slower more
    tensor cores   multiply-adds of mma.sync, whatever of them is of use
    issue slots    the instructions that are counted: memory, floating-point, barriers, shuffles, mma. Not integer arithmetic, not branches:
                   fewer than there are. A multiply-add takes a slot as long as it takes the fp32 pipe, so that this is never the
                   shorter one

What belongs to one multiprocessor waits for the one that has the most blocks, all blocks taken to be alike: that is the tail of
the grid. To the largest time the launch itself is added. Latency, and with it how many warps there are to hide it, is left out.
remarks.py says where a launch does not keep to these assumptions.

Accesses are those of the host's machine code, one for each that the source states. nvcc merges neighbouring ones into vectors
where it can: then fewer instructions are issued than counted, and fewer wavefronts may be taken.
"""

from __future__ import annotations

from dataclasses import dataclass

from cnnkernels.profile.counters import Totals
from cnnkernels.profile.hardware import (
    CLOCK,
    DIVISION_SLOTS,
    DRAM_RATE,
    FP32_COMPARE_LANES,
    FP32_LANES,
    FP64_LANES,
    ISSUE,
    L1_ACCESS_CLOCKS,
    L1_LINE_CLOCKS,
    L1_RATE,
    L2_BYTES_PER_SM,
    L2_RATE,
    LAUNCH_SECONDS,
    MATRIX_MULTIPLY_ADDS,
    SMS,
    WARP,
)
from cnnkernels.profile.launches import Launch, Site
from cnnkernels.profile.machine_code import Operations

NOTICE = "a model's prediction, not a measurement"


@dataclass(frozen=True)
class Resource:
    """One resource's part: `work` units of work in the whole launch, done at `rate` of them a second, in `seconds`.

    `seconds` is longer than work / rate where one multiprocessor has more than its share. `key` is for machines.
    """

    key: str
    name: str
    work: float
    unit: str
    rate: float
    seconds: float


@dataclass(frozen=True)
class Prediction:
    """`resources` the slowest first. `missing` says what could not be modelled, as sentences."""

    resources: tuple[Resource, ...]
    launch_seconds: float
    imbalance: float
    missing: tuple[str, ...]

    @property
    def limiter(self) -> Resource:
        return self.resources[0]

    @property
    def seconds(self) -> float:
        return self.launch_seconds + self.limiter.seconds

    @property
    def launch_bound(self) -> bool:
        """Whether the launch alone takes longer than anything that the kernel does."""
        return self.launch_seconds > self.limiter.seconds


def predict(
    launch: Launch, totals: Totals, issued: Operations | None, imbalance: float, why_not: str = ""
) -> Prediction:
    """`issued` are the warp instructions of the whole launch; None, and `why_not`, where they could not be read.

    `imbalance` is how much longer the multiprocessor with the most blocks works than an even share would take.
    """
    on_sms = CLOCK.value * SMS.value
    block_bytes, launch_bytes = float(totals.block_bytes), float(totals.launch_bytes)
    instructions = counted_instructions(launch, totals, issued)
    l1 = l1_clocks(launch)
    found = [
        _resource("dram", "DRAM", launch_bytes, "B", DRAM_RATE.value),
        _resource("l2", "L2", block_bytes, "B", L2_RATE.value),
        _resource("l2_to_sm", "L2 to one SM", block_bytes, "B", L2_BYTES_PER_SM.value * on_sms, imbalance),
        _resource("l1", "L1 and shared", l1, "wavefronts", L1_RATE.value * on_sms, imbalance),
        _resource("issue", "issue slots", instructions, "instructions", ISSUE.value * on_sms, imbalance),
    ]
    if totals.matrix_multiply_adds:
        rate = MATRIX_MULTIPLY_ADDS.value * on_sms
        found.append(_resource("tensor", "tensor cores", totals.matrix_multiply_adds, "multiply-adds", rate, imbalance))
    missing = []
    if issued is None:
        missing.append(f"no floating-point instructions counted: {why_not}")
    else:
        slots32, slots64 = pipe_slots(issued)
        for key, name, slots, lanes in (("fp32", "fp32", slots32, FP32_LANES), ("fp64", "fp64", slots64, FP64_LANES)):
            if slots:
                found.append(_resource(key, name, slots * WARP.value, "lane slots", lanes.value * on_sms, imbalance))
    found.sort(key=lambda resource: -resource.seconds)
    return Prediction(tuple(found), LAUNCH_SECONDS.value, imbalance, tuple(missing))


def pipe_slots(issued: Operations) -> tuple[float, float]:
    """What warp instructions take of a lane's slots, single and double precision: 1 for a multiply-add."""
    compare = FP32_LANES.value / FP32_COMPARE_LANES.value
    return (
        issued.fma32 + issued.other32 + issued.compare32 * compare + issued.division32 * DIVISION_SLOTS.value,
        issued.fma64 + issued.other64 + issued.compare64 + issued.division64 * DIVISION_SLOTS.value,
    )


def site_clocks(site: Site) -> float:
    """Clocks of the path that L1 and shared memory share, for the blocks that ran."""
    if site.space == "shared":
        return float(site.wavefronts)
    finding_lines = L1_ACCESS_CLOCKS.value * site.instructions + L1_LINE_CLOCKS.value * site.lines
    # What is copied asynchronously goes to shared memory, and takes its wavefronts there.
    return finding_lines if site.access == "async copy" else max(float(site.wavefronts), finding_lines)


def l1_clocks(launch: Launch) -> float:
    """Clocks of that path for the whole launch, on one multiprocessor."""
    return sum(map(site_clocks, launch.sites)) * launch.scale


def counted_instructions(launch: Launch, totals: Totals, issued: Operations | None) -> float:
    """Warp instructions of the whole launch that are known: fewer than there are."""
    barriers = totals.block_barriers * launch.warps + totals.warp_barriers
    others = totals.shuffles + totals.matrix_products
    return totals.memory_instructions + barriers + others + (issued.total if issued else 0)


def _resource(key: str, name: str, work: float, unit: str, rate: float, imbalance: float = 1.0) -> Resource:
    return Resource(key, name, work, unit, rate, work / rate * imbalance)
