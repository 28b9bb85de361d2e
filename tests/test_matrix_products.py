"""What the kernels of the implicit GEMM move, pointwise, dense, transposed and dilated, counted by the checked emulator."""

from __future__ import annotations

import math

import pytest
from counted import Case, conflicts, launches_of, sites

from cnnkernels.profile.launches import Launch

WIDENING = "n16 c16 112x112 k96 1x1"
BOTTLENECK = "n16 c64 56x56 k256 1x1"
ODD = "n4 c512 65x65 k256 1x1"  # planes of 65 x 65: a channel begins anywhere in a sector
STRIDED = "n1 c64 32x32 k64 3x3 stride 2 pad 1"
APART = "n1 c64 64x64 k128 2x2 stride 2"  # taps that do not overlap: one product
DENSE = "n1 c64 28x28 k64 3x3 pad 1"
DILATED = "n1 c64 24x24 k64 3x3 pad 12 dilation 12"
DILATED_ODD = "n1 c256 33x33 k64 3x3 pad 12 dilation 12"

POINTWISE, TRANSPOSED = "conv2d_pointwise_128x64_", "conv2d_transposed_128x64_"

CASES = (
    Case(WIDENING, "fprop", "bf16", "nchw", "conv2d_pointwise_256x16_bf16", 160),
    Case(WIDENING, "dgrad", "f32", "nchw", "conv2d_pointwise_256x16_f32", 160),
    *(
        Case(BOTTLENECK, name, dtype, layout, POINTWISE + dtype, 160)
        for name, dtype, layout in (
            ("fprop", "bf16", "nchw"), ("fprop", "f32", "channels_last"), ("dgrad", "bf16", "channels_last"),
        )
    ),
    Case(ODD, "fprop", "bf16", "nchw", POINTWISE + "bf16", 160),
    Case(ODD, "dgrad", "f32", "nchw", POINTWISE + "f32", 160),
    *(
        Case(problem, "dgrad", dtype, layout, TRANSPOSED + dtype, 1)
        for problem in (STRIDED, APART)
        for dtype, layout in (("bf16", "nchw"), ("f32", "channels_last"))
    ),
    Case(DILATED, "fprop", "bf16", "channels_last", "conv2d_dilated_128x64_bf16", 1),
    Case(DILATED, "fprop", "f32", "channels_last", "conv2d_dilated_128x64_f32", 1),
    Case(DENSE, "fprop", "bf16", "channels_last", "conv2d_dense_128x64_bf16", 1),
    Case(DENSE, "dgrad", "f32", "channels_last", "conv2d_dense_256x64_f32", 1),
)  # fmt: skip

PACKED = (
    Case(DENSE, "fprop", "f32", "nchw", "conv2d_dense_packed_128x64_f32", 1),
    Case(DENSE, "dgrad", "f32", "nchw", "conv2d_dense_packed_256x64_f32", 1),
    Case(DENSE, "wgrad", "f32", "nchw", "conv2d_dense_wgrad_packed_f32", 1),
    Case(DILATED_ODD, "fprop", "f32", "nchw", "conv2d_dilated_packed_256x16_f32", 3),
    Case(DILATED_ODD, "dgrad", "f32", "nchw", "conv2d_dilated_packed_256x16_f32", 3),
)  # fmt: skip


@pytest.fixture(scope="module")
def launches() -> dict[Case, list[Launch]]:
    return launches_of((*CASES, *PACKED))


@pytest.mark.checked_emulator
@pytest.mark.parametrize("case", CASES, ids=str)
def test_sectors_are_used_and_banks_do_not_conflict(launches: dict[Case, list[Launch]], case: Case) -> None:
    (launch,) = (one for one in launches[case] if one.kernel == case.kernel)
    moved = sites(launch, "global")
    assert sum(site.least_sectors for site in moved) >= 0.9 * sum(site.sectors for site in moved)
    assert conflicts(sites(launch, "shared")) < 0.1
    if case.problem != ODD:
        assert {site.width for site in moved if site.access == "async copy"} == {16}
        assert {site.width for site in moved if site.access == "store"} == {16}


@pytest.mark.checked_emulator
@pytest.mark.parametrize("case", PACKED, ids=str)
def test_planes_are_packed_by_whole_sectors_and_read_by_vectors(launches: dict[Case, list[Launch]], case: Case) -> None:
    packing = [one for one in launches[case] if one.kernel.startswith("conv2d_pack_images")]
    assert len(packing) == (2 if case.name == "wgrad" else 1)
    for launch in packing:
        assert {site.width for site in sites(launch, "global") if site.access == "store"} == {16}
    (product,) = (one for one in launches[case] if one.kernel == case.kernel)
    assert {site.width for site in sites(product, "global") if site.access == "async copy"} == {16}
    for launch in (*packing, product):
        moved = sites(launch, "global")
        assert sum(site.least_sectors for site in moved) >= 0.9 * sum(site.sectors for site in moved)
        assert conflicts(sites(launch, "shared")) < 0.1


@pytest.mark.checked_emulator
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_an_item_asks_for_its_image_once(layout: str) -> None:
    """Four tiles of columns multiply one image tile; the filter is asked for by every block of 128 rows."""
    case = Case(BOTTLENECK, "fprop", "bf16", layout, POINTWISE + "bf16", 80)
    (launch,) = launches_of([case])[case]
    channels, filters, size = 64, 256, 2
    blocks = math.ceil(16 * 56 * 56 / 128 / case.sample)
    asked = sum(site.bytes_used for site in sites(launch, "global"))
    assert asked == blocks * (128 * (channels + filters) + channels * filters) * size
