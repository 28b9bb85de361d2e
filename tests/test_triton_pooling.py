"""Pooling on Triton: what the problems of cnnkernels.testing do not reach."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels import backends
from cnnkernels.backends import ENTRY_POINTS
from cnnkernels.explain import trace
from cnnkernels.triton import configs, pooling
from cnnkernels.triton.pooling import Pooling, axes_of, divisor_of, most_pixels

DEVICE = "cpu" if backends.triton.INTERPRETED else "cuda"
LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


def _operator(name: str) -> Any:
    return getattr(ENTRY_POINTS["triton"], name)


def _image(*size: int, layout: str = "nchw", dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(size, dtype=dtype, device=DEVICE).to(memory_format=LAYOUTS[layout])


def _kernels(name: str) -> list[str]:
    return list(pooling.names_of(name, torch.float32))


@pytest.fixture
def no_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have tiles taken that the window leaves empty but for a few pixels."""
    monkeypatch.setattr(configs, "LEAST_FILLED", 2**10)


@pytest.mark.parametrize("outputs", [1, 2, 3, 5, 6, 7, 12, 13])
def test_the_largest_adaptive_window(outputs: int) -> None:
    for image in range(1, 40):
        extents = [-(-(p + 1) * image // outputs) - p * image // outputs for p in range(outputs)]
        assert most_pixels(image, outputs) == max(extents), (image, outputs)
    assert most_pixels(0, outputs) == most_pixels(5, 0) == 0


@pytest.mark.parametrize("image", range(3, 14))
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("count_include_pad", [False, True])
def test_one_divisor_for_all_windows_where_they_are_alike(image: int, ceil_mode: bool, count_include_pad: bool) -> None:
    for window in range(1, 4):
        for stride in range(1, 6):
            for padding in range(window // 2 + 1):
                ones = torch.ones(1, 1, image, image, dtype=torch.float64)
                arguments = ((window, window), (stride, stride), (padding, padding), ceil_mode)
                try:
                    mean = F.avg_pool2d(ones, *arguments, count_include_pad)
                except RuntimeError:
                    continue  # no output
                total = F.avg_pool2d(ones, *arguments, divisor_override=1)
                divisors = set((total / mean).round().flatten().long().tolist())
                c = Pooling((window, window), (stride, stride), (padding, padding), count_include_pad=count_include_pad)
                kind, divisor = divisor_of(c, axes_of(c, (image, image), mean.shape[2:]))
                if kind == "same":
                    assert divisors == {divisor}
                else:
                    assert kind == ("padded" if count_include_pad else "inside")


@pytest.mark.triton
@pytest.mark.usefixtures("no_refusals")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kernel", _kernels("avg"))
def test_padding_that_the_last_window_does_not_reach(kernel: str, layout: str) -> None:
    """The windows lie apart: the last ones are whole, and without padding in the divisor the first ones are smaller."""
    x = _image(2, 3, 7, 7, layout=layout)
    ours = _operator("avg_pool2d")(x, (2, 2), (3, 3), (4, 4), (1, 1), False, None, layout == "channels_last", kernel)
    torch.testing.assert_close(ours, F.avg_pool2d(x, 3, 4, 1, count_include_pad=False))


@pytest.mark.triton
@pytest.mark.usefixtures("no_refusals")
@pytest.mark.parametrize("kernel", _kernels("max"))
def test_a_window_without_a_pixel(kernel: str) -> None:
    """Its taps lie to the left and the right of a narrow image. Its index is of no pixel, its gradient goes nowhere."""
    x = _image(1, 2, 3, 1)
    windows = ((1, 2), (1, 1), (0, 1), (1, 2))
    expected, expected_pixels = F.max_pool2d(x, *windows, return_indices=True)
    assert (expected == -torch.inf).all()
    maximum, taps = _operator("max_pool2d_with_indices")(x, (3, 1), *windows, False, False, kernel)
    assert torch.equal(maximum, expected)
    assert not taps.any()
    maximum, pixels = _operator("max_pool2d_with_indices")(x, (3, 1), *windows, True, False, kernel)
    assert torch.equal(maximum, expected)
    assert torch.equal(pixels, expected_pixels)
    gradient = _image(1, 2, 3, 1)
    assert not _operator("max_pool2d_backward")(gradient, taps, (3, 1), *windows, False).any()
    assert not _operator("max_pool2d_backward")(gradient, pixels, (3, 1), *windows, False).any()
    assert not _operator("max_pool2d_gather")(x, taps, *windows, False).any()


@pytest.mark.triton
@pytest.mark.parametrize("kernel", _kernels("max_gather"))
def test_indices_that_lie_outside_are_not_followed(kernel: str) -> None:
    x = _image(1, 1, 2, 2)
    geometry = ((4, 4), (1, 1), (1, 1), (1, 1), False, kernel)
    every_tap = torch.arange(16, dtype=torch.uint8, device=DEVICE).view(
        16, 1, 1, 1
    )  # of a window with a border on all sides
    gathered = _operator("max_pool2d_gather")(x.expand(16, 1, 2, 2), every_tap, *geometry)
    assert torch.equal(gathered.flatten(), F.pad(x, (1, 1, 1, 1)).flatten())
    outside = torch.tensor([-1, 4, 2**40, -(2**63)], device=DEVICE).view(4, 1, 1, 1)
    assert not _operator("max_pool2d_gather")(x.expand(4, 1, 2, 2), outside, *geometry).any()


def _every_pass(x: Tensor, last: bool, dtype: torch.dtype) -> list[Tensor]:
    """What every operator gives for `x` on one kernel of each family."""
    P, Q = (x.shape[2] - 1) // 2 + 1, x.shape[3] + 1
    geometry = ((2, 2), (2, 1), (1, 1))
    results: list[Tensor] = []

    def run(name: str, *arguments: Any) -> None:
        operator = name.replace("max", "max_pool2d").replace("avg", "avg_pool2d")
        if name == "max":
            operator += "_with_indices"
        one_of_each = {family: kernel for kernel, (family, _) in pooling.names_of(name, dtype).items()}
        for kernel in one_of_each.values():
            result = _operator(operator)(*arguments, last, kernel)
            results.extend(result if isinstance(result, tuple) else (result,))

    run("max", x, (P, Q), *geometry, (1, 1), True)
    y, pixels = results[:2]
    run("max_backward", y, pixels, x.shape[2:], *geometry, (1, 1))
    run("max_gather", x, pixels, *geometry, (1, 1))
    run("avg", x, (P, Q), *geometry, False, None)
    run("avg_backward", y, x.shape[2:], *geometry, False, None)
    run("adaptive_max", x, (1, 2))
    run("adaptive_max_backward", y, pixels, x.shape[2:])
    run("adaptive_avg", x, (1, 1))
    run("adaptive_avg_backward", y, x.shape[2:])
    return results


@pytest.mark.triton
@pytest.mark.usefixtures("no_refusals")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_offsets_of_64_bits(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor of a test needs them: kernels have them all the same, and give the same bits."""
    x, last = _image(2, 3, 5, 4, layout=layout), layout == "channels_last"
    narrow = _every_pass(x, last, x.dtype)
    monkeypatch.setattr(pooling, "is_wide", lambda *tensors: True)
    for one, other in zip(_every_pass(x, last, x.dtype), narrow, strict=True):
        assert torch.equal(one, other)


@pytest.mark.triton
@pytest.mark.usefixtures("no_refusals")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(1, 1, 50000, 50000), (1, 2, 3, 2**30), (3, 2**20, 40, 40)])
def test_tensors_that_need_them_get_offsets_of_64_bits(
    size: tuple[int, ...], layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide: list[bool] = []
    monkeypatch.setattr(pooling, "launch", lambda *args, **kwargs: wide.append(kwargs["WIDE"]))
    x = torch.empty(size, dtype=torch.bfloat16, device="meta", memory_format=LAYOUTS[layout])
    _every_pass(x, layout == "channels_last", x.dtype)
    assert len(wide) >= 13
    assert all(wide)


@pytest.mark.triton
@pytest.mark.parametrize("view", ["channels", "images"])
def test_whole_planes_that_do_not_follow_one_another(view: str) -> None:
    x = _image(4, 6, 4, 4)
    x = x[:, 1:4] if view == "channels" else x[::2]
    torch.testing.assert_close(_operator("adaptive_avg_pool2d")(x, (1, 1), False), F.adaptive_avg_pool2d(x, 1))


@pytest.mark.triton
def test_bad_input_is_refused_before_a_launch() -> None:
    x, one = _image(1, 2, 4, 4), (1, 1)
    y = x[:, :, ::2, ::2]
    taps = torch.zeros(1, 2, 2, 2, dtype=torch.uint8, device=DEVICE)
    windows = ((2, 2), (2, 2), (0, 0), one)
    calls: dict[str, tuple[str, tuple[Any, ...]]] = {
        "divisor_override must not be 0": ("avg_pool2d", (x, (2, 2), (2, 2), (2, 2), (0, 0), True, 0, False)),
        "the window must be odd, not 4": ("max_pool2d_pyramid", (x, 4, False)),
        "enough for 256 taps and not for 17x16": (
            "max_pool2d_with_indices", (_image(1, 1, 17, 16), one, (17, 16), one, (0, 0), one, False, False),
        ),
        "indices must be uint8 or int64, not torch.int32": (
            "max_pool2d_backward", (y, taps.int(), (4, 4), *windows, False),
        ),
        "indices must be int64, not torch.uint8": ("adaptive_max_pool2d_backward", (y, taps, (4, 4), False)),
        "must agree in their first 4 sizes": ("max_pool2d_backward", (y, taps[:, :, :1], (4, 4), *windows, False)),
        "must agree in their first 2 sizes": ("max_pool2d_gather", (x, taps[:, :1], *windows, False)),
        "an image without pixels has no windows": ("adaptive_avg_pool2d", (x[:, :, :0], one, False)),
    }  # fmt: skip
    for message, (name, arguments) in calls.items():
        with trace() as launched, pytest.raises(RuntimeError, match=message):
            _operator(name)(*arguments)
        assert not launched


@pytest.mark.triton
def test_a_kernel_of_another_pass_or_dtype_is_refused() -> None:
    x = _image(1, 2, 4, 4)
    for kernel in ("triton_avg_pool2d_64x16_f32", "triton_max_pool2d_64x16_f16", "triton_max_pool2d_gather_64x16_f32"):
        with pytest.raises(RuntimeError, match=f"kernel '{kernel}' cannot run this problem: it is none of triton_max"):
            _operator("max_pool2d")(x, (2, 2), (2, 2), (2, 2), (0, 0), (1, 1), False, kernel)


@pytest.mark.triton
def test_a_reduction_refuses_windows_that_leave_its_tile_empty() -> None:
    x, geometry = _image(1, 2, 9, 9), ((3, 3), (3, 3), (0, 0), (1, 1), False)
    operator, kernel = _operator("max_pool2d"), "triton_max_pool2d_reduced_8x256_f32"
    with pytest.raises(RuntimeError, match=f"kernel '{kernel}' cannot run this problem: a window of 9 pixels fills"):
        operator(x, (3, 3), *geometry, kernel)
    assert torch.equal(operator(x, (3, 3), *geometry, "triton_max_pool2d_reduced_64x32_f32"), F.max_pool2d(x, 3))


@pytest.mark.triton
def test_the_gradient_of_nothing_is_zero() -> None:
    nothing = _image(2, 3, 0, 4)
    for gradient in (
        _operator("adaptive_avg_pool2d_backward")(nothing, (5, 4), False),
        _operator("adaptive_max_pool2d_backward")(nothing, nothing.long(), (5, 4), False),
        _operator("avg_pool2d_backward")(nothing, (1, 4), (2, 1), (1, 1), (0, 0), True, None, False),
    ):
        assert torch.equal(gradient, torch.zeros_like(gradient))
