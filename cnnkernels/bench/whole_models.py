"""Whole models, as a user runs them: eager, one step after the other.

*inference* is a forward pass in eval mode. *training* is a forward pass in training mode (dropout switched off, so that
everyone computes the same), a loss (the mean square of each output), the backward pass and an SGD step of learning
rate 0: all of its work, and the same weights for everyone at every step.

The gate: outputs (inference) or gradients of the parameters (training) against the same model in fp64, in relative L2
norm. The gradients are those with running statistics in the normalisations: with a batch's own, an untrained network is
chaotic, and its gradients in fp32 and in fp64 have nothing in common whoever computes them. The kernels are the same. torch's own eager error may be at most what its arithmetic explains (`_MOST`), everyone else's at most twice that
of torch eager, which a network's depth and conditioning decide and no formula of ours.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from cnnkernels import backends
from cnnkernels.bench.flags import full_precision
from cnnkernels.bench.machine import DTYPES, TF32
from cnnkernels.bench.measuring import Settings, first_line, memory
from cnnkernels.bench.operands import MEMORY_FORMATS
from cnnkernels.bench.store import Row, Run, now
from cnnkernels.bench.timing import Call, percentile, synchronize, take_turns
from cnnkernels.convert import convert
from cnnkernels.explain import trace

STEPS = ("inference", "training")

# Relative error of a whole network that is still its dtype's: for fp32 half of tf32's unit roundoff, for tf32 and the half
# formats 32 of their own, since roundings of dozens of layers add up.
_MOST = {"f64": 2.0**-26, "f32": 2.0**-12, "tf32": 2.0**-6, "f16": 2.0**-6, "bf16": 2.0**-3}


@dataclass(frozen=True)
class ModelProvider:
    """`prepare` turns a model (a copy of its own, on the device, in the dtype) into the one to run."""

    name: str
    role: str
    refuse: Callable[[torch.device], str | None]
    prepare: Callable[[nn.Module], nn.Module]
    around: Callable[[], AbstractContextManager[Any]] = nullcontext


def model_providers() -> tuple[ModelProvider, ...]:
    """Ours, one per backend, then torch's."""
    ours = tuple(_ours(name) for name in backends.NAMES if name not in ("auto", "torch"))
    return (
        *ours,
        ModelProvider("torch-eager", "baseline", lambda device: None, lambda model: model),
        ModelProvider("torch-compile", "baseline", lambda device: None, _compile),
    )


def measure_model(
    model: nn.Module,
    shape: tuple[int, ...],
    step: str,
    dtype: str,
    blank: Row,
    device: torch.device,
    settings: Settings,
    run: Run,
    entrants: Sequence[tuple[ModelProvider, str]],
) -> list[Row]:
    """Time `step` of `model` on N(0, 1) input of `shape` by each (provider, layout); one row each, in their order.

    `dtype` is a name of `machine.DTYPES`.
    """
    generator = torch.Generator(device).manual_seed(settings.seed)
    inputs = [torch.randn(shape, device=device, generator=generator).to(DTYPES[dtype]) for _ in range(2)]
    original = copy.deepcopy(model).to(device=device, dtype=DTYPES[dtype])
    references = [_result(copy.deepcopy(original).double(), x.double(), step) for x in inputs]
    own_error: float | None = None
    rows, ready = [], []
    with full_precision(tf32=dtype == TF32):
        # torch eager goes first: its error is what the others are held to.
        for index in sorted(range(len(entrants)), key=lambda i: entrants[i][0].name != "torch-eager"):
            provider, layout = entrants[index]
            row = replace(blank, provider=provider.name, role=provider.role, layout=layout, cache="hot")
            reason = provider.refuse(device)
            if reason is not None:
                rows.append((index, replace(row, status="unsupported", reason=reason)))
                continue
            try:
                most = _MOST[dtype] if own_error is None else 2 * own_error + _eps(dtype)
                row, call = _prepare(provider, original, inputs, references, layout, step, most, row, device)
            except Exception as error:
                row, call = replace(row, status="failed", reason=f"{type(error).__name__}: {first_line(error)}"), None
            if provider.name == "torch-eager" and row.error is not None and row.status == "ok":
                own_error = max(own_error or 0.0, row.error)
            rows.append((index, row))
            if call is not None:
                ready.append((len(rows) - 1, call))
        times = _take_turns([call for _, call in ready], device, settings)
    for (place, _), samples in zip(ready, times, strict=True):
        index, row = rows[place]
        micros = [1e6 * seconds for seconds in samples]
        rows[place] = (
            index,
            replace(
                row,
                median_us=percentile(micros, 0.5),
                p10_us=percentile(micros, 0.1),
                p90_us=percentile(micros, 0.9),
                samples=len(micros),
                notices=row.notices if run.on_gpu else (*row.notices, "not a GPU time"),
            ),
        )
    return [replace(row, time=now()) for _, row in sorted(rows, key=lambda pair: pair[0])]


def _eps(dtype: str) -> float:
    return 2.0**-10 if dtype == TF32 else torch.finfo(DTYPES[dtype]).eps


def blank_model_row(name: str, shape: tuple[int, ...], step: str, dtype: str) -> Row:
    """The row of a model's step before anyone has run it."""
    size = "x".join(map(str, shape))
    return Row(
        metric="model", suite="", net=name, layer="", count=1, family="model", problem={"input": list(shape)},
        what=f"{name} {size}", name=step, dtype=dtype, layout="", data="normal", provider="", role="",
        status="ok",
    )  # fmt: skip


def _ours(backend: str) -> ModelProvider:
    def refuse(device: torch.device) -> str | None:
        wanted = "cpu" if backend == "emulator" else "cuda"
        if device.type != wanted:
            return f"backend {backend} runs {wanted.upper()} tensors"
        return backends.unavailable(backend)

    def prepare(model: nn.Module) -> nn.Module:
        convert(model)
        return model

    return ModelProvider(backend, "ours", refuse, prepare, lambda: backends.use_backend(backend))


def _compile(model: nn.Module) -> nn.Module:
    torch._dynamo.reset()
    compiled: Any = torch.compile(model, mode="max-autotune-no-cudagraphs", dynamic=False)
    module: nn.Module = compiled
    return module


def _prepare(
    provider: ModelProvider,
    original: nn.Module,
    inputs: list[Tensor],
    references: list[Tensor],
    layout: str,
    step: str,
    most: float,
    row: Row,
    device: torch.device,
) -> tuple[Row, Call | None]:
    """Through the gate; the row, and the call to time if it passed."""
    x = torch.empty_like(inputs[0], memory_format=MEMORY_FORMATS[layout])
    start = time.perf_counter()
    model = copy.deepcopy(original)
    if layout == "channels_last":
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model = provider.prepare(model)
    errors: list[float] = []
    peak = None
    for image, reference in zip(inputs, references, strict=True):
        x.copy_(image)  # the second into the same memory: what was remembered of the first is wrong now
        before = memory(device)
        with provider.around(), trace() as launched:
            result = _result(model, x, step)
            synchronize(device)
        if not errors:
            row = replace(row, first_call_ms=1e3 * (time.perf_counter() - start))
        else:
            peak = torch.cuda.max_memory_allocated(device) - before if device.type == "cuda" else None
        errors.append(float((result.double() - reference).norm() / reference.norm().clamp(min=1e-300)))
    error = max(errors) if all(error == error for error in errors) else float("nan")
    if not error <= most:  # a NaN is no number either
        return replace(
            row, status="refused", reason=f"relative error {error:.3g} against fp64, allowed {most:.3g}"
        ), None
    row = replace(row, error=error, allowed=most, kernels=tuple(dict.fromkeys(launched)), peak_bytes=peak)
    if provider.role == "ours" and not launched:
        return replace(row, status="refused", reason="no kernel of ours ran"), None
    _set_mode(model, step)
    if step == "training":
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

        def train() -> None:
            with provider.around():
                optimizer.zero_grad(set_to_none=True)
                _loss(model(x)).backward()
                optimizer.step()

        return row, train

    def infer() -> Any:
        with provider.around(), torch.no_grad():
            return model(x)

    return row, infer


def _result(model: nn.Module, x: Tensor, step: str) -> Tensor:
    """What the gate compares, as one vector."""
    _set_mode(model, step, gate=True)
    if step == "inference":
        with torch.no_grad():
            return _flat(model(x))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return _flat(torch.autograd.grad(_loss(model(x)), parameters))


def _set_mode(model: nn.Module, step: str, gate: bool = False) -> None:
    model.train(step == "training")
    fixed: tuple[type[nn.Module], ...] = (nn.modules.dropout._DropoutNd,)
    if gate:
        fixed += (nn.modules.batchnorm._NormBase,)
    for module in model.modules():
        if isinstance(module, fixed):
            module.eval()


def _loss(output: Any) -> Tensor:
    return torch.stack([leaf.square().mean() for leaf in _tensors(output)]).sum()


def _flat(output: Any) -> Tensor:
    return torch.cat([leaf.detach().flatten() for leaf in _tensors(output)])


def _tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _take_turns(calls: list[Call], device: torch.device, settings: Settings) -> list[list[float]]:
    """Seconds per step of each call; the device is idle before and after each."""
    times: list[list[float]] = [[] for _ in calls]

    def sample(call: Call, samples: list[float]) -> None:
        synchronize(device)
        began = time.perf_counter()
        call()
        synchronize(device)
        samples.append(time.perf_counter() - began)

    samplers = [partial(sample, call, samples) for call, samples in zip(calls, times, strict=True)]
    take_turns(samplers, settings.samples, settings.seconds)
    return times
