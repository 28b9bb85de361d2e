"""The kernels on tensor cores: what they move, counted by the checked emulator, and what the plan says of them."""

from __future__ import annotations

import re

import pytest
import torch
from counted import Case, conflicts, launches_of, sites

from cnnkernels import ops
from cnnkernels.bench import suites
from cnnkernels.bench.plans import plan_pass
from cnnkernels.profile.launches import Launch
from cnnkernels.testing.operands import rounded_to_tf32

DENSE = "n1 c64 28x28 k128 3x3 pad 1"
STRIDED = "n2 c64 28x28 k64 3x3 stride 2 pad 1"
APART = "n1 c64 16x16 k128 2x2 stride 2"  # taps that do not overlap: one product
POINTWISE = "n4 c128 28x28 k256 1x1"
DILATED = "n1 c64 24x24 k64 3x3 pad 12 dilation 12"
FEW = "n1 c64 16x32 k64 3x3 pad 1"
FEW_STRIDED = "n1 c32 32x64 k64 3x3 stride 2 pad 1"

CASES = (
    *(
        Case(DENSE, name, "bf16", layout, f"conv2d_dense_{packed}tensor_{tile}_bf16", 3)
        for tile in ("128x256", "128x128", "128x64", "64x64")
        for name, layout, packed in (("fprop", "channels_last", ""), ("dgrad", "channels_last", ""), ("fprop", "nchw", "packed_"))
    ),
    Case(DENSE, "fprop", "f16", "channels_last", "conv2d_dense_tensor_128x128_f16", 3),
    Case(DENSE, "wgrad", "bf16", "channels_last", "conv2d_dense_wgrad_tensor_bf16", 4),
    Case(DENSE, "wgrad", "f16", "nchw", "conv2d_dense_wgrad_packed_tensor_f16", 4),
    Case(STRIDED, "dgrad", "bf16", "channels_last", "conv2d_transposed_tensor_128x64_bf16", 1),
    Case(STRIDED, "wgrad", "bf16", "channels_last", "conv2d_transposed_wgrad_tensor_bf16", 4),
    Case(APART, "dgrad", "bf16", "channels_last", "conv2d_transposed_tensor_128x128_bf16", 1),
    Case(POINTWISE, "fprop", "bf16", "channels_last", "conv2d_pointwise_tensor_128x256_bf16", 2),
    Case(POINTWISE, "dgrad", "bf16", "channels_last", "conv2d_pointwise_tensor_128x128_bf16", 2),
    Case(POINTWISE, "wgrad", "bf16", "channels_last", "conv2d_pointwise_wgrad_tensor_bf16", 8),
    *(
        Case(POINTWISE, name, "bf16", "nchw", f"conv2d_pointwise_planes_tensor_{tile}_bf16", 3)
        for tile in ("128x256", "128x128", "128x64", "64x64")
        for name in ("fprop", "dgrad")
    ),
    Case(POINTWISE, "fprop", "tf32", "nchw", "conv2d_pointwise_planes_tensor_128x64_tf32", 8),
    Case("n3 c48 12x12 k40 1x1", "fprop", "f16", "nchw", "conv2d_pointwise_planes_tensor_64x64_f16", 1),
    Case(POINTWISE, "wgrad", "bf16", "nchw", "conv2d_pointwise_wgrad_planes_tensor_128x128_bf16", 3),
    Case(POINTWISE, "wgrad", "tf32", "nchw", "conv2d_pointwise_wgrad_planes_tensor_128x64_tf32", 8),
    Case("n18 c64 12x12 k64 1x1", "wgrad", "f16", "nchw", "conv2d_pointwise_wgrad_planes_tensor_64x64_f16", 1),
    Case(DILATED, "fprop", "bf16", "channels_last", "conv2d_dilated_tensor_64x64_bf16", 1),
    *(
        Case(DENSE, name, "tf32", layout, f"conv2d_dense_{packed}tensor_{tile}_tf32", 3)
        for tile in ("128x256", "128x128", "128x64", "64x64")
        for name, layout, packed in (("fprop", "channels_last", ""), ("dgrad", "channels_last", ""))
    ),
    Case(DENSE, "fprop", "tf32", "nchw", "conv2d_dense_packed_tensor_64x64_tf32", 3),
    Case(STRIDED, "dgrad", "tf32", "channels_last", "conv2d_transposed_tensor_128x64_tf32", 1),
    Case(APART, "dgrad", "tf32", "channels_last", "conv2d_transposed_tensor_128x128_tf32", 1),
    Case(DENSE, "wgrad", "tf32", "channels_last", "conv2d_dense_wgrad_tensor_tf32", 4),
    Case(DENSE, "wgrad", "tf32", "nchw", "conv2d_dense_wgrad_packed_tensor_tf32", 4),
    Case(FEW, "fprop", "bf16", "channels_last", "conv2d_dense_resident_bf16", 1),
    Case(FEW, "dgrad", "bf16", "channels_last", "conv2d_dense_resident_bf16", 1),
    Case(FEW, "fprop", "f16", "nchw", "conv2d_dense_resident_packed_f16", 1),
    Case(FEW_STRIDED, "fprop", "bf16", "channels_last", "conv2d_dense_resident_bf16", 1),
    *(
        Case(f"n1 c128 16x16 k128 3x3 pad 1 groups {groups}", name, "bf16", "channels_last", "conv2d_grouped_resident_bf16", 1)
        for groups in (16, 8, 4)
        for name in ("fprop", "dgrad")
    ),
    *(
        Case("n1 c128 32x32 k128 3x3 stride 2 pad 1 groups 8", name, "bf16", "channels_last", "conv2d_grouped_resident_bf16", 1)
        for name in ("fprop", "dgrad")
    ),
    Case(FEW_STRIDED, "dgrad", "bf16", "channels_last", "conv2d_transposed_resident_bf16", 1),
    # Rows of results that end before the tile does, and where classes interleave in a row.
    *(
        Case(f"n1 c64 8x16 k{k} 3x3 pad 1", "fprop", dtype, "channels_last", f"conv2d_dense_tensor_{tile}_{dtype}", 1)
        for dtype in ("bf16", "tf32")
        for tile, filters in (("64x64", (8, 16, 24, 32, 40, 56, 72)), ("128x128", (96, 160)), ("128x256", (64, 192)))
        for k in filters
    ),
    *(Case(f"n1 c64 8x16 k{k} 3x3 pad 1", "fprop", "bf16", "channels_last", "conv2d_dense_resident_bf16", 1) for k in (8, 24, 32, 48)),
    Case("n1 c8 32x16 k64 4x4 stride 2 pad 1", "dgrad", "bf16", "channels_last", "conv2d_transposed_tensor_64x64_bf16", 1),
    Case("n1 c8 32x16 k32 3x3 stride 2 pad 1", "dgrad", "bf16", "channels_last", "conv2d_transposed_resident_bf16", 1),
    Case("n1 c8 24x24 k64 3x3 stride 3 pad 1", "dgrad", "bf16", "channels_last", "conv2d_transposed_tensor_64x64_bf16", 1),
)  # fmt: skip

# Weight gradients whose sums are registers of one block: groups, and first layers.
SUMS = (
    *(
        Case(f"n1 c{c} {size} k{c} 3x3 {rest}pad 1 groups {groups}", "wgrad", "bf16", "channels_last", "conv2d_grouped_wgrad_resident_bf16", 1)
        for c, groups in ((128, 32), (128, 16), (128, 8), (128, 4), (96, 4))
        for size, rest in (("16x16", ""), ("14x14", ""), ("28x28", "stride 2 "))
    ),
    Case("n1 c128 14x14 k128 3x3 pad 1 groups 8", "wgrad", "f16", "nchw", "conv2d_grouped_wgrad_packed_resident_f16", 1),
    *(
        Case(f"n1 c3 {size} k64 {filter}", "wgrad", "bf16", layout, f"conv2d_first_layer_wgrad_{packed}tensor_bf16", 1)
        for size, filter in (("16x32", "3x3 pad 1"), ("38x69", "7x7 stride 2"), ("32x64", "4x4 stride 4"), ("39x71", "11x11 stride 4"))
        for layout, packed in (("channels_last", ""), ("nchw", "packed_"))
    ),
)  # fmt: skip

# The filters of first layers, by the stride that their strip lies in shared memory for.
STRIPS = tuple(
    Case(f"n1 c3 {size} k64 {filter}", "fprop", "bf16", layout, "conv2d_first_layer_tensor_bf16", 1)
    for size, filter in (("16x32", "3x3 pad 1"), ("38x69", "7x7 stride 2"), ("32x64", "4x4 stride 4"), ("39x71", "11x11 stride 4"))
    for layout in ("channels_last", "nchw")
)  # fmt: skip

# First layers of networks, by how much of what they move is theirs; every 80th block.
STEMS = (
    Case("n32 c3 224x224 k64 7x7 stride 2 pad 3", "fprop", "bf16", "channels_last", "conv2d_first_layer_tensor_bf16", 80),
    Case("n32 c3 224x224 k64 7x7 stride 2 pad 3", "fprop", "bf16", "nchw", "conv2d_first_layer_tensor_bf16", 80),
    Case("n32 c3 224x224 k64 7x7 stride 2 pad 3", "wgrad", "bf16", "channels_last", "conv2d_first_layer_wgrad_tensor_bf16", 80),
    Case("n32 c3 224x224 k64 7x7 stride 2 pad 3", "wgrad", "bf16", "nchw", "conv2d_first_layer_wgrad_packed_tensor_bf16", 80),
    Case("n8 c3 224x224 k64 3x3 pad 1", "fprop", "bf16", "channels_last", "conv2d_first_layer_tensor_bf16", 80),
    Case("n32 c3 224x224 k96 4x4 stride 4", "fprop", "bf16", "nchw", "conv2d_first_layer_tensor_bf16", 80),
)  # fmt: skip


@pytest.fixture(scope="module")
def launches() -> dict[Case, list[Launch]]:
    return launches_of((*CASES, *STRIPS, *SUMS, *STEMS))


@pytest.mark.checked_emulator
@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_bank_conflicts_and_whole_sectors(launches: dict[Case, list[Launch]], case: Case) -> None:
    (launch,) = (one for one in launches[case] if one.kernel == case.kernel)
    assert launch.matrix_products > 0
    loads = [site for site in sites(launch, "shared") if site.access == "load" and site.width == 16]
    assert conflicts(loads) == 0  # ldmatrix, and the staged results
    assert conflicts([site for site in sites(launch, "shared") if site.access == "async copy"]) == 0
    assert conflicts(sites(launch, "shared")) == 0
    moved = sites(launch, "global")
    assert {site.width for site in moved if site.access == "async copy"} == {16}
    assert {site.width for site in moved if site.access == "store"} == {16}
    if "resident" in case.kernel or " c8 " in case.problem:  # the filter of 8 channels comes by halves of sectors
        moved = [site for site in moved if site.buffer != "weight"]
    assert sum(site.least_sectors for site in moved) >= 0.9 * sum(site.sectors for site in moved)


@pytest.mark.checked_emulator
@pytest.mark.parametrize("case", STRIPS, ids=str)
def test_a_strip_is_read_without_conflicts(launches: dict[Case, list[Launch]], case: Case) -> None:
    """ldmatrix from the strip and the filter, and the staged results. All is copied by 16 bytes."""
    (launch,) = launches[case]
    assert launch.kernel == case.kernel
    assert launch.matrix_products > 0
    assert conflicts([site for site in sites(launch, "shared") if site.access == "load" and site.width == 16]) == 0
    moved = sites(launch, "global")
    assert {site.width for site in moved if site.access == "store"} == {16}
    assert {site.access for site in moved if site.buffer in ("input", "weight")} == {"async copy"}


@pytest.mark.checked_emulator
@pytest.mark.parametrize("case", STEMS, ids=str)
def test_a_stem_moves_whole_sectors(launches: dict[Case, list[Launch]], case: Case) -> None:
    """The strip and the filters are turned round by single values, where some meet in a bank."""
    (launch,) = (one for one in launches[case] if one.kernel == case.kernel)
    assert conflicts(sites(launch, "shared")) < 0.1
    moved = sites(launch, "global")
    assert sum(site.least_sectors for site in moved) >= 0.9 * sum(site.sectors for site in moved)


@pytest.mark.checked_emulator
@pytest.mark.parametrize("case", SUMS, ids=str)
def test_sums_in_registers_are_fed_without_conflicts(launches: dict[Case, list[Launch]], case: Case) -> None:
    """Images come by 16 bytes, and the slabs' sums leave by whole sectors."""
    (launch,) = (one for one in launches[case] if one.kernel == case.kernel)
    assert launch.matrix_products > 0
    strip = "first_layer" in case.kernel
    assert conflicts([site for site in sites(launch, "shared") if site.access == "load" and site.width == 16]) == 0
    assert strip or conflicts(sites(launch, "shared")) == 0
    moved = sites(launch, "global")
    assert {site.width for site in moved if site.access == "async copy"} == {16}
    # A tap's 4 channels of a pair's group are half of a sector.
    halves = case.problem.endswith("groups 32")
    counted = [site for site in moved if site.access != "store" or (site.buffer == "workspace" and not halves)]
    sectors = sum(site.sectors for site in counted)
    assert (
        sum(site.least_sectors for site in counted) >= (0.7 if strip else 0.9) * sectors
    )  # rows of a small image begin within sectors


@pytest.mark.checked_emulator
def test_groups_are_multiplied_with_their_own_columns_alone(launches: dict[Case, list[Launch]]) -> None:
    for case in CASES:
        if "grouped" in case.kernel and "stride" not in case.problem and case.name == "fprop":
            channels = 128 // int(case.problem.split()[-1])
            (launch,) = launches[case]
            # Of a block's tile, and of a stack of 64 columns.
            assert launch.matrix_multiply_adds == launch.blocks_run * 128 * 9 * 64 * channels, case


@pytest.mark.checked_emulator
def test_the_tensor_cores_multiply_what_is_asked_for(launches: dict[Case, list[Launch]]) -> None:
    """Whole tiles of whole steps: no more products than there are multiply-adds."""
    case = next(case for case in CASES if case.problem == POINTWISE and case.name == "fprop")
    (launch,) = launches[case]
    tiles = launch.blocks_run
    assert launch.matrix_multiply_adds == tiles * 128 * 256 * 128


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("name", "kernel"),
    [("fprop", "dense_{}tensor_64x64"), ("dgrad", "dense_{}tensor_64x64"), ("wgrad", "dense_wgrad_{}tensor")],
)
def test_tf32_is_each_operand_rounded_to_nearest_once(name: str, kernel: str, channels_last: bool) -> None:
    """The bits of operands that tf32 has no digits for change nothing but the rounding; without leave no fp32 is multiplied so."""
    generator = torch.Generator().manual_seed(1)
    form = torch.channels_last if channels_last else torch.contiguous_format
    shapes = {
        "fprop": ((2, 24, 9, 8), (40, 24, 3, 3)),
        "dgrad": ((2, 40, 9, 8), (40, 24, 3, 3)),
        "wgrad": ((2, 40, 9, 8), (2, 24, 9, 8)),
    }
    first, second = (torch.randn(shape, generator=generator).contiguous(memory_format=form) for shape in shapes[name])
    size, bias = ((3, 3), ()) if name == "wgrad" else ((9, 8), (None,))
    named = f"conv2d_{kernel.format('' if channels_last else 'packed_')}_tf32"

    def run(first: torch.Tensor, second: torch.Tensor, **options: bool) -> torch.Tensor:
        arguments = (first, second, *bias, size, (1, 1), (1, 1), (1, 1), 1, channels_last, named)
        result: torch.Tensor = getattr(ops, f"conv2d_{name}")(*arguments, **options)
        return result

    result = run(first, second, allow_tf32=True)
    rounded = [rounded_to_tf32(operand).contiguous(memory_format=form) for operand in (first, second)]
    assert not torch.equal(rounded[0], first)
    assert torch.equal(result, run(*rounded, allow_tf32=True))
    with pytest.raises(RuntimeError, match="fp32 is to be multiplied as fp32"):
        run(first, second)


# The networks whose convolutions are dense enough for the tensor cores to be what they are for.
NETWORKS = ("resnet50", "vgg16", "deeplabv3", "unet572", "dcgan", "resnext50", "regnet")


@pytest.mark.parametrize("net", sorted({net for net in suites.names() if net.startswith(NETWORKS)}))
@pytest.mark.parametrize("batch", [1, 32, 256])
def test_the_plan_says_tile_and_slabs(net: str, batch: int) -> None:
    plans = [
        plan_pass(entry.with_batch(batch), name, "bf16", "channels_last")
        for entry in suites.load(net).entries
        for name in entry.problem.passes
    ]
    resident = [
        plan for plan in plans if "_resident" in plan.kernel or re.match(r"conv2d_first_layer_.*tensor", plan.kernel)
    ]
    on_tensor_cores = [plan for plan in plans if "_tensor" in plan.kernel or plan in resident]
    assert on_tensor_cores
    for plan in on_tensor_cores:
        assert plan.tile is not None
        assert plan.stages >= 3 or plan in resident  # whose filter and halo are there at once
        assert plan.slabs >= 1
        assert plan.grid > 0
    # What is not: other families', what has no 8 channels or too many elements for 32 bits, and what is launched more than computed.
    others = [
        plan
        for plan in plans
        if plan not in on_tensor_cores
        and plan.layer_family in ("pointwise", "dense", "strided", "dilated")
        and plan.modelled_us > 10
        and not any("31 bits" in reason for _, reason in plan.refused)
    ]
    assert {(plan.layer, plan.name) for plan in others} <= {("out1x1", "wgrad")}  # two filters
