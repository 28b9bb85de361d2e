"""What three shipped kernels move, counted by the checked emulator and worked out by hand.

The problems are chosen so that nothing is ragged: whole tiles, no padding. A warp is 32 lanes, a sector 32 bytes, so a warp that reads
32 consecutive floats touches 4 sectors, and one that reads 32 consecutive float4 touches 16.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from cnnkernels.profile.launches import Launch
from cnnkernels.profile.run import Job, run
from cnnkernels.profile.subject import parse_problem

pytestmark = pytest.mark.checked_emulator

LANES, SECTOR, FLOAT = 32, 32, 4


class Moved(NamedTuple):
    """Of one tensor or shared array and one kind of access: instructions of warps, and the sectors or wavefronts that they take."""

    instructions: int
    units: int
    least: int  # sectors or wavefronts without gaps or conflicts


def launches(problem: str, name: str, layout: str, kernel: str) -> list[Launch]:
    layer, _ = parse_problem(problem)
    (result,) = run([Job(layer, name, "f32", layout, kernel)])
    return result


def moved(launch: Launch, access: str, buffer: str, line_of: str = "") -> Moved:
    sites = [s for s in launch.sites if (s.access, s.buffer) == (access, buffer) and line_of in s.file]
    assert sites, f"no {access} of {buffer}"
    shared = sites[0].space == "shared"
    return Moved(
        sum(s.instructions for s in sites),
        sum(s.wavefronts if shared else s.sectors for s in sites),
        sum(s.least_wavefronts if shared else s.least_sectors for s in sites),
    )


def test_bias_gradient_reads_y_once_in_whole_sectors():
    """bias[k] = sum of y[n, k, p, q], channels_last: each warp reads one pixel of 32 channels at a time, 128 bytes."""
    N, K, P, Q = 2, 64, 8, 8
    partial, total = launches(f"n{N} c4 {P}x{Q} k{K} 3x3 pad 1", "bias_grad", "channels_last", "")

    # 32 channels to a block of 8 warps; 128 pixels are one slab. So 2 blocks, whose warps read every 8th pixel.
    assert (partial.kernel, partial.grid, partial.block) == ("conv2d_bias_grad_f32", (2, 1, 1), (256, 1, 1))
    loads = N * P * Q * K // LANES
    assert moved(partial, "load", "grad_output") == Moved(loads, loads * 4, loads * 4)
    assert loads * 4 * SECTOR == N * K * P * Q * FLOAT  # each byte of y once
    # Only the first warp of a block has a sum at the end of the tree.
    assert moved(partial, "store", "workspace") == Moved(2, 2 * 4, 2 * 4)
    # Every warp puts 32 sums side by side; then 4, 2 and 1 warps add another's to theirs: two reads and a write. The first warp reads its own.
    assert moved(partial, "store", "sums") == Moved(2 * (8 + 4 + 2 + 1), 2 * 15, 2 * 15)
    assert moved(partial, "load", "sums") == Moved(2 * (2 * (4 + 2 + 1) + 1), 2 * 15, 2 * 15)
    assert partial.block_barriers == 2 * (1 + 3)

    # One slab: a thread per channel reads one partial sum and writes it.
    assert total.grid == (1, 1, 1)
    assert moved(total, "load", "workspace") == Moved(2, 2 * 4, 2 * 4)
    assert moved(total, "store", "grad_bias") == Moved(2, 2 * 4, 2 * 4)


def test_gather_of_a_pointwise_convolution():
    """y[k, pixel] = sum over c of w[k, c] x[c, pixel], NCHW, in tiles of 128 pixels x 16 filters x 16 channels."""
    C, H, W, K = 32, 16, 16, 16
    BM, BN, BK, TM, TN, warps = 128, 16, 16, 4, 4, 4
    (launch,) = launches(f"n1 c{C} {H}x{W} k{K} 1x1", "fprop", "nchw", "conv2d_gather_128x16x16_f32")
    blocks, steps = H * W // BM, C // BK
    assert (launch.grid, launch.block) == ((blocks, 1, 1), (warps * LANES, 1, 1))

    # Consecutive lanes take consecutive pixels of one channel: 128 bytes. The blocks share no pixel, so x is read once.
    loads = blocks * steps * BM * BK // LANES
    assert moved(launch, "load", "input") == Moved(loads, loads * 4, loads * 4)
    assert loads * 4 * SECTOR == C * H * W * FLOAT
    # Consecutive lanes take consecutive channels of a filter, 16 of each of two filters: twice 64 bytes. Every block reads all filters.
    loads = blocks * steps * BN * BK // LANES
    assert moved(launch, "load", "weight") == Moved(loads, loads * 4, loads * 4)
    assert loads * 4 * SECTOR == blocks * K * C * FLOAT
    # Written along the pixels, once.
    stores = K * H * W // LANES
    assert moved(launch, "store", "output") == Moved(stores, stores * 4, stores * 4)

    # Into the stages: the image as it was read, 32 pixels side by side. The filters across, [channel][filter] with rows of 20 floats:
    # 20 * 8 is a multiple of 32, so channels c and c + 8 meet in one bank, and each store takes 2 wavefronts.
    image, filters = blocks * steps * BM * BK // LANES, blocks * steps * BN * BK // LANES
    assert moved(launch, "store", "stages", "gather.cuh") == Moved(
        image + filters, image + 2 * filters, image + filters
    )
    # Out of them, for each of the C channels and warps: TM values a lane and TN, 16 bytes each, a quarter of a warp at a time. A quarter's
    # 2 rows of threads and 4 columns read 2 and 4 vectors in a row: no two words of a bank.
    reads = blocks * warps * C * 2
    out = stores  # and once more each result, on its way to y
    assert moved(launch, "load", "stages") == Moved(reads + out, 4 * reads + out, 4 * reads + out)
    # The results go into the stages across, [filter][pixel] with rows of 132 floats, for a lane's 16 results one by one. Its 4 columns
    # of threads lie 4 * 132 = 16 (mod 32) banks apart and its 8 rows 4: columns 0 and 2, 1 and 3, and of these rows 0 to 3 and 4 to 7,
    # meet: 4 wavefronts.
    results = blocks * warps * TM * TN
    assert moved(launch, "store", "stages", "tile.cuh") == Moved(results, 4 * results, results)


def test_max_pool_in_vectors():
    """y = max over 2 x 2 of x, channels_last: a lane has 4 channels of one window, 16 bytes of each tap."""
    C, H, W = 64, 16, 16
    (launch,) = launches(f"max n1 c{C} {H}x{W} 2x2 stride 2", "forward", "channels_last", "pool2d_max_staged_4x256_f32")
    results = C * H * W // 4

    # Half a warp has the 64 channels of one pixel, the other half those of the pixel two columns on: twice 256 bytes.
    loads = 4 * results // 4 // LANES
    assert moved(launch, "load", "input") == Moved(loads, loads * 16, loads * 16)
    assert loads * 16 * SECTOR == C * H * W * FLOAT  # windows do not overlap: x once
    stores = results // 4 // LANES
    assert moved(launch, "store", "output") == Moved(stores, stores * 16, stores * 16)
    # Nothing differentiates the call: no indices are written.
    assert not [site for site in launch.sites if site.buffer == "indices"]


def test_lanes_meet_again_behind_a_store_that_some_of_them_skip():
    """The filters of the last tile are few: of the loop that writes them most lanes skip the store, and none may leave the others behind."""
    (launch,) = launches("n1 c8 19x21 k66 3x3 stride 2 pad 1", "wgrad", "nchw", "conv2d_wgrad_64x64x8_f32")
    loads = [site for site in launch.sites if site.access == "load" and site.file.endswith("/tile.cuh")]
    BM, BN, tiles = 64, 64, 2 * 2  # 66 filters and 72 elements of a filter
    results = tiles * BM * BN // LANES
    assert min(site.instructions for site in loads) == results
    assert all(site.lanes == LANES * site.instructions for site in loads)
