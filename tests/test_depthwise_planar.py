"""What the depthwise planar kernels move, counted by the checked emulator on shapes of real layers, and that the plan takes them.

The layers are those of MobileNetV2, EfficientNet-B0 and ConvNeXt-T with fewer channels and images: what a block does is the same.
"""

from __future__ import annotations

from collections.abc import Iterator

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
DTYPES = ("bf16", "f32")
PLANES = ("input", "output", "grad_output", "grad_input")
KERNELS = "conv2d_depthwise_planar_"
#: Planes, taps and strides of the layers; 32 channels and more make 7 x 7 planes whole sectors together.
SHAPES = {
    "112x112": "n1 c2 112x112 k2 3x3 pad 1 groups 2",
    "112x112, stride 2": "n1 c2 112x112 k2 3x3 stride 2 pad 1 groups 2",
    "56x56": "n1 c2 56x56 k2 7x7 pad 3 groups 2",
    "56x56, 5x5, stride 2": "n1 c2 56x56 k2 5x5 stride 2 pad 2 groups 2",
    "28x28, 3x3, stride 2": "n1 c8 28x28 k8 3x3 stride 2 pad 1 groups 8",
    "14x14": "n1 c16 14x14 k16 5x5 pad 2 groups 16",
    "14x14, stride 2": "n1 c32 14x14 k32 5x5 stride 2 pad 2 groups 32",
    "7x7": "n1 c64 7x7 k64 3x3 pad 1 groups 64",
    "7x7, 7x7 taps": "n1 c64 7x7 k64 7x7 pad 3 groups 64",
}
#: Wavefronts of shared memory over the fewest. dx of 14 x 14 has one strip of threads, 4 rows high, to a plane of 3.5 such groups: its
#: results are written without conflicts only with 2 words left out behind each plane, which most reads of 16 bytes then meet.
MOST_WAVEFRONTS = {("14x14, stride 2", "dgrad"): 1.25}


@pytest.fixture(scope="module")
def launches() -> dict[tuple[str, str, str], Launch]:
    """The kernel's launch of each shape, pass and element type; the sums over slabs, which may follow, are another family's."""
    jobs = []
    for title, text in SHAPES.items():
        layer, _ = parse_problem(text)
        for name in PASSES:
            what = "wgrad" if name == "wgrad" else "gather"
            kernel = f"{KERNELS}{what}_{layer.R}x{layer.S}"
            jobs += [(title, Job(layer, name, dtype, "nchw", f"{kernel}_{dtype}")) for dtype in DTYPES]
    results = run([job for _, job in jobs])
    return {(title, job.name, job.dtype): result[0] for (title, job), result in zip(jobs, results, strict=True)}


def test_every_sector_is_used(launches: dict[tuple[str, str, str], Launch]) -> None:
    for subject, launch in launches.items():
        # Filters and partial sums are few here, and begin where they begin: planes are what counts.
        planes = [site for site in launch.sites if site.buffer in PLANES and site.space == "global"]
        sectors, least = sum(site.sectors for site in planes), sum(site.least_sectors for site in planes)
        assert least >= 0.97 * sectors, f"{subject}: {least} of {sectors} sectors"
        every = [site for site in launch.sites if site.space == "global"]
        sectors, least = sum(site.sectors for site in every), sum(site.least_sectors for site in every)
        assert least >= 0.9 * sectors, f"{subject}: {least} of {sectors} sectors"


def test_shared_memory_has_hardly_a_bank_conflict(launches: dict[tuple[str, str, str], Launch]) -> None:
    for subject, launch in launches.items():
        shared = [site for site in launch.sites if site.space == "shared"]
        wavefronts, fewest = sum(site.wavefronts for site in shared), sum(site.least_wavefronts for site in shared)
        most = MOST_WAVEFRONTS.get(subject[:2], 1.1)
        assert wavefronts <= most * fewest, f"{subject}: {wavefronts} wavefronts, {fewest} without conflicts"


def test_planes_and_filters_move_in_vectors_and_once(launches: dict[tuple[str, str, str], Launch]) -> None:
    for (title, name, dtype), launch in launches.items():
        layer, _ = parse_problem(SHAPES[title])
        P, size = layer.H // layer.stride[0], 2 if dtype == "bf16" else 4
        x, y = layer.N * layer.C * layer.H**2 * size, layer.N * layer.C * P**2 * size
        moved = {"input": x, "output": y, "grad_output": y, "grad_input": x}
        # All but the ends of runs that do not begin at a multiple of 16 bytes: bands of rows of 56 bytes.
        images = [site for site in launch.sites if site.buffer in moved and site.space == "global"]
        in_vectors = sum(site.bytes_asked for site in images if site.width == 16)
        assert in_vectors >= 0.99 * sum(site.bytes_asked for site in images), f"{title} {name}"
        filters = [site for site in launch.sites if site.buffer == "weight" and site.space == "global"]
        in_vectors = sum(site.bytes_asked for site in filters if site.width == 16)
        if layer.H == 7:  # many planes to a block, whose filters are as many bytes
            assert in_vectors >= 0.9 * sum(site.bytes_asked for site in filters), (
                f"{title} {name}: {in_vectors} of filters"
            )
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
        assert planned.startswith(KERNELS), f"{layer}: {planned}"


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
