"""What the depthwise planar kernels move, counted by the checked emulator on shapes of real layers, and that the plan takes them.

The layers are those of MobileNetV2, EfficientNet-B0 and ConvNeXt-T with fewer channels and images: what a block does is the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import cnnkernels._C as native
import pytest
import torch

from cnnkernels import functional
from cnnkernels.bench import suites, tune
from cnnkernels.bench.layer import Layer
from cnnkernels.profile.launches import Launch
from cnnkernels.profile.run import Job, run
from cnnkernels.profile.subject import parse_problem

pytestmark = pytest.mark.checked_emulator

PASSES = ("fprop", "dgrad", "wgrad")
#: Planes, taps and strides of the layers; 32 channels and more make 7 x 7 planes whole sectors together.
SHAPES = {
    "112x112": "n1 c2 112x112 k2 3x3 pad 1 groups 2",
    "112x112, stride 2": "n1 c2 112x112 k2 3x3 stride 2 pad 1 groups 2",
    "56x56": "n1 c2 56x56 k2 7x7 pad 3 groups 2",
    "28x28, stride 2": "n1 c4 28x28 k4 5x5 stride 2 pad 2 groups 4",
    "14x14": "n1 c16 14x14 k16 5x5 pad 2 groups 16",
    "7x7": "n1 c64 7x7 k64 3x3 pad 1 groups 64",
}


def family(name: str) -> str:
    rows = [row for row in native.catalogue() if row["name"] == name]
    return rows[0]["family"] if rows else ""


def launches(dtype: str) -> Iterator[tuple[str, str, Launch]]:
    jobs = []
    for title, text in SHAPES.items():
        layer, _ = parse_problem(text)
        taps = f"{layer.R}x{layer.S}"
        for name in PASSES:
            what = "wgrad" if name == "wgrad" else "gather"
            jobs.append((title, Job(layer, name, dtype, "nchw", f"conv2d_depthwise_planar_{what}_{taps}_{dtype}")))
    for (title, job), result in zip(jobs, run([job for _, job in jobs]), strict=True):
        yield title, job.name, result[0]


@pytest.mark.parametrize("dtype", ["bf16", "f32"])
def test_every_sector_is_used_and_no_bank_conflicts(dtype: str) -> None:
    for title, name, launch in launches(dtype):
        # Weights and partial sums are few, and begin where they begin: planes are what counts.
        planes = [s for s in launch.sites if s.buffer in ("input", "output", "grad_output", "grad_input")]
        sectors, least = sum(s.sectors for s in planes), sum(s.least_sectors for s in planes)
        assert least >= 0.97 * sectors, f"{title} {name}: {least} of {sectors} sectors"
        shared = [s for s in launch.sites if s.space == "shared"]
        wavefronts, fewest = sum(s.wavefronts for s in shared), sum(s.least_wavefronts for s in shared)
        assert wavefronts <= 1.05 * fewest, f"{title} {name}: {wavefronts} wavefronts, {fewest} without conflicts"


@pytest.mark.parametrize("dtype", ["bf16", "f32"])
def test_planes_move_in_vectors_and_once(dtype: str) -> None:
    size = 2 if dtype == "bf16" else 4
    for title, name, launch in launches(dtype):
        layer, _ = parse_problem(SHAPES[title])
        P = layer.H // layer.stride[0]
        x, y = layer.N * layer.C * layer.H**2 * size, layer.N * layer.C * P**2 * size
        moved = {"input": x, "output": y, "grad_output": y, "grad_input": x}
        for site in launch.sites:
            if site.buffer in moved and site.space == "global":
                # All but the ends of runs that do not begin at a multiple of 16 bytes; here there are none.
                assert site.width == 16, f"{title} {name}: {site.access} of {site.buffer} in {site.width} bytes"
        for buffer, bytes_ in moved.items():
            asked = sum(s.bytes_asked for s in launch.sites if s.buffer == buffer and s.space == "global")
            # The halo of a band of rows is asked for twice.
            assert asked == 0 or bytes_ <= asked <= 1.2 * bytes_, (
                f"{title} {name}: {asked} bytes of {buffer}, not {bytes_}"
            )


def depthwise_layers() -> Iterator[Layer]:
    for net in ("mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "convnext_t", "unireplknet_t"):
        for entry in suites.load(net).entries:
            layer = entry.problem
            if not layer.is_pooling and 1 < layer.groups == layer.C and layer.R in (3, 5, 7):
                yield layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", PASSES)
def test_the_plan_takes_them_for_their_layers(name: str, dtype: torch.dtype) -> None:
    for layer in depthwise_layers():
        planned = tune.problem_of(layer, name, dtype, "nchw").plan()["kernel"]
        assert family(planned) == "depthwise_planar", f"{layer}: {planned}"


@pytest.mark.parametrize("start", [(0, 0), (1, 0), (0, 3), (1, 3)])
def test_slices_that_begin_anywhere(start: tuple[int, int]) -> None:
    """Channels and rows cut out of a larger tensor: planes with gaps between them, at addresses that no vector has."""
    for dtype in (torch.float32, torch.bfloat16):
        whole = torch.randint(-2, 3, (2, 8, 21, 14)).to(dtype)
        x = whole[:, start[0] : start[0] + 5, start[1] : start[1] + 15]
        w = torch.randint(-1, 2, (5, 1, 3, 3)).to(dtype)
        expected = torch.nn.functional.conv2d(x.double(), w.double(), padding=1, groups=5)
        got = functional.conv2d(x, w, padding=1, groups=5, backend="emulator")
        assert torch.equal(got.double(), expected)
