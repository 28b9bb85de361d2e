"""torch's global switches as everyone is measured under them, and put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_precision(*, tf32: bool = False) -> Iterator[None]:
    """Sums are fp32 and fp32 is IEEE fp32, or with `tf32` may be multiplied as tf32, for everyone; cuDNN searches all its
    algorithms, once per problem.
    """
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    fp32 = "tf32" if tf32 else "ieee"
    wanted = [
        # The old switch first: reading it fails where it and the new one contradict each other.
        (cudnn, "allow_tf32", tf32),
        (cudnn.conv, "fp32_precision", fp32),
        (matmul, "fp32_precision", fp32),
        (matmul, "allow_fp16_reduced_precision_reduction", False),
        (matmul, "allow_bf16_reduced_precision_reduction", False),
        (cudnn, "benchmark", True),
        (cudnn, "deterministic", False),
    ]
    if cudnn.is_available():  # the setter asks the library
        wanted.append((cudnn, "benchmark_limit", 0))
    with _switched(wanted):
        yield


@contextmanager
def without_search() -> Iterator[None]:
    """For the reference: cuDNN takes the algorithm it thinks best, instead of trying every fp64 one on a problem computed twice."""
    with _switched([(torch.backends.cudnn, "benchmark", False)]):
        yield


@contextmanager
def _switched(wanted: list[tuple[Any, str, Any]]) -> Iterator[None]:
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in wanted]
    try:
        _set(wanted)
        yield
    finally:
        _set(before[::-1])


def _set(values: list[tuple[Any, str, Any]]) -> None:
    # torch's own test suite, once imported, lets nobody set these but through `cudnn.flags`, which resets those it is not given.
    with getattr(torch.backends, "__allow_nonbracketed_mutation")():
        for owner, name, value in values:
            setattr(owner, name, value)
