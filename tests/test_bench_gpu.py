"""What only runs on a GPU, as far as it can be tried without one: `make gpu`, and the timer's CUDA graphs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from cnnkernels import backends
from cnnkernels.bench import machine, measuring, store, timing
from cnnkernels.bench.layer import Layer
from cnnkernels.bench.operands import Case
from cnnkernels.bench.providers import providers
from tests.test_bench_gate import run_on

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def gpu() -> Any:
    spec = importlib.util.spec_from_file_location("benchmarks_gpu", ROOT / "benchmarks" / "gpu.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def invoke(gpu: Any, out: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """Run the parts of a test, for which nothing has to be built."""
    monkeypatch.setenv("OUT", str(out))
    monkeypatch.setattr(gpu, "build", lambda log, environment, rehearse: None)
    return CliRunner().invoke(gpu.main, ["--rehearse", *arguments])


def python(code: str, seconds: int = 60, **rest: Any) -> dict[str, Any]:
    return {"command": (sys.executable, "-c", code), "seconds": seconds, **rest}


def test_the_rehearsal_runs_the_real_commands(tmp_path: Path) -> None:
    """One part for all: the others differ in arguments. Results are in the store, and the log has what was printed."""
    process = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "models", "--rehearse"],
        env={"OUT": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    (results,), problems = store.read_all(tmp_path)
    assert not problems and {row.name for row in results.rows} == {"inference", "training"}
    assert "not GPU times" in (tmp_path / "gpu.log").read_text()
    assert json.loads((tmp_path / "gpu.json").read_text())["models"]["codes"] == [0]


def test_parts_fit_into_ten_minutes(gpu: Any, tmp_path: Path) -> None:
    everything = gpu.parts(tmp_path, False)
    assert list(everything) == ["tests", "bench", "models", "tune", "profile"]
    assert sum(step.seconds for steps in everything.values() for step in steps) <= 480, "and two minutes for a build"


def test_done_parts_are_left_out_and_a_failed_one_is_run_again(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Step = gpu.Step
    counted = tmp_path / "count"
    once = f"open({str(counted)!r}, 'a').write('x')"
    broken = {"first": (Step(**python(once)),), "second": (Step(**python("raise SystemExit(3)")),)}
    mended = broken | {"second": (Step(**python("print('mended')")),)}
    monkeypatch.setattr(gpu, "parts", lambda out, rehearse: broken)
    outcome = invoke(gpu, tmp_path, monkeypatch)
    assert outcome.exit_code == 1 and "second" in outcome.output
    monkeypatch.setattr(gpu, "parts", lambda out, rehearse: mended)
    outcome = invoke(gpu, tmp_path, monkeypatch)
    assert outcome.exit_code == 0 and "first: done already" in outcome.output and "mended" in outcome.output
    assert counted.read_text() == "x"
    invoke(gpu, tmp_path, monkeypatch, "first")
    assert counted.read_text() == "xx", "a part that is named runs whether it is done or not"
    monkeypatch.setattr(gpu, "fingerprint", lambda rehearse: "another build")
    invoke(gpu, tmp_path, monkeypatch)
    assert counted.read_text() == "xxx", "nothing is done for another build"


def test_a_step_that_runs_over_is_interrupted_and_may_store_what_it_has(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    code = (
        "import time\ntry:\n    print('under way', flush=True)\n    time.sleep(100)\n"
        f"except KeyboardInterrupt:\n    open({str(kept)!r}, 'w').write('kept')"
    )
    monkeypatch.setattr(gpu, "parts", lambda out, rehearse: {"slow": (gpu.Step(**python(code, seconds=3)),)})
    outcome = invoke(gpu, tmp_path, monkeypatch)
    assert outcome.exit_code == 1 and "over 3 s" in outcome.output
    assert kept.read_text() == "kept"
    assert json.loads((tmp_path / "gpu.json").read_text())["slow"]["codes"] == [124]


def test_what_is_missing_is_said(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that a machine may lack is left out, and that is kept; without a Python module the part has failed."""
    tool, module = (
        gpu.Step(("true",), 5, programs=("no-such-program",)),
        gpu.Step(("true",), 5, modules=("no_such_module",)),
    )
    monkeypatch.setattr(gpu, "parts", lambda out, rehearse: {"part": (tool,)})
    outcome = invoke(gpu, tmp_path, monkeypatch)
    assert outcome.exit_code == 0 and "no-such-program missing" in outcome.output
    assert "no-such-program" in json.loads((tmp_path / "gpu.json").read_text())["part"]["left_out"][0]
    monkeypatch.setattr(gpu, "parts", lambda out, rehearse: {"other": (module,), "part": (tool,)})
    outcome = invoke(gpu, tmp_path, monkeypatch)
    assert outcome.exit_code == 1 and "pip install no_such_module" in outcome.output
    outcome = invoke(gpu, tmp_path, monkeypatch, "nothing")
    assert outcome.exit_code == 2 and "part" in outcome.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: nothing to refuse")
def test_without_a_gpu_it_says_so(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUT", str(tmp_path))
    outcome = CliRunner().invoke(gpu.main, [])
    assert outcome.exit_code == 1 and "no CUDA device" in outcome.output and "--rehearse" in outcome.output


class Device:
    """CUDA graphs as far as the timer knows them: what is captured is replayed, and a call takes a microsecond."""

    def __init__(self) -> None:
        self.capturing: list[Callable[[], Any]] | None = None
        self.clock = 0.0
        self.launches = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        device = self

        class Graph:
            def __init__(self) -> None:
                self.work: list[Callable[[], Any]] = []

            def replay(self) -> None:
                for work in self.work:
                    work()

            def reset(self) -> None:
                self.work = []

        class capture:
            def __init__(self, graph: Graph, stream: object) -> None:
                self.graph = graph

            def __enter__(self) -> None:
                assert device.capturing is None
                device.capturing = self.graph.work

            def __exit__(self, *_: object) -> None:
                device.capturing = None

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at = device.clock

            def synchronize(self) -> None:
                pass

            def elapsed_time(self, other: Event) -> float:
                return (other.at - self.at) * 1e3

        stream = SimpleNamespace(synchronize=lambda: None)
        for name, stand_in in {
            "CUDAGraph": Graph, "graph": capture, "Event": Event, "Stream": lambda: stream, "current_device": lambda: 0, "_sleep": lambda cycles: None,
            "stream": lambda stream: torch.no_grad(),
        }.items():  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, stand_in)
        monkeypatch.setattr(timing, "_STREAMS", {})

    def launch(self, buffer: list[float], seconds: float = 1e-6) -> list[float]:
        """A kernel that doubles what is in its buffer; its result is a new list that a replay fills again."""
        result = [0.0]

        def kernel() -> None:
            self.clock += seconds
            self.launches += 1
            result[0] = 2 * buffer[0]

        if self.capturing is None:
            kernel()
        else:
            self.capturing.append(kernel)
        return result


def test_a_round_is_one_graph_of_calls_on_buffers_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    device.install(monkeypatch)
    buffers = [[float(number)] for number in range(5)]
    calls = [lambda buffer=buffer: device.launch(buffer) for buffer in buffers]
    with timing.make_timer(torch.device("cuda"), calls) as timer:
        assert isinstance(timer, timing.CudaTimer)
        assert timer.sample() == pytest.approx(1e-6), "seconds per call, not per round"
        # 5 us a round, and at least 1 ms a graph.
        assert timer.calls_per_round == 5 * 200
        before = device.launches
        timer.sample()
        assert device.launches - before == timer.calls_per_round
        for place, buffer in enumerate(buffers):
            buffer[0] = 10.0 + place
            assert timer.result(place) == [2 * buffer[0]], "what is timed computes, on what the buffers hold now"


def test_a_long_call_is_not_repeated_within_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    device.install(monkeypatch)
    with timing.make_timer(torch.device("cuda"), [lambda: device.launch([1.0], 2e-3)]) as timer:
        assert isinstance(timer, timing.CudaTimer)
        assert timer.calls_per_round == 1 and timer.sample() == pytest.approx(2e-3)


@pytest.mark.gpu
def test_a_case_on_a_real_gpu() -> None:
    """Everyone who can run on a GPU passes the gate on it, forward and backward, captured as graphs."""
    place, few = torch.device("cuda"), measuring.Settings(samples=5, seconds=0.2)
    run = run_on(machine.describe_device(place), floor_us=machine.measure_floor(place), limits=machine.limits(place))
    for layer in (
        Layer("conv2d", 8, 16, 28, 28, 32, 3, 3, padding=(1, 1)),
        Layer("max_pool2d", 8, 16, 28, 28, R=2, S=2, stride=(2, 2)),
    ):
        for name in layer.passes:
            case = Case(layer, name, torch.bfloat16)
            entrants = [(one, layout) for one in providers() for layout in one.layouts if one.name != "torch-compile"]
            rows = measuring.measure(case, measuring.blank_row(case, few), place, few, run, entrants)
            by_name = {(row.provider, row.layout): row for row in rows}
            for layout in ("nchw", "channels_last"):
                assert by_name["cuda", layout].status == "ok", by_name["cuda", layout].reason
                assert by_name["torch-eager", layout].status == "ok", by_name["torch-eager", layout].reason
            assert by_name["cuda", "nchw"].kernels and by_name["cuda", "nchw"].clocks


@pytest.mark.gpu
def test_a_gpus_own_figures() -> None:
    place = torch.device("cuda")
    assert backends.unavailable("cuda") is None
    described, limits = machine.describe_device(place), machine.limits(place)
    assert described["l2_bytes"] > 0 and described["driver"]
    assert machine.measure_ceilings(place)["bytes"] < limits["bytes"]
    assert 0 < machine.measure_floor(place) < 20
