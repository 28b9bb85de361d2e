"""The small MNIST network of torch's first examples: two convolutions, dropout, two fully connected layers."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor, nn

from cnnkernels.models.layers import layer_namespace, set_backend


class MNISTNet(nn.Module):
    """conv 5x5 to 10 maps, pool, ReLU, conv 5x5 to 20 maps, Dropout2d, pool, ReLU, 320-50, dropout, 50-classes.

    The arguments are LeNet5's; images are 28x28.
    """

    input_size = 28

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        *,
        backend: str | None = None,
        layers: ModuleType | None = None,
    ) -> None:
        super().__init__()
        namespace = layer_namespace(layers)
        self.conv1 = namespace.Conv2d(in_channels, 10, kernel_size=5)
        self.pool1 = namespace.MaxPool2d(kernel_size=2)
        self.conv2 = namespace.Conv2d(10, 20, kernel_size=5)
        self.dropout2d = nn.Dropout2d()
        self.pool2 = namespace.MaxPool2d(kernel_size=2)
        self.fc1 = nn.Linear(20 * 4 * 4, 50)
        self.dropout = nn.Dropout()
        self.fc2 = nn.Linear(50, num_classes)
        set_backend(self, backend)

    def forward(self, images: Tensor) -> Tensor:
        """Log-probabilities [N, num_classes] of images [N, in_channels, 28, 28]."""
        maps = torch.relu(self.pool1(self.conv1(images)))
        maps = torch.relu(self.pool2(self.dropout2d(self.conv2(maps))))
        hidden = self.dropout(torch.relu(self.fc1(maps.flatten(1))))
        return torch.log_softmax(self.fc2(hidden), dim=1)
