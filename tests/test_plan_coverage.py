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
        # A matrix product at heart: there is no CUDA-core kernel better than the direct one. A result larger than what is read is a
        # transposed convolution, though, and one of a single pixel has a filter's gradient like one.
        return {"direct", "transposed"} if name != "fprop" else {"direct"}
    if family == "transposed" and name == "dgrad":
        return {"direct", "first_layer"}  # an ordinary strided convolution, of an image where few channels were made
    if family == "transposed" and name == "wgrad" and layer.K <= 4:
        return {"first_layer"}
    if family == "first_layer" and name == "dgrad":
        return {"direct", "transposed"}  # the gradient by an image is rarely asked for
    if family == "pointwise" and layer.stride != (1, 1) and name == "dgrad":
        return {"transposed"}
    if family == "grouped" and (layer.R, layer.S) == (1, 1):
        return {"pointwise"}  # every group is a matrix product
    if family == "grouped" and layer.stride != (1, 1) and name == "dgrad":
        return {"grouped", "transposed"}  # by residue classes too, with groups
    return OWN[family]


# Passes that the plan gives to the direct kernels in some dtype or layout though the layer's family has a kernel: by its costs, of which those
# of the implicit GEMM are estimates still; or though it should have one (windows of five and more with a gradient). To be emptied.
NOT_YET = {
    # first_layer
    "alexnet:3-64": "fprop",
    "dcgan_d:3-64@64": "fprop",
    "lenet5:conv1": "fprop wgrad",
    "unet572:c1-64@572": "fprop",
    # strided
    "convnext_t:down96-192": "dgrad",
    "convnext_t:down192-384": "dgrad",
    "convnext_t:down384-768": "dgrad",
    "resnet50:l4.3x3s2": "wgrad",
    # pointwise
    "convnext_t:pw1_768": "wgrad",
    "convnext_t:pw2_768": "wgrad",
    "mobilenet_v2:pw32-16@112": "dgrad fprop",
    "mobilenet_v2:pw16-96@112": "fprop",
    "mobilenet_v2:pw96-24@56": "dgrad",
    "mobilenet_v2:pw24-144@56": "fprop",
    "mobilenet_v2:pw144-32@28": "fprop",
    "mobilenet_v2:pw32-192@28": "dgrad fprop",
    "mobilenet_v2:pw192-64@14": "fprop",
    "mobilenet_v2:pw64-384@14": "dgrad wgrad",
    "mobilenet_v2:pw576-160@7": "fprop",
    "mobilenet_v2:pw320-1280@7": "fprop",
    "resnet50:l4.down_s2": "dgrad",
    "unet572:out1x1": "dgrad fprop",
    # transposed
    "dcgan_g:100-512@1": "wgrad",
    "dcgan_g:64-3@32": "fprop wgrad",
    "dcgan_paper:128-3@32_5x5": "dgrad fprop wgrad",
    "fcn8s:up2x": "fprop",
    "fcn8s:up8x": "fprop",
    "unet512same:up1024": "fprop",
    "unet512same:up512": "fprop",
    "unet512same:up256": "fprop",
    "unet512same:up128": "fprop",
    "unet572:up1024": "fprop",
    "unet572:up512": "fprop",
    "unet572:up256": "fprop",
    "unet572:up128": "fprop",
    # pool
    "lenet5:pool1": "backward forward",
    "lenet5:pool2": "backward forward",
    "yolo_spp:max5": "backward forward",
    "yolo_spp:max9": "backward forward",
    "yolo_spp:max13": "backward forward",
    # grouped
    "regnet_x_3_2gf:gw48_96@112s2": "dgrad",
    "regnet_x_3_2gf:gw48_192@56s2": "dgrad",
    "regnet_x_3_2gf:gw48_432@28s2": "dgrad",
    "regnet_x_3_2gf:gw48_1008@14s2": "dgrad",
    "resnext50_32x4d:g32_256@56s2": "fprop",
    "resnext50_32x4d:g32_512@28s2": "fprop",
    "shuffle:gpw": "dgrad fprop",
    "tileops_1568:resnext_small": "dgrad fprop",
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
                    if row.family not in expected(entry.problem, name):
                        strangers.append(row)
    new = [row for row in strangers if row.name not in NOT_YET.get(f"{row.net}:{row.layer}", "").split()]
    assert not new, "\n".join(
        f"{row.layer} {row.name} {row.dtype} {row.layout} ({row.problem}): {row.kernel} of {row.family}" for row in new
    )
    found = {(f"{row.net}:{row.layer}", row.name) for row in strangers}
    mended = [(layer, name) for layer, names in NOT_YET.items() for name in names.split() if (layer, name) not in found]
    assert not [entry for entry in mended if entry[0].startswith(f"{net}:")]
