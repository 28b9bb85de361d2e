"""What `cnnkernels profile` says of counts: remarks, and the page in a wide and in a narrow terminal. The launches are made by hand."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from test_profile_model import buffer, code, launch, site

from cnnkernels.profile import text
from cnnkernels.profile.counters import tensor_traffic, totals
from cnnkernels.profile.hardware import L2_CAPACITY
from cnnkernels.profile.launches import Launch
from cnnkernels.profile.machine_code import BlockCode, Counted, Operations
from cnnkernels.profile.page import print_notice, print_pass
from cnnkernels.profile.passes import Useful
from cnnkernels.profile.remarks import remarks
from cnnkernels.profile.report import PassReport, analyse
from cnnkernels.profile.tables import Column, fitting

# --- Remarks.


def said(what: Launch, warps: int = 64, shared: int = 0, counted: Counted | None = None, dtype: str = "") -> str:
    return " ".join(remarks(what, tuple(tensor_traffic(what)), totals(what), warps, shared, counted, dtype))


def test_nothing_is_remarked_of_a_launch_that_keeps_to_the_model() -> None:
    assert said(launch(), dtype="f32", counted=Counted(Operations(fma32=1), Operations(), ())) == ""


def test_l2_that_is_too_small_is_remarked_where_blocks_read_again() -> None:
    sectors = L2_CAPACITY.count // 32

    def touching(sectors: int, by_blocks: int) -> str:
        tensor = buffer(bytes=10**9, read_sectors=sectors, block_read_sectors=by_blocks)
        return said(launch(buffers=[tensor], blocks=10**6, blocks_run=10**6))

    assert "touches 64 MB, more than the 50 MB of L2" in touching(2 * 10**6, 4 * 10**6)
    assert "up to 128 MB in all" in touching(2 * 10**6, 4 * 10**6)
    assert touching(2 * 10**6, 2 * 10**6) == "", "each byte once: nothing is to be kept"
    assert touching(sectors, 2 * sectors) == ""


def test_l1_that_is_too_small_is_remarked_where_a_block_reads_again() -> None:
    block = 200_000
    large = buffer(bytes=10**9, read_bytes=block, block_read_bytes=10 * block, block_read_sectors=10 * block // 32)
    again, once = (launch(buffers=[large], sites=[site(bytes_asked=10 * block * reads)]) for reads in (2, 1))
    assert "A block reads 200 kB of global memory, more than the 161 kB that its shared memory leaves" in said(
        again, shared=100_000
    )
    assert said(again, shared=50_000) == ""
    assert said(once, shared=100_000) == ""


def test_few_warps_are_remarked() -> None:
    assert "At most 4 warps on an SM at a time" in said(launch(), warps=4)
    assert "At most 1 warp on" in said(launch(), warps=1)
    assert said(launch(), warps=8) == ""


def test_what_is_not_counted_as_arithmetic_is_remarked() -> None:
    calls = Counted(Operations(), Operations(), (), ("expf", "powf"))
    assert said(launch(), counted=calls) == "Calls of expf, powf are not counted as arithmetic."
    convolution, pooling = (Counted(own, Operations(), ()) for own in (Operations(fma32=1), Operations(compare32=1)))
    assert "bf16 is computed on the fp32 pipe, 67 TFLOP/s at most, not by tensor cores" in said(
        launch(), counted=convolution, dtype="bf16"
    )
    assert said(launch(), counted=pooling, dtype="f16") == "Conversions between f16 and fp32 are not counted."


def test_atomics_are_remarked() -> None:
    assert "Atomic operations of several lanes on one word" in said(
        launch(sites=[site(space="shared", access="atomic")])
    )


def test_sampling_is_remarked() -> None:
    assert "Sampled: 10 of 4,000 blocks were run" in said(launch(blocks=4000))
    assert "Sampled: 1 of 7 blocks was run" in said(launch(blocks=7, blocks_run=1))


# --- The page.


def page(report: PassReport, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_pass(console, report)
    print_notice(console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def wide_report() -> PassReport:
    """Whatever may be long is: names, numbers of three digits and a prefix, notes, a line of source."""
    names = ("grad_output", "weight")
    touched = {
        "read_sectors": 10**7,
        "block_read_sectors": 3 * 10**7,
        "read_bytes": 10**7,
        "block_read_bytes": 25 * 10**6,
    }
    tensors = [buffer(name=name, bytes=10**9, **touched) for name in names]
    counts = {"instructions": 789_000, "bytes_asked": 98_700_000, "sectors": 456_000, "least_sectors": 123_000}
    waves = {"wavefronts": 12_300_000, "least_wavefronts": 1_230_000}
    shared = counts | waves | {"space": "shared", "buffer": "dynamic shared memory"}
    sites = [
        site(buffer="grad_output", line=40, **counts | waves),
        site(buffer="weight", offset=32, line=41, **counts),
        site(offset=48, line=42, **shared),
        site(offset=64, line=43, access="store", **shared),
    ]
    what = launch(buffers=tensors, sites=sites, code=[], blocks=133, blocks_run=133)
    return PassReport("net:layer fprop f32 nchw", analyse([what], {}), {"text": "conv2d as made up"}, Useful(1, 4800))


@pytest.mark.parametrize("width", [72, 80, 100, 120])
def test_no_number_is_cut_off_however_narrow_the_terminal(width: int) -> None:
    report = wide_report()
    lines = page(report, width).splitlines()
    assert max(map(len, lines)) <= width
    rows = {line.split("  ")[0].strip(): line for line in lines}
    (one,) = report.launches
    expected = {r.name: (text.si(r.work, r.unit), text.duration(r.seconds)) for r in one.prediction.resources}
    expected |= {f"{row.buffer} read": ("27 %", text.si(row.block_bytes, "B"), "3.95x") for row in one.tensors}
    expected |= {f"{row.array} {row.access}": ("12.3 M", "+900 %") for row in one.shared}
    expected |= {cost.line.place: (text.percent(cost.share), text.duration(cost.seconds)) for cost in one.lines[:3]}
    assert len(expected) == 12
    for name, numbers in expected.items():
        assert all(number in rows[name] for number in numbers), (rows.get(name), numbers)
    cut = [line for line in lines if "…" in line and not line.strip().startswith("gather.cuh:")]
    assert not cut, "but for the text of a line of source, nothing is shortened"
    words = " ".join(" ".join(lines).split())
    assert "limited by warps (registers unknown); this grid puts at most 2 there (8 warps)" in words
    assert words.count("again may come from") == 2


def test_what_goes_first_where_the_terminal_is_narrow() -> None:
    """The bar, then the notes, then the rates."""
    there = {}
    for width in (120, 80, 60, 45):
        lines = page(wide_report(), width).splitlines()
        (row,) = [line for line in lines if line.startswith(" L1 and shared")]
        there[width] = ["█" in row, "x 1.98 (busiest SM)" in row, "1 /clk/SM" in row, "283 µs" in row]
    assert there == {
        120: [True, True, True, True],
        80: [False, True, True, True],
        60: [False, False, True, True],
        45: [False, False, False, True],
    }


def test_a_table_that_no_column_can_leave_wraps_instead() -> None:
    console = Console(file=io.StringIO(), width=14, color_system=None)
    console.print(fitting(console, [Column("what", ["a long name"]), Column("work", ["123 lines"])]))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().split()[3:] == ["a", "123", "long", "lines", "name"]


def test_wavefronts_of_global_memory_are_shown_where_there_are_more_than_needed() -> None:
    conflicts, fine = (
        PassReport("", analyse([launch(sites=[site(wavefronts=count)], code=[])], {})) for count in (250, 100)
    )
    (row,) = [line for line in page(conflicts).splitlines() if line.startswith(" x read")]
    assert "+150 %" in row
    assert "conflicts" not in page(fine)


def test_occupancy_says_what_a_grid_makes_of_it() -> None:
    few = " ".join(page(PassReport("", analyse([launch(code=[])], {}))).split())
    assert "up to 16 blocks per SM = 64 of 64 warps (100 %)" in few
    assert "this grid puts at most 1 there (4 warps)" in few
    assert "At most 4 warps on an SM at a time" in few
    (many,) = analyse([launch(code=[], blocks=10**5, blocks_run=10**5)], {})
    assert (many.resident_blocks, many.resident_warps) == (16, 64)
    assert "this grid puts" not in page(PassReport("", (many,)))


def test_barriers_are_told_per_block() -> None:
    assert "2 barriers in each block; 5 warp barriers, 7 shuffles in the launch" in page(
        PassReport("", analyse([launch()], {}))
    )
    assert "1 barrier in each block" in page(PassReport("", analyse([launch(block_barriers=10)], {})))


def test_compulsory_bytes_say_how_indices_count() -> None:
    report = PassReport("", analyse([launch(code=[])], {}), useful=Useful(0, 1600, "without indices"))
    assert "1.6 kB at least for this pass, without indices; from DRAM 2.00x that" in page(report)


def test_what_is_slower_than_a_multiply_add_is_told_in_lane_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    def arithmetic(own: Operations) -> str:
        monkeypatch.setattr("cnnkernels.profile.report.read_blocks", lambda keys: {key: BlockCode(own) for key in keys})
        text = page(PassReport("", analyse([launch(code=[code(warps=1000, lanes=32000)])], {})))
        assert not re.search(r"\bFMA\b", text)
        return " ".join(text.split())

    pooling = arithmetic(Operations(compare32=3, other32=1))
    assert (
        "128 k floating-point operations in 224 k lane slots (2 a comparison, minimum or maximum, 1 any other)"
        in pooling
    )
    assert "fp32 224 k lane slots" in pooling
    sums = arithmetic(Operations(other32=2))
    assert "64 k floating-point operations active lanes" in sums
    assert "fp32 64 k lane slots" in sums
    both = arithmetic(Operations(fma32=2, division32=1))
    assert (
        "32 k other floating-point operations in 320 k lane slots (10 a division or square root, 1 any other)" in both
    )
    assert "fp32 384 k lane slots" in both


def test_ratios_and_parts_as_text() -> None:
    assert [text.times(ratio) for ratio in (None, 1, 1.234, 999.6, 15400)] == ["—", "1x", "1.23x", "1,000x", "15,400x"]
    assert [text.percent(part) for part in (None, 0.1234, 0.99996, 9.996, 31)] == [
        "—",
        "12.3 %",
        "100 %",
        "1,000 %",
        "3,100 %",
    ]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(6.67e-12, "< 1 ns"), (0.9996e-9, "1 ns"), (860e-9, "860 ns"), (2.3e-6, "2.3 µs"), (0, "0 ns"), (1.5, "1.5 s")],
)
def test_times_as_text(seconds: float, expected: str) -> None:
    assert text.duration(seconds) == expected
