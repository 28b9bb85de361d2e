"""Everything that is known of a launch and of a pass, put together, and the same for a machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from cnnkernels.profile import counters, model
from cnnkernels.profile.counters import SharedTraffic, TensorTraffic, Totals
from cnnkernels.profile.hardware import constants
from cnnkernels.profile.launches import Launch
from cnnkernels.profile.lines import LineCost, dearest_lines
from cnnkernels.profile.machine_code import BlockCode, BlockKey, Counted, NoMachineCode, Operations, count, read_blocks
from cnnkernels.profile.model import Prediction
from cnnkernels.profile.occupancy import Occupancy, Waves, occupancy, waves
from cnnkernels.profile.passes import Useful
from cnnkernels.profile.remarks import remarks
from cnnkernels.profile.resources import Resources


@dataclass(frozen=True)
class LaunchReport:
    """One launch. `resources` is None without the compiler's report of its kernel, and `why_no_resources` says why.

    `issued` and `active` are floating-point operations of the whole launch: warp instructions, and operations of active lanes.
    `remarks` are sentences: what the numbers do not show of this launch.
    """

    launch: Launch
    tensors: tuple[TensorTraffic, ...]
    shared: tuple[SharedTraffic, ...]
    totals: Totals
    issued: Operations | None
    active: Operations | None
    resources: Resources | None
    why_no_resources: str
    occupancy: Occupancy
    waves: Waves
    prediction: Prediction
    lines: tuple[LineCost, ...]  # of the limiter, the dearest first
    remarks: tuple[str, ...]

    @property
    def resident_blocks(self) -> int:
        """As many as one multiprocessor has at a time: what it holds, or fewer where the grid has no more."""
        return _resident_blocks(self.occupancy, self.waves)

    @property
    def resident_warps(self) -> int:
        return self.resident_blocks * self.launch.warps

    @property
    def intensity(self) -> tuple[float | None, float | None]:
        """Multiply-adds of active lanes per byte from DRAM, and per byte from L2."""
        if self.active is None:
            return None, None
        ratios = [
            self.active.fma / moved if moved else None for moved in (self.totals.launch_bytes, self.totals.block_bytes)
        ]
        return ratios[0], ratios[1]

    def coalescing(self, access: str) -> float | None:
        """Of all tensors that are "read" or "write", by their sums: a mean would weigh a tensor of one access like the others."""
        rows = [row for row in self.tensors if row.access == access]
        if not rows:
            return None
        sums = {name: sum(getattr(row, name) for row in rows) for name in ("sectors", "least_sectors")}
        return replace(rows[0], **sums).coalescing

    @property
    def conflicts(self) -> float | None:
        """Of all shared arrays, by their sums."""
        if not self.shared:
            return None
        sums = {name: sum(getattr(row, name) for row in self.shared) for name in ("wavefronts", "least_wavefronts")}
        return replace(self.shared[0], **sums).conflicts


@dataclass(frozen=True)
class PassReport:
    """A pass and its launches. `problem` and `useful` are missing for trials, whose launches belong to no problem.

    `error` is what a trial threw.
    """

    title: str
    launches: tuple[LaunchReport, ...]
    problem: Mapping[str, Any] | None = None
    useful: Useful | None = None
    error: str = ""

    @property
    def seconds(self) -> float:
        return sum(report.prediction.seconds for report in self.launches)

    @property
    def launch_bytes(self) -> int:
        return sum(report.totals.launch_bytes for report in self.launches)

    @property
    def block_bytes(self) -> int:
        return sum(report.totals.block_bytes for report in self.launches)

    @property
    def dram_over_compulsory(self) -> float | None:
        """Bytes from DRAM over those that no implementation can avoid. None where it is not known what is useful."""
        return self.launch_bytes / self.useful.bytes if self.useful and self.useful.bytes else None

    @property
    def executed_fmas(self) -> float | None:
        """What the machine executes: whole warps' multiply-adds, 32 lanes each, and those of tensor cores. None where they could not be counted."""
        total = 0.0
        for report in self.launches:
            if report.issued is None:
                return None
            total += 32 * report.issued.fma + report.totals.matrix_multiply_adds
        return total


def analyse(
    launches: Sequence[Launch], compiled: Mapping[str, Resources], why_not_compiled: str = "", dtype: str = ""
) -> tuple[LaunchReport, ...]:
    """`compiled` is the compiler's report by mangled name; `why_not_compiled` says why it is missing, if it is.

    `dtype` is the tensors', "" where it is not known.
    """
    instructions, why_not = _read_machine_code(launches)
    return tuple(_analyse(launch, instructions, why_not, compiled, why_not_compiled, dtype) for launch in launches)


def _read_machine_code(launches: Iterable[Launch]) -> tuple[dict[BlockKey, BlockCode] | None, str]:
    keys = {(block.module, block.offset) for launch in launches for block in launch.code}
    try:
        return read_blocks(keys), ""
    except NoMachineCode as reason:
        return None, str(reason)


def _analyse(
    launch: Launch,
    instructions: Mapping[BlockKey, BlockCode] | None,
    why_no_instructions: str,
    compiled: Mapping[str, Resources],
    why_not_compiled: str,
    dtype: str,
) -> LaunchReport:
    counted: Counted | None = None if instructions is None else count(launch.code, instructions)
    issued = None if counted is None else counted.issued.times(launch.scale)
    active = None if counted is None else counted.active.times(launch.scale)
    resources = compiled.get(launch.symbol)
    if resources is None and not why_not_compiled:
        why_not_compiled = "the compiler's report does not have this kernel: it is of another build"
    static = launch.static_shared_bytes if resources is None else resources.static_shared_bytes
    shared_bytes = static + launch.dynamic_shared_bytes
    fits = occupancy(
        launch.threads,
        None if resources is None else resources.registers,
        shared_bytes,
        0 if resources is None else resources.barriers,
    )
    in_waves = waves(launch.blocks, max(1, fits.blocks))
    tensors = tuple(counters.tensor_traffic(launch))
    totals = counters.totals(launch)
    resident_warps = _resident_blocks(fits, in_waves) * launch.warps
    prediction = model.predict(launch, totals, issued, in_waves.imbalance, why_no_instructions)
    return LaunchReport(
        launch,
        tensors,
        tuple(counters.shared_traffic(launch)),
        totals,
        issued,
        active,
        resources,
        "" if resources else why_not_compiled,
        fits,
        in_waves,
        prediction,
        tuple(dearest_lines(launch, counted, prediction.limiter)),
        remarks(launch, tensors, totals, resident_warps, shared_bytes, counted, dtype),
    )


def _resident_blocks(fits: Occupancy, in_waves: Waves) -> int:
    return min(fits.blocks, in_waves.busiest)


def as_json(subject: str, passes: Sequence[PassReport]) -> dict[str, Any]:
    """All of it. Keys stay: new ones may come."""
    return {
        "subject": subject,
        "notice": model.NOTICE,
        "passes": [_pass_as_json(report) for report in passes],
        "constants": {name: asdict(constant) for name, constant in constants().items()},
    }


def _pass_as_json(report: PassReport) -> dict[str, Any]:
    return {
        "title": report.title,
        "problem": report.problem,
        "useful": None if report.useful is None else asdict(report.useful),
        "error": report.error,
        "modelled_seconds": report.seconds,
        "dram_bytes": report.launch_bytes,
        "dram_over_compulsory": report.dram_over_compulsory,
        "l2_bytes": report.block_bytes,
        "executed_fmas": report.executed_fmas,
        "launches": [_launch_as_json(launch) for launch in report.launches],
    }


def _launch_as_json(report: LaunchReport) -> dict[str, Any]:
    launch, prediction = report.launch, report.prediction
    from_dram, from_l2 = report.intensity
    return {
        "kernel": launch.kernel,
        "symbol": launch.symbol,
        "grid": launch.grid,
        "block": launch.block,
        "blocks": launch.blocks,
        "blocks_run": launch.blocks_run,
        "sampled": launch.sampled,
        "threads": launch.threads,
        "dram_bytes": report.totals.launch_bytes,
        "l2_bytes": report.totals.block_bytes,
        "coalescing": {access: report.coalescing(access) for access in ("read", "write")},
        "conflicts": report.conflicts,
        "tensors": [
            asdict(row)
            | {
                "coalescing": row.coalescing,
                "conflicts": row.conflicts,
                "reread_in_block": row.reread_in_block,
                "reread_by_blocks": row.reread_by_blocks,
            }
            for row in report.tensors
        ],
        "shared": [asdict(row) | {"conflicts": row.conflicts} for row in report.shared],
        "totals": asdict(report.totals),
        "warp_instructions": None if report.issued is None else asdict(report.issued),
        "operations": None if report.active is None else asdict(report.active),
        "fma_per_dram_byte": from_dram,
        "fma_per_l2_byte": from_l2,
        "compiler": None if report.resources is None else asdict(report.resources),
        "why_no_compiler_report": report.why_no_resources,
        "occupancy": asdict(report.occupancy)
        | {"limited_by": report.occupancy.limited_by, "fraction": report.occupancy.fraction}
        | {"resident_blocks": report.resident_blocks, "resident_warps": report.resident_warps},
        "waves": asdict(report.waves) | {"last_fill": report.waves.last_fill},
        "model": {
            "seconds": prediction.seconds,
            "launch_seconds": prediction.launch_seconds,
            "limiter": prediction.limiter.key,
            "launch_bound": prediction.launch_bound,
            "resources": [asdict(resource) for resource in prediction.resources],
            "missing": prediction.missing,
        },
        "lines": [
            {"file": cost.line.file, "line": cost.line.number, "function": cost.line.function}
            | {"share": cost.share, "seconds": cost.seconds, "text": cost.text}
            for cost in report.lines
        ],
        "remarks": report.remarks,
        "counted": asdict(launch),
    }
