"""What `cnnkernels profile` makes of counts: traffic, occupancy, machine code, the model, the dearest lines. All made by hand."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cnnkernels
from cnnkernels.profile import machine_code, model, resources
from cnnkernels.profile.counters import shared_traffic, tensor_traffic, totals
from cnnkernels.profile.hardware import CLOCK, DRAM_RATE, FP32_LANES, SMS, constants
from cnnkernels.profile.launches import Launch
from cnnkernels.profile.lines import dearest_lines
from cnnkernels.profile.machine_code import BlockCode, Counted, NoMachineCode, Operations
from cnnkernels.profile.occupancy import occupancy, waves
from cnnkernels.profile.report import PassReport, analyse, as_json
from cnnkernels.profile.resources import Resources

ROOT = Path(cnnkernels.__file__).resolve().parent.parent
SOURCE = ROOT / "csrc" / "conv2d" / "direct" / "gather.cuh"


# --- Hand-made launches.


def site(**values: Any) -> dict[str, Any]:
    """A global load of one float per lane by 100 whole warps, perfectly coalesced."""
    usual = {
        "module": "kernels.so", "offset": 16, "file": str(SOURCE), "line": 1, "function": "f", "space": "global",
        "access": "load", "buffer": "x", "width": 4, "instructions": 100, "lanes": 3200, "bytes_asked": 12800,
        "bytes_used": 12800, "sectors": 400, "least_sectors": 400, "lines": 100, "wavefronts": 100, "least_wavefronts": 100,
    }  # fmt: skip
    return usual | values


def buffer(**values: Any) -> dict[str, Any]:
    usual = {
        "name": "x", "use": "input", "bytes": 3200, "read_bytes": 3200, "written_bytes": 0, "block_read_bytes": 6400,
        "block_written_bytes": 0, "read_sectors": 100, "written_sectors": 0, "block_read_sectors": 200,
        "block_written_sectors": 0,
    }  # fmt: skip
    return usual | values


def code(**values: Any) -> dict[str, Any]:
    usual = {
        "module": "kernels.so",
        "offset": 0,
        "file": str(SOURCE),
        "line": 2,
        "function": "f",
        "warps": 100,
        "lanes": 1600,
    }
    return usual | values


def launch(**values: Any) -> Launch:
    usual = {
        "kernel": "conv2d_gather", "symbol": "_Z6gatherv", "grid": [10, 1, 1], "block": [128, 1, 1], "blocks": 10,
        "blocks_run": 10, "static_shared_bytes": 1000, "dynamic_shared_bytes": 0, "block_barriers": 20, "warp_barriers": 5,
        "shuffles": 7, "matrix_products": 0, "matrix_multiply_adds": 0, "buffers": [buffer()], "sites": [site()], "code": [code()],
    }  # fmt: skip
    return Launch.from_dict(usual | values)


def test_a_launch_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks wavefronts: build the package again"):
        launch(sites=[{name: value for name, value in site().items() if name != "wavefronts"}])


def test_traffic_per_tensor_tells_where_bytes_are_read_again() -> None:
    (row,) = tensor_traffic(launch(sites=[site(), site(offset=32, sectors=1200, least_sectors=400)]))
    assert (row.buffer, row.access, row.instructions, row.asked_bytes) == ("x", "read", 200, 25600)
    assert row.coalescing == 0.5
    assert row.reread_in_block == 25600 / 6400
    assert row.reread_by_blocks == 2
    assert row.exact


def test_bank_conflicts_of_global_memory_are_counted_per_tensor() -> None:
    bad = site(offset=32, wavefronts=300, lines=1600)
    (row,) = tensor_traffic(launch(sites=[site(), bad], blocks=20))
    assert (row.wavefronts, row.least_wavefronts, row.lines, row.conflicts) == (800, 400, 3400, 1.0)
    found = totals(launch(sites=[site(), bad, site(space="shared", wavefronts=7)]))
    assert (found.global_wavefronts, found.global_lines, found.shared_wavefronts) == (400, 1700, 7)


def test_an_atomic_is_a_read_and_a_write() -> None:
    sums = buffer(name="y", use="output", written_bytes=3200, block_written_bytes=3200, written_sectors=100)
    rows = tensor_traffic(launch(buffers=[sums], sites=[site(buffer="y", access="atomic")]))
    assert [(row.access, row.instructions) for row in rows] == [("read", 100), ("write", 100)]
    assert totals(launch(buffers=[sums], sites=[site(buffer="y", access="atomic")])).atomics == 100


def test_a_sampled_launch_is_multiplied_up_but_not_beyond_the_tensor() -> None:
    part = launch(blocks=40, blocks_run=10, buffers=[buffer(read_bytes=2400, read_sectors=75)])
    (row,) = tensor_traffic(part)
    assert (row.instructions, row.block_bytes, row.sectors) == (400, 25600, 1600)
    assert row.launch_bytes == 3200
    assert row.launch_sectors == 101  # 3200 bytes need not begin with a sector
    assert not row.exact
    assert totals(part).block_barriers == 80


def test_shared_arrays_and_their_bank_conflicts() -> None:
    stores = site(space="shared", access="store", buffer="tile", wavefronts=800, least_wavefronts=100, sectors=0)
    loads = site(space="shared", buffer="tile", wavefronts=100, least_wavefronts=100)
    rows = shared_traffic(launch(sites=[stores, loads, loads]))
    assert [(row.access, row.wavefronts, row.conflicts) for row in rows] == [("store", 800, 7.0), ("load", 200, 0.0)]


def test_divergence_counts_lanes_of_executed_code() -> None:
    total = totals(launch())
    assert total.active_lanes == 16
    assert total.active_lanes_in_accesses == 32


# --- Occupancy. Expected: cudaOccMaxActiveBlocksPerMultiprocessor of CUDA 13.0 for compute capability 9.0.


@pytest.mark.parametrize(
    ("threads", "registers", "shared", "barriers", "blocks"),
    [
        (256, 32, 0, 0, 8),
        (1024, 64, 0, 0, 1),
        (1024, 65, 0, 0, 0),
        (128, 149, 21612, 1, 3),
        (128, 255, 0, 0, 2),
        (32, 16, 0, 0, 32),
        (32, 16, 0, 3, 21),
        (64, 40, 232448, 0, 1),
        (64, 40, 232449, 0, 0),
        (128, 32, 48 * 1024, 0, 4),
        (387, 136, 20736, 2, 0),
        (125, 120, 10297, 3, 4),
        (32, 136, 0, 0, 12),
    ],
)
def test_occupancy(threads: int, registers: int, shared: int, barriers: int, blocks: int) -> None:
    assert occupancy(threads, registers, shared, barriers).blocks == blocks


def test_occupancy_names_what_limits_it() -> None:
    assert occupancy(256, 32, 0).limited_by == ("warps", "registers")
    assert occupancy(128, 149, 21612, 1).limited_by == ("registers",)
    assert occupancy(128, 32, 48 * 1024).limited_by == ("shared memory",)
    assert occupancy(128, 149, 21612).fraction == 12 / 64
    unknown = occupancy(256, None, 0)
    assert (unknown.blocks, unknown.limited_by) == (8, ("warps",))
    with pytest.raises(ValueError, match="at least one thread"):
        occupancy(0, 32, 0)


def test_waves_and_their_tail() -> None:
    one = waves(25, 3)
    assert (one.waves, one.in_last, one.busiest, one.idle) == (1, 25, 1, 107)
    assert one.imbalance == pytest.approx(132 / 25)
    more = waves(400, 3)
    assert (more.waves, more.per_wave, more.in_last, more.busiest, more.idle) == (2, 396, 4, 4, 0)
    assert more.imbalance == pytest.approx(4 * 132 / 400)
    assert waves(264, 1).imbalance == 1


# --- The compiler's report.

PTXAS = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z6gatherv' for 'sm_80'
ptxas info    : Function properties for _Z6gatherv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 163 registers, used 1 barriers, 21612 bytes smem, 536 bytes cmem[0]
ptxas info    : Compile time = 292.260 ms
ptxas info    : Compiling entry function '_Z6gatherv' for 'sm_90a'
ptxas info    : Function properties for _Z6gatherv
    16 bytes stack frame, 24 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 149 registers, used 1 barriers, 16 bytes cumulative stack size, 21612 bytes smem
ptxas info    : Compile time = 290.110 ms
ptxas info    : Compiling entry function '_Z3sumv' for 'sm_90a'
ptxas info    : Function properties for _Z3sumv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, used 0 barriers
"""


def test_the_compilers_report_is_read_for_one_architecture() -> None:
    assert resources.parse(PTXAS) == {
        "_Z6gatherv": Resources(149, 21612, 1, 16, 24, 8),
        "_Z3sumv": Resources(32, 0, 0, 0, 0, 0),
    }
    assert resources.parse(PTXAS)["_Z6gatherv"].spills
    assert resources.parse(PTXAS, "sm_80") == {"_Z6gatherv": Resources(163, 21612, 1, 0, 0, 0)}


def test_no_compilers_report_says_why(tmp_path: Path) -> None:
    found, why = resources.load(tmp_path / "ptxas.txt")
    assert not found
    assert why == "no ptxas.txt, which the build of the CUDA library writes: it is not built here"


# --- Machine code.

DISASSEMBLY = """
kernels.so:     file format elf64-x86-64

0000000000001100 <f>:
    1100:\tcall   1040 <__sanitizer_cov_trace_pc@plt>
    1105:\tvmovss (%rdi),%xmm0
    1109:\tvfmadd231ss 0x10(%rax,%rbx,4),%xmm1,%xmm0
    1113:\tvfnmsub132sd %xmm1,%xmm2,%xmm3
    1118:\tvxorps %xmm1,%xmm1,%xmm1
    111c:\tvmulss %xmm1,%xmm2,%xmm3
    1120:\tcall   1040 <__sanitizer_cov_trace_pc@plt>
    1125:\tvmaxss %xmm1,%xmm2,%xmm3
    1129:\tvdivsd %xmm1,%xmm2,%xmm3
    112d:\tvsqrtss %xmm1,%xmm2,%xmm3
    1131:\tvfmadd213ps %ymm1,%ymm2,%ymm3
    1136:\tnotrack jmp *%rax
    1139:\tcall   2000 <g>
    113e:\taddss  %xmm0,%xmm1
    1142:\tret
"""


def test_a_basic_block_ends_at_the_next_call_of_the_trace_function() -> None:
    found = machine_code.parse(DISASSEMBLY, [0x1105, 0x1125])
    assert found[0x1105] == BlockCode(Operations(fma32=1, fma64=1, other32=1))
    assert found[0x1125] == BlockCode(Operations(compare32=1, division64=1, division32=1, fma32=8, other32=1))


def test_the_trace_function_needs_no_name() -> None:
    stripped = DISASSEMBLY.replace("<__sanitizer_cov_trace_pc@plt>", "")
    assert machine_code.parse(stripped, [0x1105, 0x1125])[0x1105].operations == Operations(fma32=1, fma64=1, other32=1)


CALLS = """
    1100:\tcall   1040 <__sanitizer_cov_trace_pc@plt>
    1105:\tcall   1050 <expf@plt>
    110a:\tcall   *0x2fe2(%rip)        # 3ff0 <powf@GLIBC_2.27>
    1110:\tcall   1060 <fmaxf@plt>
    1115:\tcall   1070 <__tsan_read4@plt>
    111a:\tcall   1080 <_ZN3cnn8emulator7barrierEii@plt>
    111f:\tcall   1090 <cnn_checked_memset@plt>
    1124:\tcall   10a0 <memcpy@plt>
    1129:\tvsqrtss %xmm1,%xmm2,%xmm3
    112e:\tcall   10b0 <sqrtf@plt>
    1133:\tcall   2000 <a_function_of_this_module>
    1138:\tcall   *%rax
    113a:\tcall   1040 <__sanitizer_cov_trace_pc@plt>
    113f:\tcall   10c0 <tanhf@plt>
"""


def test_what_library_functions_compute_is_not_counted_unless_it_is_one_instruction_on_a_gpu() -> None:
    found = machine_code.parse(CALLS, [0x1105])[0x1105]
    assert found == BlockCode(Operations(compare32=1, division32=1), frozenset({"expf", "powf"}))
    counted = machine_code.count(launch().code, {("kernels.so", 0): found})
    assert counted.calls == ("expf", "powf")


def test_an_offset_inside_an_instruction_is_refused() -> None:
    with pytest.raises(NoMachineCode, match="no instruction begins at 0x1106"):
        machine_code.parse(DISASSEMBLY, [0x1106])


@pytest.mark.parametrize(
    ("mnemonic", "operands", "expected"),
    [
        ("vfmadd231ss", "%xmm0,%xmm1,%xmm2", ("fma32", 1)),
        ("vfnmadd213sd", "(%rax),%xmm1,%xmm2", ("fma64", 1)),
        ("vaddss", "%xmm0,%xmm1,%xmm2", ("other32", 1)),
        ("subsd", "%xmm0,%xmm1", ("other64", 1)),
        ("vminsd", "%xmm0,%xmm1,%xmm2", ("compare64", 1)),
        ("vaddpd", "%ymm0,%ymm1,%ymm2", ("other64", 4)),
        ("mulps", "%xmm0,%xmm1", ("other32", 4)),
        ("vmovss", "%xmm0,(%rax)", ("", 0)),
        ("vpaddd", "%xmm0,%xmm1,%xmm2", ("", 0)),
        ("vcvtss2sd", "%xmm0,%xmm1,%xmm2", ("", 0)),
        ("vucomiss", "%xmm0,%xmm1", ("compare32", 1)),
        ("comisd", "%xmm0,%xmm1", ("compare64", 1)),
        ("cmpltss", "%xmm0,%xmm1", ("compare32", 1)),
        ("cmpsd", "$0x3,%xmm0,%xmm1", ("compare64", 1)),
        ("vcmpneq_oqss", "%xmm0,%xmm1,%xmm2", ("compare32", 1)),
        ("vcmpunordps", "%ymm0,%ymm1,%ymm2", ("compare32", 8)),
        ("vroundss", "$0x9,%xmm0,%xmm0,%xmm1", ("other32", 1)),
        ("haddps", "%xmm0,%xmm1", ("other32", 4)),
        ("vrsqrtss", "%xmm0,%xmm1,%xmm2", ("division32", 1)),
        ("rcpss", "%xmm0,%xmm1", ("division32", 1)),
        ("vfmaddsub213ps", "%xmm0,%xmm1,%xmm2", ("fma32", 4)),
        ("cmpxchg", "%edx,(%rax)", ("", 0)),
        ("vpcmpeqd", "%xmm0,%xmm1,%xmm2", ("", 0)),
        ("vcvtph2ps", "%xmm0,%xmm1", ("", 0)),
        ("vandps", "%xmm0,%xmm1,%xmm2", ("", 0)),
    ],
)
def test_what_is_arithmetic(mnemonic: str, operands: str, expected: tuple[str, int]) -> None:
    assert machine_code.classify(mnemonic, operands) == expected


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A library whose machine code has one loop of multiply-adds, compiled as the checked emulator is."""
    compiler, objdump = shutil.which("g++"), shutil.which("objdump")
    if compiler is None or objdump is None:
        pytest.skip("g++ or objdump is not installed")
    source = tmp_path / "dot.cpp"
    source.write_text(
        'extern "C" void __sanitizer_cov_trace_pc() {}\n'
        'extern "C" float dot(const float* a, const float* b, int n) {\n'
        "  float sum = 0;\n"
        "  for (int i = 0; i < n; ++i) sum += a[i] * b[i];\n"
        "  return sum;\n"
        "}\n"
    )
    library = tmp_path / "dot.so"
    flags = ["-O2", "-shared", "-fPIC", "-mfma", "-fno-tree-vectorize", "-fsanitize-coverage=trace-pc"]
    subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True)
    return library


def test_machine_code_of_a_compiled_file(module: Path) -> None:
    text = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", module], check=True, capture_output=True, text=True
    ).stdout
    lines = text.splitlines()
    after_calls = [
        int(lines[index + 1].partition(":")[0], 16)
        for index, line in enumerate(lines)
        if "call" in line and "<__sanitizer_cov_trace_pc" in line
    ]
    assert len(after_calls) >= 2
    found = machine_code.read_blocks((str(module), offset) for offset in after_calls)
    assert sum((own.operations for own in found.values()), Operations()) == Operations(fma32=1)
    assert not any(own.calls for own in found.values())


def test_machine_code_of_other_machines_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(
        NoMachineCode, match="x86-64's machine code is the only one that is read, and this machine is aarch64"
    ):
        machine_code.read_blocks([("kernels.so", 0)])


def test_without_objdump_the_rest_still_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (report,) = analyse([launch()], {})
    assert report.issued is None
    assert report.prediction.missing == (
        "no floating-point instructions counted: objdump is not on PATH, which reads the machine code: install binutils",
    )
    assert report.totals.memory_instructions == 100


def test_operations_are_counted_by_warps_and_by_lanes() -> None:
    counted = machine_code.count(launch().code, {("kernels.so", 0): BlockCode(Operations(fma32=3))})
    assert (counted.issued.fma, counted.active.fma) == (300, 4800)


# --- The model.


def predict(what: Launch, issued: Operations | None = None, imbalance: float = 1.0) -> model.Prediction:
    return model.predict(what, totals(what), issued or Operations(), imbalance)


def test_the_largest_resource_is_the_limiter() -> None:
    far = buffer(bytes=10**9, read_sectors=10**8, block_read_sectors=10**8)
    assert predict(launch(buffers=[far])).limiter.key == "dram"
    again = buffer(bytes=3200, read_sectors=100, block_read_sectors=10**8)
    assert predict(launch(buffers=[again])).limiter.key == "l2"
    conflicts = site(space="shared", buffer="tile", wavefronts=10**8, least_wavefronts=100)
    assert predict(launch(sites=[conflicts])).limiter.key == "l1"
    assert predict(launch(sites=[site(lines=10**8)])).limiter.key == "l1"
    assert predict(launch(sites=[site(wavefronts=10**8)])).limiter.key == "l1"
    assert (
        predict(launch(), Operations(fma32=1e8)).limiter.key == "issue"
    )  # as long as fp32, and the other instructions
    assert predict(launch(), Operations(division32=1e8)).limiter.key == "fp32"
    assert predict(launch(), Operations(fma64=1e8)).limiter.key == "fp64"
    assert predict(launch(block_barriers=10**8)).limiter.key == "issue"


def test_times_are_work_over_rate_and_the_launch_is_added() -> None:
    what = launch(buffers=[buffer(bytes=10**9, read_sectors=10**8, block_read_sectors=10**8)])
    found = predict(what, Operations(fma32=1e6))
    times = {resource.key: resource.seconds for resource in found.resources}
    assert times["dram"] == pytest.approx(32e8 / DRAM_RATE.value)
    assert times["fp32"] == pytest.approx(32e6 / 33.4e12, rel=0.01)
    assert found.seconds == pytest.approx(times["dram"] + found.launch_seconds)
    assert not found.launch_bound
    assert predict(launch()).launch_bound


def test_matrix_products_take_the_tensor_cores_and_issue_slots() -> None:
    products, each = 10**6, 16 * 8 * 16
    found, without = (
        {resource.key: resource for resource in predict(what, Operations(fma32=1e3)).resources}
        for what in (launch(matrix_products=products, matrix_multiply_adds=products * each), launch())
    )
    # At 62.9 % of 2048 multiply-adds a clock and multiprocessor.
    assert found["tensor"].seconds == pytest.approx(
        products * each / (0.629 * 2048 * SMS.value * CLOCK.value), rel=0.01
    )
    assert "tensor" not in without
    assert found["issue"].work - without["issue"].work == products


def test_one_multiprocessor_with_more_blocks_is_waited_for_but_not_by_dram() -> None:
    alone, shared = (predict(launch(), Operations(fma32=1e6), imbalance) for imbalance in (13.2, 1.0))
    slower = {one.key: one.seconds for one in alone.resources}
    for resource in shared.resources:
        assert slower[resource.key] == pytest.approx(resource.seconds * (1 if resource.key in ("dram", "l2") else 13.2))


def test_a_division_and_a_maximum_take_longer_than_a_multiply_add() -> None:
    assert model.pipe_slots(Operations(fma32=1, compare32=1, division32=1)) == (1 + 2 + 10, 0)
    assert model.pipe_slots(Operations(fma64=1, other64=1)) == (0, 2)


def test_a_sampled_launch_has_the_whole_launchs_time() -> None:
    whole = launch(blocks=40, blocks_run=40, sites=[site(instructions=400, wavefronts=400, lines=400)])
    part = launch(blocks=40, blocks_run=10)
    assert model.l1_clocks(part) == model.l1_clocks(whole) == 400


def test_clocks_of_a_global_access_go_by_its_wavefronts_or_by_its_lines() -> None:
    def clocks(**values: Any) -> float:
        return model.site_clocks(launch(sites=[site(**values)]).sites[0])

    assert clocks() == 100
    assert clocks(wavefronts=800, lines=800) == 800
    assert clocks(wavefronts=200, lines=3200) == pytest.approx(54 + 0.255 * 3200)
    # Its data take the wavefronts of the shared array that they are for.
    assert clocks(wavefronts=800, access="async copy") == pytest.approx(54 + 25.5)
    assert clocks(space="shared", wavefronts=200, lines=0) == 200


# Clocks per load on an H200, from github.com/te42kyfo/gpu-benches, gpu-strides/h200.txt: of 32 lanes `stride` elements apart, and of
# rows of `block` elements that are 4098 elements apart. Each is the average of eight loads, at these offsets from one another.
OFFSETS = (0, 4, 8, 12, 16, 20, 24, 28)
STRIDES = {
    4: (1.01, 1.01, 2.01, 1.63, 4.01, 2.00, 2.32, 2.41, 8.0, 3.00, 3.16, 3.41, 4.01, 4.10, 4.25, 4.60),
    8: (2.01, 2.01, 4.01, 2.32, 8.0, 3.16, 4.01, 4.32, 16.0, 5.3, 5.5, 6.0, 8.0, 7.0, 7.0, 8.0),
}
BLOCKS = {
    4: {1: 9.3, 2: 4.82, 4: 3.00, 8: 4.01, 16: 2.01, 32: 1.02, 64: 1.02},
    8: {1: 9.0, 2: 5.3, 4: 4.01, 8: 4.01, 16: 2.01, 32: 2.01, 64: 2.01},
}


def measured_loads() -> Iterator[tuple[str, int, list[int], float]]:
    """What it is, the bytes of an element, each lane's element in 32 warps, and the clocks."""
    threads = range(1024)
    for width, clocks in STRIDES.items():
        for stride, measured in enumerate(clocks):
            yield f"stride {stride}", width, [thread % 64 * stride for thread in threads], measured
    for width, rows in BLOCKS.items():
        for block, measured in rows.items():
            elements = [thread % block + (thread // block % 32 + 1) * 4098 for thread in threads]
            yield f"block {block}", width, elements, measured


def counted_load(addresses: list[int], width: int) -> tuple[int, int]:
    """Wavefronts and lines of one warp's load, by the rules of csrc/emulator/checked/counters.h."""
    wavefronts = 0
    lanes = 128 // width  # that are served at a time
    for first in range(0, 32, lanes):
        words = {word for at in addresses[first : first + lanes] for word in range(at // 4, (at + width) // 4)}
        wavefronts += max(sum(word % 32 == bank for word in words) for bank in range(32))
    return wavefronts, len({at // 128 for at in addresses})


def test_l1_clocks_are_those_that_an_h200_takes() -> None:
    errors = {}
    for what, width, elements, measured in measured_loads():
        found = 0.0
        for warp in range(0, 1024, 32):
            for offset in OFFSETS:
                addresses = [(element + offset) * width for element in elements[warp : warp + 32]]
                wavefronts, lines = counted_load(addresses, width)
                one = launch(sites=[site(width=width, instructions=1, wavefronts=wavefronts, lines=lines)])
                found += model.l1_clocks(one)
        errors[what, width] = found / (32 * len(OFFSETS)) / measured - 1
    assert len(errors) == 46
    worst = sorted(errors, key=errors.__getitem__)
    assert (worst[0], worst[-1]) == (("block 2", 8), ("stride 14", 8))
    assert (errors[worst[0]], errors[worst[-1]]) == pytest.approx((-0.13, 0.10), abs=0.005)
    assert (sum(error**2 for error in errors.values()) / 46) ** 0.5 == pytest.approx(0.036, abs=0.0005)


def test_issued_instructions_are_those_that_are_counted() -> None:
    what = launch()  # 20 block barriers of 4 warps, 5 warp barriers, 7 shuffles, 100 loads
    assert model.counted_instructions(what, totals(what), Operations(fma32=50, other64=3)) == 80 + 5 + 7 + 100 + 53


def test_every_constant_has_a_source() -> None:
    found = constants()
    assert len(found) > 15
    assert "3.6 %" in found["l1_line_clocks"].source and "13 %" in found["l1_line_clocks"].source
    for constant in found.values():
        assert constant.kind in ("documented", "measured", "assumed")
        assert len(constant.source) > 10
        assert constant.unit
    assert FP32_LANES.value * SMS.value * CLOCK.value == pytest.approx(33.4e12, rel=0.005)


# --- Lines.


def test_the_dearest_lines_are_those_of_the_limiter() -> None:
    sites = [
        site(line=10, space="shared", buffer="tile", wavefronts=10**8, least_wavefronts=100),
        site(line=11, space="shared", buffer="tile", wavefronts=3 * 10**8, least_wavefronts=100),
    ]
    what = launch(sites=sites)
    limiter = predict(what).limiter
    first, second = dearest_lines(what, None, limiter)
    assert (first.line.number, first.share, second.line.number, second.share) == (11, 0.75, 10, 0.25)
    assert first.seconds + second.seconds == pytest.approx(limiter.seconds)
    assert first.text == SOURCE.read_text().splitlines()[10].strip() != ""
    assert first.line.place == "gather.cuh:11"


def test_a_cache_line_served_once_is_shared_out_by_sectors() -> None:
    far = buffer(bytes=10**9, read_sectors=10**8, block_read_sectors=10**8)
    what = launch(
        buffers=[far], sites=[site(line=10, sectors=100), site(line=11, sectors=300), site(line=11, access="store")]
    )
    costs = dearest_lines(what, None, predict(what).limiter)
    assert [(cost.line.number, cost.share) for cost in costs] == [(11, 0.75), (10, 0.25)]


def test_lines_of_arithmetic() -> None:
    what = launch(code=[code(line=5), code(line=6, offset=8)])
    per_block = (Operations(fma32=100), Operations(fma32=300))
    counted = Counted(per_block[0] + per_block[1], Operations(), per_block)
    fp32 = next(one for one in predict(what, Operations(fma32=400)).resources if one.key == "fp32")
    assert [(cost.line.number, cost.share) for cost in dearest_lines(what, counted, fp32)] == [(6, 0.75), (5, 0.25)]


# --- All of it for a machine.


def test_json_is_complete_and_can_be_written() -> None:
    report = PassReport("fprop f32", analyse([launch(sites=[site(), site(space="shared", buffer="tile")])], {}))
    content = json.loads(json.dumps(as_json("a layer", [report])))
    (one,) = content["passes"][0]["launches"]
    assert one["counted"]["sites"][0]["sectors"] == 400
    assert one["model"]["limiter"] in {resource["key"] for resource in one["model"]["resources"]}
    assert (one["occupancy"]["blocks"], one["occupancy"]["resident_warps"]) == (16, 4)
    assert one["remarks"] == [
        "At most 4 warps on an SM at a time: few to hide latency, which the times leave out and which then often dominates."
    ]
    assert {key: one["tensors"][0][key] for key in ("wavefronts", "least_wavefronts", "lines", "conflicts")} == {
        "wavefronts": 100, "least_wavefronts": 100, "lines": 100, "conflicts": 0,
    }  # fmt: skip
    assert content["notice"] == "a model's prediction, not a measurement"
    assert content["constants"]["dram_rate"]["source"]
