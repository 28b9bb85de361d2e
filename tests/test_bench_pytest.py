"""The quick subset under pytest-benchmark: it runs, keeps its numbers, compares them, and fails where the gate is red."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ONE_CASE = ("-k", "pool2-forward and nchw")


def run(storage: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "pytest", "benchmarks/", "--benchmark-only", f"--benchmark-storage={storage}",
        "-p", "no:cacheprovider", *arguments,
    ]  # fmt: skip
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def test_numbers_are_kept_and_compared(tmp_path: Path) -> None:
    first = run(tmp_path, *ONE_CASE, "--benchmark-save=before")
    assert first.returncode == 0, first.stdout + first.stderr
    (saved,) = tmp_path.glob("*/*_before.json")
    entries = {entry["name"]: entry for entry in json.loads(saved.read_text())["benchmarks"]}
    ours = entries["test_layer[lenet5-pool2-forward-emulator-nchw]"]
    assert ours["extra_info"]["kernels"][0].startswith("pool2d_max") and ours["stats"]["rounds"] == 20
    assert 1e-6 < ours["stats"]["median"] < 10, "seconds per call, by our timer"
    assert "not a GPU time" in ours["group"]
    assert {entry["group"] for entry in entries.values()} == {ours["group"]}, "one table per layer and pass"
    second = run(tmp_path, *ONE_CASE, "--benchmark-compare=0001", "--benchmark-compare-fail=median:1000000%")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "(0001_before)" in second.stdout and "(NOW)" in second.stdout
    # Against a past in which everything took a millionth, anything is a regression: the comparison is able to fail.
    past = json.loads(saved.read_text())
    for entry in past["benchmarks"]:
        entry["stats"]["median"] /= 1e6
    saved.write_text(json.dumps(past))
    third = run(tmp_path, *ONE_CASE, "--benchmark-compare=0001", "--benchmark-compare-fail=median:50%")
    assert third.returncode != 0 and "regression" in (third.stdout + third.stderr).lower()


def test_a_red_gate_fails_and_has_no_number(tmp_path: Path) -> None:
    plugin = tmp_path / "wrong_pooling.py"
    plugin.write_text(
        "from cnnkernels.bench.layer import Layer\n"
        "right = Layer.forward\n"
        "def wrong(self, x, weight=None, bias=None, functions=None):\n"
        "    import torch.nn.functional as F\n"
        "    result = right(self, x, weight, bias, functions or F)\n"
        "    return result if functions is None or x.dtype.itemsize == 8 else result * 1.01\n"
        "Layer.forward = wrong\n"
    )
    command = [
        sys.executable, "-c",
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import pytest; "
        f"sys.exit(pytest.main(['benchmarks/', '--benchmark-only', '-p', 'wrong_pooling', '-p', 'no:cacheprovider', "
        f"'--benchmark-storage={tmp_path}', '-k', 'pool2-forward and emulator-nchw']))",
    ]  # fmt: skip
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert outcome.returncode == 1 and "emulator is refused: wrong result" in outcome.stdout, outcome.stdout
    assert "Median" not in outcome.stdout
