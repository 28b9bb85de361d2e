"""The command line: what each command prints, writes and exits with."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from test_data import make_images, make_labels, write_idx
from torch import nn

from cnnkernels import ops
from cnnkernels.cli import main
from cnnkernels.models import LeNet5, MNISTNet

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
    assert facts["backends"]["triton"]
    assert facts["build"]["compiler"]
    names = [kernel["name"] for kernel in facts["kernels"]]
    assert len(names) == len(set(names)) > 50
    text = run("info").stdout
    assert f"{len(names)} compiled kernels" in text
    for reason in filter(None, facts["backends"].values()):
        assert " ".join(reason.split())[:40] in " ".join(text.split())
    listed = run("info", "--kernels").stdout
    assert all(name in listed for name in names)


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


def test_verify_wants_a_kernel_to_verify() -> None:
    result = run("verify", "--kernel", "no-such-kernel")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == ["Error: no compiled kernel is left by --op, --dtype and --kernel"]


@pytest.mark.parametrize(("name", "model_type"), [("lenet5", LeNet5), ("mnistnet", MNISTNet)])
def test_train_leaves_its_results_and_shows_what_ran(
    tmp_path: Path, handwriting: Path, name: str, model_type: type[nn.Module]
) -> None:
    out = tmp_path / "results"
    result = run("train", name, "--data", handwriting, "--backend", "emulator", "--epochs", 1, "--out", out)
    assert result.exit_code == 0, result.output
    assert {file.name for file in out.iterdir()} == RESULTS
    for text in ("emulator: our CUDA kernels", "the first 64 to train, the last 16 to test", "All 11 passes"):
        assert text in result.stdout
    for kernel in ("conv2d_", "wgrad_", "bias_grad_", "max_backward_"):
        assert kernel in result.stdout
    checkpoint = torch.load(out / "checkpoint.pt", weights_only=True)
    plain: Any = model_type(layers=nn, num_classes=checkpoint["meta"]["num_classes"])
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
        (("--backend", "triton"), "Error: backend 'triton' cannot run here: "),
        (("--backend", "emulator", "--device", "cuda"), "cuda"),
        (("--data", "digits", "--out", "/dev/null/results"), "Error: [Errno 20] Not a directory"),
    ],
)
def test_what_cannot_be_done_gets_one_line(arguments: tuple[str, ...], message: str) -> None:
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
