"""The benchmark's layers: the published suites, and the least work that Layer says a layer is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cnnkernels.bench import suites
from cnnkernels.bench.layer import FAMILIES, Layer

ROOT = Path(__file__).parent.parent
# The survey of layers that the suites were made from, with work and bytes counted by other means.
SURVEY = ROOT.parent / "shared" / "data" / "layers.json"

#: Where the survey lists a problem once and the net, run through collect(), has it more often.
COUNTS = {
    "mobilenet_v2": {"pw24-144@56": 2, "pw32-192@28": 3, "pw64-384@14": 4, "pw96-576@14": 3, "pw160-960@7": 3},
    "efficientnet_b0": {"se_gap480": 3, "se_gap672": 2, "se_gap1152": 4},
    "regnet_x_3_2gf": {"gw48_192@28s1": 5, "gw48_432@14s1": 14},
    "googlenet": {"max3s1_832": 2},
    "inception_v3": {"avg3s1_768": 4},
    "deeplabv3_os8_520": {"head3x3": 2, "backbone256_d2": 5, "backbone512_d4": 2},
    "sd15_unet": {"320-320@64": 7, "640-640@32": 6, "1280-1280@16": 7, "1280-1280@8": 11, "2560-1280@16": 2},
    "sd_vae_dec512": {"512-512@64": 10, "512-512@128": 7, "128-128@512": 5},
}


# Suites


def test_every_suite_loads() -> None:
    names = suites.names()
    assert names[0] == "core" and names[-1] == "all" and len(names) == 32
    for name in names:
        suite = suites.load(name)
        assert suite.name == name and suite.title and suite.source and suite.entries
        for entry in suite.entries:
            assert (entry.net, entry.group) == (name, "") or name in ("core", "all")
            assert Layer.from_dict(json.loads(json.dumps(entry.problem.to_dict()))) == entry.problem
    everything = suites.load("all").entries
    assert len(everything) == 242
    assert {entry.problem.family for entry in everything} == set(FAMILIES)


def test_core_is_a_selection_with_reasons() -> None:
    core, everything = suites.load("core"), suites.load("all")
    assert 35 <= len(core.entries) <= 50
    assert {entry.problem.family for entry in core.entries} == set(FAMILIES)
    for entry in core.entries:
        assert entry.group and entry.why
        assert everything.find(entry.layer, entry.net).problem == entry.problem


def test_sweeps_and_batches() -> None:
    suite = suites.load("lenet5")
    assert [entry.problem.N for entry in suite.sweep() if entry.layer == "conv1"] == [1, 64, 256, 1024]
    assert [entry.problem.N for entry in suite.sweep() if entry.layer == "pool1"] == [64]
    other = suite.with_batch(3)
    assert {entry.problem.N for entry in other.entries} == {3}
    assert [entry.with_batch(64) for entry in other.entries] == list(suite.entries)
    with pytest.raises(ValueError, match="at least one image"):
        suite.with_batch(0)


def survey() -> list[dict[str, Any]]:
    if not SURVEY.is_file():
        pytest.skip("the survey that the suites were made from does not lie beside the repository")
    return json.loads(SURVEY.read_text())["layers"]


def test_suites_are_the_surveys_layers() -> None:
    """Problem, sweep, output size, family, and the work and bytes that the survey counted itself."""
    listed = {(row["net"], row["name"]): row for row in survey()}
    entries = suites.load("all").entries
    assert sorted(listed) == sorted((entry.net, entry.layer) for entry in entries)
    for entry in entries:
        row, problem = listed[entry.net, entry.layer], entry.problem
        assert f"{row['op']}2d" == problem.op
        assert entry.count == COUNTS.get(entry.net, {}).get(entry.layer, row["count"]), entry
        assert entry.batches == tuple(row.get("N_sweep", ())), entry
        for key in ("N", "C", "H", "W", "K", "groups"):
            assert row[key] == getattr(problem, key), entry
        assert (row["P"], row["Q"]) == problem.output_size, entry
        assert row["family"] == problem.family, entry
        if problem.output is None:
            theirs = row["R"], row["S"], row["stride"], row["pad"], row["dil"], row.get("output_padding", [0, 0])
            ours = problem.stride, problem.padding, problem.dilation, problem.output_padding
            assert theirs == (problem.R, problem.S, *map(list, ours)), entry
        else:
            assert (row["R"], row["S"]) == problem.output, entry
        forward = problem.passes[0]
        assert problem.useful_bytes(forward, 2) == row.get("fwd_bytes_values_only", row["fwd_bytes_bf16"]), entry
        useful = row["fwd_flops"] * row.get("valid_tap_fraction", 0)
        assert problem.useful_flops(forward) == pytest.approx(useful, rel=1e-3), entry


GOOD = {"net": "tiny", "title": "Tiny", "source": "here", "layers": [{"layer": "a", "count": 1, "op": "conv2d"}]}
SIZES = {"N": 1, "C": 2, "H": 5, "W": 5, "K": 2, "R": 3, "S": 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "layer 'a': .*missing .*N"),
        ({"layers": [GOOD["layers"][0] | SIZES | {"R": 9}]}, "layer 'a': conv2d: .*Kernel size"),
        ({"layers": [GOOD["layers"][0] | SIZES | {"strides": 2}]}, "layer 'a': a layer has no strides"),
        ({"layers": [GOOD["layers"][0] | SIZES | {"count": 0}]}, "count a number from 1"),
        ({"layers": [GOOD["layers"][0] | SIZES] * 2}, "listed twice: a"),
        ({"layers": []}, "layers is a list of objects, and not empty"),
        ({"net": "large"}, "the file is called tiny, its net 'large'"),
        ({"extra": 1}, "the file has no use for extra"),
        ({"sweep": [0]}, "sweep is a list of batch sizes"),
    ],
)
def test_a_bad_file_is_named_with_its_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(suites, "directory", lambda: tmp_path)
    (tmp_path / "tiny.json").write_text(json.dumps(GOOD | change))
    with pytest.raises(ValueError, match=rf"(?s)tiny\.json: .*{message}"):
        suites.load("tiny")


def test_what_does_not_exist_is_answered_with_what_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ValueError, match=r"no suite is called 'resnet5': did you mean resnet50.*there are core, alexnet,"
    ):
        suites.load("resnet5")
    with pytest.raises(ValueError, match=r"no suite is called '\.\./suites/core'"):
        suites.load("../suites/core")
    with pytest.raises(ValueError, match=r"suite 'lenet5' has no layer 'conv9': .*there are conv1, conv2"):
        suites.load("lenet5").find("conv9")
    with pytest.raises(ValueError, match=r"has 'stem' in .*mobilenet_v2.*resnet50.*: name one"):
        suites.load("all").find("stem")
    monkeypatch.setattr(suites, "directory", lambda: tmp_path)
    with pytest.raises(ValueError, match="no suites"):
        suites.names()
    group = {"group": "g", "why": "w", "layers": [{"net": "tiny", "layer": "b"}]}
    selection = {"suite": "few", "title": "Few", "source": "here", "groups": [group]}
    (tmp_path / "few.json").write_text(json.dumps(selection))
    with pytest.raises(ValueError, match=r"few\.json: no suite is called 'tiny'"):
        suites.load("few")
    (tmp_path / "tiny.json").write_text(json.dumps(GOOD | {"layers": [GOOD["layers"][0] | SIZES]}))
    with pytest.raises(ValueError, match=r"few\.json: suite 'tiny' has no layer 'b'"):
        suites.load("few")
    (tmp_path / "tiny.json").write_text("{")
    with pytest.raises(ValueError, match=r"tiny\.json: not JSON"):
        suites.load("tiny")


def test_an_installed_package_has_the_suites(tmp_path: Path) -> None:
    """The step of a wheel's build that gathers the Python files, alone: the others compile."""
    (tmp_path / "egg").mkdir()
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", tmp_path / "egg"]
    subprocess.run([*command, "build_py", "--build-lib", tmp_path / "lib"], cwd=ROOT, check=True, capture_output=True)
    code = "from cnnkernels.bench import suites; print(suites.directory(), len(suites.load('all').entries))"
    seen = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "lib", check=True, capture_output=True, text=True
    )
    assert seen.stdout.split() == [str(tmp_path / "lib" / "cnnkernels" / "bench" / "suites"), "242"]


# Useful work, counted by running the layer on ones


@pytest.mark.parametrize(
    "layer",
    [
        Layer("conv2d", 2, 4, 9, 7, 6, 3, 3, stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
        Layer("conv2d", 1, 3, 7, 8, 5, stride=(2, 2)),  # reads a quarter of the pixels
        Layer("conv2d", 1, 2, 6, 6, 2, 3, 3, padding=(5, 5), dilation=(5, 5)),  # most taps in the padding
        Layer("conv2d", 2, 4, 5, 5, 8, 3, 3, padding=(1, 1), groups=4),
        Layer("conv_transpose2d", 2, 4, 5, 4, 6, 4, 4, stride=(2, 2), padding=(1, 1), groups=2),
        Layer("conv_transpose2d", 1, 2, 3, 3, 2, 2, 2, stride=(3, 3), output_padding=(1, 2)),  # leaves gaps
        Layer("conv_transpose2d", 1, 2, 4, 4, 3, 3, 3, padding=(1, 1), dilation=(2, 2)),
        Layer("max_pool2d", 2, 3, 8, 7, R=3, S=2, stride=(2, 3), padding=(1, 0)),
        Layer("max_pool2d", 1, 2, 7, 7, R=2, S=2, stride=(3, 3)),  # skips pixels
        Layer("avg_pool2d", 1, 2, 7, 6, R=3, S=3, stride=(2, 2), ceil_mode=True),
        Layer("adaptive_avg_pool2d", 2, 3, 7, 5, output=(3, 2)),
        Layer("adaptive_max_pool2d", 2, 3, 7, 5, output=(1, 1)),
    ],
    ids=str,
)
def test_useful_work_is_what_ones_count(layer: Layer) -> None:
    x = torch.ones(layer.input_shape, dtype=torch.float64, requires_grad=True)
    w = None if layer.is_pooling else torch.ones(layer.weight_shape, dtype=torch.float64, requires_grad=True)
    # Average pooling passes a gradient to every pixel that it reads.
    reader = Layer.from_dict(layer.to_dict() | {"op": layer.op.replace("max", "avg")})
    y = reader.forward(x, w)
    y.sum().backward()
    assert x.grad is not None
    read = int((x.grad != 0).sum())
    written = int((y != 0).sum())
    weights = 0 if w is None else w.numel()
    if layer.is_pooling:
        expected = {"forward": read + y.numel(), "backward": x.numel() + y.numel()}
        assert [layer.useful_flops(name) for name in layer.passes] == [0, 0]
    else:
        transposed = layer.op == "conv_transpose2d"
        used = written if transposed else y.numel()
        read = x.numel() if transposed else read
        expected = {
            "fprop": read + weights + y.numel(),
            "dgrad": x.numel() + weights + used,
            "wgrad": read + weights + used,
        }
        # A result of ones is the number of taps inside the image that it sums.
        assert {layer.useful_flops(name) for name in layer.passes} == {2 * int(y.sum())}
    for name, elements in expected.items():
        index = y.numel() if name == "backward" and "max" in layer.op else 0
        assert layer.useful_bytes(name, 2) == 2 * elements + index, name
        assert layer.useful_bytes(name, 8) == 8 * elements + index, name
    assert layer.output_shape == tuple(y.shape)
