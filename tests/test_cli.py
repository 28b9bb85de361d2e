"""The command line: what each command prints, writes and exits with."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from test_data import make_images, make_labels, write_idx
from test_training import in_bits
from torch import nn

from cnnkernels import backends, ops
from cnnkernels.cli import main, triton_kernels
from cnnkernels.models import LeNet5, MNISTNet, resnet18

RESULTS = {"checkpoint.pt", "metrics.json", "steps.csv", "curves.png", "confusion.png", "features.png"}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def handwriting(tmp_path: Path) -> Path:
    """A folder with 80 images of random pixels: small enough to train on in a second."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_idx(folder / "t10k-images-idx3-ubyte.gz", make_images(80))
    write_idx(folder / "t10k-labels-idx1-ubyte.gz", make_labels(80))
    return folder


def test_help_names_every_command() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert all(command in result.stdout for command in ("info", "verify", "train"))
    assert run("--version").stdout.startswith("cnnkernels, version 0.")


def test_info_says_what_is_here_and_what_is_not() -> None:
    facts = json.loads(run("info", "--json").stdout)
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["backends"]["emulator"] is None
    assert facts["backends"]["torch"] is None
    assert facts["backends"]["triton"] == backends.unavailable("triton")
    assert facts["build"]["compiler"]
    names = [kernel["name"] for kernel in facts["kernels"]]
    assert len(names) == len(set(names)) > 50
    text = run("info").stdout
    assert f"{len(names)} compiled kernels" in text
    for reason in filter(None, facts["backends"].values()):
        assert " ".join(reason.split())[:40] in " ".join(text.split())
    listed = run("info", "--kernels").stdout
    assert all(name in listed for name in names)


def test_info_compiles_triton_kernels_for_an_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from cnnkernels.triton import ahead

    one = ahead.Facts(
        "fprop layer", "triton_kernel", 90, 100, 0, 1024, 2048, 0, 12345, {"wgmma.mma_async": 4}, {16: 2}, {16: 2}, {16: 1}, 4, 3
    )  # fmt: skip

    def compiled(architectures: list[int]) -> Iterator[list[ahead.Facts]]:
        assert architectures == [90]
        yield [one]
        raise KeyboardInterrupt

    monkeypatch.setattr(ahead, "run", compiled)
    text = run("info", "--kernels", "--triton-arch", "90").stdout
    assert "interrupted: 1 kernels are compiled" in text
    for part in ("triton_kernel", "fprop layer", "100", "3,072", "12,345", "4 wgmma.mma_async"):
        assert part in text
    (row,) = json.loads(run("info", "--kernels", "--triton-arch", "90", "--json").stdout)["triton_kernels"]
    assert (row["registers"], row["programs"], row["loads"]) == (100, one.programs, {"16": 2})


def test_info_says_where_triton_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_kernels, "find_spec", lambda name: None)
    text = run("info", "--kernels", "--triton-arch", "80").stdout
    assert "Triton's kernels are not listed: triton is not installed" in text


def test_info_wants_kernels_for_an_architecture() -> None:
    assert run("info", "--triton-arch", "90").exit_code == 2


def test_verify_passes_and_reports_in_json() -> None:
    result = run(
        "verify", "--quick", "--op", "max", "--op", "wgrad", "--dtype", "f32", "--backend", "emulator", "--json"
    )
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["passed"]
    assert {row["subject"]["name"] for row in report["kernels"]} == {"max", "wgrad"}
    assert all(row["runs"] and row["exact_runs"] and not row["failures"] for row in report["kernels"])
    assert all(row["error"] > 0 for row in report["kernels"] if row["subject"]["name"] == "wgrad")


def test_verify_prints_a_row_for_each_kernel() -> None:
    result = run("verify", "--quick", "--op", "avg_pool2d", "--dtype", "bf16", "--backend", "emulator")
    assert result.exit_code == 0
    kernels = [row["name"] for row in json.loads(run("info", "--json").stdout)["kernels"]]
    wanted = [name for name in kernels if "pool2d_avg" in name and "bf16" in name]
    assert wanted
    assert all(name in result.stdout for name in wanted)
    assert "all pass" in result.stdout


def test_verify_fails_on_a_wrong_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    original = ops.avg_pool2d
    monkeypatch.setattr(ops, "avg_pool2d", lambda *arguments: original(*arguments) * 1.01)
    result = run("verify", "--quick", "--op", "avg", "--dtype", "f32", "--backend", "emulator")
    assert result.exit_code == 1
    assert "failed" in result.stdout
    assert "expected exactly" in result.stdout


def test_verify_interrupted_reports_what_was_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from cnnkernels.testing import verify

    begun: list[str] = []

    def second_is_interrupted(item: Any, selection: Any) -> Any:
        begun.append(str(item))
        if len(begun) == 2:
            raise KeyboardInterrupt
        return verify_item(item, selection)

    verify_item = verify.verify_item
    monkeypatch.setattr(verify, "verify_item", second_is_interrupted)
    command = ("verify", "--quick", "--op", "avg", "--op", "max", "--dtype", "f32", "--backend", "emulator")
    result = run(*command)
    assert result.exit_code == 130
    assert re.search(r"interrupted at case 2 of \d+: \d+ runs of \d+ kernel passes", result.stdout)
    assert "no problem reaches it" not in result.stdout
    begun.clear()
    report = json.loads(run(*command, "--json").stdout)
    assert report["interrupted"]
    assert not report["passed"]
    assert all(row["passed"] for row in report["kernels"])


def test_verify_wants_a_kernel_to_verify() -> None:
    result = run("verify", "--kernel", "no-such-kernel")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == ["Error: no compiled kernel is left by --op, --dtype and --kernel"]


def narrow_resnet18(**arguments: Any) -> nn.Module:
    return resnet18(in_channels=1, width=4, **arguments)


@pytest.mark.parametrize(
    ("name", "width", "make", "passes", "kinds"),
    [
        ("lenet5", (), LeNet5, 11, ("conv2d_", "wgrad_", "bias_grad_", "max_backward_")),
        ("mnistnet", (), MNISTNet, 11, ("conv2d_", "wgrad_", "bias_grad_", "max_backward_")),
        ("resnet18", ("--width", 4), narrow_resnet18, 63, ("conv2d_", "wgrad_", "max_backward_", "adaptive_avg_")),
    ],
)
def test_train_leaves_its_results_and_shows_what_ran(
    tmp_path: Path,
    handwriting: Path,
    name: str,
    width: tuple[object, ...],
    make: Callable[..., nn.Module],
    passes: int,
    kinds: tuple[str, ...],
) -> None:
    out = tmp_path / "results"
    result = run("train", name, *width, "--data", handwriting, "--backend", "emulator", "--epochs", 1, "--out", out)
    assert result.exit_code == 0, result.output
    assert {file.name for file in out.iterdir()} == RESULTS
    for text in ("emulator: our CUDA kernels", "the first 64 to train, the last 16 to test", f"All {passes} passes"):
        assert text in result.stdout
    for kernel in kinds:
        assert kernel in result.stdout
    checkpoint = torch.load(out / "checkpoint.pt", weights_only=True)
    plain = make(layers=nn, num_classes=checkpoint["meta"]["num_classes"])
    plain.load_state_dict(checkpoint["state_dict"])
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["meta"]["backend"] == "emulator"
    with (out / "steps.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2"]


def test_train_prints_json_alone_on_stdout(tmp_path: Path, handwriting: Path) -> None:
    arguments = ("--backend", "emulator", "--epochs", 1, "--out", tmp_path / "out", "--json")
    result = run("train", "lenet5", "--data", handwriting, *arguments)
    report = json.loads(result.stdout)
    assert report["passed"]
    assert 0 <= report["test_accuracy"] <= 1
    assert {Path(file).name for file in report["files"].values()} == RESULTS
    assert [row["pass"] for row in report["layers"]][:4] == ["fprop", "dgrad", "wgrad", "bias grad"]
    assert all(row["max_error"] <= row["allowed_error"] for row in report["layers"] if row["kernels"])
    assert "epoch  1/1" in result.stderr


def test_train_runs_on_our_kernels_unless_told_otherwise(tmp_path: Path, handwriting: Path) -> None:
    arguments = ("--data", handwriting, "--epochs", 1, "--json", "--out", tmp_path / "out")
    ours = json.loads(run("train", "mnistnet", *arguments).stdout)
    assert ours["backend"] in ("emulator", "cuda")
    assert all(row["kernels"] for row in ours["layers"] if row["max_error"] is not None)
    plain = run("train", "mnistnet", *arguments, "--backend", "torch")
    assert plain.exit_code == 0
    assert "layers" not in json.loads(plain.stdout)
    assert "no kernels of ours to check" in plain.stderr


def test_train_fails_when_a_layer_is_wrong(tmp_path: Path, handwriting: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = ops.max_pool2d_backward
    monkeypatch.setattr(ops, "max_pool2d_backward", lambda *arguments: original(*arguments) * 1.01)
    arguments = ("--data", handwriting, "--epochs", 1, "--backend", "emulator", "--out", tmp_path / "out")
    result = run("train", "lenet5", *arguments)
    assert result.exit_code == 1
    assert "FAIL" in result.stdout
    assert "All 11 passes" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "/no/such/folder"), "Error: /no/such/folder: no such file or folder"),
        (("--backend", "triton"), "Error: backend 'triton' cannot run here: it is missing"),
        (("--backend", "emulator", "--device", "cuda"), "cuda"),
        (("--data", "digits", "--out", "/dev/null/results"), "Error: [Errno 20] Not a directory"),
    ],
)
def test_what_cannot_be_done_gets_one_line(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends.triton, "_MISSING", "it is missing")
    result = run("train", "lenet5", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "epoch" not in result.output


def test_a_truncated_file_gets_one_line(tmp_path: Path, handwriting: Path) -> None:
    images = handwriting / "t10k-images-idx3-ubyte.gz"
    images.write_bytes(images.read_bytes()[:-100])
    result = run("train", "lenet5", "--data", handwriting, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [f"Error: {images}: truncated: the gzip stream ends early"]


@pytest.mark.parametrize("option", [("--epochs", "0"), ("--lr", "0"), ("--batch-size", "-1"), ("--seed", "x")])
def test_impossible_options_are_usage_errors(option: tuple[str, str]) -> None:
    assert run("train", "lenet5", *option).exit_code == 2


def test_each_step_is_logged_as_it_comes_and_once(tmp_path: Path, handwriting: Path) -> None:
    """The log of a run in two parts is that of a whole one, though its first part went beyond the checkpoint."""
    log, other = tmp_path / "log.jsonl", tmp_path / "other.jsonl"
    arguments = ("train", "lenet5", "--data", handwriting, "--backend", "torch", "--epochs", 2, "--batch-size", 16)
    assert run(*arguments, "--out", tmp_path / "whole", "--log", log).exit_code == 0
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(row["step"], row["epoch"]) for row in rows] == [(1 + k, 1 + k // 4) for k in range(8)]
    metrics = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert rows == metrics["steps"]
    parts = (*arguments, "--out", tmp_path / "parts", "--log", other)
    assert run(*parts, "--max-steps", 3).exit_code == 0
    assert len(other.read_text().splitlines()) == 3
    with other.open("a") as file:
        file.write(json.dumps({"step": 4, "epoch": 1, "loss": 0.0, "learning_rate": 0.0}) + "\n")
    result = run(*parts, "--resume")
    assert "after step 3 of 8" in result.stdout
    assert other.read_text() == log.read_text()


def test_only_the_same_run_is_resumed(tmp_path: Path, handwriting: Path) -> None:
    arguments = (
        "train",
        "resnet18",
        "--data",
        handwriting,
        "--backend",
        "torch",
        "--epochs",
        1,
        "--out",
        tmp_path / "out",
    )
    assert run(*arguments, "--width", 4, "--resume").exit_code == 0, "nothing there yet: from the beginning"
    checkpoint = tmp_path / "out" / "checkpoint.pt"
    for options, message in (
        (("--width", 8), "its width is 4, not 8"),
        (("--width", 4, "--lr", 0.1), "its learning_rate is 0.003, not 0.1"),
        (("--width", 4, "--backend", "emulator"), "its backend is 'torch', not 'emulator'"),
    ):
        result = run(*arguments, *options, "--resume")
        assert result.exit_code == 1
        assert result.stderr == f"Error: {checkpoint}: --resume goes on with the same run only: {message}\n"
    images = make_images(80)
    images[7, 3, 3] ^= 1
    write_idx(handwriting / "t10k-images-idx3-ubyte.gz", images)
    assert "its data_checksum is" in run(*arguments, "--width", 4, "--resume").stderr
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    result = run(*arguments, "--width", 4, "--resume")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {checkpoint}: damaged, or not a checkpoint")
    assert len(result.stderr.splitlines()) == 1


def test_batchnorm_wants_two_images_in_a_batch(handwriting: Path, tmp_path: Path) -> None:
    arguments = ("--data", handwriting, "--backend", "torch", "--out", tmp_path / "out", "--batch-size", 1)
    result = run("train", "resnet18", "--width", 4, *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: BatchNorm needs at least 2 images in a batch")


def test_one_network_has_no_width() -> None:
    result = run("train", "lenet5", "--width", 8)
    assert result.exit_code == 2
    assert "lenet5 has one width only" in result.stderr


def test_a_killed_run_is_resumed_to_the_bits_of_an_unbroken_one(tmp_path: Path, handwriting: Path) -> None:
    arguments = ["train", "resnet18", "--width", "4", "--data", str(handwriting), "--backend", "emulator"]
    arguments += ["--epochs", "2", "--batch-size", "16", "--checkpoint-every", "1"]
    assert run(*arguments, "--out", tmp_path / "whole").exit_code == 0
    broken = [*arguments, "--out", str(tmp_path / "broken"), "--log", str(tmp_path / "log.jsonl")]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "cnnkernels.cli", *broken],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 5/8"):
            break
    process.kill()
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, output
    steps = torch.load(tmp_path / "broken" / "checkpoint.pt", weights_only=True)["meta"]["steps"]
    assert 5 <= steps < 8, "killed within the second epoch"
    (tmp_path / "broken" / ".checkpoint.1.pt").touch()  # as a process leaves it that is killed while it writes
    result = run(*broken, "--resume")
    assert result.exit_code == 0, result.output
    assert f"after step {steps} of 8" in result.stdout
    done = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("step ")]
    assert done == [f"{step}/8" for step in range(steps + 1, 9)], "no step is done again"
    files = (tmp_path / name / "checkpoint.pt" for name in ("whole", "broken"))
    whole, resumed = (in_bits(torch.load(file, weights_only=True)) for file in files)
    assert "bn1.running_var" in whole["state_dict"]
    assert resumed["state_dict"] == whole["state_dict"]
    assert resumed["run"] == whole["run"]
    assert (tmp_path / "broken" / "steps.csv").read_bytes() == (tmp_path / "whole" / "steps.csv").read_bytes()
    assert {file.name for file in (tmp_path / "broken").iterdir()} == RESULTS, "no half-written file is left"


def test_a_missing_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnkernels.cli.output.find_spec", lambda module: None if module == "matplotlib" else object())
    result = run("train", "lenet5")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == ["Error: matplotlib missing: pip install cnnkernels[train]"]


def test_ctrl_c_saves_what_is_there_and_exits_130(tmp_path: Path, handwriting: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "cnnkernels.cli", "train", "lenet5", "--data", handwriting, "--out", out]
    options = ["--epochs", "100000", "--backend", "torch"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch  3/"):
            break
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted after step" in output
    assert "Traceback" not in errors
    checkpoint = torch.load(out / "checkpoint.pt", weights_only=True)
    assert checkpoint["meta"]["interrupted"]
    LeNet5(layers=nn).load_state_dict(checkpoint["state_dict"])
    steps = json.loads((out / "metrics.json").read_text())["steps"]
    assert len(steps) == checkpoint["meta"]["steps"] >= 6
    assert {file.name for file in out.iterdir()} == RESULTS - {"confusion.png", "features.png"}
