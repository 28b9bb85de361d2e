"""What the compiler makes of the Triton kernels for GPUs that this machine need not have: instructions, registers, shared memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from cnnkernels.triton import ahead
from cnnkernels.triton.ahead import ARCHITECTURES, Facts

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")

# Calls of cnnkernels/triton/calls.py. All of them, with every tile: python -m cnnkernels.triton.ahead
PRODUCTS = [
    "fprop resnet50_3x3 bf16 nhwc", "dgrad resnet50_3x3 bf16 nhwc", "wgrad resnet50_3x3 bf16 nhwc", "fprop resnet50_1x1 bf16 nchw",
    "fprop deeplab_aspp bf16 nhwc", "dgrad decoder_4x4 bf16 nhwc", "fprop resnext50_3x3 bf16 nhwc",
]  # fmt: skip
NOT_IN_VECTORS = ["fprop resnet50_first bf16 nchw", "wgrad resnet50_3x3 bf16 nchw"]
EXACT = ["fprop resnet50_3x3 f32-ieee nhwc 64x64x32"]
STREAMS = [
    "depthwise fprop 3x3 stride 1 bf16 nhwc", "depthwise wgrad 3x3 stride 1 bf16 nhwc", "depthwise fprop 7x7 stride 1 f32 nhwc",
    "max_pool2d bf16 nhwc", "max_pool2d_backward bf16 nhwc", "avg_pool2d f32 nhwc", "bias_grad bf16 nhwc",
]  # fmt: skip
PLANES = ["depthwise fprop 3x3 stride 2 bf16 nchw", "max_pool2d_with_indices bf16 nchw", "global_avg_pool2d f32 nchw"]

Found = dict[tuple[str, int], list[Facts]]


@pytest.fixture(scope="module")
def facts() -> Iterator[Found]:
    """What each call launches on each architecture."""
    wanted = {*PRODUCTS, *NOT_IN_VECTORS, *EXACT, *STREAMS, *PLANES}
    found: Found = {}
    for launched in ahead.run(sorted(wanted)):
        if launched[0].call in wanted:
            found[launched[0].call, launched[0].arch] = launched
    assert {call for call, _ in found} == wanted
    yield found


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("call", [*PRODUCTS, *NOT_IN_VECTORS])
def test_products_run_on_the_matrix_units(call: str, arch: int, facts: Found) -> None:
    """mma.sync on sm_80, wgmma on sm_90, tcgen05 on sm_100, and no other."""
    assert list(facts[call, arch][0].matrix) == [ARCHITECTURES[arch].matrix_instruction]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("call", EXACT)
def test_exact_fp32_does_not(call: str, arch: int, facts: Found) -> None:
    assert not facts[call, arch][0].matrix


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_nothing_spills_and_everything_fits(arch: int, facts: Found) -> None:
    launched = [one for (_, its), several in facts.items() if its == arch for one in several]
    assert not [one for one in launched if one.spilled_bytes]
    assert not [one for one in launched if one.shared > ARCHITECTURES[arch].shared_of_program or one.programs < 1]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("call", PRODUCTS)
def test_operands_come_16_bytes_at_a_time_ahead_of_their_use(call: str, arch: int, facts: Found) -> None:
    product = facts[call, arch][0]
    assert set(product.async_loads) == {16}


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("call", STREAMS)
def test_streams_move_16_bytes_at_a_time(call: str, arch: int, facts: Found) -> None:
    stream = facts[call, arch][0]
    assert stream.loads.get(16), stream.loads
    if not call.startswith(("bias_grad", "depthwise wgrad")):  # which write a number for each channel
        assert stream.stores.get(16), stream.stores


def test_the_command_compiles_what_is_named() -> None:
    command = [sys.executable, "-m", "cnnkernels.triton.ahead", "--arch=90", "bias_grad bf16 nhwc"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(printed) == 2  # the sums of slabs, and their sum
    assert printed[0].startswith("bias_grad bf16 nhwc") and "sm_90" in printed[0]
    unknown = subprocess.run([*command[:-1], "nonsense"], capture_output=True, text=True, check=False)
    assert unknown.returncode == 2
    assert "no call has one of nonsense in its name" in unknown.stderr
