"""`cnnkernels summary`: the plan of whole networks, printed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from cnnkernels.bench import suites
from cnnkernels.cli import main


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["summary", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def rows(*arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(*arguments, "--json"))
    return found


def test_every_pass_of_a_network_is_planned() -> None:
    found = rows("--suite", "lenet5")
    layers = suites.load("lenet5").entries
    assert len(found) == 2 * sum(len(entry.problem.passes) for entry in layers)  # both layouts
    for row in found:
        assert row["dtype"] == "bf16"
        assert row["kernel"].endswith("_bf16")
        assert row["grid"] > 0
        assert row["modelled_us"] > 0
        assert row["why"]
        assert all(reason for _, reason in row["refused"])


def test_problems_passes_dtypes_and_batch() -> None:
    (row,) = rows("n2 c8 9x9 k4 3x3", "--pass", "wgrad", "--dtype", "f32", "--layout", "nchw")
    assert (row["name"], row["dtype"], row["layout"]) == ("wgrad", "f32", "nchw")
    assert row["problem"] == "conv2d n2 c8 9x9 k4 3x3"
    few, many = (rows("resnet50:l1.3x3", "--pass", "fprop", "--layout", "nchw", "--batch", n)[0] for n in ("1", "32"))
    assert few["modelled_us"] < many["modelled_us"]


def test_a_model() -> None:
    found = rows("--model", "lenet5", "--batch", "4", "--layout", "nchw")
    assert {row["layer_family"] for row in found} >= {"first_layer", "dense", "pool"}


def test_the_table_shows_kernels_and_says_that_times_are_modelled() -> None:
    output = run("--suite", "lenet5", "--layer", "conv1", "--layout", "nchw")
    assert "lenet5:conv1" in output
    assert "not measured" in output
    assert "pool1" not in output


def test_reasons_name_each_other_kernel() -> None:
    (row,) = rows("n1 c4 8x8 k8 3x3", "--pass", "fprop", "--layout", "nchw")
    output = run("n1 c4 8x8 k8 3x3", "--pass", "fprop", "--layout", "nchw", "--reasons")
    assert row["refused"]
    for kernel, _ in row["refused"]:
        assert f"not {kernel}" in output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "name the layers"),
        (("resnet50:l1.4x4",), "l1.4x4"),
        (("--suite", "lenet5", "--layer", "nope"), "no layer has 'nope'"),
        (("resnet50:stem", "--pass", "forward"), "no pass forward"),
    ],
)
def test_what_does_not_exist_is_named(arguments: tuple[str, ...], text: str) -> None:
    result = CliRunner().invoke(main, ["summary", *arguments])
    assert result.exit_code != 0
    assert text in result.output
