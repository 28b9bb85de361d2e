"""Every kernel of this backend, as the catalogue of the CUDA kernels lists those."""

from __future__ import annotations

from typing import Any

import torch

from cnnkernels.triton import configs, pooling
from cnnkernels.triton.convolution import DTYPE_NAMES


def rows() -> list[dict[str, Any]]:
    """A row for each kernel and element type: name, family, dtype, the passes that it computes, and its tile."""
    return [row for dtype, short in DTYPE_NAMES.items() for row in _of_dtype(dtype, short)]


def _of_dtype(dtype: torch.dtype, short: str) -> list[dict[str, Any]]:
    def row(what: str, family: str, *passes: str, tile: object = None) -> dict[str, Any]:
        return {"name": f"triton_{what}_{short}", "family": family, "dtype": short, "passes": passes, "tile": tile}

    tiles, depthwise = configs.matrix_tiles(dtype), configs.DEPTHWISE_TILES
    return [
        *(row(f"conv2d_gather_{tile.size}", "gather", "fprop", "dgrad", tile=tile) for tile in tiles),
        *(row(f"conv2d_wgrad_{tile.size}", "wgrad", "wgrad", tile=tile) for tile in tiles),
        *(
            row(f"conv2d_padded_dgrad_{tile.size}", "padded_dgrad", "dgrad", tile=tile)
            for tile in configs.padded_dgrad_tiles(dtype)
        ),
        *(row(f"conv2d_depthwise_{tile.size}", "depthwise", "fprop", "dgrad", tile=tile) for tile in depthwise),
        *(row(f"conv2d_depthwise_wgrad_{tile.size}", "depthwise", "wgrad", tile=tile) for tile in depthwise),
        row("conv2d_bias_grad", "sums", "bias_grad"),
        row("conv2d_activation_grad", "elementwise", "activation_grad"),
        *pooling.catalogue(dtype),
    ]
