"""The two small networks of the first slice, and the table that finds them by name."""

from cnnkernels.models.lenet import LeNet5
from cnnkernels.models.mnistnet import MNISTNet

#: Every model `cnnkernels train` offers, by the name it has on the command line.
MODELS: dict[str, type[LeNet5] | type[MNISTNet]] = {"lenet5": LeNet5, "mnistnet": MNISTNet}

__all__ = ["MODELS", "LeNet5", "MNISTNet"]
