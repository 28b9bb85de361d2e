"""A quick subset of the benchmark under pytest-benchmark: the layers of LeNet-5, every pass, everyone who can run them.

    pytest benchmarks/ --benchmark-only                                       # one table per layer and pass
    pytest benchmarks/ --benchmark-only --benchmark-autosave                  # keep the numbers,
    pytest benchmarks/ --benchmark-only --benchmark-compare                   # change something, and compare

Same providers, gate and timing as `cnnkernels bench`: one who fails the gate fails the test and has no number. Without a
GPU the emulator runs our kernels, and these are not GPU times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from cnnkernels.bench import machine, measuring, runner, suites
from cnnkernels.bench.flags import full_precision
from cnnkernels.bench.gate import Evidence
from cnnkernels.bench.operands import LAYOUTS, Case, make_operands, number_of_sets
from cnnkernels.bench.providers import Provider, providers
from cnnkernels.bench.timing import bind_stream, make_timer

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPE = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32
BATCH = 64 if DEVICE.type == "cuda" else 8
SETTINGS = measuring.Settings()


class Clock:
    """What pytest-benchmark reads instead of the wall clock: the seconds per call that our timer has measured, added up."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


CLOCK = Clock()


def measurements() -> Iterator[object]:
    everyone = [provider for provider in providers() if provider.name not in runner.SLOW_PROVIDERS]
    for entry in suites.load("lenet5").with_batch(BATCH).entries:
        for name in entry.problem.passes:
            case = Case(entry.problem, name, DTYPE)
            for provider in everyone:
                for layout in LAYOUTS:
                    if layout in provider.layouts and provider.refuse(case, DEVICE, layout) is None:
                        label = f"{entry.net}-{entry.layer}-{name}"
                        yield pytest.param(label, case, provider, layout, id=f"{label}-{provider.name}-{layout}")


@pytest.fixture(autouse=True)
def _as_the_benchmark_runs() -> Iterator[None]:
    with full_precision():
        if DEVICE.type == "cuda":
            with torch.cuda.stream(bind_stream()):
                yield
        else:
            yield


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize(("label", "case", "provider", "layout"), list(measurements()))
def test_layer(benchmark: BenchmarkFixture, label: str, case: Case, provider: Provider, layout: str) -> None:
    blank = replace(measuring.blank_row(case, SETTINGS), provider=provider.name, layout=layout)
    entrant = measuring.Entrant(provider, layout, blank)
    measuring.through_gate(entrant, Evidence(case, DEVICE, SETTINGS.seed), SETTINGS)
    assert entrant.running, f"{provider.name} is {entrant.row.status}: {entrant.row.reason}"
    cache = machine.describe_device(DEVICE)["l2_bytes"]
    generator = torch.Generator(DEVICE).manual_seed(SETTINGS.seed + 3)
    sets = [make_operands(case, layout, DEVICE, generator) for _ in range(number_of_sets(case, DEVICE, cache, False))]
    with make_timer(DEVICE, [provider.make_call(case, operands, entrant.forward) for operands in sets]) as timer:

        def sample() -> None:
            CLOCK.seconds += timer.sample()

        benchmark.group = (
            f"{label}: {case.layer}, {entrant.row.dtype}{'' if DEVICE.type == 'cuda' else ', not a GPU time'}"
        )
        benchmark.extra_info.update(kernels=list(entrant.row.kernels), device=machine.describe_device(DEVICE)["name"])
        benchmark.pedantic(sample, rounds=20, warmup_rounds=2)
