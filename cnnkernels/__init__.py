"""cnnkernels: torch's 2-D convolutions and poolings on handwritten CUDA kernels.

import cnnkernels.functional as F            # torch.nn.functional's signatures, plus backend=
cnnkernels.convert(model)                    # an existing model, in place; restore(model) undoes it
with cnnkernels.override(): ...              # torch.nn.functional's calls too, and no model changed
with cnnkernels.use_backend("emulator"): ... # run the kernels on the CPU, to check them
print(cnnkernels.explain(F.conv2d, x, w))    # which kernel a call runs, and why
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cnnkernels import functional, nn
from cnnkernels.backends import BackendError, use_backend
from cnnkernels.convert import convert, restore
from cnnkernels.explain import explain, trace
from cnnkernels.override import override

if TYPE_CHECKING:
    from cnnkernels import models

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "__version__",
    "convert",
    "explain",
    "functional",
    "models",
    "nn",
    "override",
    "restore",
    "trace",
    "use_backend",
]


def __getattr__(name: str) -> Any:
    if name == "models":  # built on first use: most programs bring their own models
        return importlib.import_module("cnnkernels.models")
    raise AttributeError(f"module 'cnnkernels' has no attribute {name!r}")
