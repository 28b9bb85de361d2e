"""Networks on our kernels, and the tables that find them by name."""

from collections.abc import Callable

from cnnkernels.models.blocks import DepthwiseSeparable, SpatiallySeparable
from cnnkernels.models.lenet import LeNet5
from cnnkernels.models.mnistnet import MNISTNet
from cnnkernels.models.resnet import ResNet, resnet18, resnet34, resnet50, resnet101, resnet152

#: The small networks, each for one size of images, by the name they have on the command line.
MODELS: dict[str, type[LeNet5] | type[MNISTNet]] = {"lenet5": LeNet5, "mnistnet": MNISTNet}

#: The residual networks, by name.
RESNETS: dict[str, Callable[..., ResNet]] = {
    "resnet18": resnet18, "resnet34": resnet34, "resnet50": resnet50, "resnet101": resnet101, "resnet152": resnet152,
}  # fmt: skip

__all__ = [
    "MODELS",
    "RESNETS",
    "DepthwiseSeparable",
    "LeNet5",
    "MNISTNet",
    "ResNet",
    "SpatiallySeparable",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
]
