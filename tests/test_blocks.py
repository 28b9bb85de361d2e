"""Separable convolutions: what they compute, what they save, what runs them."""

import pytest
import torch

import cnnkernels
from cnnkernels import arithmetic
from cnnkernels.models import DepthwiseSeparable, SpatiallySeparable


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_two_filters_are_one_of_rank_one(kernel_size: int, stride: int) -> None:
    torch.manual_seed(0)
    block = SpatiallySeparable(3, 4, kernel_size, stride, backend="emulator").double()
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    # w[k, c, r, s] = sum over j of second[k, j, 0, s] * first[j, c, r, 0]
    weight = torch.einsum("kjs,jcr->kcrs", block[1].weight[:, :, 0], block[0].weight[:, :, :, 0])
    expected = torch.nn.functional.conv2d(x, weight, block[1].bias, stride, kernel_size // 2)
    torch.testing.assert_close(block(x), expected)


def test_a_depthwise_separable_block_is_torchs_and_two_kernels_when_fused() -> None:
    torch.manual_seed(0)
    block = DepthwiseSeparable(8, 16, stride=2).eval()
    plain = DepthwiseSeparable(8, 16, stride=2, layers=torch.nn).eval()
    plain.load_state_dict(block.state_dict())
    x = torch.randn(1, 8, 9, 9)
    report = cnnkernels.convert(block, backend="emulator", fuse=True)
    assert [row.fused for row in report.fused] == ["1, relu", "4, relu"]
    with torch.no_grad():
        torch.testing.assert_close(block(x), plain(x), rtol=1e-5, atol=1e-6)


def test_what_they_save_is_what_the_papers_say() -> None:
    image, c, k = (1, 32, 14, 14), 32, 64
    whole = arithmetic.conv2d(image, (k, c, 3, 3), padding=1).macs
    depthwise = arithmetic.conv2d(image, (c, 1, 3, 3), padding=1, groups=c).macs
    pointwise = arithmetic.conv2d(image, (k, c, 1, 1)).macs
    assert (depthwise + pointwise) / whole == pytest.approx(1 / k + 1 / 9)


@pytest.mark.parametrize("block", [DepthwiseSeparable, SpatiallySeparable])
def test_even_filters_are_refused(block: type[torch.nn.Module]) -> None:
    with pytest.raises(ValueError, match="kernel_size must be odd, not 4"):
        block(3, 3, 4)
