"""What the Triton kernels tell the compiler of their addresses is true.

`in_vectors` says that so many offsets are one run, from a multiple of its length on, and exist together. A compiled kernel makes one access of them
and looks at the first alone; the interpreter ignores it. So here the interpreter checks it, at every load and store of the problems' passes.
"""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from cnnkernels.backends import triton
from cnnkernels.testing.cases import make_case
from cnnkernels.testing.operands import Layout
from cnnkernels.testing.problem import Conv2dProblem

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(not triton.INTERPRETED, reason="it is the interpreter that checks"),
]

_PROBLEMS = (
    Conv2dProblem("even", 2, 16, 4, 8, 32, 3, 3, padding=(1, 1)),
    Conv2dProblem("channels of 8 and 24", 2, 8, 5, 7, 24, 3, 2, stride=(2, 1), padding=(1, 0)),
    Conv2dProblem("a product of planes of 16", 2, 24, 4, 4, 8, 1, 1),
    Conv2dProblem("a product of planes of 4", 3, 16, 2, 6, 16, 1, 1),
    Conv2dProblem("a product with padding", 2, 16, 4, 2, 16, 1, 1, padding=(0, 1)),
    Conv2dProblem("the last stack of groups is not full", 2, 36, 4, 4, 36, 3, 3, padding=(1, 1), groups=9),
    Conv2dProblem("classes of planes of 64", 1, 16, 8, 8, 16, 4, 4, stride=(2, 2), padding=(1, 1)),
    Conv2dProblem("groups of 8 that are no stack", 1, 48, 4, 4, 48, 2, 2, groups=2),
)


def untrue(offsets: np.ndarray, exists: np.ndarray, vector: int, axis: int) -> bool:
    """Whether a run of `vector` offsets along `axis`, of which one exists, is not what in_vectors says."""
    offsets, exists = np.broadcast_arrays(offsets, exists)
    runs = np.moveaxis(offsets, axis, -1).reshape(-1, vector)
    there = np.moveaxis(exists, axis, -1).reshape(-1, vector).astype(bool)
    whole = (there.all(axis=1)) & (runs[:, 0] % vector == 0) & (np.diff(runs, axis=1) == 1).all(axis=1)
    return bool((there.any(axis=1) & ~whole).any())


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The vectors longer than 1 that kernels claimed, each found true."""
    from cnnkernels.triton.kernels import gather, sums, wgrad

    vectors: list[int] = []

    def in_vectors(at: Any, also_at: Any, exists: Any, also_exists: Any, vector: Any, axis: Any) -> tuple[Any, Any]:
        offsets, both = at + also_at, exists & also_exists
        vector, axis = getattr(vector, "value", vector), getattr(axis, "value", axis)
        if vector > 1:
            vectors.append(vector)
            assert not untrue(offsets.handle.data, both.handle.data, vector, axis), f"no run of {vector} along {axis}"
        return offsets, both

    for module in (gather, sums, wgrad):
        monkeypatch.setattr(module, "in_vectors", in_vectors)
    return vectors


def test_a_run_is_what_it_says() -> None:
    offsets, exists = np.arange(16).reshape(2, 8), np.ones((2, 8), bool)
    assert not untrue(offsets, exists, 8, 1)
    assert untrue(offsets + 4, exists, 8, 1)  # not from a multiple on
    assert untrue(offsets, exists, 2, 0)  # no run along the other axis
    exists[1, 7] = False
    assert untrue(offsets, exists, 8, 1)
    exists[1] = False
    assert not untrue(offsets, exists, 8, 1)  # nobody reads what does not exist


@pytest.mark.parametrize("name", ["fprop", "dgrad", "wgrad", "bias_grad"])
def test_vectors_are_runs_of_memory(name: str, seen: list[int]) -> None:
    for problem in _PROBLEMS:
        for layout in get_args(Layout):
            case = make_case(
                dataclasses.replace(problem, layout=layout), name, torch.float32, "integers", backend="triton"
            )
            case.run("")
    assert set(seen) >= {4, 8, 16}, "too few vectors were claimed for this to prove anything"


def _image(*shape: int, channels_last: bool = False) -> Tensor:
    return torch.zeros(shape).contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )


_IMAGES = {
    "planes": _image(2, 16, 4, 4),
    "channels_last": _image(2, 16, 4, 4, channels_last=True),
    "channels of more": _image(2, 32, 4, 4, channels_last=True)[:, 3:19],
    "columns of longer rows": _image(2, 16, 4, 8)[..., :4],
    "every second column": _image(2, 16, 4, 8)[..., ::2],
    "rows of planes of 20": _image(2, 16, 5, 4)[:, :, :4],
    "rows of planes of 18": _image(2, 16, 9, 2)[:, :, :8],
    "channels of planes, by images of 18": _image(2, 18, 4, 4)[:, :16],
}


@pytest.mark.parametrize("image", _IMAGES.values(), ids=_IMAGES)
def test_vectors_are_runs_of_views(image: Tensor, seen: list[int]) -> None:
    H, W = image.shape[2:]
    for other in _IMAGES.values():
        if other.shape == image.shape:
            triton.conv2d_wgrad(image, other, (1, 1), (1, 1), (0, 0), (1, 1), 1, False)
            triton.conv2d_wgrad(image, other, (1, 1), (1, 1), (0, 0), (1, 1), 1, True)
    for channels_last in (False, True):
        triton.conv2d_fprop(image, torch.zeros(16, 16, 1, 1), None, (H, W), (1, 1), (0, 0), (1, 1), 1, channels_last)
    triton.conv2d_bias_grad(image)
    assert seen  # of the results


def test_vectors_end_with_the_channels_that_exist(seen: list[int]) -> None:
    image = _image(1, 48, 4, 4, channels_last=True)[:, :36]  # 9 groups of 4: the second stack of 8 has one
    triton.conv2d_fprop(image, torch.zeros(36, 4, 1, 1), None, (4, 4), (1, 1), (0, 0), (1, 1), 9, True)
    assert set(seen) == {4}
