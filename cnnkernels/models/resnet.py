"""Residual networks (He, Zhang, Ren, Sun 2015, arXiv 1512.03385): 18, 34, 50, 101 and 152 layers.

A bottleneck has its stride in the 3x3 convolution, as torchvision's have ("v1.5"); names and shapes of all parameters and
buffers are torchvision's, so a state_dict of either loads into the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from cnnkernels.models.layers import layer_namespace, set_backend

__all__ = ["BasicBlock", "Bottleneck", "ResNet", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]


def _projection(layers: ModuleType, channels: int, filters: int, stride: int) -> nn.Sequential | None:
    """The shortcut of a block whose result has another shape than what it gets: 1x1 convolution and BatchNorm."""
    if stride == 1 and channels == filters:
        return None
    return nn.Sequential(layers.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: [N, channels, H, W] -> [N, width, H / stride, W / stride]."""

    expansion = 1

    def __init__(self, layers: ModuleType, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = layers.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = layers.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _projection(layers, channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        maps = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(maps)) + shortcut)


class Bottleneck(nn.Module):
    """1x1 to `width` channels, 3x3, 1x1 to four times as many, and a shortcut: [N, channels, H, W] -> [N, 4 width, ...]."""

    expansion = 4

    def __init__(self, layers: ModuleType, channels: int, width: int, stride: int) -> None:
        super().__init__()
        filters = self.expansion * width
        self.conv1 = layers.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = layers.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = layers.Conv2d(width, filters, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(filters)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _projection(layers, channels, filters, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        maps = self.relu(self.bn1(self.conv1(x)))
        maps = self.relu(self.bn2(self.conv2(maps)))
        return self.relu(self.bn3(self.conv3(maps)) + shortcut)


class ResNet(nn.Module):
    """A residual network of four stages on images [N, in_channels, H, W].

    7x7 convolution with stride 2, 3x3 max pooling with stride 2, the stages (all but the first begin with stride 2), global
    average pooling, a linear layer. BatchNorm and ReLU follow every convolution.

    Args:
        block: BasicBlock or Bottleneck.
        blocks: how many of them each of the four stages has.
        in_channels: image channels.
        num_classes: outputs.
        width: channels of the first stage (64 in the paper); they double from stage to stage. Less is for tests and small images.
        backend: backend of the convolution and pooling layers; None leaves it to the ambient one.
        layers: namespace that gives Conv2d, MaxPool2d and AdaptiveAvgPool2d: `cnnkernels.nn` by default, `torch.nn` for the
            plain twin, which has the same state_dict and, from the same seed, the same initial weights.
    """

    input_shape = (3, 224, 224)

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: Sequence[int],
        in_channels: int = 3,
        num_classes: int = 1000,
        *,
        width: int = 64,
        backend: str | None = None,
        layers: ModuleType | None = None,
    ) -> None:
        super().__init__()
        namespace = layer_namespace(layers)
        self.conv1 = namespace.Conv2d(in_channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = namespace.MaxPool2d(3, 2, 1)
        channels = width

        def stage(number: int) -> nn.Sequential:
            nonlocal channels
            members = []
            for index in range(blocks[number]):
                stride = 2 if number > 0 and index == 0 else 1
                members.append(block(namespace, channels, width << number, stride))
                channels = block.expansion * (width << number)
            return nn.Sequential(*members)

        self.layer1, self.layer2, self.layer3, self.layer4 = stage(0), stage(1), stage(2), stage(3)
        self.avgpool = namespace.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        set_backend(self, backend)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores [N, num_classes], not normalised."""
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps = stage(maps)
        scores: Tensor = self.fc(torch.flatten(self.avgpool(maps), 1))
        return scores


def resnet18(**arguments: Any) -> ResNet:
    """ResNet-18; the arguments are ResNet's: in_channels, num_classes, width, backend, layers. So are those of the others."""
    return ResNet(BasicBlock, (2, 2, 2, 2), **arguments)


def resnet34(**arguments: Any) -> ResNet:
    """ResNet-34."""
    return ResNet(BasicBlock, (3, 4, 6, 3), **arguments)


def resnet50(**arguments: Any) -> ResNet:
    """ResNet-50."""
    return ResNet(Bottleneck, (3, 4, 6, 3), **arguments)


def resnet101(**arguments: Any) -> ResNet:
    """ResNet-101."""
    return ResNet(Bottleneck, (3, 4, 23, 3), **arguments)


def resnet152(**arguments: Any) -> ResNet:
    """ResNet-152."""
    return ResNet(Bottleneck, (3, 8, 36, 3), **arguments)
