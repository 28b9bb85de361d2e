"""What the built libraries promise: one binary for every torch, no spills, and one schema per operator everywhere."""

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cnnkernels._C as _C
import pytest
import torch

import cnnkernels
from cnnkernels import ops

# What compiling and loading may cost: kernels of one architecture, and the CUDA library's bytes for each architecture it has.
MOST_KERNELS = 400
MOST_BYTES = 40 * 2**20

LIBRARIES = Path(cnnkernels.__file__).parent / "lib"
ROOT = Path(__file__).parent.parent


def libraries() -> list[Path]:
    return sorted(LIBRARIES.glob("libcnnkernels_*.so"))


@pytest.mark.parametrize("library", libraries(), ids=lambda path: path.name)
def test_no_undefined_torch_cpp_symbol(library: Path) -> None:
    """at:: and c10:: change from release to release; the stable ABI's C functions do not."""
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm (binutils) is not installed")
    symbols = subprocess.run(
        [nm, "-D", "-C", "--undefined-only", library], check=True, capture_output=True, text=True, errors="replace"
    ).stdout
    assert "aoti_torch" in symbols, "the library does not use the stable ABI at all: the check would be vacuous"
    assert not re.findall(r"^.*\b(?:at|c10)::.*$", symbols, re.MULTILINE)


def test_every_operator_has_a_cpu_kernel_and_a_fake() -> None:
    schemas = re.findall(r'^\s*"(\w+)\(', (ROOT / "csrc" / "schemas.h").read_text(), re.MULTILINE)
    assert sorted(schemas) == sorted(ops.OPERATORS)
    for name in schemas:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"cnnkernels::{name}", "CPU"), name
        assert (
            torch._C._dispatch_has_kernel_for_dispatch_key(f"cnnkernels::{name}", "Meta")
            or torch._library.simple_registry.singleton.find(f"cnnkernels::{name}").fake_impl.kernel
        ), name


def cuda_library() -> Path:
    path = LIBRARIES / "libcnnkernels_cuda.so"
    if not path.is_file():
        pytest.skip("the CUDA library is not built (no nvcc, or CNNKERNELS_CUDA=OFF)")
    return path


def test_cuda_library_loads_beside_any_torch() -> None:
    code = f"""
import torch, cnnkernels
torch.ops.load_library({str(cuda_library())!r})
assert torch._C._dispatch_has_kernel_for_dispatch_key("cnnkernels::conv2d_fprop", "CUDA")
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_no_kernel_spills() -> None:
    cuda_library()
    report = (LIBRARIES / "ptxas.txt").read_text()
    functions = re.findall(
        r"Compiling entry function '(\w+)' for '(sm_\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads",
        report,
        re.DOTALL,
    )
    architectures = {architecture for _, architecture, *_ in functions}
    assert architectures == {f"sm_{a}" for a in _C.build_info()["cuda_archs"].split(", ")}
    # Rows of the catalogue may share a kernel, and a row may launch several: what is sure is that each architecture has them all.
    per_architecture = Counter(architecture for _, architecture, *_ in functions)
    assert len(set(per_architecture.values())) == 1
    assert min(per_architecture.values()) >= len({row["family"] for row in _C.catalogue()}) * len(
        ("f32", "f16", "bf16")
    )
    # The launch bounds are chosen for these two; ptxas spills a few registers of a few kernels on others.
    tuned = {"sm_80", "sm_90a"}
    assert [f for f in functions if f[1] in tuned and f[2:] != ("0", "0", "0")] == []


def test_a_machine_without_compiler_is_told_so(tmp_path: Path) -> None:
    """An empty PATH: the first missing tool is named with the way to get it."""
    result = subprocess.run(
        [sys.executable, "setup.py", "build_ext"], cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert result.returncode != 0
    assert "cnnkernels: cmake is not on PATH: pip install cmake" in result.stderr


def test_kernels_stay_within_their_budget() -> None:
    """Every kernel is a function of the emulator's library too, so that they can be counted without nvcc."""
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm (binutils) is not installed")
    symbols = subprocess.run([nm, "-C", ops.EMULATOR_LIBRARY], check=True, capture_output=True, text=True).stdout
    kernels = {
        name
        for kind, name in re.findall(r"^\w* +(\w) (?:void )?(.*)$", symbols, re.MULTILINE)
        if kind in "tTwW"
        and re.match(r"cnn::[\w:]*_kernel[<(]", name)
        and "lambda" not in name
        and "[clone" not in name
    }
    assert len(kernels) > 100, "the library's symbols are not there: the count would say nothing"
    assert len(kernels) <= MOST_KERNELS


def test_the_cuda_library_stays_within_its_budget() -> None:
    size = cuda_library().stat().st_size
    report = (LIBRARIES / "ptxas.txt").read_text()
    functions = set(re.findall(r"Compiling entry function '(\w+)' for '(sm_\w+)'", report))
    architectures = {architecture for _, architecture in functions}
    assert len(functions) <= MOST_KERNELS * len(architectures)
    assert size <= MOST_BYTES * len(architectures)
