"""`cnnkernels bench` and its store: what is printed, what is kept, what a kill costs, what --resume leaves out."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from cnnkernels.bench import measuring, runner, store, suites, whole_models
from cnnkernels.bench.flags import full_precision
from cnnkernels.bench.layer import Layer
from cnnkernels.bench.operands import Case, number_of_sets
from cnnkernels.cli import main
from tests.test_bench_gate import CPU, FEW, run_on

ROOT = Path(__file__).resolve().parent.parent
# The smallest of the published layers: two cases, quick on the emulator.
SMALL = ["--suite", "lenet5", "--layer", "pool2", "--batch", "2", "--samples", "3", "--metric", "time"]


def bench(results: Path, *arguments: str) -> Any:
    return CliRunner().invoke(main, ["bench", "--results", str(results), *arguments], catch_exceptions=False)


def start(results: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cnnkernels.cli", "bench", "--results", str(results), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)


def stored(results: Path) -> list[store.Results]:
    runs, problems = store.read_all(results)
    assert problems == []
    return runs


def test_a_run_is_printed_and_kept(tmp_path: Path) -> None:
    outcome = bench(tmp_path, *SMALL)
    assert outcome.exit_code == 0, outcome.output
    (results,) = stored(tmp_path)
    run, rows = results.run, results.rows
    assert results.path.parent.name == run.device["slug"] and run.device["type"] == "cpu" and not run.on_gpu
    assert len(run.library) == 12 and run.versions["torch"] == torch.__version__
    assert "not GPU times" in outcome.output and all("not a GPU time" in row.notices for row in rows if row.median_us)
    assert {row.name for row in rows} == {"forward", "backward"}
    assert {row.provider for row in rows if row.status == "ok"} == {"emulator", "torch-eager"}
    assert {row.layout for row in rows if row.provider == "emulator"} == {"nchw", "channels_last"}
    for row in rows:
        assert row.net == "lenet5" and row.layer == "pool2" and Layer.from_dict(row.problem).N == 2
        assert (row.median_us is not None) == (row.status == "ok"), "a number, or a reason"
        assert row.status == "ok" or row.reason
    ours = [row for row in rows if row.provider == "emulator"]
    assert all(row.kernels and row.kernels[0].startswith("pool2d_max") for row in ours)
    assert "x   " not in outcome.output, "no ratio is told of an emulator's time"


def test_json_is_one_document_with_the_rows(tmp_path: Path) -> None:
    outcome = bench(tmp_path, *SMALL, "--json")
    report = json.loads(outcome.stdout)
    assert report["run"]["device"]["type"] == "cpu" and len(report["rows"]) == len(stored(tmp_path)[0].rows)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--suite lenet5"),
        (["--suite", "lennet5"], "lenet5"),
        (["--suite", "lenet5", "--pass", "backwards"], "backward"),
        (["--suite", "lenet5", "--layer", "nothing"], "nothing is left"),
        (["--suite", "lenet5", "--provider", "nobody"], "nothing is left"),
        (["--suite", "lenet5", "--metric", "model"], "--model"),
        (["--model", "nosuchnet"], "nosuchnet"),
        (["--model", "lenet5", "--input", "1,32"], "C,H,W"),
    ],
)
def test_bad_arguments_say_what_to_do(tmp_path: Path, arguments: list[str], words: str) -> None:
    outcome = bench(tmp_path, *arguments)
    assert outcome.exit_code in (1, 2) and words in outcome.output
    assert not list(tmp_path.iterdir()), "nothing was measured"


def test_list_measures_nothing(tmp_path: Path) -> None:
    listing = bench(tmp_path, "--list")
    assert all(name in listing.output for name in suites.names())
    cases = bench(tmp_path, "--list", "--suite", "lenet5")
    assert cases.exit_code == 0 and "lenet5 conv1 wgrad" in cases.output
    assert not list(tmp_path.iterdir())


def test_a_killed_run_keeps_its_rows_and_resume_measures_the_rest(tmp_path: Path) -> None:
    arguments = ["--suite", "lenet5", "--batch", "4", "--samples", "3", "--metric", "time", "--layout", "nchw"]
    process = start(tmp_path, *arguments)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if sum(path.read_text().count('"row"') for path in tmp_path.glob("*/*.jsonl")) >= 8:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    (killed,) = stored(tmp_path)
    measured = {row.identity for row in killed.rows}
    assert len(measured) >= 8
    outcome = bench(tmp_path, *arguments, "--resume")
    assert outcome.exit_code == 0, outcome.output
    _, rest = stored(tmp_path)
    everything = measured | {row.identity for row in rest.rows}
    # What is measured again is at most the case that the kill fell into.
    assert len({row.case for row in killed.rows} & {row.case for row in rest.rows}) <= 1
    order = runner.Order(suites=(suites.load("lenet5").with_batch(4),), layouts=("nchw",))
    wanted = {identity for item in runner.items(order, CPU, measuring.Settings()) for identity in item.identities}
    assert everything == wanted
    again = bench(tmp_path, *arguments, "--resume")
    assert "13 of 13 measurements are stored already" in again.output and len(stored(tmp_path)) == 2


def small_work() -> list[runner.Item]:
    """Two cases, forward and backward of one layer."""
    suite = suites.load("lenet5").with_batch(2)
    order = runner.Order(suites=(replace(suite, entries=(suite.find("pool2"),)),))
    return runner.items(order, CPU, measuring.Settings(samples=3, seconds=0.1))


def test_tf32_is_a_dtype_of_its_own(tmp_path: Path) -> None:
    suite = suites.load("lenet5").with_batch(2)
    order = runner.Order(suites=(replace(suite, entries=(suite.find("conv2"),)),), dtypes=("tf32", "f32"))
    work = runner.items(order, torch.device("cuda"), measuring.Settings())
    assert [item.blank.dtype for item in work] == ["tf32"] * 3 + ["f32"] * 3
    assert len({identity for item in work for identity in item.identities}) == sum(len(item.entrants) for item in work)
    outcome = bench(tmp_path, *SMALL, "--dtype", "tf32")
    assert outcome.exit_code == 2 and "fp32 is multiplied as tf32 on a GPU alone" in outcome.output


def left(results: Path, run: store.Run) -> list[str]:
    return [item.blank.name for item in runner.left_over(small_work(), results, run)]


def test_another_build_or_another_setting_is_measured_anew(tmp_path: Path) -> None:
    bench(tmp_path, *SMALL)
    (results,) = stored(tmp_path)
    assert left(tmp_path, results.run) == []
    for change in (
        {"library": "0" * 12},
        {"versions": results.run.versions | {"torch": "9.9"}},
        {"settings": results.run.settings | {"samples": 7}},
        {"device": results.run.device | {"slug": "other"}},
    ):
        assert left(tmp_path, replace(results.run, **change)) == ["forward", "backward"], change


@pytest.mark.parametrize(
    ("status", "again"),
    [("ok", False), ("refused", False), ("unsupported", False), ("failed", True), ("unsteady", True)],
)
def test_failures_are_tried_again(tmp_path: Path, status: str, again: bool) -> None:
    run = run_on()
    with store.Writer(tmp_path, run) as writer:
        for item in small_work():
            for (provider, layout), its_status in zip(
                item.entrants, [status] + ["ok"] * (len(item.entrants) - 1), strict=True
            ):
                writer.add(replace(item.blank, provider=provider.name, role="ours", layout=layout, status=its_status))
    assert left(tmp_path, run) == (["forward", "backward"] if again else [])


def test_a_case_that_never_ended_comes_last(tmp_path: Path) -> None:
    """A kernel that hangs must not keep everything after it from being measured, run after run."""
    run = run_on()
    with store.Writer(tmp_path, run) as writer:
        writer.begin(small_work()[0].blank.case)
    assert left(tmp_path, run) == ["backward", "forward"]


def test_a_case_that_takes_everything_down_leaves_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> list[store.Row]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(measuring, "measure", broken)
    outcome = bench(tmp_path, *SMALL)
    assert outcome.exit_code == 1 and "illegal memory access" in outcome.output and "--resume" in outcome.output
    (results,) = stored(tmp_path)
    assert {(row.status, row.name) for row in results.rows} == {("failed", "forward")}
    assert all("illegal memory access" in row.reason for row in results.rows)
    monkeypatch.undo()
    outcome = bench(tmp_path, *SMALL, "--resume")
    assert outcome.output.index("pool2 backward") < outcome.output.index("pool2 forward")


def test_whoever_is_slow_leaves_and_the_others_go_on() -> None:
    class Timer:
        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        def sample(self) -> float:
            time.sleep(self.seconds)
            return self.seconds

    entrants = []
    for seconds in (0.0, 0.05):
        row = measuring.blank_row(Case(Layer("conv2d", 1, 1, 4, 4, 1, 3, 3), "fprop", torch.float32), FEW)
        one = measuring.Entrant(None, "nchw", row)  # type: ignore[arg-type]
        one.timer = Timer(seconds)  # type: ignore[assignment]
        entrants.append(one)
    measuring._take_turns(entrants, CPU, measuring.Settings(samples=40, seconds=0.2))
    quick, slow = entrants
    assert len(quick.times) == 40 and 3 <= len(slow.times) <= 5


def test_ctrl_c_tells_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = measuring.measure, []

    def interrupted(*arguments: Any) -> list[store.Row]:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(measuring, "measure", interrupted)
    outcome = CliRunner().invoke(main, ["bench", "--results", str(tmp_path), *SMALL])
    assert outcome.exit_code == 130 and "--resume" in outcome.output
    (results,) = stored(tmp_path)
    assert {row.name for row in results.rows} == {"forward"}


def test_two_runs_at_once_share_nothing(tmp_path: Path) -> None:
    processes = [start(tmp_path, *SMALL) for _ in range(2)]
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    one, other = stored(tmp_path)
    assert one.path != other.path
    assert {row.identity for row in one.rows} == {row.identity for row in other.rows}


def test_a_run_never_writes_into_anothers_file(tmp_path: Path) -> None:
    run = run_on()
    row = measuring.blank_row(Case(Layer("conv2d", 1, 1, 4, 4, 1, 3, 3), "fprop", torch.float32), FEW)
    with store.Writer(tmp_path, run) as writer:
        writer.add(row)
    with pytest.raises(FileExistsError):
        store.Writer(tmp_path, run)
    assert len(stored(tmp_path)[0].rows) == 1


def test_a_line_cut_short_costs_that_line_only(tmp_path: Path) -> None:
    row = measuring.blank_row(Case(Layer("conv2d", 1, 1, 4, 4, 1, 3, 3), "fprop", torch.float32), FEW)
    with store.Writer(tmp_path, run_on()) as writer:
        for provider in ("a", "b"):
            writer.add(replace(row, provider=provider, role="ours"))
    whole = writer.path.read_bytes()
    writer.path.write_bytes(whole[:-20])
    (results,), problems = store.read_all(tmp_path)
    assert [row.provider for row in results.rows] == ["a"] and len(problems) == 1 and ":3:" in problems[0]
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "foreign.jsonl").write_text('{"kind": "run", "format": 99}\n')
    assert len(store.read_all(tmp_path)[0]) == 1 and len(store.read_all(tmp_path)[1]) == 2


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    blank = measuring.blank_row(
        Case(Layer("conv2d", 1, 3, 4, 4, 2, 3, 2), "wgrad", torch.bfloat16), FEW, net="a", layer="b"
    )
    row = replace(
        blank, provider="cuda", role="ours", layout="nchw", median_us=1.5, p10_us=1.25, p90_us=2.0, samples=50, kernels=("k", "l"),
        notices=("n",), clocks={"sm_mhz_before": 1980.0}, error=1e-7, allowed=1e-6, time=store.now(),
    )  # fmt: skip
    with store.Writer(tmp_path, run_on()) as writer:
        writer.add(row)
    assert store.read(writer.path).rows == (row,)


def test_a_row_that_is_no_json_number_is_an_error(tmp_path: Path) -> None:
    row = measuring.blank_row(Case(Layer("conv2d", 1, 1, 4, 4, 1, 3, 3), "fprop", torch.float32), FEW)
    with store.Writer(tmp_path, run_on()) as writer, pytest.raises(ValueError, match="JSON"):
        writer.add(replace(row, median_us=float("nan")))


def test_a_budget_stops_between_cases(tmp_path: Path) -> None:
    outcome = bench(tmp_path, *SMALL, "--budget", "0")
    assert outcome.exit_code == 0 and "--resume" in outcome.output
    (results,) = stored(tmp_path)
    assert len({row.case for row in results.rows}) <= 1


def test_emulator_calls_that_would_take_minutes_are_said_to_be_skipped(tmp_path: Path) -> None:
    outcome = bench(
        tmp_path,
        "--suite",
        "lenet5",
        "--layer",
        "conv2",
        "--pass",
        "fprop",
        "--metric",
        "time",
        "--longest-call",
        "0.001",
    )
    skipped = [row for row in stored(tmp_path)[0].rows if row.status == "skipped"]
    assert {row.provider for row in skipped} == {"emulator"} and "--longest-call" in outcome.output


def test_a_model_is_measured_whole(tmp_path: Path) -> None:
    outcome = bench(tmp_path, "--model", "lenet5", "--batch", "2", "--metric", "model", "--samples", "3")
    assert outcome.exit_code == 0, outcome.output
    rows = {(row.provider, row.layout, row.name): row for row in stored(tmp_path)[0].rows}
    for step in whole_models.STEPS:
        ours, theirs = rows["emulator", "nchw", step], rows["torch-eager", "nchw", step]
        assert ours.status == theirs.status == "ok", (ours.reason, theirs.reason)
        assert ours.kernels and not theirs.kernels
        assert ours.error is not None and ours.allowed is not None and ours.error <= ours.allowed
    assert rows["cuda", "nchw", "inference"].status == "unsupported"


def test_the_gate_for_models_refuses_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose outputs are a thousandth off, one that remembers its output, and one that none of our kernels runs."""
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.ReLU())

    class Off(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.inner(x) * 1.001
            return result

    class Stale(Off):
        memory: torch.Tensor | None = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.memory is None:
                self.memory = self.inner(x)
            return self.memory.clone()

    def entrant(name: str, prepare: Any, role: str = "baseline") -> tuple[whole_models.ModelProvider, str]:
        return whole_models.ModelProvider(name, role, lambda device: None, prepare), "nchw"

    entrants = [
        entrant("off", Off), entrant("stale", Stale), entrant("torch-eager", lambda m: m), entrant("nothing", lambda m: m, "ours"),
    ]  # fmt: skip
    blank = whole_models.blank_model_row("net", (2, 2, 8, 8), "inference", "f32")
    rows = whole_models.measure_model(model, (2, 2, 8, 8), "inference", "f32", blank, CPU, FEW, run_on(), entrants)
    assert [row.provider for row in rows] == ["off", "stale", "torch-eager", "nothing"], "in their order"
    assert [row.status for row in rows] == ["refused", "refused", "ok", "refused"]
    assert "relative error" in rows[0].reason and "no kernel of ours" in rows[3].reason
    assert all((row.median_us is None) == (row.status != "ok") for row in rows)


def test_cold_means_three_caches_of_distinct_buffers() -> None:
    case = Case(Layer("conv2d", 8, 16, 28, 28, 16, 3, 3, padding=(1, 1)), "fprop", torch.float32)
    gpu, cache = torch.device("cuda"), 60 * 2**20
    sets = number_of_sets(case, gpu, cache, hot=False)
    assert sets * case.useful_bytes >= max(3 * cache, 256 * 2**20) > (sets - 1) * case.useful_bytes
    assert number_of_sets(case, gpu, cache, hot=True) == 1
    huge = Case(Layer("conv2d", 256, 64, 224, 224, 64, 3, 3, padding=(1, 1)), "fprop", torch.float32)
    assert number_of_sets(huge, gpu, cache, hot=False) == 1


def test_providers_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A B C, C B A, A B C: drift meets all alike."""
    order: list[str] = []

    class Timer:
        def __init__(self, calls: Any) -> None:
            self.name = calls[0]()

        def sample(self) -> float:
            order.append(self.name)
            return 1e-6

    def entrant(name: str) -> measuring.Entrant:
        row = measuring.blank_row(Case(Layer("conv2d", 1, 1, 4, 4, 1, 3, 3), "fprop", torch.float32), FEW)
        one = measuring.Entrant(None, "nchw", row)  # type: ignore[arg-type]
        one.timer = Timer([lambda: name])  # type: ignore[assignment]
        return one

    entrants = [entrant(name) for name in "ABC"]
    measuring._take_turns(entrants, CPU, measuring.Settings(samples=3, seconds=10))
    assert "".join(order) == "ABC" + "ABCCBAABC", "one round to warm up, then turns"
    assert all(len(one.times) == 3 for one in entrants)


@pytest.mark.parametrize("frozen", [False, True])
def test_settings_of_torch_are_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen: bool) -> None:
    """Also where torch's own tests have been imported, which freeze them."""

    def switches() -> list[Any]:
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        return [
            cudnn.benchmark, cudnn.deterministic, cudnn.conv.fp32_precision, matmul.fp32_precision,
            matmul.allow_fp16_reduced_precision_reduction, matmul.allow_bf16_reduced_precision_reduction,
        ]  # fmt: skip

    monkeypatch.setattr(torch.backends, "__allow_nonbracketed_mutation_flag", not frozen)
    before = switches()
    bench(tmp_path, *SMALL)
    assert switches() == before
    with full_precision():
        assert switches() == [True, False, "ieee", "ieee", False, False]
    assert switches() == before
    with full_precision(tf32=True):
        assert switches() == [True, False, "tf32", "tf32", False, False]
    assert switches() == before
