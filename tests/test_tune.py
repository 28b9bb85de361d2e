"""`cnnkernels tune`: its candidates, the table it fills, and going on after whatever stopped it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from tuned import CONV, FPROP, POOL

from cnnkernels import _C, catalogue, functional, geometry, trace, tuning
from cnnkernels.bench import suites
from cnnkernels.bench import tune as engine
from cnnkernels.bench.layer import Layer
from cnnkernels.bench.operands import Case, make_operands
from cnnkernels.bench.providers import forced
from cnnkernels.bench.tune import Candidate, Timing
from cnnkernels.tuning import EMULATED_DEVICE, Entry

# The package has the command under the same name as its module.
command = importlib.import_module("cnnkernels.cli.tune")


@pytest.fixture(autouse=True)
def directory(tuning_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delitem(engine._OPERATORS, "adaptive_avg_pool2d")  # which stands for a layer without kernels of ours
    return tuning_directory


LINES = (
    suites.Entry("net", "conv", 1, CONV),
    suites.Entry("net", "again", 1, CONV),
    suites.Entry("net", "pool", 1, POOL),
    suites.Entry("net", "gap", 1, Layer("adaptive_avg_pool2d", 2, 3, 9, 9, output=(1, 1))),
)


class Stopwatch:
    """Stands in for the measuring engine: the last of our kernels is the fastest. Can be interrupted, or fail some."""

    def __init__(self) -> None:
        self.measured: list[str] = []
        self.stop_after = 10**6
        self.fail: Callable[[Candidate], bool] = lambda candidate: False

    def __call__(
        self, layer: Layer, name: str, dtype: str, layout: str, candidates: Sequence[Candidate]
    ) -> list[Timing]:
        if len(self.measured) == self.stop_after:
            raise KeyboardInterrupt
        self.measured.append(f"{layer.op} {name} {dtype} {layout}")
        return [
            Timing(candidate, None, "the gate refused it")
            if self.fail(candidate)
            else Timing(candidate, 100.0 / (place + 1) if candidate.kernel else 1000.0)
            for place, candidate in enumerate(candidates)
        ]


@pytest.fixture
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> Stopwatch:
    watch = Stopwatch()
    monkeypatch.setattr(command, "_measure", lambda: watch)
    monkeypatch.setattr(suites, "load", lambda name: suites.Suite(name, "", "", LINES))
    return watch


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command.tune, ["--backend", "emulator", *arguments], catch_exceptions=False)


SUITE = ("--suite", "net", "--layout", "nchw")


def test_every_kernel_that_can_is_a_candidate() -> None:
    work, left_out = engine.tasks(LINES, "emulator", ["f32", "f64"], ["nchw", "channels_last"])
    assert left_out == {"net gap": "adaptive_avg_pool2d has no kernels of ours"}
    assert len(work) == 2 * 2 * (3 + 2) == len({task.problem for task in work})
    for task in work:
        dtype = {torch.float32: "f32", torch.float64: "f64"}[task.problem.dtype]
        names = [
            row["name"] for row in _C.catalogue() if row["dtype"] == dtype and task.problem.pass_name in row["passes"]
        ]
        ours = [candidate.name for candidate in task.candidates[:-1]]
        assert sorted([*ours, *task.refused]) == sorted(f"emulator/{name}" for name in names)
        assert ours and task.candidates[-1].name == "torch"


def test_fp32_as_a_gpu_multiplies_it() -> None:
    """A call on a GPU asks the table for a problem in tf32, unless torch's switch is off: that is what has to be tuned."""
    work, _ = engine.tasks(LINES, "cuda", ["tf32", "f32"], ["nchw"])
    assert [task.dtype for task in work] == ["tf32"] * 3 + ["f32"] * 3 + ["tf32"] * 2, "a pooling multiplies nothing"
    for task in work:
        known = {candidate.name for candidate in task.candidates} | set(task.refused)
        in_tf32 = task.dtype == "tf32" and not task.layer.is_pooling
        assert task.problem.allow_tf32 == any(name.endswith("_tf32") for name in known) == in_tf32, task.title
        assert any(name.endswith("_f32") for name in known), "which are as right"
    assert "fp32 is multiplied as tf32 on a GPU alone" in run(*SUITE, "--dtype", "tf32").output


def test_kernels_that_the_plan_refuses_are_no_candidates() -> None:
    large = FPROP._replace(N=1, image=(2**16, 2**15), output=(2**16 - 2, 2**15 - 2))  # of an image no batch is smaller
    candidates, refused = engine.candidates_for(large, "cuda")
    compiled = [c.name for c in candidates if c.backend != "triton"]
    assert len(compiled) > 1 and all(name.endswith(("_i64", "torch")) for name in compiled)
    assert "an index or offset does not fit in 31 bits" in refused.values() and all(refused.values())


def test_tune_fills_the_table_and_goes_on(stopwatch: Stopwatch, directory: Path) -> None:
    result = run(*SUITE)
    assert result.exit_code == 0, result.output
    assert "5 problems on cpu (emulator), 0 of them" in result.output
    assert "These are not GPU times" in result.output
    assert "left out net gap: adaptive_avg_pool2d has no kernels of ours" in result.output
    assert "5 kept in" in result.output
    assert len(stopwatch.measured) == 5
    entries = tuning.load(EMULATED_DEVICE)
    assert len(entries) == 5
    for problem, found in entries.items():
        *ours, torch_ = engine.candidates_for(problem, "emulator")[0]
        assert (found.backend, found.kernel) == ("emulator", ours[-1].kernel)
        assert found.candidates[torch_.name] == 1000 and found.torch == torch.__version__
        assert set(found.candidates) == {"torch", *(candidate.name for candidate in ours)}
    assert "5 of them in the table already" in run(*SUITE).output
    assert len(stopwatch.measured) == 5
    assert run(*SUITE, "--retune", "--layer", "pool").exit_code == 0
    assert stopwatch.measured[5:] == ["max_pool2d forward f32 nchw", "max_pool2d backward f32 nchw"]
    run(*SUITE, "--dtype", "f64", "--layer", "conv", "--batch", "1")
    assert stopwatch.measured[7:] == [f"conv2d {name} f64 nchw" for name in ("fprop", "dgrad", "wgrad")]
    assert len(tuning.load(EMULATED_DEVICE)) == 8


def test_kernels_compiled_since_are_measured_too(stopwatch: Stopwatch) -> None:
    run(*SUITE)
    found = tuning.load(EMULATED_DEVICE)[FPROP]
    older = dict(list(found.candidates.items())[1:])
    tuning.record(EMULATED_DEVICE, FPROP, Entry("torch", "", older, found.measured))
    run(*SUITE)
    assert stopwatch.measured[5:] == ["conv2d fprop f32 nchw"]
    assert tuning.load(EMULATED_DEVICE)[FPROP].candidates == found.candidates


def test_ctrl_c_keeps_what_was_measured(stopwatch: Stopwatch) -> None:
    stopwatch.stop_after = 2
    result = run(*SUITE)
    assert result.exit_code == 130
    assert "2 kept in" in result.output and "interrupted: 3 are left" in result.output
    assert len(tuning.load(EMULATED_DEVICE)) == 2
    stopwatch.stop_after = 10**6
    assert run(*SUITE).exit_code == 0
    assert len(stopwatch.measured) == len(set(stopwatch.measured)) == 5


def test_the_budget_ends_it(stopwatch: Stopwatch) -> None:
    result = run(*SUITE, "--budget", "0")
    assert result.exit_code == 0
    assert "--budget is over: 5 are left" in result.output
    assert stopwatch.measured == []


def test_a_candidate_that_the_gate_refuses_wins_nothing(stopwatch: Stopwatch) -> None:
    fastest = engine.candidates_for(FPROP, "emulator")[0][-2]
    stopwatch.fail = lambda candidate: candidate == fastest
    result = run(*SUITE)
    assert result.exit_code == 0
    assert f"no time {fastest.name}: the gate refused it" in result.output
    found = tuning.load(EMULATED_DEVICE)[FPROP]
    assert found.refused[fastest.name] == "the gate refused it" and fastest.name not in found.candidates
    assert found.kernel != fastest.kernel
    assert "5 of them in the table already" in run(*SUITE).output


def test_a_problem_without_any_time_is_not_recorded(stopwatch: Stopwatch) -> None:
    stopwatch.fail = lambda candidate: True
    result = run(*SUITE)
    assert result.exit_code == 1
    assert "no candidate has a time" in result.output and "0 kept in" in result.output
    assert tuning.tables() == []


def test_json_and_show(stopwatch: Stopwatch) -> None:
    assert "no tables: neither in" in run("--show").output
    report = json.loads(CliRunner().invoke(command.tune, [*SUITE, "--backend", "emulator", "--json"]).stdout)
    assert (report["device"], report["kept"], report["left"]) == (EMULATED_DEVICE, 5, 0)
    assert {item["key"] for item in report["entries"]} == {problem.key for problem in tuning.load(EMULATED_DEVICE)}
    broken = tuning.user_directory() / "nvidia-h200.json"
    broken.write_text("[")
    (table, ignored) = json.loads(run("--show", "--json").stdout)
    assert table["entries"] == report["entries"]
    assert ignored["path"] == str(broken) and "cannot be read" in ignored["ignored"]
    shown = " ".join(run("--show").output.split())
    assert "cpu (emulator) (yours:" in shown and "nvidia-h200.json is ignored" in shown and "not GPU times" in shown
    for problem, found in tuning.load(EMULATED_DEVICE).items():
        assert problem.op in shown and found.measured[:10] in shown
    assert "max_pool2d" not in run("--show", "--layer", "conv2d").output


def test_tune_wants_something_to_tune(stopwatch: Stopwatch) -> None:
    assert "name the layers" in run().output
    assert "nothing is left to tune by --layer" in run(*SUITE, "--layer", "nothing").output


def test_a_model_is_tuned(stopwatch: Stopwatch) -> None:
    result = run("--model", "lenet5", "--batch", "1", "--layout", "nchw")
    assert result.exit_code == 0, result.output
    assert any(problem.C == 1 and problem.N == 1 for problem in tuning.load(EMULATED_DEVICE))


def test_it_measures() -> None:
    """With the real engine: what is measured fastest among ours is what then runs."""
    result = run("--suite", "lenet5", "--layer", "pool2", "--batch", "1", "--layout", "nchw")
    assert result.exit_code == 0, result.output
    entries = tuning.load(EMULATED_DEVICE)
    assert [problem.op for problem in entries] == ["max_pool2d", "max_pool2d_backward"]
    for problem, found in entries.items():
        candidates, refused = engine.candidates_for(problem, "emulator")
        assert set(found.candidates) == {candidate.name for candidate in candidates} and found.refused == refused
    x = torch.randn(1, 16, 10, 10, requires_grad=True)
    with trace() as launched:
        functional.max_pool2d(x, 2, backend="emulator").sum().backward()
    assert launched == [found.kernel for found in entries.values()]


@pytest.mark.triton
def test_a_triton_kernel_asks_torch_itself_about_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its operators have no argument for it, under whatever name they are called."""
    monkeypatch.setattr(geometry, "allows_tf32", lambda input: True)
    layer = Layer("conv2d", 1, 4, 5, 5, 4, 3, 3)
    problem = engine.problem_of(layer, "fprop", torch.float32, "nchw", tf32=True)
    rows = catalogue.kernels("triton")
    kernel = next(row["name"] for row in rows if row["dtype"] == "f32" and problem.pass_name in row["passes"])
    case = Case.named(layer, "fprop", "tf32")
    operands = make_operands(case, "nchw", torch.device("cpu"), torch.Generator().manual_seed(0))
    result = forced("triton", kernel).make_call(case, operands)()
    torch.testing.assert_close(result, layer.forward(operands.x, operands.w))
