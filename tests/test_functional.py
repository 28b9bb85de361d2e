"""The four functions mean what torch's mean: sizes, formats, dtypes, and every error word for word."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import Place
from torch import Tensor

import cnnkernels
from cnnkernels import BackendError, functional
from cnnkernels.testing import assert_like_torch

X = torch.randn(2, 4, 7, 6)
W = torch.randn(6, 2, 3, 2)  # two groups
V = torch.randn(4, 3, 3, 2)  # transposed, two groups
B = torch.randn(6)

Arguments = tuple[Any, ...]
Options = dict[str, Any]

CALLS: list[tuple[str, Arguments, Options]] = [
    ("conv2d", (X, W, B), {"groups": 2}),
    ("conv2d", (X, W, B, 2, 1, 2, 2), {}),
    ("conv2d", (X, W), {"groups": 2, "stride": [2], "padding": (1,), "dilation": (1, 2)}),
    ("conv2d", (X, W), {"groups": 2, "padding": "valid", "stride": (1, 3)}),
    ("conv2d", (X, W), {"groups": 2, "padding": "same", "dilation": 3}),
    ("conv2d", (X, W), {"groups": 2, "padding": "same"}),  # an even filter: one side gets more
    ("conv2d", (X[0], W, B), {"groups": 2}),
    ("conv2d", (X, W), {"groups": 2, "stride": torch.tensor(2), "padding": (torch.tensor(1), 0)}),
    ("conv2d", (X[:, :, ::2, 1:], W.expand(6, 2, 3, 2)), {"groups": 2}),
    ("conv2d", (X.permute(0, 1, 3, 2), W), {"groups": 2}),
    ("conv2d", (X[:1, :1].expand(2, 4, 7, 6), W), {"groups": 2}),
    ("conv2d", (X[:0], W, B), {"groups": 2}),
    ("conv2d", (X[:, :0], W[:, :0]), {}),  # no channels: torch gives an output of no channels
    ("conv_transpose2d", (X, V, B), {"groups": 2}),
    ("conv_transpose2d", (X, V, B, 2, 1, 1, 2, 2), {}),
    ("conv_transpose2d", (X, V), {"groups": 2, "stride": (3, 2), "output_padding": (2, 1)}),
    ("conv_transpose2d", (X, V), {"groups": 2, "dilation": 3, "output_padding": (2,)}),
    ("conv_transpose2d", (X[0], V, B), {"groups": 2}),
    ("conv_transpose2d", (X[:0], V, B), {"groups": 2}),
    ("conv_transpose2d", (X[:, :, :2], V), {"groups": 2, "padding": (2, 0)}),  # nothing is left of the output
    ("max_pool2d", (X, 3), {}),
    ("max_pool2d", (X, 3, []), {}),
    ("max_pool2d", (X, (3, 2), 2, (1, 0), (1, 2), True, True), {}),
    ("max_pool2d", (X, [2]), {"stride": None, "return_indices": True}),
    ("max_pool2d", (X[0], 2), {"ceil_mode": True}),
    ("max_pool2d", (X[:0], 2), {}),
    ("max_pool2d", (X, 2, 3, 1), {"ceil_mode": True}),  # a last window that would start in the far padding is left out
    ("avg_pool2d", (X, 2, 3, 1), {"ceil_mode": True}),
    ("avg_pool2d", (X, 3), {}),
    ("avg_pool2d", (X, (3, 2), [2], (1, 0), True, False, 5), {}),
    ("avg_pool2d", (X, 3, ()), {"padding": 1, "count_include_pad": False}),
    ("avg_pool2d", (X, 2), {"divisor_override": -3}),
    ("avg_pool2d", (X[0], 2), {"ceil_mode": True}),
    ("avg_pool2d", (X[:0], 2), {}),
]


def _titles(calls: list[tuple[str, Arguments, Options]]) -> list[str]:
    def words(value: Any) -> str:
        if isinstance(value, Tensor):
            return "x".join(map(str, value.shape)) or "scalar"
        return str(value).replace(" ", "")

    return [
        "-".join([name, *map(words, arguments), *(f"{key}={words(value)}" for key, value in options.items())])
        for name, arguments, options in calls
    ]


def _moved(value: Any, device: str) -> Any:
    return value.to(device) if isinstance(value, Tensor) and value.dim() else value


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(("name", "arguments", "options"), CALLS, ids=_titles(CALLS))
def test_calls_agree_with_torch(name: str, arguments: Arguments, options: Options, place: Place) -> None:
    arguments = tuple(_moved(value, place.device) for value in arguments)
    ours = getattr(functional, name)(*arguments, **options, backend=place.backend)
    theirs = getattr(F, name)(*arguments, **options)
    assert type(ours) is type(theirs)
    for mine, other in zip(_tuple(ours), _tuple(theirs), strict=True):
        assert_like_torch(mine, other)
        torch.testing.assert_close(mine, other)


def _tuple(value: Any) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def test_input_as_keyword() -> None:
    torch.testing.assert_close(
        functional.conv2d(weight=W, input=X, groups=2, backend="emulator"), F.conv2d(X, W, groups=2)
    )


I = X.to(torch.int64)
BAD_CALLS: list[tuple[str, Arguments, Options]] = [
    # sizes that are no sizes, in both ways of writing an argument: torch's text says which
    *[
        (name, arguments, options)
        for bad in ("a", None, 2.0, True, (1, 2.0), (True, 1), range(1, 3), torch.tensor([1, 1]), 1j)
        for name, arguments, options in (
            ("conv2d", (X, W, None, bad), {"groups": 2}),
            ("conv2d", (X, W), {"dilation": bad, "groups": 2}),
            ("conv_transpose2d", (X, V), {"output_padding": bad, "groups": 2}),
            ("max_pool2d", (X, bad), {}),
            ("max_pool2d", (X, 2), {"padding": bad}),
            ("avg_pool2d", (X, bad), {}),
            ("avg_pool2d", (X, 2), {"padding": bad}),
        )
    ],
    *[("conv2d", (X, W), {argument: (1, 1, 1), "groups": 2}) for argument in ("stride", "padding", "dilation")],
    *[("conv2d", (X, W), {argument: (), "groups": 2}) for argument in ("stride", "padding", "dilation")],
    *[("conv2d", (X, W), {"groups": bad}) for bad in (0, -1, 3, 7, 1, 2.0, None, True, (2,))],
    *[("conv2d", (X, W), {"padding": bad, "groups": 2}) for bad in (-1, (0, -1), "bogus", "")],
    *[("conv2d", (X, W), {"stride": bad, "groups": 2}) for bad in (0, -1, (1, 0))],
    *[("conv2d", (X, W), {"dilation": bad, "groups": 2}) for bad in (0, -1, 7)],
    ("conv2d", (X, W), {"padding": "same", "stride": 2, "groups": 2}),
    ("conv2d", (X[0, 0], W), {}),
    ("conv2d", (X[None], W), {}),
    ("conv2d", (X, W[0]), {}),
    ("conv2d", (X, W[None]), {}),
    ("conv2d", (X, W[:0]), {}),
    ("conv2d", (X, W[:, :, :0]), {"groups": 2}),
    ("conv2d", (X[:, :, :2], W), {"groups": 2}),  # the filter is larger than the image
    ("conv2d", (X[:, :, :0], W), {"groups": 2}),
    ("conv2d", (X, W, B[:5]), {"groups": 2}),
    ("conv2d", (X, W, B[None]), {"groups": 2}),
    ("conv2d", (X, W[:5]), {"groups": 2}),
    ("conv2d", (X.double(), W), {"groups": 2}),
    ("conv2d", (I, W), {"groups": 2}),
    ("conv2d", (X, W, B.to(torch.complex64)), {"groups": 2}),
    ("conv2d", (X.half(), W.half(), B), {"groups": 2}),
    ("conv2d", (X.to_sparse(), W), {"groups": 2}),
    ("conv2d", ([1.0], W), {}),
    ("conv2d", (None, W), {}),
    ("conv2d", (X, "weight"), {}),
    ("conv2d", (X, W, 1.0), {"groups": 2}),
    ("conv2d", (X,), {}),
    ("conv2d", (), {}),
    ("conv2d", (X, W), {"strides": 1}),
    ("conv2d", (X, W, B, 1, 0, 1, 2, 3), {}),
    ("conv2d", (X, W), {"input": X}),
    *[("conv_transpose2d", (X, V), {"output_padding": bad, "groups": 2}) for bad in (1, -1, (0, 1))],
    *[("conv_transpose2d", (X, V), {"groups": bad}) for bad in (0, -1, 3)],
    *[("conv_transpose2d", (X, V), {"padding": bad, "groups": 2}) for bad in (-1, "same", 9)],
    ("conv_transpose2d", (X, V), {"stride": 0, "groups": 2}),
    ("conv_transpose2d", (X, V[:3]), {}),
    ("conv_transpose2d", (X[0, 0], V), {}),
    ("conv_transpose2d", (X, V, B[:5]), {"groups": 2}),
    ("conv_transpose2d", (X.double(), V), {"groups": 2}),
    ("conv_transpose2d", (X[:, :0], V[:0]), {}),
    *[
        (name, (X, 2), options)
        for name in ("max_pool2d", "avg_pool2d")
        for options in ({"stride": 0}, {"stride": (1, 1, 1)}, {"padding": 2}, {"padding": -1}, {"ceil_mode": 1})
    ],
    *[(name, (X, bad), {}) for name in ("max_pool2d", "avg_pool2d") for bad in (0, -1, 9, (), (2, 2, 2), (8, 1))],
    *[(name, (bad, 2), {}) for name in ("max_pool2d", "avg_pool2d") for bad in (X[0, 0], X[None], X[:, :0], 1.0)],
    (
        "max_pool2d",
        (X, 2),
        {"padding": 2, "dilation": 4},
    ),  # half of the dilated window, which torch's CPU operator refuses
    ("max_pool2d", (X, 2), {"dilation": 0}),
    ("max_pool2d", (X,), {}),
    ("avg_pool2d", (X,), {}),
    ("avg_pool2d", (X, 2), {"divisor_override": 0}),
    ("avg_pool2d", (X, 2), {"divisor_override": 2.0}),
    ("avg_pool2d", (X, 2), {"count_include_pad": 1}),
    ("avg_pool2d", (X, 2), {"dilation": 1}),
]


def _raised(function: Callable[..., Any], arguments: Arguments, options: Options) -> Exception:
    with pytest.raises(Exception) as raised:  # noqa: PT011  # whatever torch raises
        function(*arguments, **options)
    return raised.value


@pytest.mark.parametrize(("name", "arguments", "options"), BAD_CALLS, ids=_titles(BAD_CALLS))
def test_bad_arguments_raise_torchs_error_word_for_word(name: str, arguments: Arguments, options: Options) -> None:
    theirs = _raised(getattr(F, name), arguments, options)
    with cnnkernels.trace() as launched:
        ours = _raised(getattr(functional, name), arguments, {**options, "backend": "emulator"})
    assert type(ours) is type(theirs)
    assert str(ours) == str(theirs)
    assert launched == []


def test_what_torch_takes_and_our_kernels_do_not_is_a_backend_error() -> None:
    for dtype in (torch.int64, torch.complex64):
        with pytest.raises(BackendError, match=f"conv2d: torch takes .* not strided {str(dtype)[6:]}"):
            functional.conv2d(X.to(dtype), W.to(dtype), groups=2, backend="emulator")
    torch.testing.assert_close(
        functional.conv2d(I, W.to(torch.int64), groups=2), F.conv2d(I, W.to(torch.int64), groups=2)
    )


FORMATS = (torch.contiguous_format, torch.channels_last)


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(
    ("of_input", "of_weight", "of_grad"), list(itertools.product(FORMATS, FORMATS, FORMATS)), ids=str
)
def test_convolution_formats_are_torchs(
    name: str, groups: int, of_input: Any, of_weight: Any, of_grad: Any, place: Place
) -> None:
    """The output and both gradients are channels_last where the input or the weight is; the incoming gradient decides nothing."""
    results = []
    for function in (getattr(F, name), lambda *a, **k: getattr(functional, name)(*a, **k, backend=place.backend)):
        input = X.to(place.device, memory_format=of_input).requires_grad_()
        weight = torch.randn(4, 8 // groups, 3, 2) if name == "conv_transpose2d" else torch.randn(8, 4 // groups, 3, 2)
        weight = weight.to(place.device, memory_format=of_weight).requires_grad_()
        output = function(input, weight, groups=groups)
        grad_output = torch.ones_like(output).contiguous(memory_format=of_grad)
        results.append((output, *torch.autograd.grad(output, (input, weight), grad_output)))
    for theirs, ours in zip(*results, strict=True):
        if theirs.is_contiguous() and theirs.is_contiguous(memory_format=torch.channels_last):
            continue  # one channel: both formats are the same bytes, and torch's strides of the size-1 dimension vary
        assert_like_torch(ours, theirs)


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize(("of_input", "of_grad"), list(itertools.product(FORMATS, FORMATS)), ids=str)
def test_pooling_formats_are_torchs(name: str, of_input: Any, of_grad: Any, place: Place) -> None:
    results = []
    for function in (getattr(F, name), lambda *a: getattr(functional, name)(*a, backend=place.backend)):
        input = X.to(place.device, memory_format=of_input).requires_grad_()
        output = function(input, 2)
        grad_output = torch.ones_like(output).contiguous(memory_format=of_grad)
        results.append((output, *torch.autograd.grad(output, input, grad_output)))
    for theirs, ours in zip(*results, strict=True):
        assert_like_torch(ours, theirs)


AMBIGUOUS: dict[str, Tensor] = {
    "one channel": torch.randn(2, 1, 5, 4),
    "one channel, asked to be channels_last": torch.randn(2, 1, 5, 4).to(memory_format=torch.channels_last),
    "one pixel": torch.randn(2, 4, 1, 1),
    "one pixel, asked to be channels_last": torch.randn(2, 4, 1, 1).to(memory_format=torch.channels_last),
    "one row of channels_last": torch.randn(2, 4, 1, 5).to(memory_format=torch.channels_last),
    "a slice of channels_last": torch.randn(3, 6, 7, 8).to(memory_format=torch.channels_last)[1:, :4, 1:, :5],
    "one channel of channels_last": torch.randn(2, 4, 5, 4).to(memory_format=torch.channels_last)[:, :1],
    "a transposed image": torch.randn(2, 4, 5, 6).transpose(2, 3),
    "expanded channels": torch.randn(2, 1, 5, 4).expand(2, 4, 5, 4),
    "expanded batch of channels_last": torch.randn(1, 4, 5, 4).to(memory_format=torch.channels_last).expand(3, 4, 5, 4),
    "unbatched channels_last": torch.randn(5, 4, 3).permute(2, 0, 1),
    "unbatched pixel": torch.randn(3, 1, 1).as_strided((3, 1, 1), (1, 3, 3)),
}


@pytest.mark.parametrize("title", AMBIGUOUS)
def test_formats_of_ambiguous_inputs_are_torchs(title: str) -> None:
    input = AMBIGUOUS[title]
    channels = input.shape[-3]
    for weight_format in FORMATS:
        weight = torch.randn(5, channels, 1, 1).to(memory_format=weight_format)
        ours, theirs = functional.conv2d(input, weight, backend="emulator"), F.conv2d(input, weight)
        assert_like_torch(ours, theirs)
    assert_like_torch(functional.max_pool2d(input, 1, backend="emulator"), F.max_pool2d(input, 1))
    assert_like_torch(functional.avg_pool2d(input, 1, backend="emulator"), F.avg_pool2d(input, 1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_autocast_casts_convolutions_as_torch_does(name: str, dtype: torch.dtype, place: Place) -> None:
    """Input, weight and bias go to autocast's dtype, bit for bit as if cast by hand; gradients come back in float32."""
    tensors = [tensor.to(place.device).requires_grad_() for tensor in (X, W if name == "conv2d" else V, B)]
    function = getattr(functional, name)
    with torch.autocast(place.device, dtype=dtype):
        theirs = getattr(F, name)(*tensors, groups=2)
        ours = function(*tensors, groups=2, backend=place.backend)
    assert_like_torch(ours, theirs)
    by_hand = function(*[tensor.to(dtype) for tensor in tensors], groups=2, backend=place.backend)
    assert ours.dtype == dtype and torch.equal(ours, by_hand)
    grads = [torch.autograd.grad(output.float().square().sum(), tensors) for output in (ours, by_hand)]
    for mine, hand in zip(*grads, strict=True):
        assert mine.dtype == torch.float32 and torch.equal(mine, hand)


def test_autocast_leaves_alone_what_torch_leaves_alone(place: Place) -> None:
    x, w, half = X.to(place.device), W.to(place.device), X.to(place.device, torch.float16)
    with torch.autocast(place.device, dtype=torch.bfloat16):
        assert functional.max_pool2d(x, 2, backend=place.backend).dtype == torch.float32
        assert functional.avg_pool2d(x, 2, backend=place.backend).dtype == torch.float32
        assert functional.conv2d(x.double(), w.double(), groups=2, backend=place.backend).dtype == torch.float64
        assert functional.conv2d(half, w, groups=2, backend=place.backend).dtype == torch.bfloat16
        with torch.autocast(place.device, enabled=False):
            assert functional.conv2d(x, w, groups=2, backend=place.backend).dtype == torch.float32
        theirs = _raised(F.conv2d, (x.double(), w), {"groups": 2})
        ours = _raised(functional.conv2d, (x.double(), w), {"groups": 2, "backend": place.backend})
        assert (type(ours), str(ours)) == (type(theirs), str(theirs))


@pytest.mark.gpu  # without one, torch turns CUDA's autocast off itself
def test_autocast_of_another_device_changes_nothing() -> None:
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=True):
        assert functional.conv2d(X, W, groups=2, backend="emulator").dtype == torch.float32
