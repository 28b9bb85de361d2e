"""The Triton backend: when it runs, what it launches, and that nothing else computes for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cnnkernels import backends, functional
from cnnkernels.backends import BackendError
from cnnkernels.explain import trace
from cnnkernels.testing.far_problems import FAR_CONV2D_PROBLEMS, FAR_POOL2D_PROBLEMS
from cnnkernels.testing.verify import Selection, count_cases, verify

pytestmark = pytest.mark.triton

DEVICE = "cpu" if backends.triton.INTERPRETED else "cuda"

Call = Callable[[Tensor], Any]

FILTER = torch.randn(6, 2, 3, 3, device=DEVICE)
CALLS: dict[str, Call] = {
    "conv2d": lambda x: functional.conv2d(x, FILTER, stride=2, padding=1, groups=2, backend="triton"),
    "depthwise": lambda x: functional.conv2d(x, FILTER[:4, :1], padding=1, groups=4, backend="triton"),
    "pointwise": lambda x: functional.conv2d(x, FILTER[:, :, :1, :1], groups=2, backend="triton"),
    "transposed": lambda x: functional.conv_transpose2d(x, FILTER[:4], stride=2, backend="triton"),
    "reflect": lambda x: functional.conv2d(x, FILTER, padding=1, groups=2, padding_mode="reflect", backend="triton"),
    "fused": lambda x: functional.conv2d(x, FILTER, groups=2, activation="relu6", backend="triton"),
    "max_pool2d": lambda x: functional.max_pool2d(x, 3, 2, 1, backend="triton"),
    "avg_pool2d": lambda x: functional.avg_pool2d(x, 3, 2, 1, backend="triton"),
    "adaptive_max_pool2d": lambda x: functional.adaptive_max_pool2d(x, 3, backend="triton"),
    "adaptive_avg_pool2d": lambda x: functional.adaptive_avg_pool2d(x, (2, 3), backend="triton"),
    "pyramid": lambda x: functional.spatial_pyramid_max_pool2d(x, 5, backend="triton")[2],
}
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "nchw": lambda x: x,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "sliced": lambda x: x[:, :, ::2, 1:],
    "transposed": lambda x: x.transpose(2, 3),
}


class _Dispatched(TorchDispatchMode):
    """Notes every operator that reaches torch's dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name().partition(".")[0])
        return func(*args, **(kwargs or {}))


# What allocates, or looks at the same memory in another way. Neither computes nor copies.
_HARMLESS = {
    "aten::empty", "aten::new_empty", "aten::empty_like", "aten::detach", "aten::view", "aten::alias", "aten::slice", "aten::expand",
    "aten::squeeze", "aten::unsqueeze", "aten::permute", "aten::transpose", "aten::as_strided", "aten::is_same_size",
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CALLS)
def test_nothing_of_torchs_computes_or_copies(name: str, layout: str) -> None:
    """Forward and backward of every function, on tensors of every layout, are our operators and memory for their results."""
    x = LAYOUTS[layout](torch.randn(2, 4, 9, 11, device=DEVICE)).requires_grad_()
    gradient = torch.randn_like(CALLS[name](x.detach()))
    with _Dispatched() as seen:
        output = CALLS[name](x)
        torch.autograd.grad(output, x, gradient)
    ours = [dispatched for dispatched in seen.names if dispatched.startswith("cnnkernels_triton::")]
    if name == "fused":
        with torch.no_grad(), _Dispatched() as seen:
            CALLS[name](x)
        ours = seen.names
    assert ours
    assert set(seen.names) - set(ours) <= _HARMLESS


# Of each kind of kernel the tile that is tried here, and on images of how many elements at most: a program of the interpreter takes some ten
# milliseconds. `cnnkernels verify --backend triton` tries all of them on all problems.
TRIED: dict[str, tuple[int, tuple[str, ...]]] = {
    "conv2d_gather_64x64x64": (4000, ("fprop", "fused", "dgrad")),
    "conv2d_wgrad_64x64x": (4000, ("wgrad",)),
    "conv2d_padded_dgrad_64x64x": (4000, ("dgrad",)),
    "conv2d_depthwise_slide_16x32": (300, ("fprop", "fused", "dgrad")),
    "conv2d_depthwise_taps_32x16": (500, ("fprop", "dgrad")),
    "conv2d_depthwise_wgrad_slide_16x32": (500, ("wgrad",)),
    "conv2d_depthwise_wgrad_taps_32x16": (500, ("wgrad",)),
    "conv2d_bias_grad": (4000, ("bias_grad",)),
    "conv2d_activation_grad": (4000, ("activation_grad",)),
    "max_pool2d_64x16": (1000, ("max",)),
    "max_pool2d_reduced_8x256": (1000, ("max",)),
    "max_pool2d_backward_64x16": (1000, ("max_backward", "adaptive_max_backward")),
    "max_pool2d_gather_64x16": (1000, ("max_gather",)),
    "avg_pool2d_64x16": (1000, ("avg", "adaptive_avg")),
    "avg_pool2d_reduced_8x256": (1000, ("avg", "adaptive_avg")),
    "avg_pool2d_backward_64x16": (1000, ("avg_backward", "adaptive_avg_backward")),
}


@pytest.mark.parametrize("kernel", TRIED)
def test_kernels_on_a_problem_of_each_group(kernel: str) -> None:
    most, passes = TRIED[kernel]
    selection = Selection("triton", passes, ("bf16",), kernel, quick=True)
    small = tuple(p for p in selection.problems if most >= p.N * p.C * p.H * p.W)
    records = verify(replace(selection, problems=small))
    assert {record.subject.name for record in records} == set(passes)
    failed = {f"{record.subject.kernel} {record.subject.name}": record for record in records if not record.passed}
    assert not failed, {name: record.failures[:1] or "reached by no problem" for name, record in failed.items()}


def test_offsets_of_more_than_31_bits() -> None:
    dense, depthwise = (
        FAR_CONV2D_PROBLEMS[0],
        next(p for p in FAR_CONV2D_PROBLEMS[::-1] if p.S == 3 and p.groups == p.C),
    )
    problems = (dense, depthwise, FAR_POOL2D_PROBLEMS[0])
    records = verify(Selection("triton", dtypes=("bf16",), planned=True, problems=problems))
    failed = {record.subject.name: record.failures[:1] for record in records if record.failures}
    assert not failed and sum(record.runs for record in records) >= 2 * 4 + 3


@pytest.mark.skipif(not backends.triton.INTERPRETED, reason="several processes are for the interpreter")
def test_processes_that_share_the_work_find_the_same() -> None:
    selection = Selection("triton", ("wgrad", "max"), ("bf16",), planned=True)
    small = tuple(p for p in selection.problems if p.N * p.C * p.H * p.W <= 100)[:40]
    selection = replace(selection, problems=small)
    heard: list[str] = []
    assert verify(selection, heard.append, jobs=2) == verify(selection)
    assert len(heard) == count_cases(selection) > 4


def test_depthwise_images_of_one_column_or_row() -> None:
    # Of these a stride says nothing, and where pixels lie follows from the other one alone.
    for size in ((19, 1), (1, 19)):
        x, weight = torch.randn(2, 5, *size, device=DEVICE), torch.randn(5, 1, 5, 5, device=DEVICE)
        for image in (x, x.contiguous(memory_format=torch.channels_last)):
            for kernel in ("taps_32x16", "slide_16x16"):
                name = f"triton_conv2d_depthwise_{kernel}_f32"
                y = backends.ENTRY_POINTS["triton"].conv2d_fprop(
                    image, weight, None, size, (1, 1), (2, 2), (1, 1), 5, False, kernel_name=name
                )
                expected = torch.nn.functional.conv2d(x, weight, padding=2, groups=5)
                torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)


def test_the_launch_log_has_the_kernels_names() -> None:
    with trace() as launched:
        CALLS["conv2d"](torch.randn(2, 4, 9, 11, device=DEVICE))
    assert len(launched) == 1
    assert launched[0].startswith("triton_conv2d_gather_") and launched[0].endswith("_f32")


def test_a_kernel_can_be_asked_for_by_name_and_refuses_what_it_is_not_for() -> None:
    x = torch.randn(2, 4, 9, 11, device=DEVICE)
    operator = backends.ENTRY_POINTS["triton"].conv2d_fprop
    arguments = (x, FILTER, None, (7, 9), (1, 1), (0, 0), (1, 1), 2, False)
    with trace() as launched:
        forced = operator(*arguments, kernel_name="triton_conv2d_gather_64x64x32_f32")
    assert launched == ["triton_conv2d_gather_64x64x32_f32"]
    torch.testing.assert_close(forced, torch.nn.functional.conv2d(x, FILTER, groups=2), rtol=1e-4, atol=1e-4)
    for name in ("triton_conv2d_gather_64x64x32_f16", "triton_conv2d_wgrad_64x64x32_f32", "nonsense"):
        with pytest.raises(RuntimeError, match=f"kernel '{name}' cannot run this problem"):
            operator(*arguments, kernel_name=name)


@pytest.mark.parametrize("width", [1, 2, 4, 16])
def test_what_is_not_a_number_stays_in_its_group(width: int) -> None:
    x = torch.randn(1, 4 * width, 5, 5, device=DEVICE)
    x[:, 0] = float("nan")
    x[:, -1] = float("inf")
    w = torch.randn(4 * width, width, 3, 3, device=DEVICE)
    y = functional.conv2d(x, w, groups=4, backend="triton")
    assert y[:, :width].isnan().all() and y[:, width : 3 * width].isfinite().all()
    assert functional.conv_transpose2d(x, w, groups=4, backend="triton")[:, width : 3 * width].isfinite().all()


def test_a_slab_of_depthwise_wgrad_may_have_several_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on large batches, of which no problem is one."""
    from cnnkernels.triton import configs

    monkeypatch.setattr(configs, "DEPTHWISE_WGRAD_PROGRAMS", 3)
    x, dy = torch.randn(7, 2, 5, 6, device=DEVICE), torch.randn(7, 2, 5, 6, device=DEVICE)
    arguments = (dy, x, (3, 3), (1, 1), (1, 1), (1, 1), 2, False, "triton_conv2d_depthwise_wgrad_slide_16x32_f32")
    ours = backends.ENTRY_POINTS["triton"].conv2d_wgrad(*arguments)
    theirs = torch.nn.grad.conv2d_weight(x, (2, 1, 3, 3), dy, padding=1, groups=2)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_fp32_is_multiplied_as_torchs_switch_says() -> None:
    from cnnkernels.triton.convolution import precision

    with torch.backends.cudnn.flags(allow_tf32=True):
        assert precision(torch.float32) == "tf32"
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert precision(torch.float32) == "ieee"
    assert precision(torch.bfloat16) == precision(torch.float64) == "ieee"


def test_other_dtypes_are_refused_by_name() -> None:
    with pytest.raises(BackendError, match=r"backend 'triton' does not: our kernels take .* not strided int64"):
        functional.avg_pool2d(torch.ones(1, 1, 4, 4, dtype=torch.int64, device=DEVICE), 2, backend="triton")


def test_second_derivatives_and_forward_mode() -> None:
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64, device=DEVICE, requires_grad=True)
    w = torch.randn(3, 2, 3, 2, dtype=torch.float64, device=DEVICE, requires_grad=True)

    def call(x: Tensor, w: Tensor) -> Tensor:
        return functional.conv2d(x, w, stride=(1, 2), padding=1, backend="triton")

    assert torch.autograd.gradgradcheck(call, (x, w), fast_mode=True, check_fwd_over_rev=True, nondet_tol=0.0)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_calls_give_the_same_bits(backend: str) -> None:
    x = torch.randn(2, 4, 9, 11, device=DEVICE, requires_grad=True)
    compiled = torch.compile(CALLS["conv2d"], backend=backend, fullgraph=True)
    ours, theirs = CALLS["conv2d"](x), compiled(x)
    assert torch.equal(ours, theirs)
    assert torch.equal(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (ours, theirs)))


_SEEN_BY_THE_COMPILER = """
import json, torch
from torch._functorch.aot_autograd import aot_function
from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from cnnkernels.backends import ENTRY_POINTS

class Driver:  # a GPU as far as the analysis of kernels asks
    get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))

driver.set_active(Driver())
found = []
def compiler(graph, _):
    for node in graph.graph.nodes:
        if "triton_kernel_wrapper" in str(node.target):
            kernel = kernel_side_table.get_kernel(node.kwargs["kernel_idx"])
            found.append([kernel.fn.__name__, list(node.kwargs["tensors_to_clone"])])
    return graph

operator = ENTRY_POINTS["triton"].conv2d_fprop
call = lambda x, w: operator(x, w, None, (9, 11), (1, 1), (1, 1), (1, 1), 1, False)
try:
    aot_function(call, fw_compiler=compiler)(torch.randn(2, 4, 9, 11), torch.randn(6, 4, 3, 3))
except Exception as error:
    launching = str(error)  # there is no GPU
print(json.dumps(found))
"""


def test_the_compiler_sees_the_kernels_and_what_they_write() -> None:
    """Without the interpreter an operator is taken apart into kernels, of which torch finds out that they write their result alone."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, "-c", _SEEN_BY_THE_COMPILER], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(result.stdout) == [["conv2d_gather_kernel", ["out"]]], result.stderr


def test_a_cpu_tensor_without_the_interpreter_is_refused_in_one_sentence() -> None:
    script = "import torch; from cnnkernels import functional as F; F.avg_pool2d(torch.ones(1, 1, 4, 4), 2, backend='triton')"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1] == (
        "cnnkernels.backends.BackendError: backend 'triton' cannot run this call: the input is on the CPU, and on the CPU the Triton "
        "kernels run under Triton's interpreter alone: set TRITON_INTERPRET=1 before Python starts"
    )


def test_importing_the_package_imports_no_triton() -> None:
    script = "import sys, cnnkernels; sys.exit('triton' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
