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
    "dense": {"dense"},
    "transposed": {"transposed"},
    "first_layer": {"first_layer"},
    "pool": {"windows", "adaptive"},
}


def expected(layer: Layer, name: str, dtype: str) -> set[str]:
    """The families that may run pass `name` of `layer`, and why it may be another one than the layer's own."""
    family = layer.family
    if family == "strided":
        # A strided convolution's input gradient is a transposed convolution, and its weight gradient that one's, too.
        return {"dense"} if name == "fprop" else {"transposed"}
    if family == "dense":
        # A result larger than what is read is a transposed convolution, and one of a single pixel has a filter's gradient like one.
        return {"dense", "transposed"} if name != "fprop" else {"dense"}
    if family == "transposed" and name == "dgrad":
        return {"dense", "first_layer"}  # an ordinary strided convolution, of an image where few channels were made
    if family == "transposed" and name == "wgrad" and layer.K <= 4:
        return {"first_layer"}
    if family == "first_layer" and name == "dgrad":
        return {"dense", "direct", "transposed"}  # the gradient by an image is rarely asked for
    if family == "pointwise" and layer.stride != (1, 1) and name == "dgrad":
        return {"transposed"}
    if family == "grouped" and (layer.R, layer.S) == (1, 1):
        return {"pointwise"}  # every group is a matrix product
    if family == "grouped" and dtype != "f32" and layer.C // layer.groups >= 16:
        return {"grouped", "dense", "transposed"}  # each group a tile of the tensor cores
    if family == "grouped" and layer.stride != (1, 1) and name == "dgrad":
        return {"grouped", "transposed"}  # by residue classes too, with groups
    return OWN[family]


# Passes that the plan gives to the direct kernels, in some dtype or layout, and why that is good.
ELSEWHERE = {
    "fcn8s:up2x": (
        "fprop",
        "16x16 pixels of 21 channels: too few tiles of the implicit GEMM to hide what they wait for",
    ),
    "sd_vae_dec512:128-3@512": (
        "dgrad",
        "three channels in, 128 out: nothing to multiply, and both write the same bytes",
    ),
    "lenet5:pool2": (
        "backward forward",
        "16 planes of 10x10: all of it is the launch, and the model has both within 4 %",
    ),
    "unet572:out1x1": ("dgrad", "two channels in, 64 out: nothing to multiply, and both write the same bytes"),
}


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
                    if row.family not in expected(entry.problem, name, dtype):
                        strangers.append(row)
    known = {(layer, name) for layer, (names, _) in ELSEWHERE.items() for name in names.split()}
    new = [row for row in strangers if (f"{row.net}:{row.layer}", row.name) not in known]
    assert not new, "\n".join(
        f"{row.layer} {row.name} {row.dtype} {row.layout} ({row.problem}): {row.kernel} of {row.family}" for row in new
    )
    found = {(f"{row.net}:{row.layer}", row.name) for row in strangers}
    assert not [entry for entry in known - found if entry[0].startswith(f"{net}:")], "on their own family by now"
