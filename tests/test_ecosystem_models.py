"""Other people's models and file formats. Their packages are no dependency: without them these tests are skipped.

With torchvision its models take four minutes on two cores; -k "not torchvision" deselects them.
"""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cnnkernels
from cnnkernels import trace, use_backend

# What each model is asked for beside random weights and none to load.
TORCHVISION: dict[str, dict[str, Any]] = {
    "alexnet": {}, "vgg11_bn": {}, "googlenet": {"aux_logits": False, "init_weights": False}, "resnet18": {},
    "resnet50": {}, "resnext50_32x4d": {}, "densenet121": {}, "mobilenet_v2": {}, "mobilenet_v3_small": {},
    "efficientnet_b0": {},
    "convnext_tiny": {}, "shufflenet_v2_x1_0": {}, "squeezenet1_1": {}, "fcn_resnet50": {"weights_backbone": None},
    "deeplabv3_resnet50": {"weights_backbone": None},
}  # fmt: skip


def _results(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """The output and the gradient of its sum of squares by each parameter, in fp64."""
    output = model(images)
    if isinstance(output, Mapping):
        output = output["out"]
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(output.square().sum(), parameters)
    return {"output": output.detach().double(), **{n: g.double() for n, g in zip(names, gradients, strict=True)}}


def _relative_error(actual: Tensor, reference: Tensor) -> float:
    return float((actual - reference).norm() / reference.norm())


@pytest.mark.parametrize("name", TORCHVISION)
def test_models_of_torchvision(torchvision_models: Any, name: str) -> None:
    """Every convolution and pooling is replaced, and outputs and gradients are as near to fp64 as torch's are.

    In fp32, at 64 x 64 pixels. Allowed is twice torch's own error, tensor by tensor in the L2 norm, or what rounding
    makes of it: a layer's sums of L products are off by 6 sqrt(L + 1) u of their size (cnnkernels.testing.oracles),
    forward and backward, and D layers add up as independent errors do. A convolution left out, or a gradient counted
    twice, is off by a size of one.
    """
    model = torchvision_models.get_model(name, weights=None, **TORCHVISION[name]).eval()
    images = torch.randn(1, 3, 64, 64)
    reference = _results(copy.deepcopy(model).double(), images.double())
    theirs = _results(model, images)
    report = cnnkernels.convert(model, backend="emulator")
    assert report.replaced
    assert not report.kept
    with trace() as launched:
        ours = _results(model, images)
    assert len(launched) >= 2 * len(report.rows)

    weights = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
    length = max(weight[0].numel() for weight in weights)
    rounding = 6 * math.sqrt(2 * len(weights) * (length + 1)) * torch.finfo(torch.float32).eps / 2
    for what, wanted in reference.items():
        allowed = max(2 * _relative_error(theirs[what], wanted), rounding)
        assert _relative_error(ours[what], wanted) <= allowed, what


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "mobilenet_v2", "densenet121", "googlenet"])
def test_fused_models_of_torchvision(torchvision_models: Any, name: str) -> None:
    """With what follows convolutions in their kernels: fewer launches, as near to fp64 as torch is, by the bound above."""
    torch.manual_seed(0)
    model = torchvision_models.get_model(name, weights=None, **TORCHVISION[name]).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics that do something
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        reference = copy.deepcopy(model).double()(images.double())
        theirs = _relative_error(model(images).double(), reference)
        report = cnnkernels.convert(model, backend="emulator", fuse=True)
        apart, fused = report.launches(images)
        assert fused <= apart - len(report.fused)
        ours = _relative_error(model(images).double(), reference)
    weights = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
    length = max(weight[0].numel() for weight in weights)
    assert ours <= max(2 * theirs, 6 * math.sqrt(len(weights) * (length + 1)) * torch.finfo(torch.float32).eps / 2)


def test_features_of_torchvision(torchvision_models: Any) -> None:
    """create_feature_extractor finds the nodes of a converted model under the names that they had."""
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    model = torchvision_models.resnet18().eval()
    names = extraction.get_graph_node_names(model)
    images = torch.randn(1, 3, 32, 32)
    nodes = ["maxpool", "layer1.0.conv1", "layer2", "avgpool"]
    wanted = extraction.create_feature_extractor(model, nodes)(images)
    cnnkernels.convert(model, backend="emulator")
    assert extraction.get_graph_node_names(model) == names
    with trace() as launched:
        features = extraction.create_feature_extractor(model, nodes)(images)
    assert launched
    assert list(features) == nodes
    torch.testing.assert_close(features, wanted)


def _net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.AdaptiveAvgPool2d(1)
    ).eval()


def _onnx(model: nn.Module, images: Tensor) -> Tensor:
    """The output of the model's ONNX file."""
    reference = pytest.importorskip("onnx.reference", reason="needs the package onnx")
    pytest.importorskip("onnxscript", reason="needs the package onnxscript")
    file = io.BytesIO()
    torch.onnx.export(model, (images,), file, dynamo=True, verbose=False)
    onnx = pytest.importorskip("onnx")
    (output,) = reference.ReferenceEvaluator(onnx.load_from_string(file.getvalue())).run(
        None, {"input": images.numpy()}
    )
    return torch.from_numpy(output)


@pytest.mark.filterwarnings("ignore")
def test_a_converted_model_becomes_onnx() -> None:
    """ONNX has no such operators: a restored copy is exported, or a model of no named backend under torch's."""
    model, images = _net(), torch.randn(2, 3, 8, 8)
    cnnkernels.convert(model)
    with use_backend("emulator"):
        wanted = model(images)
    with use_backend("torch"):
        torch.testing.assert_close(_onnx(model, images), wanted)

    cnnkernels.convert(model, backend="emulator")
    with pytest.raises(torch.onnx.OnnxExporterError) as refused:
        _onnx(model, images)
    assert "cnnkernels.conv2d_fprop" in str(refused.value)
    portable = copy.deepcopy(model)
    cnnkernels.restore(portable)
    torch.testing.assert_close(_onnx(portable, images), wanted)
