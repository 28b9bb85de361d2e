"""The emulator itself: that it does what CUDA does, and that it catches what a kernel does wrong.

The kernels are in tests/cpp/emulator_kernels.cpp.
"""

import itertools
import math
import struct

import numpy as np
import pytest

from cnnkernels.testing import emulator

SCHEDULES = [("forward", 0), ("reverse", 0), ("random", 1), ("random", 2)]


@pytest.fixture(
    params=list(itertools.product(SCHEDULES, [1, 2])), ids=lambda p: f"{p[0][0]}{p[0][1]}-{p[1]}threads", autouse=True
)
def schedule(request):
    (name, seed), threads = request.param
    with emulator(threads=threads, schedule=name, seed=seed):
        yield name, seed


def test_indices_of_a_three_dimensional_grid(kernels):
    expected = [
        tx + 10 * ty + 100 * tz + 1000 * bx + 10000 * by + 100000 * bz
        for bz, by, bx, tz, ty, tx in itertools.product(range(2), range(3), range(2), range(2), range(3), range(4))
    ]
    assert kernels.run("indices", 288) == expected


@pytest.mark.parametrize("kind", ["reverse_through_shared", "reverse_through_dynamic_shared"])
def test_shared_memory_and_barrier(kernels, kind):
    assert kernels.run(kind, 64) == list(range(63, -1, -1))


def test_every_block_finds_shared_memory_poisoned(kernels):
    assert kernels.run("poison", 64) == [1] * 64


def test_named_barriers_of_parts_of_a_block(kernels):
    assert kernels.run("named_barriers", 128) == [(i + 3) % 64 for i in range(64)] + [(i + 4) % 64 for i in range(64)]


def test_arrive_without_waiting(kernels):
    assert kernels.run("arrive_and_wait", 32) == [i + 7 for i in range(32)]


def test_barrier_reductions(kernels):
    assert kernels.run("barrier_reductions", 64) == [2210] * 64


def test_shuffles(kernels):
    rows = np.array(kernels.run("shuffles", 512)).reshape(64, 8)
    lane = np.arange(64) % 32
    segment = lane // 8 * 8
    expected = [
        np.full(64, 3),
        np.where(lane >= 2, lane - 2, lane),
        np.where(lane < 30, lane + 2, lane),
        lane ^ 5,
        segment + 1,
        np.where(lane - segment >= 3, lane - 3, lane),
        np.where(lane - segment < 5, lane + 3, lane),
        lane ^ 16,
    ]
    np.testing.assert_array_equal(rows, np.stack(expected, axis=1))


def test_votes_matches_and_reductions(kernels):
    rows = np.array(kernels.run("votes", 192)).reshape(32, 6)
    odd = np.array(0xAAAAAAAA, np.uint32).view(np.int32)
    match = np.array([0xFF << (i // 8 * 8) for i in range(32)], np.uint64).astype(np.uint32).view(np.int32)
    np.testing.assert_array_equal(rows[:, 0], odd)
    np.testing.assert_array_equal(rows[:, 1], 1)
    np.testing.assert_array_equal(rows[:, 2], 0)
    np.testing.assert_array_equal(rows[:, 3], match)
    np.testing.assert_array_equal(rows[:, 4], 31 * 32 // 2)
    np.testing.assert_array_equal(rows[:, 5], 30)


def test_masks_of_half_a_warp(kernels):
    assert kernels.run("half_warp_masks", 64) == [(i % 32) ^ 1 for i in range(64)]


def test_atomics_across_blocks(kernels):
    assert kernels.run("atomics", 7) == [1280, 1279, -31, 255, 1, 42, 0]


def test_floating_point_atomics(kernels):
    assert kernels.run("floating_atomics", 2) == [2016, 2016]


def test_vector_types_have_cuda_sizes_and_alignments(kernels):
    assert kernels.run("vector_types", 5) == [10, 11, 1616, 404, 1612]


def test_schedule_is_what_was_asked(kernels, schedule):
    count, *order = kernels.run("order_of_threads", 65)
    assert count == 64
    assert sorted(order) == list(range(64))
    name, seed = schedule
    if name == "forward":
        assert order == list(range(64))
    elif name == "reverse":
        assert order == list(range(63, -1, -1))
    else:
        assert order == kernels.run("order_of_threads", 65)[1:]
        with emulator(threads=1, schedule="random", seed=seed + 1):
            assert order != kernels.run("order_of_threads", 65)[1:]


FAULTS = {
    "divergent_barrier": r"divergent barrier: barrier 0 was reached by 96 of 128 threads; thread \(96,0,0\) has returned",
    "barrier_after_return": r"divergent barrier: barrier 0 was reached by 63 of 64 threads; thread \(7,0,0\) has returned",
    "barriers_crossed": r"divergent barrier: barrier 1 was reached by 64 of 128 threads; thread \(64,0,0\) waits at barrier 2",
    "barrier_counts_disagree": r"barrier 1 is used with \d+ threads while others wait at it for \d+",
    "barrier_count_not_warps": r"barrier 1: a thread count of 40 is not a multiple of the warp size",
    "barrier_unknown": r"barrier 16 does not exist",
    "shared_past_end": r"(thread \(63,0,0\): )?out-of-range shared memory access, 0 bytes past the end of 'tile' \(256 bytes\)",
    "shared_before_start": r"thread \(0,0,0\): out-of-range shared memory access, 4 bytes before the start of 'tile' \(256 bytes\)",
    "shared_write_past_end": r"out-of-range shared memory (write next to 'tile'|access, \d+ bytes past the end of 'tile')",
    "dynamic_shared_past_end": r"out-of-range shared memory (access, \d+ bytes past the end of|write next to) 'dynamic shared memory'",
    "too_much_static_shared": r"static shared memory over 48 KiB: 49156 bytes",
    "too_much_shared_together": r"shared memory over 227 KiB: 256 bytes beside 232448 dynamic ones",
    "null_pointer": r"thread \(5,0,0\): invalid memory access at 0x8",
    "stack_overflow": r"stack overflow",
    "shuffle_without_itself": r"__shfl_sync: the calling lane \d+ is not in its own mask",
    "shuffle_from_outside_mask": r"__shfl_sync reads lane 20, which is not in its mask",
    "shuffle_of_returned_lane": r"__shfl_xor_sync.*thread \(31,0,0\) has returned|__shfl_xor_sync: its mask names lane 31, which has returned",
    "shuffle_divergent": r"divergent warp operation: __shfl_xor_sync waits for lanes that never call it; thread \(16,0,0\) waits at barrier 0"
    r"|divergent barrier: barrier 0 was reached by 16 of 32 threads; thread \(0,0,0\) waits in __shfl_xor_sync",
    "warp_operations_disagree": r"mask does not agree with other lanes of the warp",
    "multiply_in_part_of_a_warp": r"divergent warp operation: mma.m16n8k16 waits for lanes that never call it|thread \(0,0,0\) waits in mma.m16n8k16",
    "multiply_with_missing_lanes": r"mma.m16n8k16: the warp has not 32 lanes",
    "trap": r"block \(1,0,0\), thread \(33,0,0\): __trap\(\)",
    "block_too_large": r"cannot be launched: block \(1025,1,1\) is over 1024 threads",
    "grid_too_tall": r"cannot be launched: grid \(1,65536,1\) is over",
    "too_much_dynamic_shared": r"cannot be launched: dynamic shared memory over 227 KiB",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_reported_with_its_place(kernels, fault):
    with pytest.raises(RuntimeError, match=FAULTS[fault]) as error:
        kernels.run(fault, 512)
    text = str(error.value)
    assert text.startswith(f"kernel '{fault}'")
    if "cannot be launched" not in text:
        assert "block (" in text
    # A fault leaves nothing behind: the next launch is sound.
    assert kernels.run("reverse_through_shared", 64) == list(range(63, -1, -1))


def test_every_faulty_kernel_is_expected_to_be_caught(kernels):
    sound = set(kernels.names()) - set(FAULTS)
    assert len(sound) == 26
    for name in sound:
        kernels.run(name, 512)


def test_fast_division(kernels):
    random = np.random.default_rng(0)
    limit = 2**31 - 1
    divisors = [
        *range(1, 70),
        2**16 - 1,
        2**16,
        2**16 + 1,
        2**30,
        limit - 1,
        limit,
        *random.integers(1, limit, 200).tolist(),
    ]
    for d in divisors:
        numerators = {0, 1, d - 1, d, min(2 * d - 1, limit), limit // d * d - 1, limit // d * d, limit}
        for n in [*numerators, *random.integers(0, limit, 20).tolist()]:
            assert kernels.fast_divide(n, d) == n // d


def test_half_precision_conversions_round_to_nearest_even(kernels):
    def bits(value: float) -> int:
        return struct.unpack("<I", struct.pack("<f", value))[0]

    random = np.random.default_rng(1)
    values = random.integers(0, 2**32, 20000, np.uint64).astype(np.uint32).view(np.float32)
    edges = np.array(
        [0, -0.0, 1, 65504, 65519.996, 65520, 5.9604645e-8, 2.9802322e-8, 2.98023259e-8, 6.1035156e-5, np.inf, -np.inf],
        np.float32,
    )
    for value in np.concatenate([values, edges]):
        if math.isnan(value):
            assert math.isnan(kernels.from_half(kernels.to_half(float(value))))
            assert math.isnan(kernels.from_bfloat16(kernels.to_bfloat16(float(value))))
            continue
        with np.errstate(over="ignore"):
            half = np.float16(value)
        assert kernels.to_half(float(value)) == half.view(np.uint16)
        truncated, rest = divmod(bits(float(value)), 1 << 16)
        assert kernels.to_bfloat16(float(value)) == truncated + (
            rest > 0x8000 or (rest == 0x8000 and truncated % 2 == 1)
        )
    for pattern in range(0, 2**16, 7):
        back = kernels.from_half(pattern)
        expected = float(np.array(pattern, np.uint16).view(np.float16))
        assert back == expected or (math.isnan(back) and math.isnan(expected))
