"""What a call makes of the tuning table: which kernel runs, when torch does, and what explain() says."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from tuned import DGRAD, FPROP, POOL, WGRAD, W, X, entry, launches, not_planned

from cnnkernels import backends, explain, functional, trace, tuning
from cnnkernels.bench import tune as engine
from cnnkernels.bench.layer import Layer
from cnnkernels.tuning import EMULATED_DEVICE, Problem


@pytest.fixture(autouse=True)
def directory(tuning_directory: Path) -> Path:
    return tuning_directory


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize(
    "layer",
    [
        Layer("conv2d", 2, 6, 9, 8, 4, 3, 2, (2, 1), (0, 3), (1, 2), 2),
        Layer("conv_transpose2d", 1, 6, 9, 8, 4, 3, 2, (2, 1), (0, 1), (1, 2), 2, (1, 0)),
        Layer("max_pool2d", 2, 3, 9, 8, R=3, S=2, stride=(2, 2), padding=(1, 0), ceil_mode=True),
        Layer("avg_pool2d", 2, 3, 9, 8, R=3, S=2, stride=(2, 2), count_include_pad=False),
    ],
    ids=lambda layer: layer.op,
)
def test_calls_ask_for_the_problems_that_are_tuned(layer: Layer, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward of a layer look up just what `cnnkernels tune` records for it, and keys can be read back."""
    wanted = {engine.problem_of(layer, name, torch.float32, layout) for name in layer.passes}
    assert {Problem.parse(problem.key) for problem in wanted} == wanted
    assert len({problem.key for problem in wanted}) == len(wanted)
    asked: set[Problem] = set()
    monkeypatch.setattr(tuning, "active", True)
    monkeypatch.setattr(tuning, "lookup", lambda device, problem: asked.add(problem))
    memory_format: Any = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    x, w = (
        torch.randn(shape).to(memory_format=memory_format).requires_grad_()
        for shape in (layer.input_shape, layer.weight_shape)
    )
    with backends.use_backend("emulator"):
        layer.forward(x, None if layer.is_pooling else w, None, functional).sum().backward()
    assert asked == wanted


def test_without_tables_nobody_asks(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    monkeypatch.setattr(tuning, "lookup", None)
    assert not tuning.active
    functional.conv2d(X, W, backend="emulator")
    with trace() as launched:
        functional.conv2d(X, W, backend="emulator")
    assert launched == [FPROP.plan()["kernel"]]


def test_the_tuned_kernels_run_forward_and_backward() -> None:
    chosen = {problem: not_planned(problem) for problem in (FPROP, DGRAD, WGRAD)}
    for problem, kernel in chosen.items():
        tuning.record(EMULATED_DEVICE, problem, entry("torch", kernel))
    x, w = X.clone().requires_grad_(), W.clone().requires_grad_()
    with trace() as launched:
        output = functional.conv2d(x, w, backend="emulator")
        output.backward(torch.ones_like(output))
    assert launched == [chosen[problem] for problem in (FPROP, DGRAD, WGRAD)]
    expected = F.conv2d(X.double(), W.double())
    torch.testing.assert_close(output.double(), expected, rtol=0, atol=1e-5)
    with trace() as launched:  # another problem: as planned
        functional.conv2d(X[:1], W, backend="emulator")
    assert launched == [FPROP._replace(N=1).plan()["kernel"]]


@pytest.mark.parametrize("layer", [POOL, Layer("avg_pool2d", 2, 3, 9, 9, R=2, S=2)], ids=lambda layer: layer.op)
def test_tuned_poolings(layer: Layer) -> None:
    problems = [engine.problem_of(layer, name, torch.float32, "nchw") for name in layer.passes]
    for problem in problems:
        tuning.record(EMULATED_DEVICE, problem, entry(not_planned(problem)))
    x = X.clone().requires_grad_()
    with trace() as launched, backends.use_backend("emulator"):
        output = layer.forward(x, functions=functional)
        output.backward(torch.ones_like(output))
    assert launched == [not_planned(problem) for problem in problems]
    assert torch.equal(output, layer.forward(X))


def test_tables_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    tuning.record(EMULATED_DEVICE, FPROP, entry(not_planned(FPROP)))
    monkeypatch.setenv("CNNKERNELS_TUNING", "0")
    tuning.clear_caches()
    with trace() as launched:
        functional.conv2d(X, W, backend="emulator")
    assert launched == [FPROP.plan()["kernel"]]
    assert len(tuning.tables()) == 1


def test_another_backends_kernels_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    tuning.record(EMULATED_DEVICE, FPROP, entry(not_planned(FPROP), backend="cuda"))
    with trace() as launched:
        functional.conv2d(X, W, backend="emulator")
    assert launched == [FPROP.plan()["kernel"]]


@pytest.fixture
def auto_takes_the_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    """What auto does with a CUDA tensor, with the emulator in the GPU's place."""
    monkeypatch.setattr(backends, "_select_auto", lambda input: ("emulator", "auto: as on a GPU"))


@pytest.mark.usefixtures("auto_takes_the_emulator")
def test_auto_takes_torch_where_it_was_faster() -> None:
    ours = not_planned(FPROP)
    calls: list[Callable[[], Tensor]] = [
        lambda: functional.conv2d(X, W),
        lambda: functional.conv2d(X, W, backend="auto"),
    ]
    for call in calls:
        assert launches(call) == [FPROP.plan()["kernel"]]
    tuning.record(EMULATED_DEVICE, FPROP, entry(ours, "torch"))
    for call in calls:
        assert launches(call) == [ours]
    tuning.record(EMULATED_DEVICE, FPROP, entry("torch", ours))
    for call in calls:
        assert launches(call) == []
        assert torch.equal(call(), F.conv2d(X, W))
    # A backend that is named never gives way to torch.
    assert launches(lambda: functional.conv2d(X, W, backend="emulator")) == [ours]
    with backends.use_backend("emulator"):
        assert launches(lambda: functional.conv2d(X, W)) == [ours]
    with pytest.raises(RuntimeError, match="non-positive stride"):
        functional.conv2d(X, W, stride=0)


@pytest.mark.usefixtures("auto_takes_the_emulator")
@pytest.mark.parametrize(
    "layer",
    [POOL, Layer("avg_pool2d", 2, 3, 9, 9, R=2, S=2), Layer("conv_transpose2d", 2, 3, 9, 9, 4, 3, 3)],
    ids=lambda layer: layer.op,
)
def test_auto_asks_for_every_function(layer: Layer) -> None:
    w = torch.randn(layer.weight_shape)
    call = lambda: layer.forward(X, None if layer.is_pooling else w, None, functional)  # noqa: E731
    problem = engine.problem_of(layer, layer.passes[0], torch.float32, "nchw")
    assert launches(call) == [problem.plan()["kernel"]]
    tuning.record(EMULATED_DEVICE, problem, entry("torch", not_planned(problem)))
    assert launches(call) == []


def test_auto_leaves_the_cpu_to_torch() -> None:
    tuning.record(EMULATED_DEVICE, FPROP, entry(not_planned(FPROP), "torch"))
    assert launches(lambda: functional.conv2d(X, W)) == []


@pytest.mark.gpu
def test_a_gpus_table_decides() -> None:
    x, w = X.cuda(), W.cuda()
    device = tuning.device_name(x.device)
    assert device == torch.cuda.get_device_name()
    tuning.record(device, FPROP, entry(not_planned(FPROP), "torch", backend="cuda"))
    for backend in ("auto", "cuda"):
        assert launches(lambda backend=backend: functional.conv2d(x, w, backend=backend)) == [not_planned(FPROP)]
    tuning.record(device, FPROP, entry("torch", not_planned(FPROP), backend="cuda"))
    assert launches(lambda: functional.conv2d(x, w)) == []
    assert launches(lambda: functional.conv2d(x, w, backend="cuda")) == [not_planned(FPROP)]
    assert explain(functional.conv2d, x, w).why == f"auto, tuned: fastest of 2 measured on {device}, 2026-03-04"


def test_compiled_code_leaves_the_choice_to_the_plan() -> None:
    tuning.record(EMULATED_DEVICE, FPROP, entry(not_planned(FPROP)))
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x, w: functional.conv2d(x, w, backend="emulator"), backend="aot_eager", fullgraph=True, dynamic=True
    )
    w = W.clone().requires_grad_()
    compiled(X, w)
    assert launches(lambda: compiled(X, w).sum().backward())[0] == FPROP.plan()["kernel"]
    assert launches(lambda: functional.conv2d(X, W, backend="emulator")) == [not_planned(FPROP)]
    torch._dynamo.reset()


@pytest.mark.usefixtures("auto_takes_the_emulator")
def test_compiled_code_does_not_ask_whether_torch_is_faster() -> None:
    tuning.record(EMULATED_DEVICE, FPROP, entry("torch", not_planned(FPROP)))
    torch._dynamo.reset()
    compiled = torch.compile(functional.conv2d, backend="aot_eager", fullgraph=True)
    compiled(X, W)
    assert launches(lambda: compiled(X, W)) == [FPROP.plan()["kernel"]]
    torch._dynamo.reset()


def test_a_tracers_symbols_are_no_problem() -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    tuning.record(EMULATED_DEVICE, FPROP, entry(not_planned(FPROP)))
    traced = make_fx(lambda x, w: functional.conv2d(x, w, backend="emulator"), tracing_mode="symbolic")(X, W)
    assert launches(lambda: traced(X, W)) == [FPROP.plan()["kernel"]]


def test_kernels_that_are_gone_are_ignored_with_one_warning() -> None:
    tuning.record(EMULATED_DEVICE, FPROP, entry("conv2d_of_yesterday"))
    tuning.record(EMULATED_DEVICE, WGRAD, entry("torch", not_planned(FPROP)))  # exists, for another pass
    with warnings.catch_warnings(record=True) as reports:
        warnings.simplefilter("always")
        for _ in range(2):
            assert launches(lambda: functional.conv2d(X, W, backend="emulator")) == [FPROP.plan()["kernel"]]
            tuning._forget()
    (report,) = reports
    assert "2 entries are ignored, whose kernels no longer exist" in str(report.message)
    assert "conv2d_of_yesterday" in str(report.message)


def refusing(kernel: str, original: Callable[..., Any], refusals: list[str]) -> Callable[..., Any]:
    def operator(*arguments: Any, kernel_name: str = "") -> Any:
        if kernel_name == kernel:
            refusals.append(kernel)
            raise RuntimeError(f"kernel '{kernel}' cannot run this: it is tired")
        return original(*arguments, kernel_name)

    return operator


def test_a_kernel_that_refuses_is_ignored_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = not_planned(FPROP)
    refusals: list[str] = []
    tuning.record(EMULATED_DEVICE, FPROP, entry(kernel))
    monkeypatch.setattr(backends.ops, "conv2d_fprop", refusing(kernel, backends.ops.conv2d_fprop, refusals))
    with warnings.catch_warnings():  # tensors that lie otherwise than the measured ones prove nothing
        warnings.simplefilter("error")
        sliced = torch.randn(2, 3, 9, 18)[..., ::2]
        (launched,) = launches(lambda: functional.conv2d(sliced, W, backend="emulator"))
        assert launched != kernel
    with warnings.catch_warnings(record=True) as reports:
        warnings.simplefilter("always")
        for _ in range(3):
            assert launches(lambda: functional.conv2d(X, W, backend="emulator")) == [FPROP.plan()["kernel"]]
    assert [str(report.message) for report in reports] == [
        f"the tuning table's kernel is ignored: kernel '{kernel}' cannot run this: it is tired"
    ]
    assert len(refusals) == 2  # by the sliced tensor, and once by the others


def test_errors_of_the_call_itself_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    tuning.record(EMULATED_DEVICE, FPROP, entry(not_planned(FPROP)))
    calls = []

    def operator(*arguments: Any, kernel_name: str = "") -> None:
        calls.append(kernel_name)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(backends.ops, "conv2d_fprop", operator)
    with pytest.raises(RuntimeError, match="out of memory"):
        functional.conv2d(X, W, backend="emulator")
    assert calls == [not_planned(FPROP)]


def test_explain_says_what_was_tuned() -> None:
    planned = explain(functional.conv2d, X, W, backend="emulator")
    slower = planned.passes[0].kernel
    tuning.record(EMULATED_DEVICE, FPROP, entry(not_planned(FPROP), "torch", slower))
    explanation = explain(functional.conv2d, X, W, backend="emulator")
    forward = explanation.passes[0]
    assert forward.kernel == not_planned(FPROP)
    assert forward.why == "tuned: fastest of 3 measured on cpu (emulator), 2026-03-04"
    refused = dict(forward.refused)
    assert refused.pop(slower) == f"measured 12 µs, against 10 of {forward.kernel}"
    assert any(reason.startswith("modelled at") for reason in refused.values()) and all(refused.values())
    assert explanation.passes[1:] == planned.passes[1:]
    assert explanation.why == "asked for by name"


@pytest.mark.usefixtures("auto_takes_the_emulator")
def test_explain_says_that_torch_was_faster() -> None:
    tuning.record(EMULATED_DEVICE, FPROP, entry("torch", not_planned(FPROP)))
    explanation = explain(functional.conv2d, X, W)
    assert (explanation.backend, explanation.passes) == ("torch", ())
    assert explanation.why == "auto, tuned: fastest of 2 measured on cpu (emulator), 2026-03-04"
    tuning.record(EMULATED_DEVICE, FPROP, entry(not_planned(FPROP), "torch"))
    explanation = explain(functional.conv2d, X, W)
    assert explanation.backend == "emulator" and explanation.why.startswith("auto, tuned: fastest of 2")


def test_explain_says_why_a_tuned_kernel_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    tuning.record(EMULATED_DEVICE, FPROP, entry(not_planned(WGRAD)))
    monkeypatch.setattr(tuning, "_with_known_kernels", lambda path, entries: entries)
    forward = explain(functional.conv2d, X, W, backend="emulator").passes[0]
    assert forward.kernel == FPROP.plan()["kernel"]
    assert "the least; the tuning table's kernel is ignored" in forward.why
