"""The checked emulator finds planted faults, at their lines, and nothing in their sound twins.

Each tests/planted/*.cu is a set of trials (cnnkernels.testing.trials), named `<file>_faulty...` and `<file>_clean...`. The trials that
follow a kernel are judged by the comments in it:

    code;  // fault: KIND    the line that every finding of a faulty trial names, and their kind
    code;  // other          the second line that it names: the other side of a race, a barrier where others wait; one of several
    // fault: KIND           on a line of its own: a fault that has no line

A file that is put there needs no entry here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

from cnnkernels import ops
from cnnkernels.testing import trials
from cnnkernels.testing.emulation import Schedule
from cnnkernels.testing.trials import TrialError, TrialResult

pytestmark = pytest.mark.checked_emulator

PLANTED = Path(__file__).parent / "planted"
SOURCES = sorted(PLANTED.glob("*.cu"))
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)

KINDS = {
    "race",
    "out of bounds",
    "uninitialised read",
    "uninitialised value",
    "unwritten output",
    "misaligned access",
    "divergent barrier",
    "warp operation",
    "async copy",
    "write to input",
    "launch",
    "other",
}


@dataclass(frozen=True)
class Planted:
    """A trial, and what has to be found in it."""

    name: str
    source: Path
    kind: str | None  # None: nothing
    line: int = 0  # 0: the fault has none
    other_lines: frozenset[int] = frozenset()


def planted_in(source: Path) -> Iterator[Planted]:
    """The trials of a file, with the marks of the kernels above them."""
    kind, line, other_lines, fresh = "", 0, frozenset[int](), False
    for number, text in enumerate(source.read_text().splitlines(), start=1):
        mark = re.search(r"// (?:fault: ([a-z ]+)|other)$", text)
        if mark:
            if not fresh:
                kind, line, other_lines, fresh = "", 0, frozenset(), True
            if mark[1]:
                kind, line = mark[1], number if text[: mark.start()].strip() else 0
            else:
                other_lines |= {number}
        trial = re.match(r"CNN_TRIAL\((\w+)\)", text)
        if trial:
            fresh = False
            if trial[1].startswith(f"{source.stem}_faulty"):
                yield Planted(trial[1], source, kind, line, other_lines)
            elif trial[1].startswith(f"{source.stem}_clean"):
                yield Planted(trial[1], source, None)
            else:
                raise ValueError(f"{source}: {trial[1]} is neither {source.stem}_faulty nor {source.stem}_clean")


ALL = [planted for source in SOURCES for planted in planted_in(source)]
FAULTY = [planted for planted in ALL if planted.kind is not None]
CLEAN = [planted for planted in ALL if planted.kind is None]


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[str, str], TrialResult]:
    """By trial and schedule: all of them, run once."""
    directory = tmp_path_factory.mktemp("planted")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        libraries = list(pool.map(lambda source: trials.build(source, directory), SOURCES))
    return {(r.name, r.schedule): r for r in trials.run_libraries(libraries, schedules=SCHEDULES)}


def lines(finding: dict[str, Any]) -> set[int]:
    """The one or two lines that a finding names."""
    return {finding["line"], finding["other"]["line"] if finding["other"] else finding["line"]}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("planted", FAULTY, ids=lambda planted: planted.name)
def test_fault_is_named_with_its_line(results, planted, schedule):
    result = results[planted.name, schedule]
    said = f"{result.error}\n{result.findings}"
    assert result.findings, f"expected {planted.kind}: {said}"
    assert {finding["kind"] for finding in result.findings} == {planted.kind}, said
    first = result.findings[0]
    assert lines(first) >= {planted.line}, said
    assert lines(first) <= {planted.line, *planted.other_lines}, said
    if planted.other_lines:
        assert lines(first) & planted.other_lines, said
    if planted.line:
        assert Path(first["file"]) == planted.source
    assert result.error is not None
    assert result.error.startswith(first["text"])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("planted", CLEAN, ids=lambda planted: planted.name)
def test_nothing_is_found_in_a_sound_kernel(results, planted, schedule):
    result = results[planted.name, schedule]
    assert result.findings == (), result.error
    assert result.error is None


def test_every_fault_is_marked_and_has_a_sound_twin():
    assert {planted.kind for planted in FAULTY} <= KINDS
    twins = {planted.name for planted in CLEAN}
    for planted in FAULTY:
        name = planted.name.replace("_faulty", "_clean")
        assert name in twins or f"{planted.source.stem}_clean" in twins, planted.name


def test_trial_that_ends_its_process_is_reported_and_those_behind_it_run(tmp_path):
    source = tmp_path / "endings.cu"
    source.write_text(
        '#include "emulator/trial.h"\n'
        "CNN_TRIAL(traps) { (void)trial; __builtin_trap(); }\n"
        'CNN_TRIAL(throws) { throw std::runtime_error("the sum is 2, not 3"); }\n'
        'CNN_TRIAL(returns) { std::printf("printed\\n"); }\n'
    )
    library = trials.build(source, tmp_path)
    errors = {result.name: result.error for result in trials.run_libraries([library])}
    assert list(errors) == ["traps", "throws", "returns"]
    assert errors["traps"] is not None and "SIGILL" in errors["traps"]
    assert errors["throws"] == "the sum is 2, not 3"
    assert errors["returns"] is None
    with pytest.raises(ValueError, match=r"no trial sum in endings\.so"):
        trials.run_libraries([library], ["sum", "returns"])


def test_what_the_compiler_warns_of_is_printed(tmp_path, capsys):
    source = tmp_path / "maximum.cu"
    source.write_text(
        '#include "emulator/trial.h"\n'
        "__global__ void pool(const float* x, float* y, int taps) {\n"
        "  float best;\n"
        "  for (int s = 0; s < taps; ++s)\n"
        "    if (x[threadIdx.x + s] > best) best = x[threadIdx.x + s];\n"
        "  y[threadIdx.x] = best;\n"
        "}\n"
        "CNN_TRIAL(pool_unset) {\n"
        '  cnn::launch("pool", {1, 32}, pool, trial.input<float>("x", {34}), trial.output<float>("y", {32}), 3);\n'
        "}\n"
    )
    trials.build(source, tmp_path)
    assert re.search(r"maximum\.cu:[56]:\d+: warning: .best. (is|may be) used uninitialized", capsys.readouterr().err)


def test_what_cannot_be_built_is_said(tmp_path, monkeypatch):
    source = tmp_path / "broken.cu"
    with pytest.raises(TrialError, match=r"broken\.cu is missing"):
        trials.build(source, tmp_path)
    source.write_text("no such type;\n")
    with pytest.raises(TrialError, match=r"broken\.cu does not compile:\n.*1:1: error"):
        trials.build(source, tmp_path)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(TrialError, match="no-such-compiler is not on PATH"):
        trials.build(source, tmp_path)
    monkeypatch.setattr(trials, "HEADERS", tmp_path / "csrc")
    with pytest.raises(TrialError, match="in a checkout"):
        trials.build(source, tmp_path)
    monkeypatch.setattr(ops, "CHECKED_EMULATOR_LIBRARY", tmp_path / "none.so")
    with pytest.raises(TrialError, match=r"none\.so, is missing: build it"):
        trials.build(source, tmp_path)
