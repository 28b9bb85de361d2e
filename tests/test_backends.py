"""Who runs a call: the policy, strict backends, the ambient backend, explain() and trace()."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import cnnkernels
from cnnkernels import BackendError, backends, explain, functional, nn, trace, use_backend

X = torch.randn(1, 2, 6, 6)
W = torch.randn(3, 2, 3, 3)


def test_auto_on_the_cpu_is_torchs_operator() -> None:
    with trace() as launched:
        assert torch.equal(functional.conv2d(X, W), F.conv2d(X, W))
        assert torch.equal(functional.max_pool2d(X, 2, backend="auto"), F.max_pool2d(X, 2))
    assert launched == []


def test_named_backends_are_strict() -> None:
    with trace() as launched:
        functional.conv2d(X, W, backend="emulator")
        functional.conv2d(X, W, backend="torch")
    assert len(launched) == 1
    with pytest.raises(
        BackendError, match=r"'cuda' cannot run this call: the CUDA kernels take CUDA tensors .* on cpu"
    ):
        functional.conv2d(X, W, backend="cuda")
    with pytest.raises(BackendError, match="no backend 'cudnn': choose one of auto, cuda, triton, emulator, torch"):
        functional.conv2d(X, W, backend="cudnn")
    assert issubclass(BackendError, RuntimeError)


@pytest.mark.gpu
def test_emulator_refuses_cuda_tensors() -> None:
    with pytest.raises(BackendError, match="the emulator takes CPU tensors and the input is on cuda:0"):
        functional.conv2d(X.cuda(), W.cuda(), backend="emulator")


@pytest.mark.gpu
def test_auto_on_a_gpu_is_our_kernels() -> None:
    with trace() as launched:
        functional.conv2d(X.cuda(), W.cuda())
    assert len(launched) == 1


def test_meta_tensors_get_shapes() -> None:
    output = functional.conv2d(X.to("meta"), W.to("meta"), stride=2, backend="emulator")
    assert output.device.type == "meta" and output.shape == (1, 3, 2, 2)


def test_use_backend_nests_and_restores() -> None:
    assert backends.ambient_backend() == "auto"
    with use_backend("emulator"):
        assert backends.ambient_backend() == "emulator"
        with use_backend("torch"):
            assert backends.ambient_backend() == "torch"
        with contextlib.suppress(ValueError), use_backend("torch"):
            raise ValueError
        assert backends.ambient_backend() == "emulator"
        with trace() as launched:
            functional.conv2d(X, W)
            functional.conv2d(X, W, backend="torch")  # the argument wins
        assert len(launched) == 1
    assert backends.ambient_backend() == "auto"
    with pytest.raises(BackendError, match="no backend 'cudnn'"):
        use_backend("cudnn")


def test_use_backend_decorates_and_keeps_to_its_thread() -> None:
    @use_backend("emulator")
    def ambient(depth: int) -> list[str]:
        return [backends.ambient_backend()] + (ambient(depth - 1) if depth else [])

    seen: list[list[str]] = []
    assert ambient(2) == ["emulator"] * 3
    with use_backend("torch"):
        threads = [
            threading.Thread(target=lambda: seen.append([backends.ambient_backend(), *ambient(1)])) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert backends.ambient_backend() == "torch"
    assert seen == [["auto", "emulator", "emulator"]] * 4


@pytest.mark.parametrize(("value", "expected"), [("emulator", "emulator"), ("", "auto"), ("cudnn", "BackendError")])
def test_environment_sets_the_ambient_backend(value: str, expected: str) -> None:
    program = (
        "import torch, cnnkernels\n"
        "from cnnkernels import backends, functional\n"
        "try: functional.avg_pool2d(torch.ones(1, 1, 2, 2), 2); print(backends.ambient_backend())\n"
        "except cnnkernels.BackendError as error: print(type(error).__name__)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], env=dict(os.environ, CNNKERNELS_BACKEND=value),
        cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert process.stdout.strip() == expected


def test_unavailable_says_why() -> None:
    assert backends.unavailable("auto") is None and backends.unavailable("torch") is None
    assert backends.unavailable("emulator") is None
    if backends.triton.INTERPRETED:
        assert backends.unavailable("triton") is None
    if not torch.backends.cuda.is_built():
        assert backends.unavailable("cuda") == "this torch is built without CUDA"
    with pytest.raises(BackendError):
        backends.unavailable("cudnn")


CALLS = {
    "conv2d": ((X, W, torch.randn(3)), {"padding": "same"}, ["fprop", "dgrad", "wgrad", "bias_grad"]),
    "conv_transpose2d": ((X, W.transpose(0, 1)), {"stride": 2}, ["dgrad", "fprop", "wgrad"]),
    "max_pool2d": ((X, 3), {"stride": 2, "return_indices": True}, ["max", "max_backward"]),
    "avg_pool2d": ((X, 3), {"ceil_mode": True}, ["avg", "avg_backward"]),
    "adaptive_max_pool2d": ((X, 3, True), {}, ["adaptive_max", "adaptive_max_backward"]),
    "adaptive_avg_pool2d": ((X, (2, None)), {}, ["adaptive_avg", "adaptive_avg_backward"]),
}


@pytest.mark.parametrize("name", CALLS)
def test_explain_names_the_kernels_that_run(name: str) -> None:
    arguments, options, passes = CALLS[name]
    arguments = tuple(a.clone().requires_grad_() if isinstance(a, torch.Tensor) else a for a in arguments)
    function = getattr(functional, name)
    explanation = explain(function, *arguments, **options, backend="emulator")
    assert (explanation.function, explanation.asked, explanation.backend) == (name, "emulator", "emulator")
    assert [plan.name for plan in explanation.passes] == passes
    with trace() as launched:
        output = function(*arguments, **options, backend="emulator")
        (output[0] if isinstance(output, tuple) else output).square().sum().backward()  # a gradient that is dense
    first, *backward = [plan.kernel for plan in explanation.passes]
    assert launched[0] == first
    assert set(backward) <= set(launched)
    text = str(explanation)
    for plan in explanation.passes:
        assert plan.kernel in text and plan.refused
        assert all(kernel in text and reason in text for kernel, reason in plan.refused)


@pytest.mark.parametrize("name", CALLS)
def test_explain_takes_torchs_functions_and_names(name: str) -> None:
    arguments, options, _ = CALLS[name]
    explanation = explain(getattr(functional, name), *arguments, **options, backend="emulator")
    assert explain(getattr(F, name), *arguments, **options, backend="emulator") == explanation
    assert explain(name, *arguments, **options, backend="emulator") == explanation


def test_explain_finds_a_request_for_indices_in_any_form() -> None:
    """max_pool2d's kernel with indices is another one, and reads as torch's documentation has it called."""
    arguments = (X, 3, 2, 1, 1, False)
    plain, asked = (explain("max_pool2d", *arguments, return_indices=on, backend="emulator") for on in (False, True))
    assert plain != asked
    layer = torch.nn.MaxPool2d(3, 2, 1, return_indices=True)
    for function, call in ((F.max_pool2d, (*arguments, True)), (F.max_pool2d_with_indices, arguments), (layer, (X,))):
        assert explain(function, *call, backend="emulator") == asked
    assert explain(F.max_pool2d, *arguments, False, backend="emulator") == plain
    assert explain(torch.nn.MaxPool2d(3, 2, 1), X, backend="emulator") == plain
    adaptive = explain(F.adaptive_max_pool2d, X, 3, return_indices=True, backend="emulator")
    assert explain(F.adaptive_max_pool2d_with_indices, X, 3, backend="emulator") == adaptive
    assert explain(torch.nn.AdaptiveMaxPool2d(3, return_indices=True), X, backend="emulator") == adaptive
    with pytest.raises(ValueError, match="not avg_pool2d_with_indices"):
        explain("avg_pool2d_with_indices", X, 3)
    with pytest.raises(TypeError):
        explain(F.avg_pool2d, X, 3, return_indices=True, backend="emulator")
    with pytest.raises(TypeError, match="multiple values for argument 'return_indices'"):
        explain(F.max_pool2d, *arguments, True, return_indices=True, backend="emulator")


def test_explain_says_why_a_backend_was_chosen() -> None:
    auto = explain(functional.conv2d, X, W)
    assert auto.backend == "torch" and "the emulator is for checking kernels" in auto.why and auto.passes == ()
    assert explain(functional.conv2d, X, W, backend="torch").why == "asked for by name"
    cuda = explain(functional.conv2d, X, W, backend="cuda")
    assert cuda.backend is None and "the CUDA kernels take CUDA tensors" in cuda.why
    assert explain(functional.conv2d, X[:0], W, backend="emulator").why.startswith("the input has no elements")
    integers = explain(functional.conv2d, X.int(), W.int(), backend="emulator")
    assert integers.backend is None and "not strided int32" in integers.why
    with use_backend("emulator"):
        assert explain(functional.conv2d, X, W).asked == "emulator"
        with pytest.raises(RuntimeError, match="non-positive stride is not supported"):
            explain(functional.conv2d, X, W, stride=0)
    with pytest.raises(ValueError, match="explain knows conv2d, conv_transpose2d, max_pool2d, avg_pool2d"):
        explain(torch.relu, X)


def test_explain_follows_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        explanation = explain(functional.conv2d, X, W, backend="emulator")
    assert explanation.passes[0].kernel.endswith("_bf16")


def test_explain_takes_modules() -> None:
    layer = nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular")
    layer.backend = "emulator"
    explanation = explain(layer, X)
    assert explanation.backend == "emulator"
    with trace() as launched:
        layer(X)
    assert [explanation.passes[0].kernel] == launched
    assert (
        explain(torch.nn.ConvTranspose2d(2, 3, 2, stride=2), X, [13, 12], backend="emulator").passes[0].name == "dgrad"
    )
    assert explain(nn.MaxPool2d(2), X, backend="emulator").passes[0].name == "max"
    assert explain(nn.AvgPool2d(2), X, backend="emulator").passes[0].name == "avg"
    adaptive = explain(nn.AdaptiveMaxPool2d((None, 2)), X, backend="emulator")
    assert [plan.name for plan in adaptive.passes] == ["adaptive_max", "adaptive_max_backward"]
    assert explain(torch.nn.AdaptiveAvgPool2d(1), X, backend="emulator").passes[0].name == "adaptive_avg"


def test_explain_launches_nothing() -> None:
    with trace() as launched:
        explain(functional.conv2d, X, W, backend="emulator")
    assert launched == []


def test_traces_nest() -> None:
    with trace() as outer:
        functional.avg_pool2d(X, 2, backend="emulator")
        with trace() as inner:
            functional.conv2d(X, W, backend="emulator")
        functional.max_pool2d(X, 2, backend="emulator")
    assert len(inner) == 1 and len(outer) == 3
    assert [kernel.split("_")[1] for kernel in outer] == ["avg", "gather", "max"]
    functional.avg_pool2d(X, 2, backend="emulator")
    assert len(outer) == 3


def test_the_package_exports_what_it_says() -> None:
    for name in cnnkernels.__all__:
        assert getattr(cnnkernels, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cnnkernels.nothing
