"""torch.compile traces our functions whole, does not recompile for another batch size, and torch.export keeps our operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from cnnkernels import functional, nn, use_backend

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*isinstance.treespec, LeafSpec")


@pytest.fixture(autouse=True)
def no_earlier_compilations() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


W = torch.randn(6, 3, 3, 3, requires_grad=True)
B = torch.randn(6, requires_grad=True)
V = torch.randn(6, 2, 2, 2, requires_grad=True)


def _net(x: Tensor) -> Tensor:
    x = functional.conv2d(x, W, B, padding="same", backend="emulator")
    x = functional.max_pool2d(x, 2, ceil_mode=True, backend="emulator")
    x = functional.conv_transpose2d(x, V, stride=2, output_padding=1, backend="emulator")
    x = functional.adaptive_max_pool2d(x, (7, 6), backend="emulator")
    x = functional.avg_pool2d(x, 3, 2, 1, backend="emulator")
    return functional.adaptive_avg_pool2d(x, (2, 3), backend="emulator")


def _check(compiled: Callable[[Tensor], Tensor], batch: int, memory_format: Any = torch.contiguous_format) -> None:
    """Forward and backward of the compiled net are bitwise the eager ones, in the same memory format."""
    x = torch.randn(batch, 3, 8, 8).to(memory_format=memory_format).requires_grad_()
    results = []
    for function in (compiled, _net):
        output = function(x)
        results.append((output, *torch.autograd.grad(output.sin().sum(), (x, W, B, V))))
    for ours, eager in zip(*results, strict=True):
        assert torch.equal(ours, eager) and ours.stride() == eager.stride()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_dynamic_shapes_compile_once(backend: str, memory_format: Any) -> None:
    compiled = torch.compile(_net, fullgraph=True, backend=backend, dynamic=True)
    _check(compiled, 7, memory_format)
    with torch._dynamo.config.patch(error_on_recompile=True):
        _check(compiled, 5, memory_format)


def test_static_shapes() -> None:
    _check(torch.compile(_net, fullgraph=True, backend="aot_eager", dynamic=False), 2)


def test_without_gradients() -> None:
    compiled = torch.compile(_net, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        x = torch.randn(2, 3, 8, 8)
        assert torch.equal(compiled(x), _net(x))


def test_unbatched_with_indices() -> None:
    def net(x: Tensor) -> tuple[Tensor, Tensor]:
        y = functional.conv2d(x, W, backend="emulator")
        return functional.max_pool2d(y, 2, return_indices=True, backend="emulator")

    x = torch.randn(3, 8, 8, requires_grad=True)
    ours, indices = torch.compile(net, fullgraph=True, backend="aot_eager")(x)
    eager, eager_indices = net(x)
    assert torch.equal(ours, eager) and torch.equal(indices, eager_indices)
    assert torch.equal(*[torch.autograd.grad(output.sum(), x)[0] for output in (ours, eager)])


def test_under_autocast() -> None:
    def net(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return functional.conv2d(x, W, B, backend="emulator")

    x = torch.randn(2, 3, 8, 8)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")(x)
    assert compiled.dtype == torch.bfloat16 and torch.equal(compiled, net(x))


TRANSFORMS: dict[str, Callable[..., Any]] = {
    "vmap": torch.func.vmap,
    "grad": lambda f: torch.func.grad(lambda x: f(x).sum()),
    "jvp": lambda f: lambda x: torch.func.jvp(f, (x,), (x.cos(),)),
    "vmap of grad": lambda f: torch.func.vmap(torch.func.grad(lambda x: f(x).sum())),
}


@pytest.mark.parametrize("title", TRANSFORMS)
def test_transforms_run_in_eager_and_right(title: str) -> None:
    """torch.compile loses the derivative of any autograd.Function under torch.func; ours breaks the graph instead."""

    def net(x: Tensor) -> Tensor:
        return functional.avg_pool2d(functional.conv2d(x, W.detach(), backend="emulator"), 2, backend="emulator")

    function = TRANSFORMS[title](net)
    x = torch.randn(2, 2, 3, 8, 8) if "vmap" in title else torch.randn(2, 3, 8, 8)
    compiled = torch.compile(function, backend="aot_eager")(x)
    torch.testing.assert_close(compiled, function(x), rtol=0, atol=0)
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"torch.func transform"):
        torch.compile(function, backend="aot_eager", fullgraph=True)(x)


def _targets(graph: torch.fx.Graph) -> list[str]:
    return [str(node.target) for node in graph.nodes if node.op == "call_function"]


def test_use_backend_outside_is_guarded_on() -> None:
    """The ambient backend is part of what was compiled: changing it compiles again, for the other backend."""
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda x: functional.avg_pool2d(x, 2), fullgraph=True, backend=counter)
    x = torch.randn(2, 3, 8, 8)
    with use_backend("emulator"):
        compiled(x)
        compiled(x)
    assert counter.frame_count == 1
    assert any("cnnkernels.avg_pool2d" in target for target in _targets(counter.graphs[-1].graph))
    compiled(x)
    assert counter.frame_count == 2
    assert not any("cnnkernels" in target for target in _targets(counter.graphs[-1].graph))


def test_use_backend_inside() -> None:
    @use_backend("emulator")
    def decorated(x: Tensor) -> Tensor:
        with use_backend("torch"):
            x = functional.max_pool2d(x, 2)
        return functional.avg_pool2d(x, 2)

    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(decorated, fullgraph=True, backend=counter)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(compiled(x), decorated(x))
    ours = [target for target in _targets(counter.graphs[-1].graph) if "cnnkernels" in target]
    assert ours == ["cnnkernels.avg_pool2d.default"]


OPERATORS = {
    f"cnnkernels.{name}.default" for name in ("conv2d_fprop", "max_pool2d", "conv2d_dgrad", "avg_pool2d")
}  # fmt: skip


def test_export_keeps_our_operators() -> None:
    model = torch.nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.ConvTranspose2d(4, 2, 2, stride=2), nn.AvgPool2d(2)
    )
    x = torch.randn(5, 3, 8, 8)
    with use_backend("emulator"), torch.no_grad():  # for inference: with gradients the pooling has indices
        batch = {0: torch.export.Dim("batch", min=2)}
        exported = torch.export.export(model, (torch.randn(2, 3, 8, 8),), dynamic_shapes=(batch,))
        expected = model(x)
    for program in (exported, exported.run_decompositions()):
        assert {target for target in _targets(program.graph) if "getitem" not in target} == OPERATORS
    assert torch.equal(exported.module()(x), expected)
