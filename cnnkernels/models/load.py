"""A model by the name that it has on the command line: ours, torchvision's, timm's, or a factory in a file."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import warnings
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from cnnkernels.models import MODELS, RESNETS

Shape = tuple[int, int, int]

#: What is assumed of a model that does not say what it takes.
DEFAULT_SHAPE: Shape = (3, 224, 224)

# Defined operators last as long as the object that defined them.
_stand_ins: list[torch.library.Library] = []


def load_model(spec: str) -> tuple[nn.Module, Shape]:
    """Make the model that `spec` names, with random weights, and say which image (C, H, W) it takes.

    Args:
        spec: "lenet5" or another name of cnnkernels.models; "torchvision:NAME"; "timm:NAME"; "path/to/file.py:factory", a
            function without arguments (or a class) that gives an nn.Module, whose `input_shape`, if it has that
            attribute, is (C, H, W).

    Raises:
        ValueError: there is no such model, or the package or file it would come from is missing; the message says what to do.
    """
    if spec in MODELS:
        model = MODELS[spec]()
        return model, (1, model.input_size, model.input_size)
    if spec in RESNETS:
        residual = RESNETS[spec]()
        return residual, residual.input_shape
    source, separator, name = spec.rpartition(":")
    if source == "torchvision":
        return _from_torchvision(name)
    if source == "timm":
        return _from_timm(name)
    if separator and source.endswith(".py"):
        return _from_file(Path(source), name)
    near = get_close_matches(spec, (*MODELS, *RESNETS), n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ValueError(f"no model {spec!r}: {hint}there are {model_names()}")


def model_names() -> str:
    """What :func:`load_model` takes, as a list in words."""
    return f"{', '.join((*MODELS, *RESNETS))}, torchvision:NAME, timm:NAME and path/to/file.py:factory"


def _from_torchvision(name: str) -> tuple[nn.Module, Shape]:
    _import_torchvision("torchvision")
    models: Any = importlib.import_module("torchvision.models")
    known = models.list_models()
    if name not in known:
        raise ValueError(_unknown("torchvision", name, known))
    # Segmentation and detection models would fetch weights for their backbone.
    without_weights: dict[str, Any] = {"weights": None}
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        without_weights["weights_backbone"] = None
    with warnings.catch_warnings():
        # Some announce that their initial weights will change one day: here any will do.
        warnings.simplefilter("ignore", FutureWarning)
        model = models.get_model(name, **without_weights)
    return model, _torchvision_shape(models, name)


def _torchvision_shape(models: Any, name: str) -> Shape:
    """The image that the published weights of a model were made for."""
    weights = list(models.get_model_weights(name))
    transform = weights[0].transforms() if weights else None
    for attribute in ("crop_size", "resize_size"):
        size = getattr(transform, attribute, None)
        if size:
            return 3, size[0], size[-1]
    return DEFAULT_SHAPE


def _from_timm(name: str) -> tuple[nn.Module, Shape]:
    if importlib.util.find_spec("torchvision") is not None:
        _import_torchvision("timm")  # timm imports it
    timm: Any = _import("timm", "timm")
    if not timm.is_model(name):
        raise ValueError(_unknown("timm", name, timm.list_models()))
    model = timm.create_model(name, pretrained=False)
    channels, height, width = getattr(model, "pretrained_cfg", {}).get("input_size", DEFAULT_SHAPE)
    return model, (channels, height, width)


def _from_file(path: Path, name: str) -> tuple[nn.Module, Shape]:
    if not path.is_file():
        raise ValueError(f"no file {path}")
    module_spec = importlib.util.spec_from_file_location(f"cnnkernels_user_{path.stem}", path)
    if module_spec is None or module_spec.loader is None:
        raise ValueError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(module_spec)
    # Dataclasses and pickle look a class's module up by name; what lies beside the file is importable, as in a script.
    sys.modules[module_spec.name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        module_spec.loader.exec_module(module)
        factory = getattr(module, name, None)
        if not callable(factory):
            own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            raise ValueError(_unknown(str(path), name, own))
        model = factory()
    finally:
        sys.path.remove(str(path.resolve().parent))
    if not isinstance(model, nn.Module):
        raise ValueError(f"{path}:{name}() gave a {type(model).__name__}, not an nn.Module")
    shape = getattr(model, "input_shape", DEFAULT_SHAPE)
    try:
        channels, height, width = (int(size) for size in shape)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}:{name}().input_shape is {shape!r}, not (C, H, W)") from error
    return model, (channels, height, width)


def _import_torchvision(wanted_by: str) -> ModuleType:
    try:
        return _import("torchvision", wanted_by)
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    # The wheel's C++ library was built for another torch (CUDA's, say) and did not load, and the import stops where it
    # describes that library's operators to torch. The models' definitions need none of them: with the schemas
    # declared, and nothing behind them, the import goes through.
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _stand_ins.append(library)
    return _import("torchvision", wanted_by)


def _import(package: str, wanted_by: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ValueError(f"{wanted_by}: models need {error.name}: pip install {error.name}") from error


def _unknown(source: str, name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=5)
    return f"{source} has no {name!r}" + (f": did you mean {', '.join(near)}?" if near else f" among its {len(known)}")
