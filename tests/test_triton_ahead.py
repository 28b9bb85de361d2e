"""What the compiler makes of the Triton kernels on architectures that need not be here: matrix instructions, registers, memory, widths of accesses.

They are compiled in a process of their own (cnnkernels.triton.ahead), because in this one they may be interpreted.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from cnnkernels.backends.triton import INTERPRETED
from cnnkernels.triton import ahead, catalogue, configs
from cnnkernels.triton.ahead import ARCHITECTURES, Facts, Multiprocessor

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="triton is not installed"),
]

# Every tile of the matrix products on one architecture (but those of fp16, which are bf16's) with some layers; those of bf16 in channels_last on
# each, with some streams. All there is, which takes minutes: python -m cnnkernels.triton.ahead
_STREAMS = [
    "3x3 stride 1 bf16 nhwc",
    "max_pool2d bf16 nhwc",
    "max_pool2d_backward bf16 nhwc",
    "avg_pool2d bf16 nhwc",
    "bias_grad",
]
_EACH = ["bf16 nhwc 128x", "bf16 nhwc 64x", *_STREAMS]
_LAYERS = [
    "resnet50_first bf16 nhwc",
    "resnext50_3x3 bf16 nhwc",
    "mobilenet_1x1",
    "decoder_4x4 bf16 nhwc",
    "deeplab_aspp bf16 nhwc",
]
_TILES = [
    f"{dtype} {layout} {rows}x"
    for dtype in ("bf16", "f32", "f32-ieee", "f64")
    for layout in ("nhwc", "nchw")
    for rows in (32, 64, 128)
]
_PARTS: dict[int, list[str]] = {80: _EACH, 90: [*_TILES, *_LAYERS, *_STREAMS], 100: _EACH}

# ptxas keeps as much in local memory where one more program fits on a multiprocessor then. More is a tile that is too large.
_FEW_BYTES = 8

# wgmma and tcgen05 multiply 64 rows at least. Of planes a tile's rows are the channels of the result: a smaller tile is left to mma.sync.
_LEAST_ROWS = 64


@pytest.fixture(scope="module")
def facts() -> list[Facts]:
    return [one for arch, parts in _PARTS.items() for kernels in ahead.run(parts, [arch]) for one in kernels]


def _is_dense(one: Facts) -> bool:
    return one.kernel.startswith(("triton_conv2d_gather_", "triton_conv2d_wgrad_"))


def _told(wrong: list[Facts]) -> str:
    return "\n" + "\n".join(map(ahead.line, wrong))


def test_every_tile_of_the_products_is_compiled(facts: list[Facts]) -> None:
    """On sm_90; elsewhere those of bf16 whose operands are read in vectors."""
    kernels = {row["name"] for row in catalogue.rows() if row["family"] in ("gather", "wgrad")}
    for arch in ARCHITECTURES:
        wanted = {name for name in kernels if not name.endswith("_f16")}
        if arch != 90:
            vectors = tuple(
                f"_{tile.size}_bf16" for tile in configs.matrix_tiles(torch.bfloat16) if not tile.by_element
            )
            wanted = {name for name in wanted if name.endswith(vectors)}
        missing = wanted - {one.kernel for one in facts if one.arch == arch}
        assert not missing, f"no call in cnnkernels/triton/calls.py launches {missing} on sm_{arch}"


def test_products_are_on_the_matrix_units(facts: list[Facts]) -> None:
    wrong = []
    for one in filter(_is_dense, facts):
        planes_of_few_channels = one.call.startswith(("fprop", "dgrad")) and "nchw" in one.call
        columns = int(one.kernel.split("_")[-2].split("x")[1])
        small = planes_of_few_channels and columns < _LEAST_ROWS
        wanted = {"mma.sync" if small or "f64" in one.kernel else ARCHITECTURES[one.arch].matrix_instruction}
        if "ieee" in one.call:
            wanted = set()
        if set(one.matrix) != wanted:
            wrong.append(one)
    assert not wrong, _told(wrong)


def test_registers_suffice(facts: list[Facts]) -> None:
    wrong = [one for one in facts if one.spilled_bytes > _FEW_BYTES]
    assert not wrong, _told(wrong)


def test_shared_memory_suffices(facts: list[Facts]) -> None:
    wrong = [one for one in facts if one.shared > ARCHITECTURES[one.arch].shared_of_program or one.programs < 1]
    assert not wrong, _told(wrong)


def test_channels_last_is_read_and_written_in_vectors(facts: list[Facts]) -> None:
    """Where channels are a multiple of 8. Those of ResNeXt's groups are 4."""
    wrong = []
    for one in filter(_is_dense, facts):
        if "nhwc" not in one.call or "resnet50_first" in one.call or "f64" in one.kernel:
            continue
        narrow = {8} if "resnext50" in one.call else set()
        if "wgrad" in one.kernel and "f32" in one.kernel and "ieee" not in one.call and one.arch >= 90:
            narrow = {4}  # tf32 of wgmma and tcgen05 must lie along the reduction, pixels: 4-byte copies turn it round
        if set(one.loads) - {16} - narrow or set(one.stores) - {16} - (narrow & {8}):
            wrong.append(one)
    assert not wrong, _told(wrong)


def test_streams_move_16_bytes_at_a_time(facts: list[Facts]) -> None:
    """channels_last: 3x3 depthwise, pooling, its gradients. Weights, indices and a number for each channel are narrower."""
    streams = [one for one in facts if "nhwc" in one.call and re.search("3x3 stride|_pool2d", one.call)]
    streams = [one for one in streams if "depthwise" in one.kernel or "_pool2d" in one.kernel]
    assert len(streams) >= 18
    for one in streams:
        assert 16 in one.loads, _told([one])
        assert 16 in one.stores or "wgrad" in one.kernel or "_reduced_" in one.kernel, _told([one])


def test_products_of_planes_are_read_and_written_in_vectors(facts: list[Facts]) -> None:
    """1x1 convolutions whose planes are a multiple of 8 pixels, or of 4."""
    for one in filter(_is_dense, facts):
        if "nchw" in one.call and "1x1" in one.call:
            assert set(one.loads) | set(one.stores) <= {16, 8}, _told([one])


def test_loads_are_on_their_way_during_the_product(facts: list[Facts]) -> None:
    """But those of single halves, which are too narrow for asynchronous copies."""
    wrong = []
    for one in filter(_is_dense, facts):
        waited = {width for width, count in one.loads.items() if one.async_loads.get(width, 0) < count}
        if waited - {2}:
            wrong.append(one)
        if "nhwc" in one.call and "resnet50_first" not in one.call and waited:
            wrong.append(one)
    assert not wrong, _told(wrong)


@pytest.mark.parametrize(
    ("registers", "shared", "warps", "programs"),
    [(32, 0, 4, 16), (128, 0, 8, 2), (129, 0, 8, 1), (255, 0, 4, 2), (32, 113 * 1024, 4, 2), (32, 114 * 1024, 4, 1), (16, 0, 1, 32)],
)  # fmt: skip
def test_programs_of_a_multiprocessor(registers: int, shared: int, warps: int, programs: int) -> None:
    counts: Any = {"matrix": {}, "loads": {}, "async_loads": {}, "stores": {}}
    one = Facts("", "", 90, registers, 0, 0, shared, 0, 0, **counts, warps=warps, stages=1)
    assert one.programs == programs


def test_tensor_memory_limits_programs() -> None:
    counts: Any = {"matrix": {}, "loads": {}, "async_loads": {}, "stores": {}}
    assert Facts("", "", 100, 32, 0, 0, 0, 256, 0, **counts, warps=4, stages=1).programs == 2
    assert Multiprocessor("", 0, 0).tensor_columns == 0


def test_counts_of_ptx() -> None:
    ptx = """
        ld.global.v4.b32 { %r1, %r2, %r3, %r4 }, [ %rd1 + 0 ];
        @%p1 ld.global.L1::evict_last.v2.b32 { %r1, %r2 }, [ %rd1 + 0 ];
        ld.global.b16 { %rs1 }, [ %rd1 + 0 ];
        ld.shared.v4.b32 {%r1, %r2, %r3, %r4}, [%r5];
        cp.async.cg.shared.global [ %r1 + 0 ], [ %rd1 + 0 ], 0x10, %r2;
        cp.async.ca.shared.global [ %r1 + 0 ], [ %rd1 + 0 ], 0x4, %r2;
        @%p2 st.global.v4.b32 [ %rd1 + 0 ], { %r1, %r2, %r3, %r4 };
    """
    assert ahead.accesses(ptx, "ld") == {16: 1, 8: 1, 2: 1}
    assert ahead.accesses(ptx, "st") == {16: 1}
    assert ahead.async_copies(ptx) == {16: 1, 4: 1}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
def test_workers_end_with_the_process_that_started_them() -> None:
    command = [sys.executable, "-m", "cnnkernels.triton.ahead", "--arch", "90", "--json"]
    with subprocess.Popen(command, env=ahead.environment_that_compiles(), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        workers = _children(process.pid)
        assert len(workers) >= 2
        process.kill()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, f"of {workers} some are left"
        time.sleep(0.1)


def _children(parent: int) -> list[int]:
    """Processes of `parent` that compile, as /proc has them."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            ids = stat.read_text().rpartition(")")[2].split()
            if int(ids[1]) == parent and b"spawn_main" in stat.with_name("cmdline").read_bytes():
                found.append(int(stat.parent.name))
    return found


def test_nothing_is_compiled_where_kernels_are_interpreted() -> None:
    if not INTERPRETED:
        pytest.skip("kernels are compiled here")
    from cnnkernels.triton.calls import CALLS
    from cnnkernels.triton.launch import recording

    with recording() as recorded:
        CALLS["bias_grad bf16 nhwc"]()
    launches = recorded.launches
    assert launches[0].name == "triton_conv2d_bias_grad_bf16"
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET is set"):
        ahead.compile_launch(launches[0], 90)


def _without_interpreter(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error:TRITON_DEFAULT_FP_FUSION", "-c", textwrap.dedent(code)],
        env=ahead.environment_that_compiles(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_fusion_is_stated_so_that_triton_does_not_warn() -> None:
    out = _without_interpreter("""
        import warnings
        from cnnkernels.triton import ahead
        from cnnkernels.triton.calls import CALLS
        from cnnkernels.triton.launch import recording

        with recording() as recorded:
            CALLS["bias_grad bf16 nhwc"]()
        launches = recorded.launches
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            print([ahead.compile_launch(launch, 80).metadata.enable_fp_fusion for launch in launches])
        assert not caught, [str(warning.message) for warning in caught]
    """)
    assert out.split() == ["[True,", "True]"]


def test_fusion_goes_through_wrap_triton() -> None:
    """torch.compile's trace takes the option along, and still sees that a kernel writes its result and nothing else."""
    out = _without_interpreter("""
        import torch
        from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table
        from torch.fx.experimental.proxy_tensor import make_fx
        from cnnkernels.triton import ahead, operators
        from cnnkernels.triton.launch import launch
        from cnnkernels.triton.kernels.sums import bias_grad_kernel

        def bias_grad(dy):
            db = torch.empty(8)
            launch("name", bias_grad_kernel, (1, 1), db, dy, db, 2, 8, 4, 4, *dy.stride(), 32,
                   PIXELS_LAST=True, VECTOR=16, WIDE=False, BLOCK_CHANNELS=16, BLOCK_PIXELS=64, warps=4)
            return db

        from torch._library.triton import set_wrap_triton_enabled
        with ahead.as_on(80), set_wrap_triton_enabled(True):
            graph = make_fx(bias_grad, tracing_mode="fake")(torch.randn(2, 8, 4, 4))
        (node,) = [node for node in graph.graph.nodes if "triton" in str(node.target)]
        constants = kernel_side_table.get_constant_args(node.kwargs["constant_args_idx"])
        print({**constants, **node.kwargs["kwargs"]}["enable_fp_fusion"], node.kwargs.get("tensors_to_clone"))
    """)
    assert out.split()[0] == "True"
