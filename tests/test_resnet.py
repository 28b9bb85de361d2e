"""The residual networks: torchvision's state_dict, torch's results on every layer of ours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cnnkernels
from cnnkernels import models, trace
from cnnkernels.models.load import load_model

# Parameters as torchvision publishes them for its weights (https://docs.pytorch.org/vision/stable/models.html).
PARAMETERS = {
    "resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032, "resnet101": 44_549_160, "resnet152": 60_192_808,
}  # fmt: skip


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name: str) -> None:
    with torch.device("meta"):
        model = models.RESNETS[name]()
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_state_dict_is_torchvisions(torchvision_models: Any, name: str) -> None:
    with torch.device("meta"):
        ours, theirs = models.RESNETS[name](), getattr(torchvision_models, name)()
    assert [(key, value.shape, value.dtype) for key, value in ours.state_dict().items()] == [
        (key, value.shape, value.dtype) for key, value in theirs.state_dict().items()
    ]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_torchvisions_weights_give_torchvisions_scores(torchvision_models: Any, name: str) -> None:
    torch.manual_seed(0)
    theirs = getattr(torchvision_models, name)().eval()
    torch.manual_seed(0)
    ours = models.RESNETS[name](layers=nn).eval()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)), "from one seed"
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images))


def _step(model: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    scores = model(images)
    return scores.detach(), list(torch.autograd.grad(scores.square().sum(), list(model.parameters())))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_training_step_is_torchs(name: str) -> None:
    """In fp64, where no sign of a ReLU hangs on the last bit."""
    small: dict[str, Any] = {"width": 4, "in_channels": 1, "num_classes": 3}
    torch.manual_seed(0)
    twin = models.RESNETS[name](layers=nn, **small).double()
    ours = models.RESNETS[name](backend="emulator", **small).double()
    ours.load_state_dict(twin.state_dict())
    images = torch.randn(2, 1, 40, 40, dtype=torch.float64)
    wanted, wanted_gradients = _step(twin, images)
    with trace() as launched:
        scores, gradients = _step(ours, images)
    torch.testing.assert_close(scores, wanted)
    for (parameter, _), got, right in zip(ours.named_parameters(), gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(got, right, msg=lambda text, at=parameter: f"{at}: {text}")
    convolutions = sum(isinstance(module, nn.Conv2d) for module in ours.modules())
    assert sum("gather" in kernel for kernel in launched) >= 2 * convolutions - 1, (
        "fprop of all, dgrad of all but the first"
    )
    report = cnnkernels.restore(ours)
    assert len(report.replaced) == convolutions + 2


def test_by_name() -> None:
    with torch.device("meta"):
        model, shape = load_model("resnet34")
    assert isinstance(model, models.ResNet)
    assert shape == (3, 224, 224)
    with pytest.raises(ValueError, match="did you mean resnet101"):
        load_model("resnet100")
