"""LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998), with max pooling and with every filter of C3 on all six maps."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor, nn

from cnnkernels.models.layers import layer_namespace, set_backend


class LeNet5(nn.Module):
    """LeNet-5 on 32x32 images.

    conv 5x5 to 6 maps, pool 2x2, conv 5x5 to 16 maps, pool 2x2, then fully connected 400-120-84-classes. tanh, as in
    the paper, follows each pool (it is monotonic, so this is conv-tanh-pool at a quarter of the work) and the first two
    linear layers. It is smooth, too: where ReLU turns a difference in the last bit into a gradient or none, two
    backends that train it from one seed stay together for longer.

    Args:
        in_channels: image channels.
        num_classes: outputs.
        backend: backend of the convolution and pooling layers; None leaves it to the ambient one.
        layers: namespace that gives Conv2d and MaxPool2d: `cnnkernels.nn` by default, `torch.nn` for the plain twin,
            which has the same state_dict and, from the same seed, the same initial weights.
    """

    input_size = 32

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
        self.conv1 = namespace.Conv2d(in_channels, 6, kernel_size=5)
        self.pool1 = namespace.MaxPool2d(kernel_size=2)
        self.conv2 = namespace.Conv2d(6, 16, kernel_size=5)
        self.pool2 = namespace.MaxPool2d(kernel_size=2)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)
        set_backend(self, backend)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores [N, num_classes], not normalised, of images [N, in_channels, 32, 32]."""
        maps = torch.tanh(self.pool1(self.conv1(images)))
        maps = torch.tanh(self.pool2(self.conv2(maps)))
        hidden = torch.tanh(self.fc1(maps.flatten(1)))
        hidden = torch.tanh(self.fc2(hidden))
        return self.fc3(hidden)
