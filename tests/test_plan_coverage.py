"""Every layer of the published sets is planned onto a kernel of its own family, in every pass, layout and tuned dtype."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cnnkernels.bench import suites
from cnnkernels.bench.layer import Layer
from cnnkernels.bench.plans import PlannedPass, plan_pass

LAYOUTS = ("nchw", "channels_last")
DTYPES = ("f32", "f16", "bf16")

# The family whose kernels a layer's passes are for.
OWN = {
    "depthwise": {"depthwise"},
    "pointwise": {"pointwise"},
    "grouped": {"grouped"},
    "dilated": {"dilated"},
    "transposed": {"transposed"},
    "first_layer": {"first_layer"},
    "pool": {"windows", "adaptive"},
}


def expected(layer: Layer, name: str) -> set[str]:
    """The families that may run pass `name` of `layer`, and why it may be another one than the layer's own."""
    family = layer.family
    if family == "strided":
        # A strided convolution's input gradient is a transposed convolution, and its weight gradient that one's, too.
        return {"direct"} if name == "fprop" else {"transposed"}
    if family == "dense":
        return {"direct"}  # a matrix product at heart: there is no CUDA-core kernel better than the direct one
    if family == "grouped" and (layer.R, layer.S) == (1, 1):
        return {"pointwise"}  # every group is a matrix product
    return OWN[family]


def layers() -> Iterator[tuple[str, str]]:
    for entry in suites.load(suites.ALL).entries:
        yield entry.net, entry.layer


@pytest.mark.parametrize("net", sorted({net for net, _ in layers()}))
def test_layers_run_on_their_own_family(net: str) -> None:
    strangers: list[PlannedPass] = []
    for entry in suites.load(net).entries:
        for name in entry.problem.passes:
            for dtype in DTYPES:
                for layout in LAYOUTS:
                    row = plan_pass(entry, name, dtype, layout)
                    if row.family not in expected(entry.problem, name):
                        strangers.append(row)
    assert not strangers, "\n".join(
        f"{row.layer} {row.name} {row.dtype} {row.layout} ({row.problem}): {row.kernel} of {row.family}"
        for row in strangers
    )
