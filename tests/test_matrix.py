"""The matrix instructions (csrc/common/matrix.h): which element of which matrix each register of each lane is.

The tables are those of the PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type", "... mma.m16n8k8", "... mma.m8n8k4" and "ldmatrix".
The kernels are in tests/cpp/emulator_kernels.cpp.
"""

import numpy as np
import pytest

from cnnkernels.testing import emulator

# Of a lane with g = lane / 4 and t = lane % 4: the (row, column) of each place in its registers of a, b and the sums; two places in a register of
# halves, the lower bits first.
FRAGMENTS = {
    "f16": (
        lambda g, t: [(g + 8 * (i % 4 >= 2), 2 * t + i % 2 + 8 * (i >= 4)) for i in range(8)],
        lambda g, t: [(2 * t + i % 2 + 8 * (i >= 2), g) for i in range(4)],
        lambda g, t: [(g + 8 * (i >= 2), 2 * t + i % 2) for i in range(4)],
    ),
    "tf32": (
        lambda g, t: [(g + 8 * (i in (1, 3)), t + 4 * (i >= 2)) for i in range(4)],
        lambda g, t: [(t + 4 * i, g) for i in range(2)],
        lambda g, t: [(g + 8 * (i >= 2), 2 * t + i % 2) for i in range(4)],
    ),
    "f64": (
        lambda g, t: [(g, t)],
        lambda g, t: [(t, g)],
        lambda g, t: [(g, 2 * t + i) for i in range(2)],
    ),
}
FRAGMENTS["bf16"] = FRAGMENTS["f16"]
FRAGMENTS["short_f16"] = FRAGMENTS["short_bf16"] = (
    lambda g, t: [(g + 8 * (i >= 2), 2 * t + i % 2) for i in range(4)],
    lambda g, t: [(2 * t + i, g) for i in range(2)],
    FRAGMENTS["f16"][2],
)
SHAPES = {"f16": (16, 8, 16), "bf16": (16, 8, 16), "tf32": (16, 8, 8), "f64": (8, 8, 4)}  # m, n, k
SHAPES["short_f16"] = SHAPES["short_bf16"] = (16, 8, 8)


@pytest.fixture(params=["forward", "reverse", "random"], autouse=True)
def schedule(request):
    with emulator(threads=1, schedule=request.param, seed=1):
        yield


def value(thread: int, place: int) -> int:
    """What `multiply_matrices` puts into that place."""
    hashed = ((thread * 8 + place) * 2654435761 % 2**32) >> 20
    return hashed % 41 - 20


@pytest.mark.parametrize("dtype", FRAGMENTS)
def test_every_register_is_the_element_that_the_isa_says(kernels, dtype):
    m, n, k = SHAPES[dtype]
    of_a, of_b, of_sums = FRAGMENTS[dtype]
    sums = len(of_sums(0, 0))
    found = kernels.run(f"multiply_{dtype}", 64 * sums)
    for warp in range(2):
        a, b, c = (np.full(shape, 10**6) for shape in ((m, k), (k, n), (m, n)))
        for lane in range(32):
            places = [
                (matrix, at) for matrix, of in ((a, of_a), (b, of_b), (c, of_sums)) for at in of(*divmod(lane, 4))
            ]
            for place, (matrix, at) in enumerate(places):
                matrix[at] = value(32 * warp + lane, place)
        assert max(abs(x).max() for x in (a, b, c)) <= 20, "every element is in some register"
        expected = a @ b + c
        for lane in range(32):
            at = sums * (32 * warp + lane)
            assert found[at : at + sums] == [expected[place] for place in of_sums(*divmod(lane, 4))], lane


@pytest.mark.parametrize("matrices", [1, 2, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_ldmatrix_gives_each_lane_two_neighbours(kernels, matrices, transposed):
    found = kernels.run(f"load_{matrices}{'_transposed' * transposed}", 64 * matrices)
    for thread in range(64):
        (g, t), first_lane = divmod(thread % 32, 4), thread // 32 * 32
        for i in range(matrices):
            # Row r of matrix i is the one whose address lane 8 i + r gives.
            rows = [[8 * ((first_lane + 8 * i + r) * 29 % 64) + e for e in range(8)] for r in range(8)]
            low, high = (rows[2 * t][g], rows[2 * t + 1][g]) if transposed else (rows[g][2 * t], rows[g][2 * t + 1])
            assert found[thread * matrices + i] == low | high << 16
