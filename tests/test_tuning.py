"""The tuning table: its files, and what a call makes of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels import backends, explain, functional, trace, tuning, tuning_table
from cnnkernels.bench import tune as engine
from cnnkernels.bench.layer import Layer
from cnnkernels.tuning import EMULATED_DEVICE, Entry, Problem

X = torch.randn(2, 3, 9, 9)
W = torch.randn(4, 3, 3, 3)
FPROP, DGRAD, WGRAD = (
    engine.problem_of(Layer("conv2d", 2, 3, 9, 9, 4, 3, 3), name, torch.float32, "nchw")
    for name in ("fprop", "dgrad", "wgrad")
)
POOL = Layer("max_pool2d", 2, 3, 9, 9, R=2, S=2, stride=(2, 2))


@pytest.fixture(autouse=True)
def directory(tuning_directory: Path) -> Path:
    return tuning_directory


def entry(*names: str, backend: str = "emulator") -> Entry:
    """Candidates from the fastest to the slowest; a name without a slash is torch."""
    candidates = {name if name == "torch" else f"{backend}/{name}": 10.0 + place for place, name in enumerate(names)}
    winner = next(iter(candidates)).partition("/")[0]
    kernel = next((name for name in names if name != "torch"), "")
    return Entry(winner, kernel, candidates, "2026-03-04T05:06:07+00:00")


def not_planned(problem: Problem) -> str:
    """A kernel that can run the problem and that the plan does not choose."""
    planned = problem.plan()["kernel"]
    candidates, _ = engine.candidates_for(problem, "emulator")
    return next(candidate.kernel for candidate in candidates if candidate.kernel not in ("", planned))


def launches(call: Callable[[], Any]) -> list[str]:
    with trace() as launched:
        call()
    return launched


# The files


def test_a_table_comes_back_as_it_was_written(directory: Path) -> None:
    one, other = entry("a", "torch"), Entry("torch", "", {"torch": 1.5}, "2026-01-01", {"emulator/b": "wrong"}, "2.13")
    assert tuning.record(EMULATED_DEVICE, FPROP, one) == directory / "cpu-emulator.json"
    tuning.record(EMULATED_DEVICE, WGRAD, other)
    tuning.record("NVIDIA H200", FPROP, other)
    table, h200 = tuning.tables()
    assert (table.device, table.entries, table.ignored) == (EMULATED_DEVICE, {FPROP: one, WGRAD: other}, "")
    assert (h200.path.name, h200.entries) == ("nvidia-h200.json", {FPROP: other})
    stored = json.loads(table.path.read_text())
    assert (stored["format"], stored["device"], stored["package"]) == (1, EMULATED_DEVICE, "0.1.0")
    assert list(stored["entries"]) == [
        "conv2d_fprop float32 nchw N2 C3 H9 W9 K4 R3 S3 P7 Q7 stride1x1 pad0x0 dilation1x1 groups1",
        "conv2d_wgrad float32 nchw N2 C3 H9 W9 K4 R3 S3 P7 Q7 stride1x1 pad0x0 dilation1x1 groups1",
    ]


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


def test_the_users_table_wins(directory: Path) -> None:
    tuning.record(EMULATED_DEVICE, FPROP, entry(not_planned(FPROP)))
    tuning.record(EMULATED_DEVICE, WGRAD, entry(not_planned(WGRAD)))
    directory.rename(tuning.SHIPPED)
    mine = entry("torch", not_planned(WGRAD))
    tuning.record(EMULATED_DEVICE, WGRAD, mine)
    assert tuning.lookup(-1, WGRAD) == mine
    assert tuning.lookup(-1, FPROP) == entry(not_planned(FPROP))
    assert [table.shipped for table in tuning.tables()] == [True, False]


def test_where_the_users_tables_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tuning.user_directory() == Path(os.environ["CNNKERNELS_TUNING_DIR"])
    monkeypatch.delenv("CNNKERNELS_TUNING_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert tuning.user_directory() == Path("/cache/cnnkernels/tuning")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert tuning.user_directory() == Path("/home/someone/.cache/cnnkernels/tuning")


SPOILT: dict[str, tuple[Callable[[Any], Any], str]] = {
    "corrupt": (lambda table: "{" + json.dumps(table), "it cannot be read"),
    "format": (lambda table: table | {"format": 2}, "no table of format 1"),
    "device": (lambda table: table | {"device": "NVIDIA H200"}, "it is of device 'NVIDIA H200'"),
    "package": (lambda table: table | {"package": "0.0.9"}, "measured with cnnkernels 0.0.9"),
    "no entries": (lambda table: table | {"entries": []}, "lacks its device or its entries"),
    "a key": (lambda table: table | {"entries": {"conv2d": {}}}, "'conv2d' is no problem's key"),
    "an entry": (lambda table: table | {"entries": {FPROP.key: {"backend": "torch"}}}, "an entry that is none"),
    "a time": (
        lambda table: table | {"entries": {FPROP.key: entry("torch").to_dict() | {"candidates": {"torch": "1"}}}},
        "an entry that is none",
    ),
    "a list": (lambda table: [table], "no table of format 1"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_table_of_no_use_is_reported_once_and_kept(kind: str, directory: Path) -> None:
    spoil, reason = SPOILT[kind]
    path = tuning.record(EMULATED_DEVICE, FPROP, entry(not_planned(FPROP)))
    spoilt = spoil(json.loads(path.read_text()))
    text = spoilt if isinstance(spoilt, str) else json.dumps(spoilt)
    path.write_text(text)
    tuning.clear_caches()
    with warnings.catch_warnings(record=True) as reports:
        warnings.simplefilter("always")
        for _ in range(3):
            assert launches(lambda: functional.conv2d(X, W, backend="emulator")) == [FPROP.plan()["kernel"]]
        tuning.load(EMULATED_DEVICE)
    (report,) = reports
    assert str(report.message).startswith(f"tuning table {path} is ignored: ") and reason in str(report.message)
    assert path.read_text() == text
    (table,) = tuning.tables()
    assert reason in table.ignored and not table.entries
    path.with_name(f"{path.name}.bad-1").write_text("an earlier one")
    with pytest.warns(UserWarning, match="moved to cpu-emulator.json.bad-2"):
        tuning.record(EMULATED_DEVICE, WGRAD, entry("torch"))
    assert path.with_name(f"{path.name}.bad-2").read_text() == text
    assert list(tuning.load(EMULATED_DEVICE)) == [WGRAD]


RECORDER = """
import sys
from cnnkernels import tuning
from cnnkernels.tuning import Entry, Problem
for n in range(int(sys.argv[2])):
    problem = Problem.parse(sys.argv[1].replace("N2", f"N{n}"))
    tuning.record(tuning.EMULATED_DEVICE, problem, Entry("torch", "", {"torch": 1.0}, "x" * 20000))
    print(n, flush=True)
"""


def recorder(key: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RECORDER, key, str(count)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_kill_leaves_a_whole_table_with_all_that_was_acknowledged(directory: Path) -> None:
    acknowledged = 0
    for milliseconds in (7, 0, 3, 11):
        process = recorder(FPROP.key, 10**6)
        assert process.stdout is not None
        numbers = [process.stdout.readline() for _ in range(5)]  # it is at work
        time.sleep(milliseconds / 1000)
        process.send_signal(signal.SIGKILL)
        numbers += process.stdout.readlines()
        process.wait()
        acknowledged = max(acknowledged, len([line for line in numbers if line.endswith("\n")]))
        (table,) = tuning.tables()
        assert not table.ignored
        assert {FPROP._replace(N=n) for n in range(acknowledged)} <= set(table.entries)
    tuning.record(EMULATED_DEVICE, WGRAD, entry("torch"))
    assert {path.name for path in directory.iterdir()} == {"cpu-emulator.json", "cpu-emulator.json.lock"}


def test_two_at_once_lose_nothing() -> None:
    count = 40
    processes = [recorder(problem.key, count) for problem in (FPROP, WGRAD)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert set(tuning.load(EMULATED_DEVICE)) == {
        problem._replace(N=n) for problem in (FPROP, WGRAD) for n in range(count)
    }


def test_tables_are_data_of_the_package() -> None:
    pyproject = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert "tables/*.json" in pyproject
    assert (Path(tuning_table.__file__).parent / "tables").is_dir()


# What a call makes of it


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


def refusing(kernel: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def operator(*arguments: Any, kernel_name: str = "") -> Any:
        if kernel_name == kernel:
            raise RuntimeError(f"kernel '{kernel}' cannot run this: it is tired")
        return original(*arguments, kernel_name)

    return operator


def test_a_kernel_that_refuses_is_ignored_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = not_planned(FPROP)
    tuning.record(EMULATED_DEVICE, FPROP, entry(kernel))
    monkeypatch.setattr(backends.ops, "conv2d_fprop", refusing(kernel, backends.ops.conv2d_fprop))
    with warnings.catch_warnings():  # tensors that lie otherwise than the measured ones prove nothing
        warnings.simplefilter("error")
        sliced = torch.randn(2, 3, 9, 18)[..., ::2]
        assert launches(lambda: functional.conv2d(sliced, W, backend="emulator")) == [FPROP.plan()["kernel"]]
    with warnings.catch_warnings(record=True) as reports:
        warnings.simplefilter("always")
        for _ in range(3):
            assert launches(lambda: functional.conv2d(X, W, backend="emulator")) == [FPROP.plan()["kernel"]]
    assert [str(report.message) for report in reports] == [
        f"the tuning table's kernel is ignored: kernel '{kernel}' cannot run this: it is tired"
    ]


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
    tuning.record(EMULATED_DEVICE, FPROP, entry(not_planned(FPROP), "torch"))
    explanation = explain(functional.conv2d, X, W, backend="emulator")
    forward = explanation.passes[0]
    assert forward.kernel == not_planned(FPROP)
    assert forward.why == "tuned: fastest of 2 measured on cpu (emulator), 2026-03-04"
    assert planned.passes[0].kernel in dict(forward.refused)
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
    assert "the lowest; the tuning table's kernel is ignored" in forward.why
