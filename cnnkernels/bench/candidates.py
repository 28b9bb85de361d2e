"""Timing kernels against each other by name: what the tuner asks of the benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from cnnkernels.bench import machine
from cnnkernels.bench.layer import Layer
from cnnkernels.bench.measuring import Settings, blank_row, measure
from cnnkernels.bench.operands import Case
from cnnkernels.bench.providers import forced, providers
from cnnkernels.bench.store import Run
from cnnkernels.bench.tune import Candidate, Timing


def measure_candidates(
    layer: Layer,
    name: str,
    dtype: str,
    layout: str,
    candidates: Sequence[Candidate],
    device: torch.device | None = None,
    settings: Settings | None = None,
) -> list[Timing]:
    """Time `candidates` (kernels of ours by name, and torch's operator) of pass `name` of `layer` in a dtype of
    `machine.DTYPES`; for the tuner.

    The data are others than the benchmark's, so that nothing is tuned to what it is later timed on.
    """
    everyone = {provider.name: provider for provider in providers()}
    entrants = [
        (
            everyone["torch-eager"] if candidate.backend == "torch" else forced(candidate.backend, candidate.kernel),
            layout,
        )
        for candidate in candidates
    ]
    case = Case.named(layer, name, dtype)
    if device is None:
        device = torch.device("cuda" if any(candidate.backend == "cuda" for candidate in candidates) else "cpu")
    settings = settings or Settings(samples=20, seconds=0.3 if device.type == "cuda" else 0.1)
    settings = replace(settings, seed=settings.seed + 1000)
    run = Run(
        id="", started="", device=machine.describe_device(device), commit="", dirty=False, versions={}, library="",
        ceilings={}, limits=machine.limits(device), floor_us=0.0, settings={},
    )  # fmt: skip
    rows = measure(case, blank_row(case, settings), device, settings, run, entrants)
    return [
        Timing(candidate, row.median_us if row.status == "ok" else None, row.reason)
        for candidate, row in zip(candidates, rows, strict=True)
    ]
