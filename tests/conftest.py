"""What every test file shares: where the kernels run, the tuning tables, and a fixed seed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch

# Whoever runs the tests may have tables, and the tests say which kernel they expect.
os.environ["CNNKERNELS_TUNING"] = "0"

# Without a GPU the Triton kernels run under Triton's interpreter, for which Triton has to know before it is imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

import cnnkernels
from cnnkernels import backends, tuning
from cnnkernels.backends import triton
from cnnkernels.bench.flags import full_precision
from cnnkernels.models.load import _import_torchvision
from cnnkernels.testing import checked_emulator, interpreter
from cnnkernels.triton import configs


@pytest.fixture(scope="session")
def kernels() -> ModuleType:
    """The small kernels of tests/cpp/emulator_kernels.cpp."""
    (path,) = (Path(cnnkernels.__file__).parent / "lib").glob("_emulator_kernels*.so")
    spec = importlib.util.spec_from_file_location("_emulator_kernels", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Place(NamedTuple):
    """A backend with kernels of ours and the device its tensors live on."""

    backend: str
    device: str


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacking = {
        "gpu": backends.unavailable("cuda"),
        "triton": backends.unavailable("triton"),
        "checked_emulator": checked_emulator.missing(),
    }
    for mark, reason in lacking.items():
        if reason is not None:
            for item in items:
                if mark in item.keywords:
                    item.add_marker(pytest.mark.skip(reason=f"no {mark} run: {reason}"))


_COMPILED = ["emulator", pytest.param("cuda", marks=pytest.mark.gpu)]

#: For a test with `place` that takes too many calls for Triton's interpreter: whole trainings.
compiled_kernels_alone = pytest.mark.parametrize("place", _COMPILED, indirect=True)


@pytest.fixture(params=[*_COMPILED, pytest.param("triton", marks=pytest.mark.triton)])
def place(request: pytest.FixtureRequest) -> Place:
    """Run the test on the emulator, on the GPU where there is one, and on Triton, there or under its interpreter."""
    on_gpu = request.param == "cuda" or (request.param == "triton" and not triton.INTERPRETED)
    return Place(request.param, "cuda" if on_gpu else "cpu")


@pytest.fixture(autouse=True)
def ieee_fp32() -> Iterator[None]:
    """On a GPU fp32 would be tf32, for torch and for us, where a test does not say otherwise."""
    with full_precision() if torch.cuda.is_available() else nullcontext():
        yield


@pytest.fixture(autouse=True)
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Triton's plan made for a small GPU while it is interpreted, where a program takes some ten milliseconds."""
    if triton.INTERPRETED:
        monkeypatch.setattr(configs, "MULTIPROCESSORS", 4)
        monkeypatch.setattr(configs, "TARGET_PROGRAMS", 8)


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


@pytest.fixture(autouse=True, scope="session")
def quick_interpreter() -> Iterator[None]:
    with interpreter.quick():
        yield


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
