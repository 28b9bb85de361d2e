"""Every kernel of a backend: what the plan, `verify` and the tuner choose among."""

from __future__ import annotations

from typing import Any


def kernels(backend: str) -> list[dict[str, Any]]:
    """A row for each kernel and element type, in a fixed order: "name", "family", "dtype" ("f32"), "passes" and more.

    "cuda" and "emulator" have the same ones; of "triton" nothing is compiled or imported for this.

    Raises:
        ImportError: `cnnkernels._C`, which has the compiled kernels' catalogue, is not built.
    """
    if backend == "triton":
        from cnnkernels.triton import catalogue

        return catalogue.rows()
    import cnnkernels._C as native

    rows: list[dict[str, Any]] = native.catalogue()
    return rows
