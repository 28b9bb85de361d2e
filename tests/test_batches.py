"""What no kernel takes at once is run in batches: images too far apart for offsets of 31 bits, and more to pack than a workspace holds."""

from __future__ import annotations

import pytest
import torch

from cnnkernels.bench import suites
from cnnkernels.bench.plans import PlannedPass, plan_pass
from cnnkernels.explain import trace
from cnnkernels.testing.cases import make_case
from cnnkernels.testing.far_problems import FAR_CONV2D_PROBLEMS, FAR_PROBLEMS
from cnnkernels.testing.problem import Conv2dProblem
from cnnkernels.testing.verify import Selection, verify


def planned(net: str, layer: str, name: str, dtype: str, layout: str, batch: int) -> PlannedPass:
    (entry,) = (entry for entry in suites.load(net).entries if entry.layer == layer)
    return plan_pass(entry.with_batch(batch), name, dtype, layout)


@pytest.mark.parametrize("dtype", ["bf16", "f32"])
def test_every_kernel_runs_images_that_lie_far_apart(dtype: str) -> None:
    selection = Selection(dtypes=(dtype,), problems=FAR_PROBLEMS, values=("integers",))
    records = verify(selection)
    assert not {r.subject.kernel: r.failures + r.findings for r in records if r.failures or r.findings}
    never = {record.subject.kernel for record in records if record.problems == 0}
    assert all("wgrad_planes" in kernel for kernel in never), never  # they refuse batches, and say so


@pytest.mark.parametrize("name", ["fprop", "dgrad", "wgrad", "bias_grad", "fused"])
@pytest.mark.parametrize("problem", FAR_CONV2D_PROBLEMS[:4], ids=str)
def test_batches_are_launched_one_after_another(problem: Conv2dProblem, name: str) -> None:
    kernel = {"wgrad": "wgrad_64x64x8", "bias_grad": "bias_grad"}.get(name, "gather_128x64x8")
    case = make_case(problem, name, torch.bfloat16, "integers")
    with trace() as launched:
        result = case.run(f"conv2d_{kernel}_bf16")
    assert case.exact and torch.equal(result, case.reference.fp64.to(torch.bfloat16))
    # Three images: two and one. Five: two and three times one, since of two batches one would have three images.
    batches = {3: 2, 5: 4}[problem.N]
    assert launched.count(f"conv2d_{kernel}_bf16") == batches
    # The sums so far are kept as they are, and only the last are rounded.
    sums = [f"conv2d_sum_slabs_{dtype}" for dtype in ["f32"] * (batches - 1) + ["bf16"]]
    assert [sum for sum in launched if "sum_slabs" in sum] == (sums if name in ("wgrad", "bias_grad") else [])


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("dtype", ["bf16", "f32"])
@pytest.mark.parametrize("net", [net for net in suites.names() if net not in ("all", "core")])
def test_no_batch_is_too_large_for_tuned_kernels(net: str, dtype: str, layout: str) -> None:
    for entry in suites.load(net).entries:
        for batch in (32, 256):
            for name in entry.problem.passes:
                row = plan_pass(entry.with_batch(batch), name, dtype, layout)
                assert not row.kernel.endswith("_i64"), f"{row.layer} {row.name} {batch}: {row.kernel}, {row.why}"
                assert row.workspace_bytes < 2 << 30, (
                    f"{row.layer} {row.name} {batch}: {row.kernel} {row.workspace_bytes}"
                )


@pytest.mark.parametrize(("batch", "batches"), [(1, 1), (32, 1), (256, 2)])
@pytest.mark.parametrize("name", ["fprop", "dgrad", "wgrad"])
def test_a_batch_too_large_for_31_bits_stays_on_tensor_cores(name: str, batch: int, batches: int) -> None:
    row = planned("deeplabv3_os8_520", "aspp_d24", name, "bf16", "channels_last", batch)
    assert "tensor" in row.kernel and row.batches == batches
    assert (f"in {batches} batches" in row.why) == (batches > 1)


@pytest.mark.parametrize("name", ["fprop", "wgrad"])
def test_planes_are_packed_in_batches_that_the_workspace_holds(name: str) -> None:
    few, many = (planned("deeplabv3_os8_520", "aspp_d24", name, "bf16", "nchw", batch) for batch in (16, 64))
    assert "packed_tensor" in few.kernel and few.batches == 1
    assert few.kernel == many.kernel and many.batches > 1
    assert many.workspace_bytes < 2 * few.workspace_bytes
    # As long as the same images take in as many calls, but for launches.
    assert many.modelled_us < 4.4 * few.modelled_us
