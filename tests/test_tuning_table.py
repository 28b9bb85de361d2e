"""The tuning table's files: written whole whatever happens, merged, and never trusted blindly."""

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
from tuned import FPROP, WGRAD, W, X, entry, launches, not_planned

from cnnkernels import functional, tuning, tuning_table
from cnnkernels.tuning import EMULATED_DEVICE, Entry


@pytest.fixture(autouse=True)
def directory(tuning_directory: Path) -> Path:
    return tuning_directory


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
