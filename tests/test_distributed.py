"""Several processes train one model: what one process would have trained, broken off and taken up again like it."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from test_data import make_images, make_labels, write_idx

from cnnkernels.cli import main

HERE = Path(__file__).parent
# Two fp32 sums in another order differ by a few units of the last place of a loss near 2.3, and weights after them.
CLOSE = 1e-5


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What three processes saw (process_group.py); "exit codes" are theirs."""
    command = [sys.executable, HERE / "process_group.py", tmp_path_factory.mktemp("group")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr
    seen, codes = ran.stdout.splitlines()
    return json.loads(seen) | {"exit codes": json.loads(codes)}


def test_losses_are_those_of_one_process_with_the_same_batches(together: dict[str, Any]) -> None:
    assert len(together["losses"]) == 6
    assert together["losses"] == pytest.approx(together["losses alone"], abs=CLOSE)
    for shared, alone in zip(together["tests"], together["tests alone"], strict=True):
        assert shared == pytest.approx(alone, abs=CLOSE)
    assert together["same weights"]
    assert together["images evaluated"] == 600


@pytest.mark.parametrize("model_name", ["mnistnet", "resnet18"])
def test_a_resumed_run_has_the_bits_of_an_unbroken_one(together: dict[str, Any], model_name: str) -> None:
    assert together[f"{model_name} resumed"]


def test_one_process_stops_all(together: dict[str, Any]) -> None:
    assert together["stopped after"] == [1, 1, 1]


def test_buffers_become_the_first_ones(together: dict[str, Any]) -> None:
    assert together["running means"] == [0, 0, 0]


def test_the_end_of_a_process_is_an_error_of_the_others(together: dict[str, Any]) -> None:
    assert together["exit codes"] == [0, 0, 3]


def environment_of(process: int) -> list[bytes]:
    return Path(f"/proc/{process}/environ").read_bytes().split(b"\0")


def test_torchrun(tmp_path: Path) -> None:
    """As the README has it: the second process is killed, the run ends with an error, and is resumed."""
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", make_images(80))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", make_labels(80))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    job = ["train", "lenet5", "--data", str(tmp_path), "--backend", "torch", "--epochs", "1000"]
    job += ["--batch-size", "15", "--checkpoint-every", "5"]
    pair = [*torchrun, "-m", "cnnkernels.cli", *job, "--out", str(tmp_path / "pair")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # or torchrun says that it has set it
    process = subprocess.Popen(pair, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 20/"):
            break
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (second,) = [int(child) for child in children if b"RANK=1" in environment_of(int(child))]
    os.kill(second, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Signal 9 (SIGKILL)" in errors
    steps = torch.load(tmp_path / "pair" / "checkpoint.pt", weights_only=True)["meta"]["steps"]
    assert steps >= 20

    limits = ["--max-steps", str(steps + 7), "--resume", "--json"]
    resumed = subprocess.run([*pair, *limits], env=environment, capture_output=True, text=True, timeout=240)
    assert resumed.returncode == 0, resumed.stderr
    report = json.loads(resumed.stdout)
    assert (report["processes"], report["steps"]) == (2, steps + 7)
    assert resumed.stderr.count(f"after step {steps:,} of 5,000") == 1, "the first process alone prints"
    assert "step 5/5,000" not in resumed.stderr, "no step is done again"
    alone = [*job, "--out", str(tmp_path / "alone"), "--max-steps", "20"]
    assert CliRunner().invoke(main, alone).exit_code == 0
    rows = [list(csv.DictReader((tmp_path / run / "steps.csv").read_text().splitlines())) for run in ("pair", "alone")]
    assert [int(row["step"]) for row in rows[0]] == list(range(1, steps + 8))
    losses = [[float(row["loss"]) for row in run[:20]] for run in rows]
    assert losses[0] == pytest.approx(losses[1], abs=CLOSE)


def test_incomplete_variables_get_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    result = CliRunner().invoke(main, ["train", "lenet5"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: the processes of this run cannot meet: ")
    assert "MASTER_ADDR" in result.stderr
    assert len(result.stderr.splitlines()) == 1
