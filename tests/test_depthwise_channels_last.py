"""The depthwise kernels of channels_last tensors: what they move on real layers, and that the plan takes them for those."""

from __future__ import annotations

import pytest
import torch

from cnnkernels.bench import suites, tune
from cnnkernels.profile.launches import Launch
from cnnkernels.profile.run import Job, run
from cnnkernels.profile.subject import parse_problem

# On a few blocks of each: a batch of 16, so that slabs of rows are as high as they are on whole batches.
LAYERS = (
    ("n16 c32 112x112 k32 3x3 pad 1 groups 32", "bf16", 64),
    ("n16 c96 112x112 k96 3x3 stride 2 pad 1 groups 96", "bf16", 128),
    ("n16 c144 56x56 k144 3x3 pad 1 groups 144", "f32", 100),
    ("n16 c96 56x56 k96 7x7 pad 3 groups 96", "bf16", 96),
)
PASSES = ("fprop", "dgrad", "wgrad")
FAMILY = "conv2d_depthwise_"


@pytest.fixture(scope="module")
def launches() -> dict[tuple[str, str], Launch]:
    """The family's launch of each pass of each layer; the sums over slabs, which may follow, are another family's."""
    jobs = [
        Job(parse_problem(layer)[0], name, dtype, "channels_last", sample=sample)
        for layer, dtype, sample in LAYERS
        for name in PASSES
    ]
    subjects = [(layer, name) for layer, _, _ in LAYERS for name in PASSES]
    found = dict(zip(subjects, (result[0] for result in run(jobs)), strict=True))
    for launch in found.values():
        assert launch.kernel.startswith(FAMILY) and "channels_last" in launch.kernel
    return found


def tensor_bytes(launch: Launch) -> tuple[float, float]:
    """What all threads ask of the images and write to them, and how much of that differs within blocks; over the launch."""
    images = [b for b in launch.buffers if b.name in ("input", "output", "grad_output", "grad_input")]
    names = {buffer.name for buffer in images}
    asked = sum(site.bytes_asked for site in launch.sites if site.space == "global" and site.buffer in names)
    different = sum(buffer.block_read_bytes + buffer.block_written_bytes for buffer in images)
    return asked * launch.scale, different * launch.scale


@pytest.mark.checked_emulator
def test_global_accesses_are_whole_sectors(launches: dict[tuple[str, str], Launch]) -> None:
    for subject, launch in launches.items():
        sites = [site for site in launch.sites if site.space == "global"]
        assert sum(site.least_sectors for site in sites) >= 0.9 * sum(site.sectors for site in sites), subject
        # Images come 16 bytes at a time, past the registers.
        brought = [site for site in sites if site.access == "async copy"]
        assert brought and all(site.width == 16 for site in brought), subject


@pytest.mark.checked_emulator
def test_shared_memory_has_hardly_a_bank_conflict(launches: dict[tuple[str, str], Launch]) -> None:
    for subject, launch in launches.items():
        sites = [site for site in launch.sites if site.space == "shared"]
        assert sum(site.wavefronts for site in sites) <= 1.1 * sum(site.least_wavefronts for site in sites), subject


@pytest.mark.checked_emulator
def test_each_pixel_is_asked_for_once_but_for_halos(launches: dict[tuple[str, str], Launch]) -> None:
    for (layer, name), launch in launches.items():
        images = [b for b in launch.buffers if b.name in ("input", "output", "grad_output", "grad_input")]
        compulsory = sum(buffer.bytes for buffer in images)
        asked, different = tensor_bytes(launch)
        assert asked <= 1.001 * different, (layer, name)  # no block asks for a byte twice
        # Every n-th block is run, which may be more of those at a border: a tenth for that.
        assert asked <= 1.1 * (1.5 if "3x3" in layer else 1.6) * compulsory, (layer, name)


DEPTHWISE = [
    entry
    for entry in suites.load(suites.ALL).entries
    if entry.problem.op == "conv2d"
    and entry.problem.groups == entry.problem.C > 1
    and entry.problem.R == entry.problem.S
    and entry.problem.R in (3, 5, 7)
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_plan_takes_them_for_every_depthwise_layer(dtype: torch.dtype) -> None:
    assert len(DEPTHWISE) > 30
    for entry in DEPTHWISE:
        # Where many taps lie in the padding (7 x 7 on 14 x 14: a quarter of the rows), the kernels for large filters may be cheaper, which
        # skip them.
        wide = entry.problem.R > 3 and entry.problem.H <= 2 * entry.problem.R
        for name in PASSES:
            kernel = tune.problem_of(entry.problem, name, dtype, "channels_last").plan()["kernel"]
            expected = "channels_last" in kernel or (wide and kernel.startswith(f"{FAMILY}large_"))
            assert kernel.startswith(FAMILY) and expected, f"{entry.net}:{entry.layer} {name}: {kernel}"


@pytest.mark.parametrize(
    ("problem", "name", "why"),
    [
        ("n1 c8 9x9 k8 3x3 stride 3 groups 8", "fprop", "built for 1 and 2"),
        ("n1 c8 9x9 k8 3x3 stride 2x1 groups 8", "wgrad", "the same along both axes"),
        ("n1 c8 9x9 k8 3x3 stride 2 dilation 2 groups 8", "fprop", "dilation with stride 2"),
        ("n1 c8 9x9 k16 3x3 groups 8", "dgrad", "2 filters for each channel"),
        ("n1 c8 9x9 k8 4x4 groups 8", "fprop", "4x4 filter: built for 3x3"),
        ("n1 c8 9x9 k8 3x3 groups 4", "fprop", "built for one channel each"),
    ],
)
def test_what_they_refuse_has_a_reason(problem: str, name: str, why: str) -> None:
    kernel = f"{FAMILY}{'wgrad' if name == 'wgrad' else 'slide'}_3x3_channels_last_f32"
    stated = tune.problem_of(parse_problem(problem)[0], name, torch.float32, "channels_last")
    with pytest.raises(RuntimeError, match=why):
        stated.plan(kernel)
