"""`cnnkernels profile`: what it is asked for, the passes it runs, and what it says of them in the checked emulator."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from rich.console import Console

import cnnkernels
from cnnkernels import ops, trace
from cnnkernels.bench import suites
from cnnkernels.cli import main
from cnnkernels.profile import passes
from cnnkernels.profile import run as running
from cnnkernels.profile.subject import Problem, Trials, parse_problem, parse_subject
from cnnkernels.testing.problems import CONV2D_PROBLEMS, POOL2D_PROBLEMS

ROOT = Path(cnnkernels.__file__).resolve().parent.parent

checked = pytest.mark.checked_emulator


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["profile", *map(str, arguments)], catch_exceptions=False)


# --- The subject.


def test_every_problem_that_the_project_prints_is_read() -> None:
    for entry in suites.load(suites.ALL).entries:
        assert parse_problem(str(entry.problem)) == (entry.problem, "")
    beyond_a_layer = (
        "sliced",
        "channels_last_",
        "expanded",
        "permuted",
        "divisor",
        "n0",
        "same",
        "reflect",
        "replicate",
        "circular",
        "indices",
    )
    for problem in (*CONV2D_PROBLEMS, *POOL2D_PROBLEMS):
        if not any(word in str(problem) for word in beyond_a_layer):
            layer, layout = parse_problem(str(problem))
            assert layer.output_size == problem.output_size, problem
            assert layout == ("channels_last" if problem.layout == "channels_last" else "")


def test_attributes_in_any_order_and_short_names() -> None:
    layer, _ = parse_problem("n1 c64 56x56 k64 3x3 pad 1 stride 2 groups 4 dilation 2")
    assert str(layer) == "conv2d n1 c64 56x56 k64 3x3 stride 2 pad 1 dilation 2 groups 4"
    assert parse_problem("c64 3x3 k8 1x1")[0].N == 1
    assert (
        str(parse_problem("max n1 c64 112x112 3x3 stride 2 pad 1")[0]) == "max_pool2d n1 c64 112x112 3x3 stride 2 pad 1"
    )
    assert parse_problem("n1 c6 28x28 window 2")[0].stride == (2, 2)
    assert parse_problem("n1 c4 15x15 k4 3x3 same dilation 4")[0].padding == (4, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n1 c64 56x56 k64 3x3 padding 1", "'padding' means nothing here; a problem is written as"),
        ("n1 c64 56x56 k64 3x3 pad", "pad is a number or HEIGHTxWIDTH, not ''"),
        ("n1 c64 56x56 k64 3x3 pad 1 pad 1", "pad is given twice"),
        ("n1 c64 56x56 3x3", "kK is missing"),
        ("n1 c64 56x56 k64", "two sizes are wanted, the image's and the filter's"),
        ("max n1 c64 56x56 k64 3x3", "a pooling has no filters"),
        ("c3 8x8 k4 9x9", "Kernel size can't be greater than actual input size"),
        ("n0 c3 8x8 k4 3x3", "nothing to launch"),
        ("l1.3x", "did you mean resnet50:l1.3x3"),
        ("stem", "several nets have a layer 'stem': mobilenet_v2:stem or resnet50:stem"),
        ("resnet50", "resnet50 is a suite: name one of its layers, as resnet50:stem"),
        ("resnet50:l9", "suite 'resnet50' has no layer 'l9'"),
        ("resnet5:stem", "no suite is called 'resnet5': did you mean resnet50"),
        ("missing.cu", "missing.cu: there is no such file"),
        ("missing.cu:copy", "missing.cu: there is no such file"),
    ],
)
def test_a_subject_that_is_none_says_what_was_meant(text: str, message: str) -> None:
    result = run(text)
    assert result.exit_code == 1
    assert message in " ".join(result.stderr.split())


def test_subjects(tmp_path: Path) -> None:
    layer = parse_subject("resnet50:l1.3x3")
    assert isinstance(layer, Problem)
    assert (layer.layer.N, layer.name) == (1, "resnet50:l1.3x3")
    assert parse_subject("l1.3x3") == layer
    several = parse_subject("n4 c3 8x8 k4 3x3")
    assert isinstance(several, Problem)
    assert several.layer.N == 4
    assert parse_subject("n4 c3 8x8 k4 3x3", batch=2) == replace(several, layer=several.layer.with_batch(2))
    file = tmp_path / "copies.cu"
    file.touch()
    assert parse_subject(str(file)) == Trials(file)
    assert parse_subject(f"{file}:copy_coalesced") == Trials(file, "copy_coalesced")


# --- Passes.


@pytest.mark.parametrize(
    "text",
    [
        "n1 c6 14x14 k16 5x5 pad 2",
        "conv_transpose2d n2 c6 7x8 k4 3x3 stride 2 pad 1 output pad 1 groups 2",
        "max n1 c6 28x28 3x3 stride 2 pad 1 ceil",
        "avg n1 c6 28x28 2x2 stride 2",
    ],
)
def test_a_pass_launches_its_own_kernels_and_no_others(text: str) -> None:
    layer, _ = parse_problem(text)
    for name in passes.passes_of(layer):
        for layout in ("nchw", "channels_last"):
            with trace() as launched:
                passes.run_pass(layer, name, torch.float64, layout)  # the direct kernels, whose names say what they do
            operator = passes.operator_pass(layer, name)
            wanted = {"fprop": "gather", "dgrad": "gather"}.get(operator, operator)
            assert wanted in launched[0]
            assert launched[1:] in ([], ["conv2d_sum_slabs_f64"])


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize(
    "text",
    [
        "n2 c4 9x8 k6 3x2 pad 1 stride 2x1 groups 2",
        "conv_transpose2d n2 c6 7x8 k4 3x3 stride 2 pad 1 output pad 1 groups 2",
        "max n1 c6 13x14 3x3 stride 2 pad 1",
        "avg n1 c6 13x14 3x2 stride 2x3 pad 1",
    ],
)
def test_a_pass_computes_what_torch_computes(text: str, layout: str) -> None:
    layer, _ = parse_problem(text)
    for name in passes.passes_of(layer):
        o = passes.operands(layer, name, torch.float64, layout)
        leaves = [tensor.requires_grad_() for tensor in (o.x, o.w) if tensor is not None]
        output = layer.forward(o.x, o.w)
        expected = output
        if o.dy is not None:
            gradients = torch.autograd.grad(output, leaves, o.dy)
            expected = o.dy.sum((0, 2, 3)) if name == passes.BIAS_GRAD else gradients[name == "wgrad"]
        result = passes.run_pass(layer, name, torch.float64, layout)
        torch.testing.assert_close(result[0] if isinstance(result, tuple) else result, expected.detach())


def test_a_transposed_convolution_is_a_dgrad() -> None:
    layer, _ = parse_problem("conv_transpose2d c6 7x8 k4 3x3")
    assert [passes.operator_pass(layer, name) for name in ("fprop", "dgrad", "wgrad")] == ["dgrad", "fprop", "wgrad"]


def test_a_kernel_is_forced_by_name() -> None:
    layer, _ = parse_problem("n1 c6 14x14 k16 5x5")
    with trace() as launched:
        passes.run_pass(layer, "fprop", torch.float32, "nchw", "conv2d_gather_128x8x16_f32")
    assert launched == ["conv2d_gather_128x8x16_f32"]


def test_large_problems_are_sampled() -> None:
    small, _ = parse_problem("n1 c64 56x56 k64 3x3 pad 1")
    large, _ = parse_problem("n1 c512 256x256 k512 3x3 pad 1")
    assert passes.sample_for(small, "fprop") == 1
    every = passes.sample_for(large, "fprop")
    assert every > 10
    assert passes.expected_seconds(large, "fprop", every) <= passes.LONGEST_PASS


def test_useful_work_of_a_pass() -> None:
    layer, _ = parse_problem("n1 c64 56x56 k64 1x1")
    found = passes.useful(layer, "fprop", torch.float32)
    assert found == passes.Useful(64 * 64 * 56 * 56, 4 * (2 * 64 * 56 * 56 + 64 * 64))
    assert passes.useful(layer, "bias_grad", torch.bfloat16) == passes.Useful(0, 2 * (64 * 56 * 56 + 64))


def test_useful_bytes_of_a_pooling_say_how_they_count_indices() -> None:
    pools = {op: parse_problem(f"{op} n1 c64 56x56 2x2 stride 2")[0] for op in ("max", "avg")}
    found = {
        (op, name): passes.useful(pools[op], name, torch.float32) for op in pools for name in ("forward", "backward")
    }
    image, windows = 64 * 56 * 56, 64 * 28 * 28
    assert found == {
        ("max", "forward"): passes.Useful(0, 4 * (image + windows), "without indices"),
        ("max", "backward"): passes.Useful(0, 4 * (image + windows) + windows, "with indices of a byte"),
        ("avg", "forward"): passes.Useful(0, 4 * (image + windows)),
        ("avg", "backward"): passes.Useful(0, 4 * (image + windows)),
    }


# --- The command.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["n1 c3 8x8 k4 3x3", "--pass", "forward"], "conv2d has no forward: fprop, dgrad, wgrad, bias_grad"),
        (["n1 c3 8x8 k4 3x3", "--kernel", "conv2d_gather_128x64x8"], "did you mean conv2d_gather_128x64x8_f"),
        (
            ["n1 c3 8x8 k4 3x3", "--kernel", "foo"],
            "no kernel is called 'foo'; `cnnkernels info --kernels` lists them",
        ),
        (
            ["max n1 c3 8x8 2x2", "--kernel", "conv2d_gather_128x8x16_f32"],
            "computes fprop and dgrad, no pass of this problem",
        ),
        (["n1 c3 8x8 k4 3x3", "--kernel", "conv2d_gather_128x8x16_f32", "--dtype", "f16"], "computes in f32"),
    ],
)
def test_what_cannot_be_profiled_says_why(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code != 0
    assert message in " ".join(result.stderr.split())


def test_without_the_checked_emulator_the_command_says_how_to_build_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ops, "CHECKED_EMULATOR_LIBRARY", tmp_path / "libcnnkernels_emulator_checked.so")
    result = run("n1 c3 8x8 k4 3x3")
    assert result.exit_code == 1
    assert "is missing: build it with" in result.stderr


# --- In the checked emulator.


def profiled(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    content: dict[str, Any] = json.loads(result.stdout)
    return content


@checked
def test_a_convolution_counted() -> None:
    """One block of 128 x 16 results, 160 of 150 steps and the epilogue's: every number follows from the sizes."""
    (one,) = profiled("n1 c6 14x14 k16 5x5", "--pass", "fprop", "--kernel", "conv2d_gather_128x16x16_f32")["passes"]
    (launch,) = one["launches"]
    assert (launch["kernel"], launch["blocks"]) == ("conv2d_gather_128x16x16_f32", 1)
    assert one["useful"]["fmas"] == 100 * 16 * 150
    if shutil.which("objdump"):
        assert one["executed_fmas"] == 128 * 16 * (160 + 1)
    tensors = {row["buffer"]: row for row in launch["tensors"]}
    assert {name: row["launch_bytes"] for name, row in tensors.items()} == {
        "input": 4 * 6 * 14 * 14,
        "weight": 4 * 16 * 150,
        "output": 4 * 16 * 100,
    }
    assert tensors["input"]["asked_bytes"] == 4 * 100 * 150
    assert one["dram_bytes"] == one["useful"]["bytes"]
    assert launch["totals"]["block_barriers"] > 10


@checked
def test_every_pass_of_a_pooling_in_both_layouts() -> None:
    content = profiled("max n1 c8 16x16 3x3 stride 2 pad 1", "--layout", "nchw", "--layout", "channels_last")
    stated = [(one["problem"]["pass"], one["problem"]["layout"]) for one in content["passes"]]
    assert stated == [(name, layout) for name in ("forward", "backward") for layout in ("nchw", "channels_last")]
    for one in content["passes"]:
        (launch,) = one["launches"]
        assert launch["lines"]
        assert launch["model"]["seconds"] > 0


@checked
def test_a_sampled_launch_comes_to_about_the_same() -> None:
    whole, part = (
        profiled("n4 c8 28x28 k16 3x3 pad 1", "--pass", "fprop", "--sample", every)["passes"][0] for every in (1, 3)
    )
    assert part["launches"][0]["blocks_run"] < part["launches"][0]["blocks"] == whole["launches"][0]["blocks_run"]
    for what in ("executed_fmas", "dram_bytes", "l2_bytes"):
        if whole[what] is not None:
            assert part[what] == pytest.approx(whole[what], rel=0.2)


@checked
def test_a_sample_of_more_blocks_than_there_are_is_the_first_one() -> None:
    result = run("n4 c8 28x28 k16 3x3 pad 1", "--pass", "fprop", "--sample", 10**6)
    assert result.exit_code == 0
    assert re.search(r"Sampled: 1 of \d+ blocks was run, and counts are multiplied up", " ".join(result.stdout.split()))


@checked
def test_global_accesses_have_the_banks_of_l1_too() -> None:
    (one,) = profiled("n1 c3 42x42 k6 3x3", "--pass", "fprop")["passes"]
    (launch,) = one["launches"]
    for row in launch["tensors"]:
        assert row["wavefronts"] >= row["least_wavefronts"] > 0
        assert row["instructions"] <= row["lines"] <= row["sectors"]
    for site in launch["counted"]["sites"]:
        assert (site["lines"] > 0) == (site["space"] == "global")


@checked
def test_half_precision_is_told_where_it_is_computed() -> None:
    (one,) = profiled("n1 c3 14x14 k6 3x3", "--pass", "wgrad", "--dtype", "f16")["passes"]
    assert any("f16 is computed on the fp32 pipe" in remark for remark in one["launches"][0]["remarks"])
    (one,) = profiled("n1 c3 14x14 k6 3x3", "--pass", "wgrad")["passes"]
    assert not any("fp32" in remark for remark in one["launches"][0]["remarks"])


@checked
def test_the_page_of_tensor_cores() -> None:
    """A cut sum: one launch on tensor cores, one that adds the slabs; their time, their lines and their multiply-adds are printed."""
    problem = "n1 c64 16x16 k64 3x3 pad 1"
    result = CliRunner().invoke(
        main, ["profile", problem, "--pass", "fprop", "--dtype", "bf16", "--layout", "channels_last"]
    )
    assert result.exit_code == 0, result.output
    assert re.search(r"tensor cores .* multiply-adds .* /clk/SM", result.stdout)
    (useful,) = re.findall(r"([\d.,]+) % of [\d.]+ M multiply-adds\s+useful", " ".join(result.stdout.split()))
    assert 50 < float(useful) <= 100


@checked
@pytest.mark.parametrize("width", [80, 120])
def test_the_page_fits_the_terminal(width: int) -> None:
    result = CliRunner().invoke(main, ["profile", "lenet5:conv1", "--pass", "fprop"], env={"COLUMNS": str(width)})
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= width
    shortened = [line for line in lines if "…" in line and not re.match(r" \w+\.cuh:\d+ ", line)]
    assert not shortened
    (l1,) = [line for line in lines if line.startswith(" L1 and shared")]
    assert re.search(r" \d[\d.]* k wavefronts .* \d[\d.]* [nµ]s\b", l1)


@checked
def test_each_page_is_there_as_soon_as_its_pass_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=120)
    monkeypatch.setattr(sys.modules["cnnkernels.cli.profile"], "make_console", lambda json_output: console)
    emulate, shown = running.run, []

    def watched(jobs: Any) -> Any:
        for launches in emulate(jobs):
            shown.append(console.file.getvalue().count("on an H200 by the model"))
            yield launches

    monkeypatch.setattr(running, "run", watched)
    assert run("max n1 c4 8x8 2x2 stride 2").exit_code == 0
    assert shown == [0, 1]
    assert console.file.getvalue().count("on an H200 by the model") == 2


@checked
def test_in_a_terminal_a_bar_shows_how_long_it_will_take(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    monkeypatch.setattr(sys.modules["cnnkernels.cli.profile"], "make_console", lambda json_output: console)
    assert run("n4 c8 28x28 k16 3x3 pad 1", "--pass", "fprop", "--sample", 3).exit_code == 0
    assert "emulating fprop f32 nchw, one block in 3 ━" in console.file.getvalue()


@checked
def test_the_page_says_what_it_is() -> None:
    result = run("n1 c5 42x42 k6 3x3", "--pass", "wgrad", "--kernel", "conv2d_wgrad_8x32x32_f32")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    for part in (
        "wgrad f32 nchw", "conv2d n1 c5 42x42 k6 3x3", "conv2d_wgrad_8x32x32_f32", "conv2d_sum_slabs_f32", "limited by", "global memory",
        "shared memory", "dearest lines", "wgrad.cuh:", "multiply-adds", "at least for this pass", "blocks per SM =",
        "in each block", "re-read: asked / per block", "docs/emulator.md, What is counted", "a model's prediction, not a measurement",
    ):  # fmt: skip
        assert part in text, part
    assert max(map(len, result.stdout.splitlines())) <= 120


@checked
def test_a_kernel_that_refuses_says_so() -> None:
    result = run("n1 c6 14x14 k16 5x5", "--kernel", "conv2d_gather_128x16x16_f32", "--pass", "wgrad")
    assert result.exit_code != 0
    assert "computes fprop and dgrad, no pass of this problem" in " ".join(result.stderr.split())


@checked
def test_what_an_operator_refuses_is_passed_on() -> None:
    layer, _ = parse_problem("n1 c3 8x8 k4 3x3")
    job = running.Job(layer, "wgrad", "f32", "nchw", "conv2d_gather_128x16x16_f32")
    with pytest.raises(running.EmulationFailed, match=r"does not compute wgrad in f32"):
        list(running.run([job]))


@checked
def test_ctrl_c_ends_the_emulation() -> None:
    command = [sys.executable, "-m", "cnnkernels.cli", "profile", "n8 c64 56x56 k64 3x3 pad 1", "--sample", "1"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(300):
            worker = workers_of(process.pid)
            if worker:
                break
            time.sleep(0.1)
        else:
            pytest.fail("no emulation began")
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert said.splitlines()[-1] == "interrupted"
    assert not any(Path(f"/proc/{number}").exists() for number in worker)


TRIALS = """
#include <stdexcept>

#include "emulator/trial.h"

template <int kPad>
__global__ void transpose(const float* in, float* out) {
  CNN_SHARED(tile, float[32 * (32 + kPad)]);
  const int x = int(threadIdx.x), y = int(threadIdx.y);
  for (int row = y; row < 32; row += 8) tile[row * (32 + kPad) + x] = in[row * 32 + x];
  __syncthreads();
  for (int row = y; row < 32; row += 8) out[row * 32 + x] = tile[x * (32 + kPad) + row];
}

CNN_TRIAL(plain) {
  cnn::launch("transpose", {dim3(1), dim3(32, 8)}, transpose<0>, trial.input<float>("in", {32, 32}), trial.output<float>("out", {32, 32}));
}
CNN_TRIAL(padded) {
  cnn::launch("transpose", {dim3(1), dim3(32, 8)}, transpose<1>, trial.input<float>("in", {32, 32}), trial.output<float>("out", {32, 32}));
  throw std::runtime_error("this trial found fault");
}
"""


@checked
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_trials_have_counters_but_no_problem(tmp_path: Path) -> None:
    file = tmp_path / "transpose.cu"
    file.write_text(TRIALS)
    result = run(file, "--json")
    assert result.exit_code == 1  # for the fault
    plain, padded = json.loads(result.stdout)["passes"]
    assert plain["title"].endswith("transpose.cu:plain")
    assert (plain["useful"], plain["problem"], plain["error"]) == (None, None, "")
    assert padded["error"] == "this trial found fault"
    for one, conflicts in ((plain, 31), (padded, 0)):
        shared = {row["access"]: row for row in one["launches"][0]["shared"]}
        assert shared["store"]["conflicts"] == 0
        assert shared["load"]["conflicts"] == conflicts
        assert [row["coalescing"] for row in one["launches"][0]["tensors"]] == [1, 1]
    alone = run(f"{file}:plain")
    assert alone.exit_code == 0
    assert "+3,100 %" in alone.stdout
    missing = run(f"{file}:nothing")
    assert missing.exit_code == 1
    assert "no trial nothing in transpose.cu: it has plain, padded" in " ".join(missing.stderr.split())
    refused = run(file, "--pass", "fprop")
    assert refused.exit_code == 2
    assert "--pass is for problems" in refused.stderr


CALLS = """
#include "emulator/trial.h"

__global__ void soft(const float* x, float* y) {
  CNN_SHARED(sum, float[1]);
  if (threadIdx.x == 0) sum[0] = 0;
  __syncthreads();
  const float power = __expf(x[threadIdx.x]);
  atomicAdd(&sum[0], fmaxf(power, 1.0f));
  __syncthreads();
  y[threadIdx.x] = power / sum[0];
}

CNN_TRIAL(of_64) { cnn::launch("soft", {dim3(1), dim3(64)}, soft, trial.input<float>("x", {64}), trial.output<float>("y", {64})); }
"""


@checked
@pytest.mark.skipif(shutil.which("c++") is None or shutil.which("objdump") is None, reason="no C++ compiler or objdump")
def test_what_a_trial_calls_and_its_atomics_are_remarked(tmp_path: Path) -> None:
    file = tmp_path / "soft.cu"
    file.write_text(CALLS)
    result = run(file, "--json")
    assert result.exit_code == 0, result.output
    (launch,) = json.loads(result.stdout)["passes"][0]["launches"]
    remarks = " ".join(launch["remarks"])
    assert "Calls of expf are not counted as arithmetic." in remarks
    assert "Atomic operations of several lanes on one word" in remarks
    assert (launch["operations"]["compare32"], launch["operations"]["division32"]) == (64, 64)


def workers_of(parent: int) -> list[int]:
    """The process numbers of the children that emulate."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent and b"profile.worker" in (path.parent / "cmdline").read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_a_dead_emulation_says_how_it_died(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\necho 'out of memory' >&2\nkill -9 $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    layer, _ = parse_problem("n1 c3 8x8 k4 3x3")
    with pytest.raises(running.EmulationFailed, match=r"^the emulator's process was ended by SIGKILL: out of memory$"):
        list(running.run([running.Job(layer, "fprop", "f32", "nchw")]))
