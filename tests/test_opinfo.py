"""torch's own examination of these functions, taken by ours: OpInfo's samples and error inputs.

The OpInfo entries are copied, their function replaced by ours on a backend, and their skips and tolerances dropped. Under Triton's interpreter a
call takes tens of milliseconds, so that its part of the examination is chosen by time (STRIDES).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.opinfo.core import OpInfo, SampleInput

from cnnkernels import BackendError, backends, functional
from cnnkernels.testing.oracles import assert_close_to_fp64

NAMES = ("conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d", "adaptive_max_pool2d", "adaptive_avg_pool2d")
CONVOLUTIONS = ("conv2d", "conv_transpose2d")

# The number of samples in torch 2.13's wheel: a test over fewer would not be the examination.
SAMPLES = {
    "conv2d": 30, "conv_transpose2d": 12, "max_pool2d": 1440, "avg_pool2d": 7,
    "adaptive_max_pool2d": 20, "adaptive_avg_pool2d": 10,
}  # fmt: skip

# On Triton every so-manieth sample, and for derivatives, whose checks are dozens of calls, every so-manieth of those: the numbers have no
# factor in common with the lengths of torch's nested lists of arguments.
STRIDES = {
    "conv2d": 1, "conv_transpose2d": 1, "max_pool2d": 89, "avg_pool2d": 1,
    "adaptive_max_pool2d": 3, "adaptive_avg_pool2d": 1,
}  # fmt: skip
DERIVATIVE_STRIDE = 31


@pytest.fixture(params=["emulator", "triton"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "triton" and backends.unavailable("triton") is not None:
        pytest.skip(str(backends.unavailable("triton")))
    return name


@cache
def _opinfo(name: str, backend: str) -> OpInfo:
    (original,) = (op for op in op_db if op.name == f"nn.functional.{name}")
    op = copy.copy(original)
    op.op = partial(getattr(functional, name), backend=backend)
    op.decorators = op.skips = ()
    return op


def _samples(name: str, backend: str, dtype: torch.dtype, requires_grad: bool = False) -> list[SampleInput]:
    samples = list(_opinfo(name, backend).sample_inputs("cpu", dtype, requires_grad=requires_grad))
    assert len(samples) >= SAMPLES[name]
    return samples[:: STRIDES[name]] if backend == "triton" else samples


def _tensors(sample: SampleInput) -> list[torch.Tensor]:
    return [value for value in (sample.input, *sample.args) if isinstance(value, torch.Tensor)]


def _reduction_length(name: str, tensors: list[torch.Tensor], output: torch.Tensor) -> int:
    """The most terms that any element of the result or of a gradient sums."""
    if name in CONVOLUTIONS:
        image, weight = tensors[0], tensors[1]
        return max(weight.numel(), image.numel(), output.numel())
    return max(tensors[0].shape[-1] * tensors[0].shape[-2], output.numel())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_samples_agree_with_torch(name: str, dtype: torch.dtype, backend: str) -> None:
    """Every sample, forward and backward: shapes, strides and dtypes are torch's, values within rounding of fp64."""
    reference = getattr(F, name)
    for sample in _samples(name, backend, dtype, requires_grad=True):
        ours = _opinfo(name, backend).op(sample.input, *sample.args, **sample.kwargs)
        theirs = reference(sample.input, *sample.args, **sample.kwargs)
        exact_arguments = [_double(value) for value in (sample.input, *sample.args)]
        exact = reference(*exact_arguments, **sample.kwargs)
        if isinstance(theirs, tuple):
            assert isinstance(ours, tuple)
            assert torch.equal(ours[1], theirs[1]) and ours[1].stride() == theirs[1].stride()
            ours, theirs, exact = ours[0], theirs[0], exact[0]
        tensors = _tensors(sample)
        terms = _reduction_length(name, tensors, theirs)
        _assert_same(ours, theirs, exact, terms)

        grad_output = torch.randn_like(theirs)
        grads = torch.autograd.grad(ours, tensors, grad_output)
        their_grads = torch.autograd.grad(theirs, tensors, grad_output)
        exact_tensors = [value for value in exact_arguments if isinstance(value, torch.Tensor)]
        exact_grads = torch.autograd.grad(exact, exact_tensors, grad_output.double())
        for grad, their_grad, exact_grad in zip(grads, their_grads, exact_grads, strict=True):
            _assert_same(grad, their_grad, exact_grad, terms)


def _double(value: Any) -> Any:
    return value.detach().double().requires_grad_() if isinstance(value, torch.Tensor) else value


def _assert_same(ours: torch.Tensor, theirs: torch.Tensor, exact: torch.Tensor, terms: int) -> None:
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
    assert ours.stride() == theirs.stride()
    assert_close_to_fp64(ours.detach(), exact.detach(), terms, torch_result=theirs.detach())


def _differentiable_samples(name: str, backend: str) -> Iterator[tuple[Callable[..., Any], list[torch.Tensor]]]:
    """(function of the tensors alone, tensors) per sample."""
    samples = _samples(name, backend, torch.float64, requires_grad=True)
    for sample in samples[::DERIVATIVE_STRIDE] if backend == "triton" else samples:
        tensors = _tensors(sample)
        rest = [value for value in sample.args if not isinstance(value, torch.Tensor)]
        yield (lambda *t, _rest=rest, _kwargs=sample.kwargs: _opinfo(name, backend).op(*t, *_rest, **_kwargs)), tensors


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name: str, backend: str) -> None:
    """Backward, forward mode, and both under vmap, against finite differences in fp64.

    max_pool2d's 1440 samples, and those on Triton, are checked in the fast mode, along one random direction each, as torch itself does.
    """
    fast = name == "max_pool2d" or backend == "triton"
    for function, tensors in _differentiable_samples(name, backend):
        assert gradcheck(
            function, tensors, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True,
            check_undefined_grad=True, fast_mode=fast, nondet_tol=0.0,
        )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_gradgradcheck(name: str, backend: str) -> None:
    """Second derivatives, reverse over reverse and forward over reverse, in fp64; in batches, too, but on Triton."""
    for function, tensors in _differentiable_samples(name, backend):
        assert gradgradcheck(
            function, tensors, check_fwd_over_rev=True, check_rev_over_rev=True, check_batched_grad=backend != "triton",
            fast_mode=True, nondet_tol=0.0,
        )  # fmt: skip


@pytest.mark.parametrize("name", [name for name in NAMES if name != "conv_transpose2d"])  # it has no error inputs
def test_error_inputs(name: str, backend: str) -> None:
    """Bad arguments raise torch's exception with torch's text, word for word."""
    op = _opinfo(name, backend)
    errors = list(op.error_inputs("cpu"))
    assert errors
    for error in errors:
        sample = error.sample_input
        with pytest.raises(error.error_type) as ours:
            op.op(sample.input, *sample.args, **sample.kwargs)
        with pytest.raises(error.error_type) as theirs:
            getattr(F, name)(sample.input, *sample.args, **sample.kwargs)
        assert re.search(error.error_regex, str(ours.value))
        assert str(ours.value) == str(theirs.value) and type(ours.value) is type(theirs.value)


@pytest.mark.parametrize("name", [name for name in NAMES if "adaptive" not in name])  # those take no others
def test_dtypes_without_kernels_are_refused(name: str, backend: str) -> None:
    """torch's CPU operators also take integers and complex numbers; a named backend says that it does not."""
    op = _opinfo(name, backend)
    others = op.dtypes - {torch.float64, torch.float32, torch.float16, torch.bfloat16}
    assert torch.int64 in others
    for dtype in others:
        sample = next(iter(op.sample_inputs("cpu", dtype)))
        with pytest.raises(BackendError, match=f"our kernels take .* not strided {str(dtype)[6:]}"):
            op.op(sample.input, *sample.args, **sample.kwargs)
