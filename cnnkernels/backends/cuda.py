"""Backend "cuda": our CUDA kernels on the GPU, which the operators' CUDA key reaches."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cnnkernels import ops


def unavailable() -> str | None:
    """Why our CUDA kernels cannot run on this machine; None where it can."""
    return ops.CUDA_MISSING


def refusal(input: torch.Tensor) -> str | None:
    """Why our CUDA kernels cannot take `input`; None where they can. Meta tensors get shapes and strides only."""
    if input.is_meta:
        return ops.CUDA_MISSING
    if not input.is_cuda:
        return f"the CUDA kernels take CUDA tensors and the input is on {input.device}"
    return ops.CUDA_MISSING or _why_not_on(input.get_device())


_answers: dict[int, str | None] = {}


def _why_not_on(index: int) -> str | None:
    """Why the kernels do not run on this GPU. Found at its first tensor: to ask a GPU for its architecture starts CUDA."""
    if index not in _answers:
        capability = torch.cuda.get_device_capability(index)
        compiled = ops.cuda_architectures()
        runs = any(runs_on(architecture, capability) for architecture in compiled)
        names = ", ".join(f"sm_{architecture}" for architecture in compiled)
        _answers[index] = None if runs else (
            f"they are compiled for {names}, and cuda:{index} is an sm_{capability[0]}{capability[1]}: "
            "build them for it (CMake's CNNKERNELS_CUDA_ARCH)"
        )  # fmt: skip
    return _answers[index]


# What torch.compiler.assume_constant_result does, without importing torch._dynamo, and Triton with it, for it.
_why_not_on._dynamo_marked_constant = True  # type: ignore[attr-defined]


def runs_on(architecture: str, capability: Sequence[int]) -> bool:
    """Whether machine code for `architecture` ("80", "90a") runs on a GPU of this compute capability, (major, minor).

    It does on the same major version and a minor one that is no smaller; of "a" architectures on the very same alone (CUDA C++ programming
    guide, "Binary Compatibility" and "Architecture-Specific Features").
    """
    digits = architecture.rstrip("af")
    major, minor = int(digits[:-1]), int(digits[-1])
    if architecture.endswith("a"):
        return (major, minor) == tuple(capability)
    return capability[0] == major and capability[1] >= minor
