"""Which kernel and tile runs which pass: the same for every GPU, with the reason, without triton and without a GPU.

A kernel's name is "triton_<operator>_<what>_<dtype>". Every candidate has a cost, in the time that one program of its tile takes on a
multiprocessor relative to others: no measurement, and only good for comparing tiles. The cheapest that can run the problem does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from cnnkernels.triton import configs
from cnnkernels.triton.configs import DepthwiseTile, MatrixTile
from cnnkernels.triton.convolution import DTYPE_NAMES, ceil_div, stack_of
from cnnkernels.triton.depthwise import Depthwise
from cnnkernels.triton.launch import record_choice

Tile = TypeVar("Tile")


@dataclass(frozen=True)
class Candidate(Generic[Tile]):
    """A kernel that could run a pass."""

    kernel: str
    family: str
    tile: Tile
    slabs: int
    cost: float
    why: str  # its tile is there
    refusal: str = ""  # why it cannot, which makes its cost of no account
    unsuited: str = ""  # why it is not taken unless by name


@dataclass(frozen=True)
class Choice(Generic[Tile]):
    """What runs a pass."""

    kernel: str
    family: str
    tile: Tile
    slabs: int
    why: str
    refused: tuple[tuple[str, str], ...]  # every other candidate and why it was not taken


class CannotRun(RuntimeError):
    """The kernel that was asked for by name cannot run the problem."""


@dataclass(frozen=True)
class Product:
    """A matrix product as the tiles see it: `count` products of rows x depth by depth x columns, of which `depth` may be cut."""

    count: int
    rows: int
    columns: int
    depth: int
    may_be_cut: bool = True

    def programs(self, tile: MatrixTile) -> int:
        return max(1, self.count * ceil_div(self.rows, tile.rows) * ceil_div(self.columns, tile.columns))

    def slabs(self, tile: MatrixTile) -> int:
        """So many that every multiprocessor has two programs, as long as each has a few steps."""
        steps = ceil_div(self.depth, tile.depth)
        if not self.may_be_cut:
            return 1
        return max(1, min(configs.TARGET_PROGRAMS // self.programs(tile), steps // configs.LEAST_STEPS_OF_SLAB))

    def cost(self, tile: MatrixTile) -> float:
        """Rounds of programs on all multiprocessors, times what one takes: the larger of its FMAs and its loads.

        A step of a tile loads (rows + columns) * depth elements and has rows * columns * depth FMAs. At 64 FMAs for each element
        loaded, which is a tile of 128 x 128, both are taken to be the same: an H200's 2048 bf16 FMAs a cycle and multiprocessor
        (989 TFLOP/s) against 32 elements (64 bytes, the width of a multiprocessor's port to L2).
        """
        slabs = self.slabs(tile)
        rounds = ceil_div(self.programs(tile) * slabs, configs.MULTIPROCESSORS)
        steps = ceil_div(ceil_div(self.depth, tile.depth), slabs) + tile.stages  # until the first loads are there
        step = max(tile.rows * tile.columns, 64 * (tile.rows + tile.columns)) * tile.depth
        partial = 16 * tile.rows * tile.columns if slabs > 1 else 0  # sums of 4 bytes there and back
        return float(rounds * (steps * step + partial))


def cheapest(candidates: Sequence[Candidate[Tile]], kernel_name: str = "") -> Choice[Tile]:
    """The suited candidate of least cost that does not refuse, or that of `kernel_name`.

    Raises:
        CannotRun: `kernel_name` is no candidate, or refuses.
    """
    able = [candidate for candidate in candidates if not candidate.refusal and not candidate.unsuited]
    best = min(able, key=lambda candidate: candidate.cost)
    why = f"its modelled cost is the least of {len(able)} tiles: {best.why}"
    if kernel_name:
        named = [candidate for candidate in candidates if candidate.kernel == kernel_name]
        if not named:
            names = ", ".join(candidate.kernel for candidate in candidates)
            raise CannotRun(f"kernel '{kernel_name}' cannot run this problem: it is none of {names}")
        best, why = named[0], "it was asked for by name"
        if best.refusal:
            raise CannotRun(f"kernel '{kernel_name}' cannot run this problem: {best.refusal}")

    def reason(other: Candidate[Tile]) -> str:
        by_cost = f"modelled at {other.cost / best.cost:.2f} times the cost of {best.kernel}"
        return other.refusal or other.unsuited or by_cost

    refused = tuple((other.kernel, reason(other)) for other in candidates if other is not best)
    choice = Choice(best.kernel, best.family, best.tile, best.slabs, why, refused)
    record_choice(choice)
    return choice


def choose(
    operator: str, product: Product, dtype: torch.dtype, family: str, by_element: bool | None, kernel_name: str = ""
) -> Choice[MatrixTile]:
    """The tile for a matrix product of kind `operator` ("conv2d_gather", "conv2d_wgrad", "conv2d_padded_dgrad"), or that of `kernel_name`.

    `by_element`: an operand's elements lie so that each is read by itself; None: all tiles suit.

    Raises:
        CannotRun: `kernel_name` is no kernel of this kind and dtype.
    """
    made_for = {True: "made for operands that are read by element", False: "made for operands that are read in vectors"}
    candidates = []
    tiles = configs.padded_dgrad_tiles(dtype) if operator == "conv2d_padded_dgrad" else configs.matrix_tiles(dtype)
    for tile in reversed(tiles):  # of equal costs the smallest
        suits = by_element is None or tile.by_element in (None, by_element)
        candidates.append(
            Candidate(
                f"triton_{operator}_{tile.size}_{DTYPE_NAMES[dtype]}", family, tile, product.slabs(tile), product.cost(tile), tile.why,
                unsuited="" if suits else made_for[bool(tile.by_element)],
            )
        )  # fmt: skip
    return cheapest(candidates, kernel_name)


def gather_product(
    N: int, out_channels: int, in_channels: int, out: tuple[int, int], taps: int, classes: int, groups: int
) -> Product:
    """fprop, or dgrad in `classes` residue classes, of which each has a part of the taps."""
    depth, pixels = in_channels // groups * ceil_div(taps, classes), N * out[0] * out[1]
    return Product(groups * classes, ceil_div(pixels, classes), out_channels // groups, depth)


def wgrad_product(N: int, filters: int, channels: int, out: tuple[int, int], taps: int, groups: int) -> Product:
    stack = stack_of(groups, channels // groups, filters // groups)
    columns = stack * (channels // groups) * taps
    return Product(ceil_div(groups, stack), stack * (filters // groups), columns, N * out[0] * out[1])


def padded_dgrad_product(
    N: int, out_channels: int, in_channels: int, out: tuple[int, int], taps: int, groups: int
) -> Product:
    """dgrad with a padding mode, as the tiles away from the border see it."""
    return Product(groups, N * out[0] * out[1], out_channels // groups, in_channels // groups * taps, False)


def choose_depthwise(d: Depthwise, dtype: torch.dtype, kernel_name: str = "") -> Choice[DepthwiseTile]:
    """The kernel and tile of a depthwise convolution, or that of `kernel_name`.

    Raises:
        CannotRun: `kernel_name` is no kernel of this kind and dtype, or refuses the problem.
    """
    operator = "conv2d_depthwise_wgrad" if d.operator == "wgrad" else "conv2d_depthwise"
    candidates = []
    for tile in configs.DEPTHWISE_TILES:
        name, refusal = f"triton_{operator}_{tile.size}_{DTYPE_NAMES[dtype]}", d.refusal(tile)
        cost = 0.0 if refusal else d.cost(tile)
        candidates.append(Candidate(name, "depthwise", tile, 1, cost, f"depthwise: {tile.why}", refusal))
    return cheapest(candidates, kernel_name)
