"""What collect() finds in a model that runs, and how models are named on the command line."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cnnkernels
from cnnkernels.bench import suites
from cnnkernels.bench.collect import collect
from cnnkernels.bench.layer import Layer
from cnnkernels.models import LeNet5
from cnnkernels.models import load as models_load
from cnnkernels.models.load import load_model


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(8, 8, 3, padding="same", groups=8, dilation=2)
        self.shared = nn.Conv2d(8, 8, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(self.shared(self.depthwise(x)))
        return F.max_pool2d(x, 2) + F.max_pool2d(x, kernel_size=(2, 2), stride=2, return_indices=True)[0]


class Nested(nn.Module):
    """Everything that collect() can state, in the ways that models write it."""

    def __init__(self, layers: ModuleType = nn) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            layers.Conv2d(3, 8, (3, 5), stride=(2, 1), padding=(1, 2)), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.block = Block()
        self.up = layers.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.reflect = nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect")
        self.average = layers.AvgPool2d(3, stride=2, ceil_mode=True, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.average(self.reflect(self.up(self.block(self.stem(x)))))
        x = F.adaptive_max_pool2d(x, (None, 2))
        return F.adaptive_avg_pool2d(x, 1) + F.avg_pool2d(x[0], (2, 1), padding=(1, 0)).sum()


@pytest.mark.parametrize("layers", [nn, cnnkernels.nn], ids=["torch", "ours"])
def test_collect_finds_modules_and_functional_calls(layers: ModuleType) -> None:
    suite = collect(Nested(layers), (2, 3, 16, 12), "nested")
    assert [(entry.layer, entry.count, str(entry.problem)) for entry in suite.entries] == [
        ("stem.0", 1, "conv2d n2 c3 16x12 k8 3x5 stride 2x1 pad 1x2"),
        ("block.depthwise", 1, "conv2d n2 c8 8x12 k8 3x3 pad 2 dilation 2 groups 8"),
        ("block.shared", 2, "conv2d n2 c8 8x12 k8 3x3 pad 1"),
        ("block.max_pool2d", 2, "max_pool2d n2 c8 8x12 2x2 stride 2"),
        ("up", 1, "conv_transpose2d n2 c8 4x6 k6 3x3 stride 2 pad 1 output pad 1 groups 2"),
        ("reflect", 1, "conv2d n2 c6 10x14 k6 3x3"),
        ("average", 1, "avg_pool2d n2 c6 8x12 3x3 stride 2 ceil without pad"),
        ("adaptive_max_pool2d", 1, "adaptive_max_pool2d n2 c6 4x6 4x2"),
        ("adaptive_avg_pool2d", 1, "adaptive_avg_pool2d n2 c6 4x2 1x1"),
        ("avg_pool2d", 1, "avg_pool2d n1 c6 4x2 2x1 stride 2x1 pad 1x0"),
    ]
    assert {entry.net for entry in suite.entries} == {"nested"}
    assert "reflect" in suite.find("reflect").note
    assert (suite.left_out, suite.notices) == ((), ())


def test_collect_sees_through_our_backends() -> None:
    class Ours(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = cnnkernels.nn.Conv2d(1, 2, 3)
            self.conv.backend = "emulator"

        def forward(self, x: Tensor) -> Tensor:
            return cnnkernels.functional.max_pool2d(self.conv(x), 2)

    model = Ours()
    with cnnkernels.use_backend("emulator"):
        suite = collect(model, (1, 1, 8, 8), "ours")
    assert [entry.layer for entry in suite.entries] == ["conv", "max_pool2d"]
    assert (suite.left_out, suite.notices) == ((), ())
    assert model.conv.backend == "emulator"


def test_collect_leaves_the_model_as_it_was() -> None:
    model = Nested().train()
    state, buffers = copy.deepcopy(model.state_dict()), dict(model.named_buffers())
    collect(model, (2, 3, 16, 12), "nested")
    assert model.training and all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(buffer is buffers[name] for name, buffer in model.named_buffers())
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


@pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated", "ignore:The .grad attribute", "ignore:Using padding="
)
def test_collect_says_what_it_leaves_out() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.even = nn.Conv2d(2, 2, 4, padding="same")
            self.scripted = torch.jit.script(nn.Sequential(nn.Conv2d(2, 2, 1)))

        def forward(self, x: Tensor) -> Tensor:
            x = F.lp_pool2d(self.scripted(self.even(x)), 2.0, 1)
            x = F.avg_pool2d(x, 2, divisor_override=3)
            x = F.max_pool2d(F.max_pool2d(x, 2), 3, 1, 1)
            F.conv2d(x.to(torch.complex64), torch.ones(2, 2, 1, 1, dtype=torch.complex64, device=x.device))
            return F.conv1d(x.flatten(2), torch.ones(2, 2, 1, device=x.device))

    suite = collect(Odd(), (1, 2, 16, 16), "odd")
    assert [entry.layer for entry in suite.entries] == ["max_pool2d", "max_pool2d#2"]
    reasons = dict(suite.left_out)
    assert set(reasons) == {"scripted", "even", "lp_pool2d", "avg_pool2d", "conv2d", "conv1d"}
    for name, reason in (("even", "one side more"), ("avg_pool2d", "divisor"), ("scripted", "TorchScript")):
        assert reason in reasons[name]


def test_collect_runs_with_data_where_it_must_and_says_so() -> None:
    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) if x.sum().item() == 0 else x

    suite = collect(Looks(), (1, 1, 8, 8), "looks")
    assert [entry.layer for entry in suite.entries] == ["conv"]
    assert "ran on the CPU with data" in suite.notices[0]


def test_collect_refuses_what_it_cannot_run() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return F.max_pool2d(x + y, 2)

    with pytest.raises(ValueError, match=r"two: its forward pass on one image tensor .*missing 1 required"):
        collect(Two(), (1, 1, 8, 8), "two")
    with pytest.raises(ValueError, match=r"lenet: .*expected input\[1, 3, 32, 32\] to have 1 channels"):
        collect(LeNet5(layers=nn), (1, 3, 32, 32), "lenet")
    with pytest.raises(ValueError, match="flat: no 2-D convolution or pooling runs"):
        collect(nn.Flatten(), (1, 1, 8, 8), "flat")


def test_load_model_knows_ours() -> None:
    model, shape = load_model("lenet5")
    assert isinstance(model, LeNet5) and shape == (1, 32, 32)
    assert [entry.layer for entry in collect(model, (4, *shape), "lenet5").entries] == [
        "conv1",
        "pool1",
        "conv2",
        "pool2",
    ]
    with pytest.raises(
        ValueError, match=r"no model 'lenet': did you mean lenet5.*torchvision:NAME, timm:NAME and path"
    ):
        load_model("lenet")


def test_load_model_runs_a_factory_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "width.py").write_text("WIDTH = 7\n")
    path = tmp_path / "own.py"
    path.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "from torch import nn\nfrom width import WIDTH\n"
        "@dataclass\nclass Settings:\n    width: int = WIDTH\n"
        "def net():\n    model = nn.Sequential(nn.Conv2d(2, Settings().width, 3))\n    model.input_shape = (2, 9, 8)\n    return model\n"
        "def plain():\n    return nn.Sequential(nn.MaxPool2d(2))\n"
        "def wrong():\n    return 3\n"
    )
    before = list(sys.path)
    model, shape = load_model(f"{path}:net")
    assert collect(model, (1, *shape), "own").entries[0].problem == Layer("conv2d", 1, 2, 9, 8, 7, 3, 3)
    assert load_model(f"{path}:plain")[1] == (3, 224, 224)
    for spec, message in (
        (f"{path}:nett", "did you mean net"),
        (f"{path}:wrong", "gave a int, not an nn.Module"),
        (f"{tmp_path}/none.py:net", "no file"),
    ):
        with pytest.raises(ValueError, match=message):
            load_model(spec)
    assert sys.path == before


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_a_missing_package_is_named_with_the_way_to_get_it(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(models_load.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"pip install {package}"):
        load_model(f"{package}:resnet50")


def test_torchvision_counts_are_the_suites() -> None:
    """What collect() finds in torchvision's ResNet-50 is the suite, layer for layer."""
    try:
        model, shape = load_model("torchvision:resnet50")
    except ValueError as error:
        pytest.skip(str(error))
    assert shape == (3, 224, 224)
    found = {entry.problem: entry.count for entry in collect(model, (32, *shape), "resnet50").entries}
    assert found == {entry.problem: entry.count for entry in suites.load("resnet50").entries}
    with pytest.raises(ValueError, match="torchvision has no 'resnet51': did you mean resnet"):
        load_model("torchvision:resnet51")
