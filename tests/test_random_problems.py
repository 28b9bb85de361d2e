"""Random problems on every kernel: small integers, so that every order of summation is exact, compared bit for bit with torch.

The images are whole numbers and the sums stay exact in fp32 (fp64 for fp64), so a kernel's one rounding to the result's type is
the reference's too: torch.equal, no tolerance. Outputs and workspaces are NaN before a kernel writes them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cnnkernels._C as _C
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from cnnkernels.testing import emulator
from cnnkernels.testing.references import taps_of

ops = torch.ops.cnnkernels
DTYPES = {"f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
SETTINGS = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(autouse=True, scope="module")
def poisoned_memory():
    """torch fills what it allocates with NaN (and the largest integer) while deterministic algorithms are on."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


def kernels(op: str, pass_: str, dtype: str) -> list[str]:
    return [
        row["name"] for row in _C.catalogue() if row["op"] == op and pass_ in row["passes"] and row["dtype"] == dtype
    ]


@contextmanager
def unless_refused() -> Iterator[None]:
    """A tuned kernel may refuse a problem that is forced on it."""
    try:
        yield
    except RuntimeError as error:
        if " cannot run " not in str(error):
            raise


@st.composite
def images(draw, shape: tuple[int, int, int, int], seed: int) -> Tensor:
    """Whole numbers of the given shape with strides of some kind: dense, channels_last, sliced, transposed or expanded."""
    generator = torch.Generator().manual_seed(seed)
    n, c, h, w = shape

    def numbers(*size: int) -> Tensor:
        return torch.randint(-3, 4, size, generator=generator).double()

    kind = draw(st.sampled_from(["dense", "channels_last", "sliced", "transposed", "expanded_batch", "expanded_plane"]))
    if kind == "channels_last":
        return numbers(*shape).to(memory_format=torch.channels_last)
    if kind == "sliced":
        return numbers(n + 1, c + 2, h + 1, 2 * w + 1)[1:, 1 : c + 1, :h, 1 : 2 * w + 1 : 2]
    if kind == "transposed":
        return numbers(n, c, w, h).mT
    if kind == "expanded_batch":
        return numbers(1, c, h, w).expand(shape)
    if kind == "expanded_plane":
        return numbers(n, c, 1, 1).expand(shape)
    return numbers(*shape)


@dataclass(frozen=True)
class Convolution:
    x: Tensor
    w: Tensor
    bias: Tensor
    grad: Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    channels_last: bool

    @property
    def geometry(self) -> tuple:
        return self.stride, self.padding, self.dilation, self.groups, self.channels_last


def size_for(taps: int, dilation: int, padding: int) -> st.SearchStrategy[int]:
    least = max(1, dilation * (taps - 1) + 1 - 2 * padding)
    return st.integers(least, least + 17)


@st.composite
def convolutions(draw) -> Convolution:
    pairs = lambda low, high: st.tuples(st.integers(low, high), st.integers(low, high))  # noqa: E731
    filter, stride, dilation, padding = draw(pairs(1, 5)), draw(pairs(1, 4)), draw(pairs(1, 3)), draw(pairs(0, 4))
    groups = draw(st.sampled_from([1, 1, 2, 3, 5]))
    c, k = draw(st.integers(1, 9)), draw(st.integers(1, 21))
    n = draw(st.integers(0, 3))
    h, w = (draw(size_for(filter[i], dilation[i], padding[i])) for i in range(2))
    p, q = (
        (size + 2 * padding[i] - dilation[i] * (filter[i] - 1) - 1) // stride[i] + 1 for i, size in enumerate((h, w))
    )
    seed = draw(st.integers(0, 2**31))
    return Convolution(
        x=draw(images((n, c * groups, h, w), seed)),
        w=draw(images((k * groups, c, *filter), seed + 1)),
        bias=torch.randint(-9, 10, (k * groups,), generator=torch.Generator().manual_seed(seed)).double(),
        grad=draw(images((n, k * groups, p, q), seed + 2)),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        channels_last=draw(st.booleans()),
    )


def assert_is(actual: Tensor, expected: Tensor, like: Tensor, channels_last: bool, what: str) -> None:
    assert actual.dtype == like.dtype, what
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    assert actual.stride() == torch.empty(expected.shape, memory_format=memory_format).stride(), what
    if not torch.equal(actual, expected.to(like.dtype)):
        wrong = (actual != expected.to(like.dtype)).nonzero()
        raise AssertionError(f"{what}: {len(wrong)} of {actual.numel()} differ, first at {wrong[0].tolist()}")


def cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The same numbers with the same strides, stride 0 included."""
    flat = torch.as_strided(tensor.detach(), (tensor.untyped_storage().nbytes() // tensor.element_size(),), (1,), 0)
    return torch.as_strided(flat.to(dtype), tensor.shape, tensor.stride(), tensor.storage_offset())


@pytest.mark.parametrize("dtype", DTYPES)
@SETTINGS
@given(c=convolutions())
def test_convolution_passes_are_exact_on_every_kernel(dtype: str, c: Convolution) -> None:
    x, w, bias = (t.clone().requires_grad_() for t in (c.x, c.w, c.bias))
    y = F.conv2d(x, w, bias, c.stride, c.padding, c.dilation, c.groups)
    y.backward(c.grad)
    assert x.grad is not None
    assert w.grad is not None
    assert bias.grad is not None
    to = DTYPES[dtype]
    x_, w_, bias_, grad_ = (cast(t, to) for t in (c.x, c.w, c.bias, c.grad))
    for name in kernels("conv2d", "fprop", dtype):
        with unless_refused():
            actual = ops.conv2d_fprop(x_, w_, bias_, y.shape[2:], *c.geometry, name)
            assert_is(actual, y.detach(), x_, c.channels_last, f"fprop on {name}")
    for name in kernels("conv2d", "dgrad", dtype):
        with unless_refused():
            actual = ops.conv2d_dgrad(grad_, w_, None, x.shape[2:], *c.geometry, name)
            assert_is(actual, x.grad, x_, c.channels_last, f"dgrad on {name}")
    for name in kernels("conv2d", "wgrad", dtype):
        with unless_refused():
            actual = ops.conv2d_wgrad(grad_, x_, w.shape[2:], *c.geometry, name)
            assert_is(actual, w.grad, x_, c.channels_last, f"wgrad on {name}")
    for name in kernels("conv2d", "bias_grad", dtype):
        assert_is_vector(ops.conv2d_bias_grad(grad_, name), bias.grad.to(to), f"bias_grad on {name}")


def assert_is_vector(actual: Tensor, expected: Tensor, what: str) -> None:
    assert torch.equal(actual, expected), what


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_long_reductions_are_exact_in_several_slabs(dtype: str, channels_last: bool) -> None:
    """Enough pixels that every wgrad and bias_grad kernel that runs it sums in slabs, the last of which is not full."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    generator = torch.Generator().manual_seed(11)
    n, c, k, height, width, filter = 3, 5, 7, 43, 41, (3, 2)
    x = torch.randint(-2, 3, (n, c, height, width), generator=generator).double().to(memory_format=memory_format)
    p, q = height - 2, width - 1
    grad = torch.randint(-2, 3, (n, k, p, q), generator=generator).double().to(memory_format=memory_format)
    weight = torch.zeros(k, c, *filter, dtype=torch.float64, requires_grad=True)
    F.conv2d(x, weight).backward(grad)
    assert weight.grad is not None
    sizes = {"N": n, "C": c, "H": height, "W": width, "K": k, "R": filter[0], "S": filter[1], "P": p, "Q": q}
    geometry = ((1, 1), (0, 0), (1, 1), 1, channels_last)
    x_, grad_ = cast(x, DTYPES[dtype]), cast(grad, DTYPES[dtype])
    ran: list[str] = []
    for pass_ in ("wgrad", "bias_grad"):
        for name in kernels("conv2d", pass_, dtype):
            with unless_refused():
                assert _C.plan_conv2d(pass_, dtype, sizes, *geometry, name)["slabs"] > 1, name
                if pass_ == "wgrad":
                    actual = ops.conv2d_wgrad(grad_, x_, filter, *geometry, name)
                    assert_is(actual, weight.grad, x_, channels_last, f"wgrad on {name}")
                    ran.append(name)
                else:
                    assert_is_vector(ops.conv2d_bias_grad(grad_, name), grad.sum((0, 2, 3)).to(x_.dtype), name)
    assert sum("_wgrad_64x64x8_" in name for name in ran) == 2  # with indices of 32 and of 64 bits


@SETTINGS
@given(c=convolutions(), extra=st.tuples(st.integers(0, 3), st.integers(0, 3)))
def test_transposed_convolution_with_output_padding(c: Convolution, extra: tuple[int, int]) -> None:
    extra = tuple(min(e, max(s, d) - 1) for e, s, d in zip(extra, c.stride, c.dilation, strict=True))  # type: ignore[assignment]
    bias = torch.arange(c.w.shape[1] * c.groups).double()
    size = [
        (p - 1) * s - 2 * pad + d * (r - 1) + e + 1
        for p, s, pad, d, r, e in zip(
            c.grad.shape[2:], c.stride, c.padding, c.dilation, c.w.shape[2:], extra, strict=True
        )
    ]
    if min(size) < 1 or c.grad.shape[0] == 0:
        return
    expected = F.conv_transpose2d(c.grad, c.w, bias, c.stride, c.padding, extra, c.groups, c.dilation)
    actual = ops.conv2d_dgrad(c.grad, c.w, bias, size, *c.geometry)
    assert torch.equal(actual, expected)


@dataclass(frozen=True)
class Pooling:
    x: Tensor
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    ceil_mode: bool
    channels_last: bool
    count_include_pad: bool
    divisor: int | None
    seed: int


@st.composite
def poolings(draw, dilated: bool) -> Pooling:
    pairs = lambda low, high: st.tuples(st.integers(low, high), st.integers(low, high))  # noqa: E731
    window, stride = draw(pairs(1, 6)), draw(pairs(1, 5))
    dilation = draw(pairs(1, 3)) if dilated else (1, 1)
    padding = tuple(draw(st.integers(0, r // 2)) for r in window)
    h, w = (draw(size_for(window[i], dilation[i], padding[i])) for i in range(2))
    seed = draw(st.integers(0, 2**31))
    return Pooling(
        x=draw(images((draw(st.integers(1, 3)), draw(st.integers(1, 9)), h, w), seed)),
        window=window,
        stride=stride,
        padding=padding,  # type: ignore[arg-type]
        dilation=dilation,
        ceil_mode=draw(st.booleans()),
        channels_last=draw(st.booleans()),
        count_include_pad=draw(st.booleans()),
        divisor=draw(st.sampled_from([None, None, 1, 4, -2])),
        seed=seed,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@SETTINGS
@given(c=poolings(dilated=True))
def test_max_pooling_is_exact_on_every_kernel(dtype: str, c: Pooling) -> None:
    x = c.x.clone().requires_grad_()  # values of -3..3: ties everywhere
    y, indices = F.max_pool2d(x, c.window, c.stride, c.padding, c.dilation, c.ceil_mode, return_indices=True)
    assume(bool((y > -torch.inf).all()))  # torch's backward writes outside the tensor for a window that holds no pixel
    grad = torch.randint(-3, 4, y.shape, generator=torch.Generator().manual_seed(c.seed)).double()
    y.backward(grad)
    assert x.grad is not None
    x_ = cast(c.x, DTYPES[dtype])
    geometry = (c.window, c.stride, c.padding, c.dilation, c.channels_last)
    taps = taps_of(indices, c.x.shape[3], *geometry[:-1])
    for name in kernels("pool2d", "max", dtype):
        with unless_refused():
            actual = ops.max_pool2d(x_, y.shape[2:], *geometry, name)
            assert_is(actual, y.detach(), x_, c.channels_last, f"max on {name}")
        for flat in (False, True):
            with unless_refused():
                actual, found = ops.max_pool2d_with_indices(
                    x_, y.shape[2:], *geometry[:-1], flat, c.channels_last, name
                )
                assert_is(actual, y.detach(), x_, c.channels_last, f"max on {name}")
                assert torch.equal(found, indices if flat else taps), name
                assert found.stride() == actual.stride()
    for index in (taps, indices):
        for name in kernels("pool2d", "max_backward", dtype):
            with unless_refused():
                actual = ops.max_pool2d_backward(grad.to(x_.dtype), index, x.shape[2:], *geometry, name)
                assert_is(actual, x.grad, x_, c.channels_last, f"max_backward on {name}")
        for name in kernels("pool2d", "max_gather", dtype):
            actual = ops.max_pool2d_gather(x_, index, *geometry, name)
            assert_is(actual, y.detach(), x_, c.channels_last, f"max_gather on {name}")


def test_max_pooling_window_that_holds_no_pixel() -> None:
    """Dilation 2 around a single column: both taps of the window lie in the padding."""
    x = torch.ones(2, 3, 4, 1)
    geometry = ((1, 2), (1, 1), (0, 1), (1, 2), False)
    for name in kernels("pool2d", "max", "f32"):
        for flat in (False, True):
            with unless_refused():
                y, indices = ops.max_pool2d_with_indices(x, [4, 1], *geometry[:-1], flat, False, name)
                assert torch.equal(y, torch.full((2, 3, 4, 1), -torch.inf))
                if flat:  # torch's number of the first pixel behind the padding, which is another row's
                    assert torch.equal(indices, F.max_pool2d(x, *geometry[:-1], return_indices=True)[1])
                    continue
                assert torch.equal(ops.max_pool2d_gather(x, indices, *geometry), torch.zeros_like(y))
                for backward in kernels("pool2d", "max_backward", "f32"):
                    with unless_refused():
                        gradient = ops.max_pool2d_backward(torch.ones_like(y), indices, [4, 1], *geometry, backward)
                        assert torch.equal(gradient, torch.zeros_like(x))


@pytest.mark.parametrize("dtype", ["f64", "f32"])
@SETTINGS
@given(c=poolings(dilated=False))
def test_average_pooling_is_torchs_on_every_kernel(dtype: str, c: Pooling) -> None:
    x = c.x.clone().requires_grad_()
    y = F.avg_pool2d(x, c.window, c.stride, c.padding, c.ceil_mode, c.count_include_pad, c.divisor)
    grad = torch.randint(-3, 4, y.shape, generator=torch.Generator().manual_seed(c.seed)).double()
    y.backward(grad)
    assert x.grad is not None
    x_ = cast(c.x, DTYPES[dtype])
    geometry = (c.window, c.stride, c.padding, c.count_include_pad, c.divisor, c.channels_last)
    for name in kernels("pool2d", "avg", dtype):
        # The sum is exact and the quotient rounded once.
        with unless_refused():
            actual = ops.avg_pool2d(x_, y.shape[2:], *geometry, name)
            assert_is(actual, y.detach(), x_, c.channels_last, f"avg on {name}")
    # Backward adds one rounded quotient for each window that holds a pixel: as many roundings again as additions.
    overlap = max(-(-c.window[i] // c.stride[i]) for i in range(2)) ** 2
    bound = 2 * overlap * torch.finfo(x_.dtype).eps * 3 * overlap
    for name in kernels("pool2d", "avg_backward", dtype):
        with unless_refused():
            actual = ops.avg_pool2d_backward(grad.to(x_.dtype), x.shape[2:], *geometry, name)
            assert (actual.double() - x.grad).abs().max() <= bound, name


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@settings(SETTINGS, max_examples=15)
@given(c=convolutions(), p=poolings(dilated=True))
def test_same_bits_under_every_schedule(dtype: str, c: Convolution, p: Pooling) -> None:
    """Real numbers this time: any change of the order of summation would show."""
    generator = torch.Generator().manual_seed(7)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(DTYPES[dtype])

    x, w, bias, grad, image = noise(c.x), noise(c.w), noise(c.bias), noise(c.grad), noise(p.x)
    pooling = (p.window, p.stride, p.padding)
    outputs = F.max_pool2d(image, *pooling, p.dilation, p.ceil_mode).shape[2:]
    averages = F.avg_pool2d(image, *pooling, p.ceil_mode).shape[2:]
    grad_max, grad_avg = (noise(torch.empty(*image.shape[:2], *size)) for size in (outputs, averages))

    def run() -> list[Tensor]:
        maxima, indices = ops.max_pool2d_with_indices(image, outputs, *pooling, p.dilation, False, p.channels_last)
        return [
            ops.conv2d_fprop(x, w, bias, grad.shape[2:], *c.geometry),
            ops.conv2d_dgrad(grad, w, None, x.shape[2:], *c.geometry),
            ops.conv2d_wgrad(grad, x, w.shape[2:], *c.geometry),
            ops.conv2d_bias_grad(grad),
            maxima,
            ops.max_pool2d_backward(grad_max, indices, image.shape[2:], *pooling, p.dilation, p.channels_last),
            ops.avg_pool2d(image, averages, *pooling, p.count_include_pad, p.divisor, p.channels_last),
            ops.avg_pool2d_backward(
                grad_avg, image.shape[2:], *pooling, p.count_include_pad, p.divisor, p.channels_last
            ),
        ]

    results = []
    for schedule, threads in (("forward", 1), ("reverse", 2), ("random", 2)):
        with emulator(threads=threads, schedule=schedule, seed=5):
            results.append(run())
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            assert torch.equal(first, second)
