"""What every test file shares: where the kernels run, the tuning tables, and a fixed seed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

# Whoever runs the tests may have tables, and the tests say which kernel they expect.
os.environ["CNNKERNELS_TUNING"] = "0"

from cnnkernels import backends, tuning
from cnnkernels.models.load import _import_torchvision
from cnnkernels.testing import checked_emulator


class Place(NamedTuple):
    """A backend with kernels of ours and the device its tensors live on."""

    backend: str
    device: str


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacking = {"gpu": backends.unavailable("cuda"), "checked_emulator": checked_emulator.missing()}
    for mark, reason in lacking.items():
        if reason is not None:
            for item in items:
                if mark in item.keywords:
                    item.add_marker(pytest.mark.skip(reason=f"no {mark} run: {reason}"))


@pytest.fixture(params=["emulator", pytest.param("cuda", marks=pytest.mark.gpu)])
def place(request: pytest.FixtureRequest) -> Place:
    """Run the test on the emulator and, where there is a GPU, on it as well."""
    return Place(request.param, {"emulator": "cpu", "cuda": "cuda"}[request.param])


@pytest.fixture
def tuning_directory(tmp_path: Path) -> Iterator[Path]:
    """The user's directory of tuning tables, empty and in force; none are shipped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNNKERNELS_TUNING_DIR", str(tmp_path / "tables"))
        patch.setenv("CNNKERNELS_TUNING", "1")
        patch.setattr(tuning, "SHIPPED", tmp_path / "shipped")
        tuning.clear_caches()
        yield tmp_path / "tables"
    tuning.clear_caches()


@pytest.fixture(scope="session")
def torchvision_models() -> Any:
    """torchvision.models; without torchvision, which only those who bring it have, the test is skipped."""
    try:
        _import_torchvision("torchvision")
    except ValueError as missing:
        pytest.skip(str(missing))
    return pytest.importorskip("torchvision.models")


# Between its operations torch's OpenMP threads spin for milliseconds, on the cores that the emulator wants.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
