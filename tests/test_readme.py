"""The README says what is true: its Python runs, its commands and files exist."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/drop-in.md",
    "docs/architecture.md",
    "docs/benchmarking.md",
    "docs/training.md",
    "docs/emulator.md",
]


def blocks(language: str, document: str = "README.md") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def test_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "conv2d_gather_" in printed
    assert "2 of 2 convolutions and poolings replaced" in printed


def test_the_page_on_dropping_in_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for code in blocks("python", "docs/drop-in.md"):
        exec(compile(code, "docs/drop-in.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "4 of 4 convolutions and poolings replaced" in printed
    assert "pool2d_adaptive_avg" in printed
    assert "torch.Size([1, 10])" in printed


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    text = "".join((ROOT / name).read_text() for name in DOCUMENTS)
    targets = set(re.findall(r"`make (\w+)", text)) | set(re.findall(r"^make (\w+)", text, re.MULTILINE))
    assert {"demo", "test", "build"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_commands_exist() -> None:
    from cnnkernels.cli import main

    commands = re.findall(r"^cnnkernels (\w+)", "".join(blocks("sh")), re.MULTILINE)
    assert set(commands) == {"info", "verify", "check", "train", "summary", "bench", "report", "tune", "profile"}
    for command in commands:
        assert CliRunner().invoke(main, [command, "--help"]).exit_code == 0


@pytest.mark.parametrize("document", DOCUMENTS)
def test_options_of_commands_exist(document: str) -> None:
    from cnnkernels.cli import main

    for command, rest in re.findall(r"^cnnkernels (\w+)(.*)", (ROOT / document).read_text(), re.MULTILINE):
        help_text = CliRunner().invoke(main, [command, "--help"]).stdout
        for option in re.findall(r"\s(--[\w-]+)", rest.partition(" #")[0]):
            assert option in help_text, f"cnnkernels {command}{rest}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_paths_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    paths = re.findall(r"`((?:csrc|cnnkernels|tests|docs|benchmarks)/[\w./]+)`", text)
    for link in links:
        assert ((ROOT / document).parent / link).exists(), link
    made_when_first_used = {"benchmarks/results", "cnnkernels/tables"}
    for path in {path.rstrip("/") for path in paths} - made_when_first_used:
        assert (ROOT / path).exists(), path
