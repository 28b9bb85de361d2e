"""Eager calls one at a time: what a program without CUDA graphs waits for, Python, checks and launch included.

Two times per call on a GPU: until the call returns (`host_us`), and until its result is there (`median_us`). The
buffers stay the same: at the sizes where this matters they are in the cache anyway.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import torch

from cnnkernels.bench.flags import full_precision
from cnnkernels.bench.gate import Evidence
from cnnkernels.bench.measuring import Entrant, Settings, first_line, through_gate
from cnnkernels.bench.operands import Case, make_operands
from cnnkernels.bench.providers import Provider, forget_compilations
from cnnkernels.bench.store import Row, Run, now
from cnnkernels.bench.timing import Call, bind_stream, percentile, synchronize, take_turns


def measure_latency(
    case: Case, blank: Row, device: torch.device, settings: Settings, run: Run, entrants: Sequence[tuple[Provider, str]]
) -> list[Row]:
    """As :func:`cnnkernels.bench.measuring.measure`, for single eager calls."""
    blank = replace(blank, metric="latency", cache="hot")
    everyone = [
        Entrant(provider, layout, replace(blank, provider=provider.name, role=provider.role, layout=layout))
        for provider, layout in entrants
    ]
    evidence = Evidence(case, device, settings.seed)
    with full_precision(tf32=case.tf32), ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(torch.cuda.stream(bind_stream()))
        calls: list[tuple[Entrant, Call]] = []
        for entrant in everyone:
            through_gate(entrant, evidence, settings)
            if entrant.running:
                generator = torch.Generator(device).manual_seed(settings.seed + 1)
                operands = make_operands(case, entrant.layout, device, generator)
                calls.append((entrant, entrant.provider.make_call(case, operands, entrant.forward)))
        hosts = _take_turns(calls, device, settings)
    forget_compilations()
    for entrant, host in zip((entrant for entrant, _ in calls), hosts, strict=True):
        if not entrant.running:
            continue
        times = [1e6 * seconds for seconds in entrant.times]
        entrant.row = replace(
            entrant.row,
            median_us=percentile(times, 0.5),
            p10_us=percentile(times, 0.1),
            p90_us=percentile(times, 0.9),
            host_us=1e6 * percentile(host, 0.5) if device.type == "cuda" else None,
            samples=len(times),
            notices=entrant.row.notices if run.on_gpu else (*entrant.row.notices, "not a GPU time"),
        )
    return [replace(entrant.row, time=now()) for entrant in everyone]


def _take_turns(calls: list[tuple[Entrant, Call]], device: torch.device, settings: Settings) -> list[list[float]]:
    """Sample everyone; the seconds until each call returned. Those until its result was there are in the entrants."""
    hosts: list[list[float]] = [[] for _ in calls]

    def sample(entrant: Entrant, call: Call, host: list[float]) -> None:
        if not entrant.running:
            return
        try:
            began = time.perf_counter()
            kept = call()
            returned = time.perf_counter()
            synchronize(device)
            entrant.times.append(time.perf_counter() - began)
            host.append(returned - began)
            del kept
        except Exception as error:
            entrant.fail("failed", f"while timed: {type(error).__name__}: {first_line(error)}")

    samplers = [partial(sample, *one, host) for one, host in zip(calls, hosts, strict=True)]
    # Single calls are quick and noisy: four times the samples of a kernel's time, in the same budget.
    take_turns(samplers, 4 * settings.samples, settings.seconds)
    return hosts
