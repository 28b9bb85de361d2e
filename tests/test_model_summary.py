"""A model's layers: their numbers against published ones, torch's own count, a real forward and gradients."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import cnnkernels
from cnnkernels import arithmetic
from cnnkernels.bench.model_summary import ModelSummary, Row, summarize
from cnnkernels.cli import main
from cnnkernels.models import MODELS, RESNETS
from cnnkernels.models.load import load_model


def of_model(name: str) -> ModelSummary:
    with torch.device("meta"):  # no weights to be made
        model, shape = load_model(name)
    return summarize(model, (1, *shape), name)


def rows(model: nn.Module, *shape: int) -> dict[str, Row]:
    n, c, h, w = shape
    return {row.name: row for row in summarize(model, (n, c, h, w), "net").rows}


def size(row: Row) -> tuple[int | None, ...] | None:
    return None if row.fields is None else tuple(axis.field and axis.field.size for axis in row.fields)


#: Parameters and MACs: torchvision's tables of models. Fields of the last convolution: by the recurrence. Araujo, Norris
#: and Sim have 483 for the ResNet-50 that has its strides in the 1x1 filters; here they are in the 3x3 filters.
KNOWN = {
    "lenet5": (61_706, 416_520, "conv2", 14),
    "mnistnet": (21_840, 480_500, "conv2", 14),
    "resnet18": (11_689_512, 1_814_073_344, "layer4.1.conv2", 435),
    "resnet34": (21_797_672, 3_663_761_408, "layer4.2.conv2", 899),
    "resnet50": (25_557_032, 4_089_184_256, "layer4.2.conv3", 427),
    "resnet101": (44_549_160, 7_801_405_440, "layer4.2.conv3", 971),
    "resnet152": (60_192_808, 11_513_626_624, "layer4.2.conv3", 1451),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_numbers(name: str) -> None:
    parameters, macs, last, field = KNOWN[name]
    found = of_model(name)
    assert (found.parameters, found.macs, found.elsewhere) == (parameters, macs, ())
    by_name = {row.name: row for row in found.rows}
    assert size(by_name[last]) == (field, field)
    assert all(axis.everything for axis in found.rows[-1].fields or ())


def test_resnet50_with_strides_in_its_1x1_filters_has_the_published_field() -> None:
    model = cnnkernels.models.resnet50(width=4, num_classes=2)
    for module in model.modules():
        if getattr(getattr(module, "conv2", None), "stride", None) == (2, 2):
            module.conv1.stride, module.conv2.stride = (2, 2), (1, 1)
    assert size(rows(model, 1, 3, 64, 64)["layer4.2.conv3"]) == (483, 483)


def alexnet() -> nn.Module:
    steps = [
        nn.Conv2d(3, 64, 11, 4, 2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    ]
    for channels, filters in ((192, 384), (384, 256), (256, 256)):
        steps += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(True)]
    head = [nn.Flatten(), nn.Linear(9216, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)]
    return nn.Sequential(*steps, nn.MaxPool2d(3, 2), nn.AdaptiveAvgPool2d(6), *head)


def test_alexnet_has_the_published_numbers() -> None:
    with torch.device("meta"):
        model = alexnet()
    found = summarize(model, (1, 3, 224, 224), "alexnet")
    assert found.parameters == sum(row.parameters for row in found.rows) == 61_100_840
    assert found.macs == 714_188_480
    assert size(found.rows[12]) == (195, 195) and found.rows[12].kind == "MaxPool2d"


class Everything(nn.Module):
    """Branches, functions, shared and unused layers, parameters of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.wide = nn.Conv2d(8, 8, (3, 5), padding=(1, 2), groups=4)
        self.reflect = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect", bias=False)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(16, 8, 1))
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.weight = nn.Parameter(torch.ones(8, 8, 2, 2))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.swish = Swish()
        self.unused = nn.Linear(2, 3)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([self.wide(x), self.reflect(self.reflect(x))], 1)
        x = F.max_pool2d(self.normed(x) * self.scale, 2)
        x = self.swish(F.conv2d(x, self.weight, padding="valid"))
        tokens = x.flatten(2).transpose(1, 2)
        tokens = self.attention(tokens, tokens, tokens, need_weights=False)[0] @ self.weight[:, :, 0, 0]
        return self.head(tokens.mean(1))


class Swish(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.sigmoid()


def test_rows_of_modules_and_functions() -> None:
    model = Everything().train()
    state = copy.deepcopy(model.state_dict())
    found = summarize(model, (2, 3, 20, 16), "everything")
    assert model.training and all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [(row.name, row.kind, row.output, row.parameters, row.shared) for row in found.rows] == [
        ("stem.0", "Conv2d", (2, 8, 10, 8), 224, 0),
        ("stem.1", "BatchNorm2d", (2, 8, 10, 8), 16, 0),
        ("stem.2", "ReLU", (2, 8, 10, 8), 0, 0),
        ("wide", "Conv2d", (2, 8, 10, 8), 248, 0),
        ("reflect", "Conv2d", (2, 8, 10, 8), 576, 0),
        ("reflect#2", "Conv2d", (2, 8, 10, 8), 0, 576),
        ("normed", "ParametrizedConv2d", (2, 8, 10, 8), 144, 0),
        ("max_pool2d", "max_pool2d", (2, 8, 5, 4), 0, 0),
        ("conv2d", "conv2d", (2, 8, 4, 3), 256, 0),
        ("swish", "Swish", (2, 8, 4, 3), 0, 0),
        ("attention", "MultiheadAttention", (2, 12, 8), 288, 0),
        ("matmul", "matmul", (2, 12, 8), 0, 256),
        ("head", "Linear", (2, 5), 45, 0),
    ]
    assert found.elsewhere == (("scale", 8), ("unused.weight", 6), ("unused.bias", 3))
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.between == {"cat": 1, "mul": 1, "mean": 1}
    assert [row.name for row in found.rows if row.plan("f32", "nchw")] == [
        "stem.0", "wide", "reflect", "reflect#2", "normed", "max_pool2d", "conv2d",
    ]  # fmt: skip
    # Without data attention is made of products of matrices: its fused kernels for a CPU are not counted.
    with FlopCounterMode(display=False) as counter:
        model.eval().to("meta")(torch.randn(2, 3, 20, 16, device="meta"))
    assert found.macs == counter.get_total_flops() // 2


def test_a_module_that_only_calls_functions_is_its_functions() -> None:
    class Functions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 4, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return F.max_pool2d(F.conv2d(x, self.weight).relu(), 2)

    found = summarize(nn.Sequential(Functions(), Swish()), (1, 4, 8, 8), "net")
    assert [(row.name, row.parameters) for row in found.rows] == [("0.conv2d", 144), ("0.max_pool2d", 0), ("1", 0)]
    assert found.between == {"relu": 1}


def test_a_model_that_looks_at_its_data_has_the_same_rows() -> None:
    class Looks(Everything):
        def forward(self, x: Tensor) -> Tensor:
            assert x.sum().item() == 0
            return super().forward(x)

    found, expected = (summarize(model, (2, 3, 20, 16), "net") for model in (Looks(), Everything()))
    assert "ran on the CPU with data" in found.notices[0] and not expected.notices
    assert found.macs == expected.macs
    assert [
        (row.name, row.output, row.elements, row.plan("f32", "nchw")) for row in found.rows if row.name != "attention"
    ] == [
        (row.name, row.output, row.elements, row.plan("f32", "nchw"))
        for row in expected.rows
        if row.name != "attention"
    ]


def test_bytes_are_each_tensors_once() -> None:
    found = rows(Everything(), 2, 3, 20, 16)
    conv = arithmetic.conv2d((2, 8, 10, 8), (8, 2, 3, 5), padding=(1, 2), groups=4)
    reflect = arithmetic.conv2d((2, 8, 10, 8), (8, 8, 3, 3), bias=False, padding=1)
    pool = arithmetic.max_pool2d((2, 8, 10, 8), 2)
    head = arithmetic.linear((2, 8), (5, 8))
    for name, expected in (("wide", conv), ("reflect", reflect), ("max_pool2d", pool), ("head", head)):
        assert found[name].bytes("bf16") == expected.bytes(torch.bfloat16)
        assert found[name].macs == expected.macs
    pixels = 2 * 8 * 10 * 8
    assert found["stem.1"].elements == 2 * pixels + 4 * 8  # weight, bias, mean, variance
    assert found["stem.2"].elements == 2 * pixels  # read and written in place
    assert rows(nn.Sequential(nn.Flatten(), nn.Dropout()), 1, 2, 3, 3)["1"].elements == 0
    assert rows(nn.MaxPool2d(2, return_indices=True), 1, 2, 4, 4)["MaxPool2d"].other_bytes == 8 * 8


def test_fp32_that_may_be_multiplied_as_tf32() -> None:
    model = nn.Sequential(nn.Conv2d(64, 64, 3), nn.ConvTranspose2d(64, 64, 2, 2), nn.MaxPool2d(2))
    found = summarize(model, (8, 64, 20, 20), "net")
    in_tf32, in_f32 = ([row.plan(dtype, "channels_last") for row in found.rows] for dtype in ("tf32", "f32"))
    assert [plan.kernel.rpartition("_")[2] for plan in in_tf32 if plan] == ["tf32", "tf32", "f32"]
    assert [plan.kernel.rpartition("_")[2] for plan in in_f32 if plan] == ["f32"] * 3
    assert found.bytes("tf32") == found.bytes("f32") and found.roofline_us("tf32") < found.roofline_us("f32")


def test_roofline_is_the_larger_of_traffic_and_arithmetic() -> None:
    few = rows(nn.Conv2d(64, 64, 1), 1, 64, 8, 8)["Conv2d"]
    assert few.roofline_us("bf16") == pytest.approx(few.bytes("bf16") / 4.3e12 * 1e6)
    many = rows(nn.Conv2d(512, 512, 7, padding=3), 1, 512, 32, 32)["Conv2d"]
    assert many.roofline_us("f32") == pytest.approx(2 * many.macs / (132 * 256 * 1.98e9) * 1e6)


@pytest.mark.parametrize("name", [*MODELS, "resnet18", "resnet50"])  # the others are these with more of the same
def test_shapes_are_those_of_a_real_forward(name: str) -> None:
    model = (MODELS | RESNETS)[name](**({"width": 4} if name in RESNETS else {}))
    shape = (2, 3, 32, 32) if name in RESNETS else (2, 1, model.input_size, model.input_size)
    found = summarize(model, shape, name)
    seen: list[tuple[str, tuple[int, ...]]] = []
    for path, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda _, __, output, path=path: seen.append((path, tuple(output.shape))))
    with torch.no_grad(), cnnkernels.use_backend("torch"):
        model.eval()(torch.randn(shape))
    assert [(row.name.partition("#")[0], row.output) for row in found.rows] == seen
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())


# --- Receptive fields.


class Residual(nn.Module):
    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


class Channelwise(nn.Module):
    """A linear layer on the channels of each pixel, by way of another order of the dimensions."""

    def __init__(self, channels: int, tokens: bool) -> None:
        super().__init__()
        self.linear, self.tokens = nn.Linear(channels, channels), tokens

    def forward(self, x: Tensor) -> Tensor:
        if not self.tokens:
            return self.linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.linear(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)


class Shuffled(nn.Module):
    """Half of the channels convolved, all shuffled, as ShuffleNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        y = torch.cat([first, self.conv(second)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class Crop(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, 2:-1:2, 1:], (1, 0, 2, 1))


CONV = nn.Conv2d(4, 4, 3, padding=1)
FIELDS = {
    "residual": nn.Sequential(CONV, Residual(nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1), CONV), nn.Conv2d(4, 4, 1, 2)), CONV),
    "paths with other centres": nn.Sequential(Residual(nn.Conv2d(4, 4, 3, padding=(2, 1)), nn.Conv2d(4, 4, (1, 3), padding=(1, 1))), CONV),
    "asymmetric": nn.Sequential(nn.Conv2d(4, 4, (3, 1), dilation=(3, 1), padding=(1, 0)), nn.AvgPool2d((1, 4), (1, 2))),
    "channels last": nn.Sequential(CONV, Channelwise(4, False), nn.Conv2d(4, 4, 3, 2)),
    "tokens": nn.Sequential(CONV, Channelwise(4, True), nn.Conv2d(4, 4, 3, 2)),
    "shuffled": nn.Sequential(CONV, Shuffled(), Shuffled()),
    "cropped and padded": nn.Sequential(CONV, Crop(), nn.Conv2d(4, 4, 3)),
    "normed": nn.Sequential(nn.Conv2d(4, 4, 2), nn.BatchNorm2d(4), nn.Sigmoid(), nn.AdaptiveAvgPool2d((13, 5))),
    "transposed with stride 1": nn.Sequential(CONV, nn.ConvTranspose2d(4, 4, 3, padding=1, dilation=2)),
}  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_fields_are_where_gradients_reach(name: str) -> None:
    """With filters that are not negative, a pixel has a gradient where a feature depends on it."""
    model = copy.deepcopy(FIELDS[name]).double().eval()
    for parameter in model.parameters():
        parameter.data.abs_().add_(0.1)
    row = summarize(model, (1, 4, 27, 26), name).rows[-1]
    x = torch.rand(1, 4, 27, 26, dtype=torch.float64, requires_grad=True)
    y = model(x)
    assert row.fields is not None
    checked = 0
    for i in range(0, y.shape[2], 3):
        for j in range(0, y.shape[3], 3):
            (gradient,) = torch.autograd.grad(y[0, :, i, j].sum(), x, retain_graph=True)
            touched = gradient[0].sum(0).nonzero()
            for axis, feature in ((0, i), (1, j)):
                field = row.fields[axis].field
                assert field is not None
                first, last = field.left + feature * field.jump, field.left + feature * field.jump + field.size - 1
                if first >= 2 and last < x.shape[2 + axis] - 2:  # not cut at the image's edge, nor by the crop
                    assert (int(touched[:, axis].min()), int(touched[:, axis].max())) == (first, last)
                    checked += 1
    assert checked


class Squeeze(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean((2, 3), keepdim=True))


@pytest.mark.parametrize(
    ("last", "whole"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(4 * 12 * 12, 3)), True),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 2, 1), nn.Upsample(scale_factor=3)), True),
        (nn.GroupNorm(2, 4), True),
        (nn.Sequential(Residual(nn.Conv2d(4, 4, 12), nn.Conv2d(4, 4, 1)), nn.ReLU()), True),
        (nn.InstanceNorm2d(4), True),
        (nn.Sequential(Squeeze(), nn.Conv2d(4, 4, 3)), True),
        (nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(4)), False),
        (nn.Linear(12, 5), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_sees_the_whole_image(last: nn.Module, whole: bool) -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), last)
    row = summarize(model, (1, 4, 12, 12), "net").rows[-1]
    assert row.fields is not None and all(axis.field is not None for axis in row.fields)
    assert all(axis.everything for axis in row.fields) == whole


def test_a_part_of_the_image_hides_no_other_part() -> None:
    class Top(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x[:, :, :3].mean((2, 3), keepdim=True)

    height, width = rows(Top(), 1, 4, 12, 12)["Top"].fields or ()
    assert (height.field, width.everything) == (None, True)


def test_a_linear_layer_over_one_axis_sees_that_axis() -> None:
    height, width = rows(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Linear(12, 5)), 1, 4, 9, 12)["1"].fields or ()
    assert (height.field, width.everything) == (arithmetic.ReceptiveField(3, 1, -1), True)


@pytest.mark.parametrize(
    "model",
    [
        nn.ConvTranspose2d(4, 4, 2, 2),
        nn.Upsample(scale_factor=2),
        nn.AdaptiveAvgPool2d(5),
        nn.PixelShuffle(2),
        Residual(nn.Conv2d(4, 4, 3, padding=1), nn.Sequential(nn.Conv2d(4, 4, 2, 2), nn.Upsample(scale_factor=2))),
        Residual(nn.Conv2d(4, 4, 1, 2), nn.Conv2d(4, 4, 7)),
    ],
)
def test_what_is_not_known_stays_unknown(model: nn.Module) -> None:
    found = summarize(nn.Sequential(model, nn.ReLU(), nn.MaxPool2d(2)), (1, 4, 12, 12), "net").rows
    for row in found[-2:]:
        assert row.fields is not None and [axis.field for axis in row.fields] == [None, None]


def test_a_tensor_that_does_not_depend_on_the_image_has_no_field() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.conv = nn.Embedding(5, 8), nn.Conv2d(1, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) + self.table(torch.arange(5, device=x.device)).sum(0)[:, None, None]

    found = rows(Constant(), 1, 1, 3, 3)
    assert found["table"].fields is None
    assert size(found["conv"]) == (1, 1)


# --- The command.


def run(*arguments: str, code: int = 0, columns: int = 120) -> str:
    result = CliRunner().invoke(main, ["summary", *arguments], env={"COLUMNS": str(columns)})
    assert result.exit_code == code, result.output
    return result.output


FACTORY = """
import torch
from torch import nn
import torch.nn.functional as F

class Net(nn.Module):
    input_shape = (2, 9, 8)
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 7, 3)
    def forward(self, x):
        if x.shape[1] != 2:
            raise RuntimeError("two channels, please\\nand a long story")
        return F.avg_pool2d(self.conv(x), 2)

def broken():
    raise KeyError("no such thing")
"""


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(FACTORY)
    return path


@pytest.mark.parametrize("columns", [80, 120, 160])
def test_the_table_is_whole_at_every_width(columns: int) -> None:
    output = run("lenet5", "resnet18", "--input", "2,1,32,32", "--layer", "conv1", columns=columns, code=1)
    assert "[2, 1, 32, 32]" in output  # resnet18 takes three channels: the error is its own
    output = run("resnet18", "--batch", "2", columns=columns)
    assert max(map(len, output.splitlines())) <= columns
    assert "…" not in output
    joined = "".join(output.split())
    for text in ("11,689,512", "3,628,146,688", "435", "2x512x7x7", "nothingours", "modelled,notmeasured", "add8"):
        assert text in joined
    if columns >= 160:
        kernels = {row["kernel"] for row in json.loads(run("resnet18", "--batch", "2", "--json"))[0]["layers"]} - {None}
        assert all(kernel in output for kernel in kernels)


def test_json_has_what_the_table_has(factory: Path) -> None:
    assert [row["name"] for row in json.loads(run("lenet5", "--json", "--layer", "conv"))[0]["layers"]] == [
        "conv1",
        "conv2",
    ]
    (found, other) = json.loads(
        run(f"{factory}:Net", "--json", "--dtype", "f32", "--layout", "nchw", "--layout", "channels_last")
    )
    assert (found["layout"], other["layout"], found["dtype"]) == ("nchw", "channels_last", "f32")
    assert found["input"] == [1, 2, 9, 8]
    conv, pool = found["layers"]
    assert conv["kernel"].endswith("_f32") and conv["kernel_modelled_us"] > 0
    assert (conv["name"], conv["type"], conv["output"], conv["macs"]) == (
        "conv",
        "Conv2d",
        [1, 7, 7, 6],
        7 * 7 * 6 * 18,
    )
    assert (pool["name"], pool["output"], pool["family"]) == ("avg_pool2d", [1, 7, 3, 3], "windows")
    field = {"size": 4, "jump": 2, "start": 1.5, "whole_image": False}
    assert pool["receptive_field"] == [field, field]
    assert found["bytes"] == conv["bytes"] + pool["bytes"] == 4 * (144 + 133 + 2 * 294 + 63)
    assert found["kernels_modelled_us"] == conv["kernel_modelled_us"] + pool["kernel_modelled_us"]


def test_what_cannot_be_summarised_is_said_in_a_line(factory: Path) -> None:
    for arguments, code, text in (
        (("resnet51",), 1, "lenet5, mnistnet, resnet18"),
        (("torchvision:resnet51",), 1, "did you mean resnet" if importlib.util.find_spec("torchvision") else "pip install torchvision"),
        (("lenet5", "--input", "1,3"), 2, "'1,3' is not four numbers from 1, as 1,3,224,224"),
        (("lenet5", "--input", "1,1,0,32"), 2, "not four numbers"),
        (("lenet5", "--input", "a"), 2, "not four numbers"),
        (("lenet5", "--input", "1,3,32,32"), 1, "expected input[1, 3, 32, 32] to have 1 channels"),
        (("lenet5", "--layer", "nope"), 1, "lenet5: no layer has 'nope' in its name"),
        (("lenet5", "--batch", "2", "--input", "1,1,32,32"), 2, "leave --batch out"),
        (("lenet5", "--pass", "fprop"), 2, "--pass and --reasons"),
        (("lenet5", "--suite", "lenet5"), 2, "two questions"),
        (("--suite", "lenet5", "--input", "1,1,32,32"), 2, "--input is a MODEL's"),
        ((f"{factory}:Nett",), 1, "did you mean Net?"),
        ((f"{factory}:broken",), 1, "KeyError: 'no such thing'"),
        ((f"{factory}:Net", "--input", "1,3,9,8"), 1, "raised RuntimeError: two channels, please\n"),
    ):  # fmt: skip
        output = run(*arguments, code=code)
        assert text in output, arguments
        assert "Traceback" not in output and "long story" not in output


@pytest.mark.parametrize(
    ("name", "parameters", "giga_macs", "field"),
    [
        ("mobilenet_v2", 3_504_872, 0.30, 491),
        ("inception_v3", 27_161_264, 5.71, 1311),
        ("vgg16", 138_357_544, 15.47, 212),
    ],
)
def test_torchvisions(name: str, parameters: int, giga_macs: float, field: int) -> None:
    """Parameters and MACs of its tables; fields of the last features: Araujo, Norris and Sim (not of MobileNetV2)."""
    try:
        found = of_model(f"torchvision:{name}")
    except ValueError as error:
        pytest.skip(str(error))
    assert found.parameters == parameters
    assert round(found.macs / 1e9, 2) == giga_macs
    largest = max(axis.field.size for row in found.rows for axis in row.fields or () if axis.field and axis.field.jump)
    assert largest == field
