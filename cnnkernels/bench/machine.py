"""The machine that is measured: what it is, what runs on it, and what it can do at most.

Ceilings are measured here, with torch's copy and matrix product, at the start of a run: a roofline is worth what its
ceilings are. Limits are the hardware's own figures, which nothing can pass: a time below them is wrong, whatever else
says that it is right.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import cnnkernels
from cnnkernels import ops
from cnnkernels.bench.flags import full_precision
from cnnkernels.bench.timing import make_timer
from cnnkernels.files import slug

#: Stands among the dtypes for fp32 that may be multiplied as tf32.
TF32 = "tf32"
DTYPES = {"f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, TF32: torch.float32}

#: Dense floating-point operations per clock and multiprocessor, by compute capability: NVIDIA's architecture white
#: papers (A100, H100, Blackwell), tensor cores for bf16, f16, tf32 and f64, the CUDA cores' FMA for f32.
FLOPS_PER_CLOCK = {
    (8, 0): {"bf16": 2048, "f16": 2048, TF32: 1024, "f32": 128, "f64": 128},
    (9, 0): {"bf16": 4096, "f16": 4096, TF32: 2048, "f32": 256, "f64": 256},
    (10, 0): {"bf16": 8192, "f16": 8192, TF32: 4096, "f32": 256, "f64": 128},
}


def describe_device(device: torch.device) -> dict[str, Any]:
    """What a :class:`~cnnkernels.bench.store.Run` says of its device."""
    if device.type == "cuda":
        properties: Any = torch.cuda.get_device_properties(device)
        return {
            "type": "cuda",
            "name": properties.name,
            "slug": slug(properties.name),
            "sms": properties.multi_processor_count,
            "l2_bytes": properties.L2_cache_size,
            "memory_bytes": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
            "driver": _driver(),
        }
    name = _cpu_name()
    return {
        "type": "cpu",
        "name": name,
        "slug": slug(f"cpu {name}"),
        "cores": os.cpu_count(),
        "l2_bytes": _last_level_cache(),
    }


def versions() -> dict[str, str]:
    """Of everything whose version can change a time."""
    found = {
        "cnnkernels": cnnkernels.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cuda": torch.version.cuda or "",
        "cudnn": str(torch.backends.cudnn.version() or ""),
    }
    try:
        found["triton"] = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        found["triton"] = ""
    return found


def commit() -> tuple[str, bool]:
    """The checkout's commit, and whether tracked files differ from it; ("", False) for an installed package."""
    root = Path(cnnkernels.__file__).resolve().parent.parent
    if not (root / "csrc").is_dir():
        return "", False
    try:
        head = _run("git", "-C", str(root), "rev-parse", "HEAD")
        changed = _run("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("CNNKERNELS_COMMIT", ""), False  # a copy of a checkout, without its history
    return head, bool(changed)


def library_digest(device: torch.device) -> str:
    """First 12 digits of the SHA-256 of the library whose kernels run on `device`; "" where there is none."""
    path = ops.CUDA_LIBRARY if device.type == "cuda" else ops.EMULATOR_LIBRARY
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else ""


def measure_ceilings(device: torch.device) -> dict[str, float]:
    """Bytes per second of a large copy, read and written counted, and flop/s of a large matrix product per dtype.

    Empty on a CPU: it has a roofline, but the emulator has nothing to do with it.
    """
    if device.type != "cuda":
        return {}
    elements = 2**29
    source, target = (torch.randn(elements, device=device) for _ in range(2))
    ceilings = {"bytes": 2 * elements * 4 / _best(functools.partial(target.copy_, source), device)}
    del source, target
    for name, size in (("bf16", 8192), ("f16", 8192), (TF32, 8192), ("f32", 4096), ("f64", 4096)):
        with full_precision(tf32=name == TF32):
            a, b = (torch.randn(size, size, device=device, dtype=DTYPES[name]) for _ in range(2))
            ceilings[name] = 2 * size**3 / _best(functools.partial(torch.mm, a, b), device)
    return ceilings


def limits(device: torch.device) -> dict[str, float]:
    """The same by the hardware's data at its highest clocks; what is not known is left out."""
    if device.type != "cuda":
        return {}
    properties: Any = torch.cuda.get_device_properties(device)
    found = {}
    # Two transfers per clock: double data rate. Clocks are in kHz.
    memory_clock, bus_bits = getattr(properties, "memory_clock_rate", 0), getattr(properties, "memory_bus_width", 0)
    if memory_clock and bus_bits:
        found["bytes"] = 2 * memory_clock * 1e3 * bus_bits / 8
    clock = getattr(properties, "clock_rate", 0) * 1e3
    for name, flops in FLOPS_PER_CLOCK.get((properties.major, properties.minor), {}).items():
        if clock:
            found[name] = flops * clock * properties.multi_processor_count
    return found


def measure_floor(device: torch.device) -> float:
    """Microseconds of a launch with nothing to do, timed as kernels are: below a few of these, times say little."""
    if device.type != "cuda":
        return 0.0
    nothing = torch.zeros(1, device=device)
    with make_timer(device, [functools.partial(nothing.add_, 1.0)] * 64) as timer:
        return 1e6 * min(timer.sample() for _ in range(20))


def _best(call: Any, device: torch.device) -> float:
    """Seconds of the fastest of some calls, after as many to warm up."""
    with make_timer(device, [call]) as timer:
        for _ in range(5):
            timer.sample()
        return min(timer.sample() for _ in range(10))


@functools.cache
def _driver() -> str:
    try:
        return _run("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return ""


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _last_level_cache() -> int:
    try:
        return max(os.sysconf("SC_LEVEL3_CACHE_SIZE"), os.sysconf("SC_LEVEL2_CACHE_SIZE"))
    except (ValueError, OSError):
        return 0


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
