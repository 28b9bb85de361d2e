"""The checked emulator's counters on kernels whose numbers are worked out by hand: tests/counters/textbook.cu.

A warp is 32 lanes, a sector 32 bytes; shared memory has 32 banks of 4 bytes. Unless a line says otherwise a kernel there runs 32 warps,
8 blocks of 4, and all tensors begin at a multiple of 512 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest

from cnnkernels.testing import trials
from cnnkernels.testing.emulation import Schedule
from cnnkernels.testing.trials import TrialResult

pytestmark = pytest.mark.checked_emulator

SOURCE = Path(__file__).parent / "counters" / "textbook.cu"
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
WARPS, BLOCKS = 32, 8


@pytest.fixture(scope="module")
def results() -> Mapping[tuple[str, str], TrialResult]:
    """By trial and schedule."""
    return {(r.name, r.schedule): r for r in trials.run(SOURCE, count=True, schedules=SCHEDULES)}


def launch_of(results: Mapping[tuple[str, str], TrialResult], trial: str) -> dict[str, Any]:
    """The counters of the trial's launch of the same name."""
    result = results[trial, "forward"]
    assert result.error is None
    (launch,) = (launch for launch in result.launches if launch["kernel"] == trial)
    return launch


def total(launch: dict[str, Any], access: str, buffer: str) -> dict[str, int]:
    """The counters of all places that make this access to this tensor or array, added up."""
    sites = [site for site in launch["sites"] if (site["access"], site["buffer"]) == (access, buffer)]
    assert sites, f"no {access} of {buffer}"
    names = (
        "instructions",
        "lanes",
        "bytes_asked",
        "bytes_used",
        "sectors",
        "least_sectors",
        "lines",
        "wavefronts",
        "least_wavefronts",
    )
    return {name: sum(site[name] for site in sites) for name in names}


class Sectors(NamedTuple):
    """Of one load or store of a warp with all its lanes."""

    width: int  # bytes that a lane asks for
    used: int  # different bytes
    sectors: int
    least: int  # sectors that could hold them


# Loads are of x, stores to y.
GLOBAL = {
    # 32 lanes, one after the other.
    ("copy_float4", "load"): Sectors(16, used=32 * 16, sectors=32 * 16 // 32, least=32 * 16 // 32),
    ("copy_float4", "store"): Sectors(16, used=32 * 16, sectors=32 * 16 // 32, least=32 * 16 // 32),
    ("copy_float2", "load"): Sectors(8, used=32 * 8, sectors=32 * 8 // 32, least=32 * 8 // 32),
    ("copy_float2", "store"): Sectors(8, used=32 * 8, sectors=32 * 8 // 32, least=32 * 8 // 32),
    ("copy_float", "load"): Sectors(4, used=32 * 4, sectors=32 * 4 // 32, least=32 * 4 // 32),
    ("copy_float", "store"): Sectors(4, used=32 * 4, sectors=32 * 4 // 32, least=32 * 4 // 32),
    ("copy_half", "load"): Sectors(2, used=32 * 2, sectors=32 * 2 // 32, least=32 * 2 // 32),
    ("copy_half", "store"): Sectors(2, used=32 * 2, sectors=32 * 2 // 32, least=32 * 2 // 32),
    ("copy_half2", "load"): Sectors(4, used=32 * 4, sectors=32 * 4 // 32, least=32 * 4 // 32),
    ("copy_half2", "store"): Sectors(4, used=32 * 4, sectors=32 * 4 // 32, least=32 * 4 // 32),
    ("spread_float4", "load"): Sectors(4, used=32 * 4, sectors=32 * 4 // 32, least=32 * 4 // 32),
    ("spread_float4", "store"): Sectors(16, used=32 * 16, sectors=32 * 16 // 32, least=32 * 16 // 32),
    # Every other float4 of 1024 bytes: half of each of their 32 sectors. Every other float of 256 bytes likewise.
    ("copy_float4_stride2", "load"): Sectors(16, used=32 * 16, sectors=32 * 32 // 32, least=32 * 16 // 32),
    ("copy_float4_stride2", "store"): Sectors(16, used=32 * 16, sectors=32 * 16 // 32, least=32 * 16 // 32),
    ("copy_float_stride2", "load"): Sectors(4, used=32 * 4, sectors=32 * 8 // 32, least=32 * 4 // 32),
    ("store_float_stride2", "load"): Sectors(4, used=32 * 4, sectors=32 * 4 // 32, least=32 * 4 // 32),
    ("store_float_stride2", "store"): Sectors(4, used=32 * 4, sectors=32 * 8 // 32, least=32 * 4 // 32),
    # 128 bytes from byte 4 on: the 4 sectors that they were in, and 4 bytes of a fifth. 512 bytes from byte 16 on: 16 and one.
    ("copy_float_offset1", "load"): Sectors(4, used=32 * 4, sectors=4 + 1, least=4),
    ("copy_float_offset1", "store"): Sectors(4, used=32 * 4, sectors=4, least=4),
    ("copy_float4_offset1", "load"): Sectors(16, used=32 * 16, sectors=16 + 1, least=16),
    # All lanes ask for the same 4 bytes.
    ("copy_broadcast", "load"): Sectors(4, used=4, sectors=1, least=1),
    # A column of rows of 16 floats, 64 bytes apart: a sector for each lane.
    ("copy_column", "load"): Sectors(4, used=32 * 4, sectors=32, least=32 * 4 // 32),
}


# Of the same: wavefronts of L1, whose 32 banks are shared memory's; the fewest possible; and lines of 128 bytes.
L1 = {
    ("copy_float4", "load"): (4, 4, 4),  # a quarter of a warp at a time
    ("copy_float4", "store"): (4, 4, 4),
    ("copy_float2", "load"): (2, 2, 2),  # half a warp at a time
    ("copy_float", "load"): (1, 1, 1),
    ("copy_half", "load"): (1, 1, 1),
    ("copy_float4_stride2", "load"): (8, 4, 8),  # 8 lanes over 256 bytes: two words in each bank that is used
    ("copy_float_stride2", "load"): (2, 1, 2),
    ("store_float_stride2", "store"): (2, 1, 2),
    ("copy_float_offset1", "load"): (1, 1, 2),  # 32 words in a row, of two lines
    ("copy_float4_offset1", "load"): (4, 4, 5),
    ("copy_broadcast", "load"): (1, 1, 1),
    ("copy_column", "load"): (16, 1, 16),  # 16 words apart: banks 0 and 16; two lanes to a line
}


@pytest.mark.parametrize(("trial", "access"), GLOBAL, ids=lambda name: name)
def test_sectors(results, trial, access):
    expected = GLOBAL[trial, access]
    launch = launch_of(results, trial)
    buffer = {"load": "x", "store": "y"}[access]
    assert {site["width"] for site in launch["sites"] if site["access"] == access} == {expected.width}
    counted = total(launch, access, buffer)
    assert {name: counted[name] for name in counted if name not in ("wavefronts", "least_wavefronts", "lines")} == {
        "instructions": WARPS,
        "lanes": WARPS * 32,
        "bytes_asked": WARPS * 32 * expected.width,
        "bytes_used": WARPS * expected.used,
        "sectors": WARPS * expected.sectors,
        "least_sectors": WARPS * expected.least,
    }


@pytest.mark.parametrize(("trial", "access"), L1, ids=lambda name: name)
def test_wavefronts_of_l1(results, trial, access):
    counted = total(launch_of(results, trial), access, {"load": "x", "store": "y"}[access])
    per_warp = tuple(counted[name] / WARPS for name in ("wavefronts", "least_wavefronts", "lines"))
    assert per_warp == L1[trial, access]


def test_coalescing_efficiency(results):
    def efficiency(trial: str) -> float:
        load = total(launch_of(results, trial), "load", "x")
        return load["least_sectors"] / load["sectors"]

    assert efficiency("copy_float4") == 1
    assert efficiency("copy_float4_stride2") == 1 / 2
    assert efficiency("copy_float_offset1") == 4 / 5
    assert efficiency("copy_column") == 1 / 8


class Traffic(NamedTuple):
    """Of one tensor: different bytes and sectors in the launch, and in each block, added up."""

    bytes: int
    block_bytes: int
    sectors: int
    block_sectors: int


READ = {
    "copy_float4": Traffic(1024 * 16, 1024 * 16, 1024 * 16 // 32, 1024 * 16 // 32),
    # Half of the bytes, but all sectors.
    "copy_float_stride2": Traffic(1024 * 4, 1024 * 4, 2 * 1024 * 4 // 32, 2 * 1024 * 4 // 32),
    # 8 blocks, each with an element of its own, all in the first sector.
    "copy_broadcast": Traffic(BLOCKS * 4, BLOCKS * 4, 1, BLOCKS),
    # Blocks read neighbouring columns of 128 rows: each of them all the same sectors.
    "copy_column": Traffic(1024 * 4, 1024 * 4, 128, BLOCKS * 128),
    # A block reads 130 elements, of which 2 are the next one's. 520 bytes from a multiple of 512 on are 16 sectors and one.
    "sum_three": Traffic(1026 * 4, BLOCKS * 130 * 4, 1024 * 4 // 32 + 1, BLOCKS * 17),
}


@pytest.mark.parametrize("trial", READ)
def test_traffic_of_tensors(results, trial):
    launch = launch_of(results, trial)
    buffers = {buffer["name"]: buffer for buffer in launch["buffers"]}
    x, y = buffers["x"], buffers["y"]
    assert (x["read_bytes"], x["block_read_bytes"], x["read_sectors"], x["block_read_sectors"]) == READ[trial]
    assert x["use"] == "input" and x["written_bytes"] == x["block_written_bytes"] == x["written_sectors"] == 0
    width = 16 if trial == "copy_float4" else 4
    assert y["use"] == "output" and y["read_bytes"] == 0
    assert y["bytes"] == y["written_bytes"] == y["block_written_bytes"] == 1024 * width
    assert y["written_sectors"] == y["block_written_sectors"] == 1024 * width // 32


def test_sum_of_three_loads_each_element_thrice(results):
    load = total(launch_of(results, "sum_three"), "load", "x")
    assert load["instructions"] == 3 * WARPS
    # From byte 0, 4 and 8 on.
    assert load["sectors"] == WARPS * (4 + 5 + 5)
    assert load["least_sectors"] == WARPS * (4 + 4 + 4)


class Wavefronts(NamedTuple):
    """Of one load or store of one warp."""

    taken: int
    least: int


# A lane writes one element, and reads it back.
SHARED = {
    "shared_half": Wavefronts(1, 1),  # 16 words, each for two lanes
    "shared_float": Wavefronts(1, 1),  # 32 words in 32 banks
    "shared_float_stride2": Wavefronts(2, 1),  # 32 words in the 16 even banks
    "shared_float_stride3": Wavefronts(1, 1),  # 3 and 32 have no common divisor
    "shared_float_stride8": Wavefronts(8, 1),  # 32 words in 4 banks
    "shared_float2": Wavefronts(2, 2),  # half a warp at a time: 32 words in 32 banks
    "shared_float2_stride2": Wavefronts(
        2 * 2, 2
    ),  # half a warp: words 0, 1, 4, 5, ..., 60, 61: two in each of 16 banks
    "shared_float4": Wavefronts(4, 4),  # a quarter at a time: 32 words in 32 banks
    "shared_float4_stride2": Wavefronts(4 * 2, 4),  # a quarter: words 0 to 3, 8 to 11, ...: two in each of 16 banks
}


@pytest.mark.parametrize("trial", SHARED)
@pytest.mark.parametrize("access", ["load", "store"])
def test_wavefronts(results, trial, access):
    counted = total(launch_of(results, trial), access, "row")
    assert (counted["instructions"], counted["lanes"]) == (1, 32)
    assert (counted["wavefronts"], counted["least_wavefronts"]) == SHARED[trial]
    assert counted["sectors"] == 0


def test_words_that_many_lanes_read_are_read_once(results):
    counted = total(launch_of(results, "read_shared_again"), "load", "row")
    assert (counted["instructions"], counted["wavefronts"], counted["least_wavefronts"]) == (2, 2, 2)
    assert counted["bytes_asked"] == 2 * 32 * 4
    assert counted["bytes_used"] == 4 + 16 * 4


@pytest.mark.parametrize(("trial", "pitch", "column_wavefronts"), [("transpose", 32, 32), ("transpose_padded", 33, 1)])
def test_transpose(results, trial, pitch, column_wavefronts):
    launch = launch_of(results, trial)
    # 8 warps, 4 rows each: written along rows, read along columns.
    store, load = total(launch, "store", "tile"), total(launch, "load", "tile")
    assert store["instructions"] == load["instructions"] == 32
    assert store["wavefronts"] == store["least_wavefronts"] == 32
    assert load["wavefronts"] == 32 * column_wavefronts
    assert load["least_wavefronts"] == 32
    assert launch["static_shared_bytes"] == 32 * pitch * 4
    assert launch["block_barriers"] == 1
    for access, buffer in (("load", "x"), ("store", "y")):
        counted = total(launch, access, buffer)
        assert counted["sectors"] == counted["least_sectors"] == 32 * 4


def test_asynchronous_copies(results):
    launch = launch_of(results, "copy_asynchronously")
    source, target = total(launch, "async copy", "x"), total(launch, "async copy", "row")
    assert (source["instructions"], source["bytes_used"]) == (1, 32 * 16)
    assert source["sectors"] == source["least_sectors"] == 32 * 16 // 32
    assert target["wavefronts"] == target["least_wavefronts"] == 4
    assert {site["access"] for site in launch["sites"] if site["buffer"] == "x"} == {"async copy"}


class Load(NamedTuple):
    """All loads of x in a launch."""

    instructions: int
    lanes: int
    sectors: int
    least: int


CONTROL_FLOW = {
    # One warp, 20 lanes of it: 80 bytes.
    "copy_predicated": Load(1, 20, sectors=3, least=3),
    # 60 threads: a warp with 128 bytes and one with 112.
    "copy_odd_block": Load(2, 60, sectors=4 + 4, least=4 + 4),
    # Lane l takes l % 4 + 1 rounds of 32 floats: of each 4 lanes first 4, then 3, 2 and 1 are left, in each of the 4 sectors.
    "loop_divergent": Load(4, 8 * (4 + 3 + 2 + 1), sectors=4 * 4, least=4 + 3 + 2 + 1),
    # Of a 3 x 3 window in 4 rows of 32, rows have 2, 3, 3 and 2 source rows, and each of these is read by lanes 1 to 31, by all, and by
    # lanes 0 to 30. Lanes that leave out a tap wait for the others: 3 instructions per source row, of 4 sectors each.
    "loop_with_continue": Load(10 * 3, 10 * (31 + 32 + 31), sectors=10 * 3 * 4, least=10 * 3 * 4),
    # Odd lanes leave the loop in its 7th round, even ones in the 8th and last.
    "loop_with_break": Load(8, 7 * 32 + 16, sectors=8 * 4, least=7 * 4 + 2),
    # Even lanes read the first 16 floats, odd ones the last, one side of the branch after the other.
    "branch": Load(2, 16 + 16, sectors=2 + 2, least=2 + 2),
}


@pytest.mark.parametrize("trial", CONTROL_FLOW)
def test_lanes_are_grouped_as_a_warp_runs_them(results, trial):
    expected = CONTROL_FLOW[trial]
    launch = launch_of(results, trial)
    load = total(launch, "load", "x")
    assert (load["instructions"], load["lanes"], load["sectors"], load["least_sectors"]) == expected
    # Behind the branch or loop the lanes are together again.
    blocks, threads = launch["blocks"], launch["block"][0] * launch["block"][1]
    store = total(launch, "store", "y")
    assert (store["instructions"], store["lanes"]) == (blocks * -(-threads // 32), blocks * threads)


def test_atomics(results):
    counted = total(launch_of(results, "count_atomically"), "atomic", "bins")
    assert (counted["instructions"], counted["lanes"]) == (WARPS, WARPS * 32)
    # 32 lanes on 4 integers in one sector.
    assert (counted["bytes_asked"], counted["bytes_used"]) == (WARPS * 32 * 4, WARPS * 4 * 4)
    assert counted["sectors"] == counted["least_sectors"] == WARPS


def test_arithmetic_without_accesses_is_counted_by_its_code(results):
    launch = launch_of(results, "multiply_add")
    text = SOURCE.read_text().splitlines()
    (body,) = (number for number, line in enumerate(text, start=1) if line.endswith("// body"))
    # The loop of 100 rounds is the two lines from `for` on.
    counts = [(block["warps"], block["lanes"]) for block in launch["code"] if block["line"] in (body - 1, body)]
    assert (100 * WARPS, 100 * WARPS * 32) in counts
    assert max(counts) == (100 * WARPS, 100 * WARPS * 32)


def test_barriers_exchanges_and_shared_memory(results):
    launch = launch_of(results, "meet")
    assert launch["block_barriers"] == BLOCKS * 2
    assert launch["warp_barriers"] == WARPS
    assert launch["shuffles"] == WARPS * 5  # log2 of 32
    assert launch["static_shared_bytes"] == 4
    assert launch["dynamic_shared_bytes"] == 128 * 4


def test_launch_is_described(results):
    launch = launch_of(results, "copy_float4")
    assert (launch["grid"], launch["block"]) == ([BLOCKS, 1, 1], [128, 1, 1])
    assert launch["blocks"] == launch["blocks_run"] == BLOCKS
    assert launch["symbol"] == "_Z4copyI6float4EvPKT_PS1_"
    assert {site["line"] for site in launch["sites"]} == {
        number
        for number, line in enumerate(SOURCE.read_text().splitlines(), start=1)
        if "y[index()] = x[index()];" in line
    }
    assert {Path(site["file"]) for site in launch["sites"]} == {SOURCE}


def test_counters_do_not_depend_on_the_schedule(results):
    for (trial, schedule), result in results.items():
        assert result.launches == results[trial, "forward"].launches, (trial, schedule)
