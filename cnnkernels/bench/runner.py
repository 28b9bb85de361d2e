"""From what is asked to a file of results: the list of measurements, and the loop that makes and stores them."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnnkernels import tuning
from cnnkernels.bench import machine, measuring, store
from cnnkernels.bench.latency import measure_latency
from cnnkernels.bench.layer import FUSED_PASSES, Layer
from cnnkernels.bench.measuring import Settings
from cnnkernels.bench.operands import LAYOUTS, Case, Data
from cnnkernels.bench.providers import Provider, providers
from cnnkernels.bench.suites import Entry, Suite
from cnnkernels.bench.whole_models import STEPS, ModelProvider, blank_model_row, measure_model, model_providers

#: Left out on a CPU unless asked for by name: they compile for seconds to minutes per case.
SLOW_PROVIDERS = ("torch-compile",)


@dataclass(frozen=True)
class Order:
    """What to measure. Empty tuples mean everything that applies; patterns are the shell's (`torch-*`)."""

    suites: tuple[Suite, ...] = ()
    models: tuple[tuple[str, nn.Module, tuple[int, ...]], ...] = ()  # name, model, input shape
    metrics: tuple[str, ...] = ("time",)
    passes: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ("f32",)  # names of machine.DTYPES
    layouts: tuple[str, ...] = LAYOUTS
    providers: tuple[str, ...] = ()
    data: Data = "normal"


@dataclass(frozen=True)
class Item:
    """One measurement to make, for all its entrants together."""

    title: str
    blank: store.Row
    entrants: tuple[tuple[Provider | ModelProvider, str], ...]
    measure: Callable[[store.Run, Any], list[store.Row]]  # given its entrants

    @property
    def identities(self) -> list[tuple[str, ...]]:
        """What its rows will be known by."""
        return [
            replace(self.blank, provider=provider.name, layout=layout).identity for provider, layout in self.entrants
        ]


def items(order: Order, device: torch.device, settings: Settings) -> list[Item]:
    """Everything that `order` asks for, in its suites' order."""
    result: list[Item] = []
    chosen = [provider for provider in providers() if _wanted(provider, order, device)]
    for metric in order.metrics:
        if metric == "model":
            result += _model_items(order, device, settings)
            continue
        for suite in order.suites:
            for entry in suite.entries:
                result += _layer_items(order, metric, suite, entry, chosen, device, settings)
    return [item for item in result if item.entrants]


def start_run(device: torch.device, settings: Settings, order: Order, command: str) -> store.Run:
    """What holds for the whole run; measures the ceilings and the launch floor."""
    commit, dirty = machine.commit()
    return store.Run(
        id=store.new_run_id(),
        started=store.now(),
        device=machine.describe_device(device),
        commit=commit,
        dirty=dirty,
        versions=machine.versions(),
        library=machine.library_digest(device),
        ceilings=machine.measure_ceilings(device),
        limits=machine.limits(device),
        floor_us=machine.measure_floor(device),
        settings=asdict(settings)
        | {"data": order.data, "fp32": "ieee", "cudnn": "benchmark, no limit", "tuned": _tuned(device)},
        command=command,
    )


def _tuned(device: torch.device) -> int:
    """How many problems the tuning table has for this device: which kernels our backends take depends on it."""
    return len(tuning.load(tuning.device_name(device))) if tuning.active else 0


def left_over(work: Sequence[Item], results: Path, run: store.Run) -> list[Item]:
    """What runs like this one (same device, driver, library, versions, settings) have not measured.

    Failures and unsteady rows do not count: they may go well the next time. But what has been begun before comes last: a
    kernel that hangs or takes the driver down must not keep everything after it from being measured.
    """
    done: set[tuple[str, ...]] = set()
    begun: set[tuple[str, ...]] = set()
    for earlier in store.read_all(results)[0]:
        if _alike(earlier.run) == _alike(run):
            done |= {row.identity for row in earlier.rows if row.status not in ("failed", "unsteady")}
            begun |= set(earlier.begun)
    left = [item for item in work if not done.issuperset(item.identities)]
    return sorted(left, key=lambda item: item.blank.case in begun)


def run_items(
    work: Sequence[Item],
    run: store.Run,
    writer: store.Writer,
    *,
    budget: float | None = None,
    before: Callable[[Item], None] = lambda item: None,
    after: Callable[[Item, list[store.Row]], None] = lambda item, rows: None,
) -> Iterator[list[store.Row]]:
    """Measure item by item; each item's rows are on disk before they are yielded. Stops once `budget` seconds are over."""
    start = time.perf_counter()
    for item in work:
        if budget is not None and time.perf_counter() - start > budget:
            return
        before(item)
        writer.begin(item.blank.case)
        try:
            rows = item.measure(run, item.entrants)
        except Exception as error:
            for row in _failed(item, error):
                writer.add(row)
            raise
        for row in rows:
            writer.add(row)
        after(item, rows)
        yield rows


def _failed(item: Item, error: Exception) -> list[store.Row]:
    """What is kept of a case that took everything down: out of memory, or a GPU that answers no more."""
    reason = f"{type(error).__name__}: {measuring.first_line(error)}"
    return [
        replace(
            item.blank,
            provider=one.name,
            role=one.role,
            layout=layout,
            status="failed",
            reason=reason,
            time=store.now(),
        )
        for one, layout in item.entrants
    ]


def passes_of(layer: Layer, asked: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the layer's passes that are asked for; the fused ones only by name."""
    possible = layer.passes + (FUSED_PASSES if layer.op == "conv2d" else ())
    return tuple(name for name in possible if name in asked) if asked else layer.passes


def _layer_items(
    order: Order,
    metric: str,
    suite: Suite,
    entry: Entry,
    chosen: list[Provider],
    device: torch.device,
    settings: Settings,
) -> Iterator[Item]:
    measure = measuring.measure
    if metric == "latency":
        measure = measure_latency
        entry = entry.with_batch(1)
    for dtype in order.dtypes:
        for name in passes_of(entry.problem, order.passes):
            case = Case.named(entry.problem, name, dtype, order.data)
            blank = measuring.blank_row(
                case, settings, suite=suite.name, net=entry.net, layer=entry.layer, count=entry.count
            )
            if metric == "latency":
                blank = replace(blank, metric=metric, cache="hot")
            entrants = tuple(
                (provider, layout) for provider in chosen for layout in order.layouts if layout in provider.layouts
            )
            yield Item(
                f"{entry.net} {entry.layer} {name} {blank.dtype}{' latency' if metric == 'latency' else ''}",
                blank,
                entrants,
                functools.partial(measure, case, blank, device, settings),
            )


def _model_items(order: Order, device: torch.device, settings: Settings) -> Iterator[Item]:
    chosen = [provider for provider in model_providers() if _wanted(provider, order, device)]
    for name, model, shape in order.models:
        for dtype in order.dtypes:
            for step in STEPS:
                blank = blank_model_row(name, shape, step, dtype)
                entrants = tuple((provider, layout) for provider in chosen for layout in order.layouts)
                yield Item(
                    f"{blank.what} {step} {blank.dtype}",
                    replace(blank, cache="hot"),
                    entrants,
                    functools.partial(measure_model, model, shape, step, dtype, blank, device, settings),
                )


def _wanted(provider: Provider | ModelProvider, order: Order, device: torch.device) -> bool:
    if order.providers:
        return any(fnmatchcase(provider.name, pattern) for pattern in order.providers)
    # On a CPU there is nothing to win: torch.compile would spend minutes on what is said not to be a GPU time.
    return device.type == "cuda" or provider.name not in SLOW_PROVIDERS


def _alike(run: store.Run) -> tuple[object, ...]:
    settings = {name: value for name, value in run.settings.items() if name != "longest_call"}
    driver = run.device.get("driver", "")
    return run.device["slug"], driver, run.library, sorted(run.versions.items()), sorted(settings.items())
