"""`cnnkernels check`: every kernel of the catalogue is sound under every check, and what is not sound is said."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from cnnkernels import _C, ops
from cnnkernels.cli import main
from cnnkernels.testing import CONV2D_PROBLEMS, POOL2D_PROBLEMS, Pool2dProblem, check
from cnnkernels.testing.check_problems import CHECK_PROBLEMS
from cnnkernels.testing.operands import is_channels_last, make_operand
from cnnkernels.testing.verify import DTYPES, Order, Record, Selection, kernel_passes, verify

pytestmark = pytest.mark.checked_emulator

ROOT = Path(__file__).parent.parent
CLI = [sys.executable, "-m", "cnnkernels.cli", "check"]


def catalogue_of(dtype: str) -> set[tuple[str, str]]:
    """Kernels and their passes. Those of fp16 move the same bytes as those of bf16: `make sanitize` checks them, too."""
    return {
        (row["name"], name)
        for row in _C.catalogue()
        if row["dtype"] == dtype
        for name in (*row["passes"], *["fused"] * ("fprop" in row["passes"]))
    }


RACE = """\
#include "emulator/trial.h"

template <bool kFaulty>
__global__ void mirror(const float* x, float* y) {
  CNN_SHARED(tile, float[64]);
  tile[threadIdx.x] = x[threadIdx.x];
  if (!kFaulty) __syncthreads();
  y[threadIdx.x] = tile[63 - threadIdx.x];
}

template <bool kFaulty>
void run(cnn::emulator::Trial& trial) {
  const float* x = trial.input<float>("x", {64});
  cnn::launch("mirror", {dim3(1), dim3(64)}, mirror<kFaulty>, x, trial.output<float>("y", {64}));
}

CNN_TRIAL(without_barrier) { run<true>(trial); }
CNN_TRIAL(with_barrier) { run<false>(trial); }
CNN_TRIAL(with_a_wrong_result) { throw std::runtime_error("two and two are five"); }
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["check", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """What the command says of the kernels of fp64."""
    process = subprocess.run([*CLI, "--dtype", "f64", "--json"], capture_output=True, text=True, check=False)
    assert process.returncode in (0, 1), process.stderr
    found: dict[str, Any] = json.loads(process.stdout)
    assert process.returncode == (0 if found["passed"] else 1)
    return found


# Each order once: tests/test_testing.py has others for bf16.
@pytest.fixture(scope="module", params=[("f32", Order("random", 1)), ("bf16", Order("reverse"))], ids=["f32", "bf16"])
def records(request: pytest.FixtureRequest) -> list[Record]:
    """What is found in all kernels of a dtype, run in the order they are first run in and in one other."""
    dtype, order = request.param
    return check.check(dataclasses.replace(check.compact_selection(dtypes=(dtype,)), orders=(order,)))


def test_nothing_is_found_in_any_kernel(records: list[Record]) -> None:
    wrong = {record.subject.kernel: record.failures + record.findings for record in records}
    assert not {kernel: what for kernel, what in wrong.items() if what}


def test_every_kernel_is_reached_by_several_problems(records: list[Record]) -> None:
    dtype = records[0].subject.dtype
    assert {(record.subject.kernel, record.subject.name) for record in records} == catalogue_of(dtype)
    for record in records:
        assert record.problems >= 2, f"{record.subject}: {record.refused}"
        # An epilogue's threads share nothing.
        assert record.runs > 0 and record.schedule_runs == (0 if record.subject.name == "fused" else record.runs)


def test_the_command_checks_every_kernel_under_every_schedule(report: dict[str, Any]) -> None:
    wrong = {row["subject"]["kernel"]: row["failures"] + row["findings"] for row in report["kernels"]}
    assert not {kernel: what for kernel, what in wrong.items() if what}
    assert report["passed"]
    assert {(row["subject"]["kernel"], row["subject"]["name"]) for row in report["kernels"]} == catalogue_of("f64")
    assert {"forward", "reverse", "random 1"} <= set(report["schedules"])
    for row in report["kernels"]:
        assert row["problems"] >= 2, f"{row['subject']}: {row['refused']}"
        repeated = 0 if row["subject"]["name"] == "fused" else len(report["schedules"]) - 1
        assert row["schedule_runs"] == row["runs"] * repeated
        assert row["runs"] > 0


def test_problems_are_distinct_and_smaller_than_the_long_list() -> None:
    assert len({str(problem) for problem in CHECK_PROBLEMS}) == len(CHECK_PROBLEMS)
    assert len(CHECK_PROBLEMS) < len(CONV2D_PROBLEMS) + len(POOL2D_PROBLEMS)


@pytest.mark.parametrize("vector", [2, 4, 8])
@pytest.mark.parametrize("name", ["max", "max_backward", "avg", "avg_backward"])
def test_each_condition_of_a_vector_of_channels_is_broken_alone(name: str, vector: int) -> None:
    """A kernel that forgets to ask for one of them reads a misaligned vector in one of the problems."""
    broken = set()
    for problem in CHECK_PROBLEMS:
        if not isinstance(problem, Pool2dProblem) or not problem.suits(name) or not is_channels_last(problem.layout):
            continue
        size = problem.output_size if name.endswith("backward") else (problem.H, problem.W)
        read = make_operand(
            (problem.N, problem.C, *size), torch.float16, torch.Generator().manual_seed(0), layout=problem.layout
        )
        image, _, row, pixel = read.stride()
        numbers = {"C": problem.C, "base": read.storage_offset(), "image": image, "row": row, "pixel": pixel}
        broken.add(" ".join(what for what, number in numbers.items() if number % vector))
    assert broken >= {"base", "image", "row", "pixel"}


def test_every_staged_kernel_fills_shared_memory_again() -> None:
    staged = [row for row in _C.catalogue() if "_staged_" in row["name"]]
    assert staged
    for row in staged:
        problems = [one for one in CHECK_PROBLEMS if isinstance(one, Pool2dProblem) and one.suits(row["passes"][0])]
        assert any(fills_again(row, problem) for problem in problems if problem.N), row["name"]


def fills_again(row: dict[str, Any], problem: Pool2dProblem) -> bool:
    """Whether some tile of this kernel's has windows over more than its shared memory holds."""
    (name,), (P, Q) = row["passes"], problem.output_size
    sizes = {"N": problem.N, "C": problem.C, "H": problem.H, "W": problem.W, "P": P, "Q": Q}
    sizes |= dict(zip("RS", problem.window, strict=True))
    geometry = (problem.steps, problem.padding, problem.dilation)
    channels_last = is_channels_last(problem.layout)
    plan = _C.plan_pool2d(name, row["dtype"], sizes, *geometry, channels_last, row["name"], problem.indices)
    # The least that a value takes: a gradient is divided in fp32, or has its index beside it.
    item = DTYPES[row["dtype"]].itemsize
    value = {"avg_backward": max(4, item), "max_backward": item + 4}.get(name, item)
    planes, *tile = plan["tile"]
    region = min(planes, problem.N * problem.C)
    for axis, (image, outputs) in enumerate(((problem.H, P), (problem.W, Q))):
        taps = problem.window[axis]
        stride, pad, dilation = (pair[axis] for pair in geometry)
        first = [output * stride - pad for output in range(outputs)]
        windows = [range(max(0, one), min(image, one + (taps - 1) * dilation + 1)) for one in first]
        if name.endswith("backward"):
            tiles = [range(one, one + tile[axis]) for one in range(0, image, tile[axis])]
            region *= max(
                sum(one.start < window.stop and window.start < one.stop for window in windows) for one in tiles
            )
        else:
            spans = [windows[one : one + tile[axis]] for one in range(0, outputs, tile[axis])]
            region *= max(span[-1].stop - span[0].start for span in spans)
    return region * value > plan["shared_bytes"]


def test_a_kernel_that_no_problem_reaches_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    new = {"name": "conv2d_winograd_f32", "family": "winograd", "dtype": "f32", "passes": ["fprop_winograd"]}
    rows = [*_C.catalogue(), new]
    monkeypatch.setattr(_C, "catalogue", lambda: rows)
    result = run("--kernel", "winograd")
    assert result.exit_code == 1
    text = " ".join(result.stdout.split())
    assert "conv2d_winograd_f32, fprop_winograd no problem reaches it: " in text
    assert "add one that it takes to CHECK_PROBLEMS in cnnkernels/testing/check_problems.py" in text
    assert "1 failed" in text


def test_a_kernel_that_launches_nothing_is_not_reached() -> None:
    empty = tuple(problem for problem in CHECK_PROBLEMS if problem.N == 0)
    (record,) = verify(Selection(passes=("avg",), kernel="avg_staged_4x256_bf16_i64", problems=empty))
    assert record.runs
    assert not record.failures
    assert not record.passed


WORKER = """\
import os, sys
from multiprocessing.connection import Connection
from cnnkernels import ops
from cnnkernels.testing import check

original = ops.conv2d_bias_grad

def spoilt(grad_output, kernel):
    if kernel.endswith("_i64") and grad_output.shape[0] == 2:
        {fault}
    return original(grad_output, kernel)

ops.conv2d_bias_grad = spoilt
check.work(Connection(int(sys.argv[1])))
"""


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("print('first the tables,'); print('then the chairs', flush=True); os.abort()", "was ended by SIGABRT: then"),
        ("raise ValueError('no such luck')", "exited with 1: ValueError: no such luck"),
        ("import signal, time; signal.alarm(1); time.sleep(60)", "did not end within 120 seconds"),
    ],
)
def test_a_dying_process_is_reported_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str, told: str
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER.format(fault=fault))
    monkeypatch.setattr(check, "COMMAND", (sys.executable, str(script)))
    few = tuple(one for one in CHECK_PROBLEMS if str(one).startswith(("n1 c3 7x7", "n2 c2 3x3", "n1 c1 1x1 k")))
    assert [problem.N for problem in few] == [1, 2, 1]
    selection = dataclasses.replace(check.compact_selection(kernel="bias_grad_f32"), problems=few)
    sound, dying = check.check(selection, workers=1)
    assert sound.passed
    assert sound.problems == dying.problems == 3
    assert sound.schedule_runs == 3 * len(check.ORDERS)
    (failure,) = dying.failures
    assert failure.startswith("n2 c2 3x3 k3 3x3 pad 5x4, normal values: its process ")
    assert told in failure


def test_a_process_that_does_not_begin_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "COMMAND", (sys.executable, "-c", "import sys; sys.exit('no emulator today')"))
    result = run("--kernel", "bias_grad_f32")
    assert result.exit_code == 1
    assert "Error: the checked emulator's process exited with 1: no emulator today" in result.stderr


def test_ctrl_c_ends_every_process() -> None:
    process = subprocess.Popen([*CLI, "--jobs", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        children: list[str] = []
        while len(children) < 2:
            assert process.poll() is None
            time.sleep(0.1)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.splitlines() == ["interrupted"]
    # One that was killed is there until it has been reaped: after its parent's end by another process, when that gets to it.
    left = [Path(f"/proc/{child}") for child in children]
    for _ in range(300):
        left = [child for child in left if child.exists()]
        if not left:
            break
        time.sleep(0.1)
    assert not left


def finding(**changes: Any) -> dict[str, Any]:
    other = {"file": __file__, "line": 1, "function": "f", "block": [0, 0, 0], "thread": [7, 0, 0], "access": "read"}
    return {
        "kind": "race",
        "kernel": "mirror",
        "text": "kernel 'mirror', block (0,0,0), thread (1,0,0) at mirror.cuh:3: race on 'tile' + 4 bytes: ...",
        "file": __file__,
        "line": 3,
        "function": "f",
        "block": [0, 0, 0],
        "thread": [1, 0, 0],
        "place": "'tile' + 4 bytes",
        "access": "write",
        "other": other,
        "count": 60,
        "problem": "n1 c8 8x16",
        "values": "normal",
        "schedule": "forward",
    } | changes


def test_what_one_line_does_in_many_runs_is_one_paragraph(monkeypatch: pytest.MonkeyPatch) -> None:
    subjects = kernel_passes(check.compact_selection(passes=("bias_grad",)))[:5]
    records = [
        Record(subject, problems=2, runs=2, findings=[finding(), finding(schedule="reverse")]) for subject in subjects
    ]
    records[1].findings.append(finding(kind="out of bounds", other=None, count=1))
    records[2].failures.append("n1 c8 8x16, normal values: off by 1")
    monkeypatch.setattr(check, "check", lambda *_: records)
    result = run("--op", "bias_grad")
    assert result.exit_code == 1
    text = " ".join(result.stdout.split())
    assert "race at tests/test_check.py:3 kernel 'mirror'" in text or f"race at {__file__}:3 kernel 'mirror'" in text
    assert text.count("thread (1,0,0) of block (0,0,0) writes from __future__ import annotations") == 2
    assert 'thread (7,0,0) of block (0,0,0) reads """`cnnkernels check`' in text
    assert "600 times in 10 runs, the first of them on n1 c8 8x16, normal values, schedule forward" in text
    names = "; ".join(f"{subject.kernel}, bias_grad" for subject in subjects[:3])
    assert f"by {names}; and 2 more" in text
    assert "once, the first of them on" in text
    assert f"{subjects[2].kernel}, bias_grad n1 c8 8x16, normal values: off by 1" in text
    assert "5 failed, 2 findings" in text


def test_findings_are_kept_with_their_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """By `verify` too, whose fast emulator sees a divergent barrier as well."""
    (path,) = ops.LIBRARY_DIRECTORY.glob("_emulator_kernels*.so")
    spec = importlib.util.spec_from_file_location("_emulator_kernels", path)
    assert spec is not None
    assert spec.loader is not None
    kernels = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kernels)
    original = ops.conv2d_bias_grad

    def diverging_in_reverse(*arguments: Any) -> Tensor:
        if _C.emulator_config()["schedule"] == "reverse":
            kernels.run("divergent_barrier", 64)
        return original(*arguments)

    monkeypatch.setattr(ops, "conv2d_bias_grad", diverging_in_reverse)
    selection = check.compact_selection(kernel="conv2d_bias_grad_f32_i64")
    problem = next(problem for problem in selection.problems if problem.suits("bias_grad"))
    (record,) = verify(dataclasses.replace(selection, problems=(problem,)))
    (found,) = record.findings
    assert found["kind"] == "divergent barrier"
    assert (found["problem"], found["values"], found["schedule"]) == (str(problem), "normal", "reverse")
    assert not record.failures
    assert not record.passed


def test_trials_are_checked_and_what_is_found_is_shown(tmp_path: Path) -> None:
    source = tmp_path / "mirror.cu"
    source.write_text(RACE)
    result = run(source)
    assert result.exit_code == 1
    text = " ".join(result.stdout.split())
    assert f"failed {source}:without_barrier" in text
    assert f"pass {source}:with_barrier" in text
    assert "race on 'tile'" in text
    assert "times in 3 runs, the first of them on schedule forward" in text
    for line, code in ((6, "tile[threadIdx.x] = x[threadIdx.x];"), (8, "y[threadIdx.x] = tile[63 - threadIdx.x];")):
        assert f"mirror.cu:{line}: thread" in text
        assert code in text
    assert "schedule reverse: two and two are five" in text
    assert "3 trials, each under 3 schedules" in text


def test_the_documented_example_prints_what_is_documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "emulator.md").read_text()
    (source,) = re.findall(r"```cpp\n(// reverse\.cu\n.*?)```", page, re.DOTALL)
    (shown,) = re.findall(r"```\n\$ cnnkernels check reverse\.cu\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    Path("reverse.cu").write_text(source)
    assert [line.rstrip() for line in run("reverse.cu").stdout.splitlines()] == shown.splitlines()


def test_the_documentation_names_every_kind_of_finding() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "csrc" / "emulator").rglob("*.cpp"))
    kinds = set(re.findall(r'kind = "([a-z ]+)"|finding\(thread, "([a-z ]+)"', sources))
    documented = re.findall(r"^\| `([a-z ]+)` \|", (ROOT / "docs" / "emulator.md").read_text(), re.MULTILINE)
    assert {first or second for first, second in kinds} <= set(documented)


def test_one_trial_can_be_named_and_printed_as_json(tmp_path: Path) -> None:
    source = tmp_path / "mirror.cu"
    source.write_text(RACE)
    assert run(f"{source}:with_barrier").exit_code == 0
    result = run(f"{source}:without_barrier", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert not report["passed"]
    assert [trial["schedule"] for trial in report["trials"]] == ["forward", "reverse", "random"]
    for trial in report["trials"]:
        assert trial["name"] == "without_barrier"
        assert {found["kind"] for found in trial["findings"]} == {"race"}
        assert {frozenset((found["line"], found["other"]["line"])) for found in trial["findings"]} == {
            frozenset((6, 8))
        }
    missing = run(f"{source}:with_two_barriers")
    assert missing.exit_code == 1
    assert "no trial with_two_barriers in mirror" in missing.stderr


def test_what_cannot_be_checked_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "no compiled kernel is left by --op, --dtype and --kernel" in run("--kernel", "no-such-kernel").stderr
    assert f"{tmp_path / 'none.cu'} is missing" in run(tmp_path / "none.cu").stderr
    assert run("some.cu", "--kernel", "gather").exit_code == 2
    monkeypatch.setattr(ops, "CHECKED_EMULATOR_LIBRARY", tmp_path / "libcnnkernels_emulator_checked.so")
    result = run()
    assert result.exit_code == 1
    assert "libcnnkernels_emulator_checked.so, is missing: build it with `make build`" in result.stderr
