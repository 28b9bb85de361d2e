"""Which kernel and tile runs which pass: the same for every GPU, with the reason, without triton and without a GPU.

A kernel's name is "triton_<operator>_<what>_<dtype>". Every candidate has a cost, in the time that one program of its tile takes on a
multiprocessor relative to others: no measurement, and only good for comparing tiles. The cheapest that can run the problem does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cnnkernels.triton import configs
from cnnkernels.triton.configs import DepthwiseTile, MatrixTile
from cnnkernels.triton.convolution import DTYPE_NAMES, ceil_div, stack_of
from cnnkernels.triton.depthwise import Depthwise


@dataclass(frozen=True)
class Choice:
    """What runs a pass."""

    kernel: str
    family: str
    tile: MatrixTile | DepthwiseTile | None
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
        loaded, which is a tile of 128 x 128, both are taken to be the same: an H200's 4096 bf16 FMAs a cycle and multiprocessor
        against 64 elements (128 bytes) out of L2.
        """
        slabs = self.slabs(tile)
        rounds = ceil_div(self.programs(tile) * slabs, configs.MULTIPROCESSORS)
        steps = ceil_div(ceil_div(self.depth, tile.depth), slabs) + tile.stages  # until the first loads are there
        step = max(tile.rows * tile.columns, 64 * (tile.rows + tile.columns)) * tile.depth
        partial = 16 * tile.rows * tile.columns if slabs > 1 else 0  # sums of 4 bytes there and back
        return float(rounds * (steps * step + partial))


def choose(operator: str, product: Product, dtype: torch.dtype, family: str, kernel_name: str = "") -> Choice:
    """The tile for a matrix product of kind `operator` ("conv2d_gather", "conv2d_wgrad", "conv2d_padded_dgrad"), or that of `kernel_name`.

    Raises:
        CannotRun: `kernel_name` is no kernel of this kind and dtype.
    """
    shapes = configs.padded_dgrad_tiles(dtype) if operator == "conv2d_padded_dgrad" else configs.matrix_tiles(dtype)
    tiles = {f"triton_{operator}_{tile.size}_{DTYPE_NAMES[dtype]}": tile for tile in shapes}
    costs = {name: product.cost(tile) for name, tile in tiles.items()}
    best = min(costs, key=lambda name: costs[name])
    if kernel_name:
        if kernel_name not in tiles:
            raise CannotRun(f"kernel {kernel_name} cannot run this problem: it is none of {', '.join(tiles)}")
        best, why = kernel_name, "it was asked for by name"
    else:
        why = f"its modelled cost is the least of {len(tiles)} tiles: {tiles[best].why}"
    refused = tuple(
        (name, f"modelled at {cost / costs[best]:.2f} times the cost of {best}")
        for name, cost in costs.items()
        if name != best
    )
    return Choice(best, family, tiles[best], product.slabs(tiles[best]), why, refused)


def gather_product(
    N: int, out_channels: int, in_channels: int, out: tuple[int, int], taps: int, classes: int, groups: int
) -> Product:
    """fprop, or dgrad in `classes` residue classes, of which each has a part of the taps."""
    stack = stack_of(groups, in_channels // groups, out_channels // groups)
    depth = stack * (in_channels // groups) * ceil_div(taps, classes)
    pixels = N * out[0] * out[1]
    return Product(
        ceil_div(groups, stack) * classes, ceil_div(pixels, classes), stack * (out_channels // groups), depth
    )


def wgrad_product(N: int, filters: int, channels: int, out: tuple[int, int], taps: int, groups: int) -> Product:
    stack = stack_of(groups, channels // groups, filters // groups)
    columns = stack * (channels // groups) * taps
    return Product(ceil_div(groups, stack), stack * (filters // groups), columns, N * out[0] * out[1])


def padded_dgrad_product(
    N: int, out_channels: int, in_channels: int, out: tuple[int, int], taps: int, groups: int
) -> Product:
    """dgrad with a padding mode, as the tiles away from the border see it."""
    stack = stack_of(groups, in_channels // groups, out_channels // groups)
    depth = stack * (in_channels // groups) * taps
    return Product(ceil_div(groups, stack), N * out[0] * out[1], stack * (out_channels // groups), depth, False)


def choose_depthwise(d: Depthwise, dtype: torch.dtype, kernel_name: str = "") -> Choice:
    """The kernel and tile of a depthwise convolution, or that of `kernel_name`.

    Raises:
        CannotRun: `kernel_name` is no kernel of this kind and dtype, or refuses the problem.
    """
    operator = "conv2d_depthwise_wgrad" if d.operator == "wgrad" else "conv2d_depthwise"
    tiles = {f"triton_{operator}_{tile.size}_{DTYPE_NAMES[dtype]}": tile for tile in configs.DEPTHWISE_TILES}
    reasons = {name: d.refusal(tile) for name, tile in tiles.items()}
    costs = {name: d.cost(tile) for name, tile in tiles.items() if not reasons[name]}
    best = min(costs, key=lambda name: costs[name])
    if kernel_name:
        if kernel_name not in tiles:
            raise CannotRun(f"kernel {kernel_name} cannot run this problem: it is none of {', '.join(tiles)}")
        if reasons[kernel_name]:
            raise CannotRun(f"kernel {kernel_name} cannot run this problem: {reasons[kernel_name]}")
        best, why = kernel_name, "it was asked for by name"
    else:
        why = f"depthwise; its modelled cost is the least of {len(costs)} tiles: {tiles[best].why}"
    refused = tuple(
        (name, reasons[name] or f"modelled at {costs[name] / costs[best]:.2f} times the cost of {best}")
        for name in tiles
        if name != best
    )
    return Choice(best, "depthwise", tiles[best], 1, why, refused)
