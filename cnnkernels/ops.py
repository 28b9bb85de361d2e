"""The raw operators torch.ops.cnnkernels.*: loading their libraries, their fake kernels, their launch log.

`libcnnkernels_emulator.so` defines every schema and the CPU kernels, `libcnnkernels_cuda.so` adds the CUDA kernels.
All operators take and return 4-D tensors (N C H W sizes, any strides) of float64, float32, float16 or bfloat16;
every output is dense in torch.channels_last where `channels_last` is true, else in torch.contiguous_format.
Without the libraries this module imports, and each operator raises the sentence in :data:`EMULATOR_MISSING`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnnkernels.triton import log as triton_log

# Another build of the libraries (a sanitizer's, for one) can be tried without installing it over this one.
LIBRARY_DIRECTORY = Path(os.environ.get("CNNKERNELS_LIBRARY_DIR") or Path(__file__).parent / "lib")
# The emulator has two builds, of which a process loads one: for speed, or with every access checked and counted (docs/emulator.md).
CHECKED_EMULATOR_LIBRARY = LIBRARY_DIRECTORY / "libcnnkernels_emulator_checked.so"
EMULATOR_BUILD = os.environ.get("CNNKERNELS_EMULATOR") or "fast"
EMULATOR_LIBRARY = (
    CHECKED_EMULATOR_LIBRARY if EMULATOR_BUILD == "checked" else LIBRARY_DIRECTORY / "libcnnkernels_emulator.so"
)
CUDA_LIBRARY = LIBRARY_DIRECTORY / "libcnnkernels_cuda.so"


def _load(library: Path) -> str | None:
    """Load one library; the reason as a sentence where that fails."""
    if not library.is_file():
        return f"{library} is missing: build it with `pip install --no-build-isolation -e .` or `make build`"
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        return f"{library} does not load: {error}"
    return None


def _load_cuda() -> str | None:
    if EMULATOR_MISSING is not None:
        return EMULATOR_MISSING  # it defines the schemas
    # device_count() asks NVML where it can, so that importing us leaves CUDA uninitialised and fork() safe.
    if torch.version.cuda is None:  # torch.backends.cuda.is_built() is true of one for ROCm, too
        return "this torch is built without CUDA"
    if torch.cuda.device_count() == 0:
        return "torch sees no CUDA device"
    return _load(CUDA_LIBRARY)


# Why a library is not loaded; None where it is.
EMULATOR_MISSING: str | None = (
    _load(EMULATOR_LIBRARY)
    if EMULATOR_BUILD in ("fast", "checked")
    else f"CNNKERNELS_EMULATOR is {EMULATOR_BUILD!r}: it can be 'fast' or 'checked'"
)
CUDA_MISSING: str | None = _load_cuda()


def _operator(name: str) -> Callable[..., Any]:
    """torch.ops.cnnkernels.<name>'s one overload, or a function that raises where there is no library."""
    if EMULATOR_MISSING is None:
        overload: Callable[..., Any] = getattr(torch.ops.cnnkernels, name).default
        return overload

    def missing(*args: object, **kwargs: object) -> Any:
        raise RuntimeError(f"cnnkernels::{name} cannot run: {EMULATOR_MISSING}")

    return missing


conv2d_fprop = _operator("conv2d_fprop")
conv2d_fused = _operator("conv2d_fused")
conv2d_dgrad = _operator("conv2d_dgrad")
conv2d_wgrad = _operator("conv2d_wgrad")
conv2d_bias_grad = _operator("conv2d_bias_grad")
conv2d_activation_grad = _operator("conv2d_activation_grad")
max_pool2d = _operator("max_pool2d")
max_pool2d_with_indices = _operator("max_pool2d_with_indices")
max_pool2d_pyramid = _operator("max_pool2d_pyramid")
max_pool2d_backward = _operator("max_pool2d_backward")
max_pool2d_gather = _operator("max_pool2d_gather")
avg_pool2d = _operator("avg_pool2d")
avg_pool2d_backward = _operator("avg_pool2d_backward")
adaptive_max_pool2d = _operator("adaptive_max_pool2d")
adaptive_max_pool2d_backward = _operator("adaptive_max_pool2d_backward")
adaptive_avg_pool2d = _operator("adaptive_avg_pool2d")
adaptive_avg_pool2d_backward = _operator("adaptive_avg_pool2d_backward")

OPERATORS = (
    "conv2d_fprop",
    "conv2d_fused",
    "conv2d_dgrad",
    "conv2d_wgrad",
    "conv2d_bias_grad",
    "conv2d_activation_grad",
    "max_pool2d",
    "max_pool2d_with_indices",
    "max_pool2d_pyramid",
    "max_pool2d_backward",
    "max_pool2d_gather",
    "avg_pool2d",
    "avg_pool2d_backward",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_backward",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_backward",
)


# Fake kernels: the output's size, strides, dtype and device, from sizes alone. They read no data.

Size = Sequence[int]


def _empty(like: Tensor, size: Size, channels_last: bool, dtype: torch.dtype | None = None) -> Tensor:
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(size, dtype=dtype or like.dtype, device=like.device, memory_format=memory_format)


def _fake_conv2d_fprop(
    input: Tensor, weight: Tensor, bias: Tensor | None, output_size: Size,
    stride: Size, padding: Size, dilation: Size, groups: int, channels_last: bool, kernel_name: str = "",
    padding_mode: str = "zeros", allow_tf32: bool = False,
) -> Tensor:  # fmt: skip
    return _empty(input, (input.shape[0], weight.shape[0], *output_size), channels_last)


def _fake_conv2d_fused(
    input: Tensor, weight: Tensor, bias: Tensor | None, mean: Tensor | None, variance: Tensor | None,
    scale: Tensor | None, shift: Tensor | None, eps: float, residual: Tensor | None, activation: str,
    negative_slope: float, output_size: Size, stride: Size, padding: Size, dilation: Size, groups: int,
    channels_last: bool, kernel_name: str = "", padding_mode: str = "zeros", allow_tf32: bool = False,
) -> Tensor:  # fmt: skip
    return _empty(input, (input.shape[0], weight.shape[0], *output_size), channels_last)


def _fake_conv2d_dgrad(
    grad_output: Tensor, weight: Tensor, bias: Tensor | None, input_size: Size,
    stride: Size, padding: Size, dilation: Size, groups: int, channels_last: bool, kernel_name: str = "",
    padding_mode: str = "zeros", allow_tf32: bool = False,
) -> Tensor:  # fmt: skip
    return _empty(grad_output, (grad_output.shape[0], weight.shape[1] * groups, *input_size), channels_last)


def _fake_conv2d_wgrad(
    grad_output: Tensor, input: Tensor, kernel_size: Size,
    stride: Size, padding: Size, dilation: Size, groups: int, channels_last: bool, kernel_name: str = "",
    padding_mode: str = "zeros", allow_tf32: bool = False,
) -> Tensor:  # fmt: skip
    return _empty(input, (grad_output.shape[1], input.shape[1] // groups, *kernel_size), channels_last)


def _fake_conv2d_bias_grad(grad_output: Tensor, kernel_name: str = "") -> Tensor:
    return grad_output.new_empty(grad_output.shape[1])


def _fake_conv2d_activation_grad(
    grad_output: Tensor, output: Tensor, activation: str, negative_slope: float, channels_last: bool,
    kernel_name: str = "",
) -> Tensor:  # fmt: skip
    return _empty(grad_output, grad_output.shape, channels_last)


def _fake_max_pool2d(
    input: Tensor, output_size: Size, kernel_size: Size,
    stride: Size, padding: Size, dilation: Size, channels_last: bool, kernel_name: str = "",
) -> Tensor:  # fmt: skip
    return _empty(input, (*input.shape[:2], *output_size), channels_last)


def _fake_max_pool2d_with_indices(
    input: Tensor, output_size: Size, kernel_size: Size, stride: Size, padding: Size, dilation: Size,
    flat_indices: bool, channels_last: bool, kernel_name: str = "",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    size = (*input.shape[:2], *output_size)
    indices = _empty(input, size, channels_last, torch.int64 if flat_indices else torch.uint8)
    return _empty(input, size, channels_last), indices


def _fake_max_pool2d_pyramid(
    input: Tensor, window: int, channels_last: bool, kernel_name: str = ""
) -> tuple[Tensor, Tensor, Tensor]:
    first, second, third = (_empty(input, input.shape, channels_last) for _ in range(3))
    return first, second, third


def _fake_max_pool2d_backward(
    grad_output: Tensor, indices: Tensor, input_size: Size, kernel_size: Size,
    stride: Size, padding: Size, dilation: Size, channels_last: bool, kernel_name: str = "",
) -> Tensor:  # fmt: skip
    return _empty(grad_output, (*grad_output.shape[:2], *input_size), channels_last)


def _fake_max_pool2d_gather(
    input: Tensor, indices: Tensor, kernel_size: Size,
    stride: Size, padding: Size, dilation: Size, channels_last: bool, kernel_name: str = "",
) -> Tensor:  # fmt: skip
    return _empty(input, indices.shape, channels_last)


def _fake_avg_pool2d(
    input: Tensor, output_size: Size, kernel_size: Size, stride: Size, padding: Size,
    count_include_pad: bool, divisor_override: int | None, channels_last: bool, kernel_name: str = "",
) -> Tensor:  # fmt: skip
    return _empty(input, (*input.shape[:2], *output_size), channels_last)


def _fake_avg_pool2d_backward(
    grad_output: Tensor, input_size: Size, kernel_size: Size, stride: Size, padding: Size,
    count_include_pad: bool, divisor_override: int | None, channels_last: bool, kernel_name: str = "",
) -> Tensor:  # fmt: skip
    return _empty(grad_output, (*grad_output.shape[:2], *input_size), channels_last)


def _fake_adaptive_max_pool2d(
    input: Tensor, output_size: Size, channels_last: bool, kernel_name: str = ""
) -> tuple[Tensor, Tensor]:
    size = (*input.shape[:2], *output_size)
    return _empty(input, size, channels_last), _empty(input, size, channels_last, torch.int64)


def _fake_adaptive_max_pool2d_backward(
    grad_output: Tensor, indices: Tensor, input_size: Size, channels_last: bool, kernel_name: str = ""
) -> Tensor:
    return _empty(grad_output, (*grad_output.shape[:2], *input_size), channels_last)


def _fake_adaptive_avg_pool2d(
    input: Tensor, output_size: Size, channels_last: bool, kernel_name: str = ""
) -> Tensor:  # fmt: skip
    return _empty(input, (*input.shape[:2], *output_size), channels_last)


def _fake_adaptive_avg_pool2d_backward(
    grad_output: Tensor, input_size: Size, channels_last: bool, kernel_name: str = ""
) -> Tensor:
    return _empty(grad_output, (*grad_output.shape[:2], *input_size), channels_last)


if EMULATOR_MISSING is None:
    for _name in OPERATORS:
        torch.library.register_fake(f"cnnkernels::{_name}", globals()[f"_fake_{_name}"])


# The launch log: each library notes the names of the kernels it launches while its log is on, and so does the Triton backend.


def cuda_architectures() -> tuple[str, ...]:
    """What the CUDA library's kernels were compiled for: "80", "90a", ... It has to be loaded (:data:`CUDA_MISSING`)."""
    library = ctypes.CDLL(str(CUDA_LIBRARY))
    library.cnnkernels_cuda_architectures.restype = ctypes.c_char_p
    text: bytes = library.cnnkernels_cuda_architectures()
    return tuple(text.decode().split(", "))


def start_launch_log() -> None:
    """Turn the launch logs on and empty them."""
    triton_log.start()
    for library in _logs():
        library.cnnkernels_launch_log_enable(1)


def read_launch_log() -> list[str]:
    """The names of the kernels launched since :func:`start_launch_log`, in order of launch per library."""
    names: list[str] = []
    for library in _logs():
        # The log can grow between the two calls where another thread launches: take what the buffer holds.
        size = library.cnnkernels_launch_log_read(None, 0)
        buffer = ctypes.create_string_buffer(size + 1)
        library.cnnkernels_launch_log_read(buffer, size + 1)
        names += buffer.value.decode().split("\n")
    return [name for name in names if name] + triton_log.read()


def stop_launch_log() -> None:
    """Turn the launch logs off."""
    triton_log.stop()
    for library in _logs():
        library.cnnkernels_launch_log_enable(0)


def _logs() -> list[ctypes.CDLL]:
    libraries = []
    for path, missing in ((EMULATOR_LIBRARY, EMULATOR_MISSING), (CUDA_LIBRARY, CUDA_MISSING)):
        if missing is None:
            library = ctypes.CDLL(str(path))  # the handle torch.ops.load_library opened, not a second copy
            library.cnnkernels_launch_log_enable.argtypes = [ctypes.c_int]
            library.cnnkernels_launch_log_enable.restype = None
            library.cnnkernels_launch_log_read.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
            library.cnnkernels_launch_log_read.restype = ctypes.c_size_t
            libraries.append(library)
    return libraries
