"""GPUs that are no H200: which run the compiled kernels at all, and what the plan takes where a block has less shared memory."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from cnnkernels import BackendError, backends, functional, ops
from cnnkernels.backends import cuda
from cnnkernels.bench import suites, tune

H200, A100, ADA = 227 * 1024, 163 * 1024, 99 * 1024
#: A kernel may have as much in static arrays, csrc/common/block_shared.h.
STATIC = 7 * 1024
DEVICE = torch.device("cuda", 0)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What torch says of the GPU."""
    properties = SimpleNamespace(shared_memory_per_block_optin=H200)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    return properties


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("shared", [A100, ADA])
def test_every_layer_has_a_kernel_that_fits(gpu: SimpleNamespace, shared: int, dtype: torch.dtype) -> None:
    too_large = 0
    for entry in suites.load("core").entries:
        for layout in ("nchw", "channels_last"):
            for name in entry.problem.passes:
                problem = tune.problem_of(entry.problem, name, dtype, layout)
                gpu.shared_memory_per_block_optin = H200
                largest = problem.plan(device=DEVICE)
                assert largest == problem.plan(), "an H200 is what is planned for by default"
                gpu.shared_memory_per_block_optin = shared
                plan = problem.plan(device=DEVICE)
                assert plan["shared_bytes"] + STATIC <= shared, (entry.layer, name, plan["kernel"])
                if largest["shared_bytes"] + STATIC > shared:
                    too_large += 1
                    # The same kernel with smaller tiles, or another one.
                    refused = dict(plan["refused"])
                    assert plan["kernel"] == largest["kernel"] or "shared memory" in refused[largest["kernel"]]
                else:
                    assert plan["kernel"] == largest["kernel"]
    assert too_large or shared == A100, "there are layers to which this matters"


def test_a_kernel_that_does_not_fit_says_so(gpu: SimpleNamespace) -> None:
    layer = suites.load("core").find("l1.3x3")
    problem = tune.problem_of(layer.problem, "fprop", torch.bfloat16, "channels_last")
    kernel = "conv2d_dense_tensor_128x256_bf16"
    taken = problem.plan(kernel, device=DEVICE)["shared_bytes"]
    gpu.shared_memory_per_block_optin = ADA
    with pytest.raises(
        RuntimeError,
        match=rf"cannot run .*: it takes {taken} bytes of dynamic shared memory, of which a .* has {ADA - STATIC}",
    ):
        problem.plan(kernel, device=DEVICE)


@pytest.mark.parametrize(
    ("architecture", "runs", "does_not"),
    [
        ("80", [(8, 0), (8, 6), (8, 9)], [(7, 5), (9, 0), (12, 0)]),
        ("86", [(8, 6), (8, 9)], [(8, 0)]),
        ("90a", [(9, 0)], [(8, 9), (10, 0)]),
        ("100", [(10, 0), (10, 3)], [(9, 0), (12, 0)]),
        ("120", [(12, 0), (12, 1)], [(10, 0)]),
    ],
)
def test_machine_code_runs_on_its_major_version(
    architecture: str, runs: list[tuple[int, int]], does_not: list[tuple[int, int]]
) -> None:
    assert all(cuda.runs_on(architecture, capability) for capability in runs)
    assert not any(cuda.runs_on(architecture, capability) for capability in does_not)


class OnGpu(torch.Tensor):
    """A CPU tensor that says it is on the GPU."""

    is_cuda, is_cpu = True, False

    def get_device(self) -> int:
        return 0


@pytest.mark.parametrize(("capability", "runs"), [((9, 0), True), ((12, 0), False)])
def test_a_gpu_without_machine_code_is_torchs(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], runs: bool
) -> None:
    monkeypatch.setattr(ops, "CUDA_MISSING", None)
    monkeypatch.setattr(ops, "cuda_architectures", lambda: ("80", "90a", "100"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
    monkeypatch.setattr(cuda, "_answers", {})
    x = torch.randn(1, 2, 5, 5).as_subclass(OnGpu)
    chosen, why = backends.select("auto", x)
    if runs:
        assert chosen == "cuda"
        return
    assert chosen == "torch" and "compiled for sm_80, sm_90a, sm_100, and cuda:0 is an sm_120" in why
    with pytest.raises(BackendError, match="sm_120: build them for it"):
        functional.max_pool2d(x, 2, backend="cuda")


def test_the_question_is_a_constant_to_torch_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "cuda_architectures", lambda: ("80",))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (8, 6))
    monkeypatch.setattr(cuda, "_answers", {})

    def call(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if cuda._why_not_on(x.get_device() + 1) is None else x

    assert torch.equal(torch.compile(call, fullgraph=True, backend="eager")(torch.ones(2)), torch.full((2,), 2.0))
