"""Where a model takes its convolution and pooling layers from: our modules, or torch's for the plain twin."""

from __future__ import annotations

from types import ModuleType

from torch import nn


def layer_namespace(layers: ModuleType | None) -> ModuleType:
    """`cnnkernels.nn` unless another namespace with Conv2d and MaxPool2d (`torch.nn`, say) is asked for."""
    if layers is not None:
        return layers
    import cnnkernels.nn

    return cnnkernels.nn


def set_backend(model: nn.Module, backend: str | None) -> None:
    """Set the backend of every layer of `model` that runs on our kernels.

    Raises ValueError where a backend is named and the model has no such layer: a plain torch model cannot obey it.
    """
    if backend is None:
        return
    switchable = [module for module in model.modules() if hasattr(module, "backend")]
    if not switchable:
        raise ValueError(f"backend={backend!r} asked of a model without cnnkernels layers")
    for module in switchable:
        module.backend = backend  # type: ignore[assignment]
